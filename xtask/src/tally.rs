//! Counting test cases from what libtest and libtest-mimic print.

/// The kind under which the conformance suite lists what a driver does not claim to do.
const NOT_CLAIMED: &str = "[not claimed";

/// In the reason of cases that have no server: the command that gives them one.
const NEEDS_A_SERVER: &str = "cargo xtask itest";

/// What became of the test cases of one program or of many.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// All cases that did not run, whatever the reason.
    ignored: usize,
    /// The names of those that did not run because the driver does not claim to do it.
    pub(crate) not_claimed: Vec<String>,
    /// Cases that did not run because they had no server. They run, and count, with the tests of their backend.
    pub(crate) without_server: usize,
    /// Test programs that printed a result with failures.
    results_with_failures: usize,
    /// Test programs that cargo calls failed: more than the above means that some died without a result.
    programs_failed: usize,
}

impl Tally {
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
            self.ignored += number_before(result, " ignored");
            if result.starts_with("FAILED") {
                self.results_with_failures += 1;
            }
        } else if line.starts_with("error: test failed") || line.starts_with("error: doctest failed") {
            self.programs_failed += 1;
        } else if Case::parse(line).is_some_and(|case| case.is_ignored()) && line.contains(NEEDS_A_SERVER) {
            self.without_server += 1;
        } else if let Some(case) = Case::parse(line)
            && let Some(rest) = case.name.strip_prefix(NOT_CLAIMED)
            && let Some((reason, name)) = rest.rsplit_once(']')
            && case.is_ignored()
        {
            let name = name.trim();
            self.not_claimed.push(match reason.strip_prefix(": ") {
                Some(reason) => format!("{name}: {reason}"),
                None => name.to_owned(),
            });
        }
    }

    /// Adds a count that is closed.
    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.not_claimed.extend(other.not_claimed.iter().cloned());
        self.without_server += other.without_server;
    }

    /// Closes the count of a program that ended. Whatever failed without a case to show for it (a build,
    /// a crash) counts as one, so that a failure is never counted as zero.
    pub(crate) fn close(&mut self, success: bool) {
        let died = self.programs_failed.saturating_sub(self.results_with_failures);
        self.failed += died;
        if !success && self.failed == 0 {
            self.failed = 1;
        }
    }

    pub(crate) fn has_cases(&self) -> bool {
        self.passed + self.failed + self.ignored > 0
    }

    /// Whether any case ran, as opposed to being listed.
    pub(crate) fn has_run(&self) -> bool {
        self.passed + self.failed > 0
    }

    /// Cases that were claimed, but did not run, and that run nowhere else either.
    pub(crate) fn ignored(&self) -> usize {
        self.ignored.saturating_sub(self.not_claimed.len() + self.without_server)
    }
}

/// One line `test name ... outcome`.
pub(crate) struct Case<'a> {
    name: &'a str,
    outcome: &'a str,
}

impl<'a> Case<'a> {
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        ["ok", "FAILED", "ignored"]
            .iter()
            .any(|word| outcome.starts_with(word))
            .then(|| Self { name: name.trim(), outcome })
    }
}

impl Case<'_> {
    fn is_ignored(&self) -> bool {
        self.outcome.starts_with("ignored")
    }
}

fn number_before(text: &str, word: &str) -> usize {
    text.split_once(word).and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(success: bool, output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        tally.close(success);
        tally
    }

    #[test]
    fn results_of_all_programs_are_added() {
        let tally = tally(
            true,
            "running 2 tests\n\
             test a ... ok\n\
             test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.10s\n\
             test result: ok. 30 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n",
        );
        assert_eq!((tally.passed, tally.failed, tally.ignored()), (42, 0, 3));
    }

    #[test]
    fn what_is_not_claimed_is_not_counted_as_ignored() {
        let tally = tally(
            true,
            "test [not claimed] locks::fair  ... ignored\n\
             test [not claimed: no rig [yet]] locks::cut ... ignored\n\
             test [server]      locks::slow  ... ignored, no server\n\
             test               locks::plain ... ok\n\
             test result: ok. 1 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        assert_eq!(tally.ignored(), 1);
        assert_eq!(tally.not_claimed, ["locks::fair", "locks::cut: no rig [yet]"]);
    }

    #[test]
    fn what_has_no_server_counts_elsewhere() {
        let tally = tally(
            true,
            "test [needs a server of kind red: cargo xtask itest red] locks::fair ... ignored\n\
             test dead::slow ... ignored, needs a server of kind red: cargo xtask itest red\n\
             test dead::other ... ignored\n\
             test result: ok. 0 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        assert_eq!((tally.without_server, tally.ignored()), (2, 1));
        assert!(tally.has_cases() && !tally.has_run());
    }

    #[test]
    fn a_build_that_fails_counts_as_one() {
        let tally = tally(false, "error[E0308]: mismatched types");
        assert_eq!((tally.passed, tally.failed), (0, 1));
    }

    #[test]
    fn a_program_that_dies_counts_beside_one_that_fails() {
        let tally = tally(
            false,
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             error: test failed, to rerun pass `-p one --lib`\n\
             running 3 tests\n\
             error: test failed, to rerun pass `-p two --lib`\n\
             Caused by: (signal: 6, SIGABRT: process abort signal)\n\
             error: 2 targets failed:",
        );
        assert_eq!((tally.passed, tally.failed), (1, 3));
    }

    #[test]
    fn case_lines_are_told_from_other_lines() {
        assert!(Case::parse("test a::b ... ok").is_some());
        assert!(Case::parse("test src/lib.rs - (line 3) - compile ... ok").is_some());
        assert!(Case::parse("test a::b ... ignored, needs a server").is_some());
        assert!(Case::parse("test a::b has been running for over 60 seconds").is_none());
        assert!(Case::parse("testing ... ok").is_none());
    }
}
