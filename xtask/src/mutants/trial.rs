//! Running the tests that have to notice, and saying which has.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::CommandEnd;
use crate::mutants::list::Subject;
use crate::mutants::program::Programs;
use crate::mutants::seed::Seed;

/// Between two looks at what runs.
const PAUSE: Duration = Duration::from_millis(20);

/// What a program says whose one test has run, and passed.
const PASSED: &str = "1 passed";
/// What the testbed says of a server that did not come up.
const NO_SERVER: &str = "did not start";

/// What came of all so far.
#[derive(Default)]
pub(crate) struct Trials {
    passed: usize,
    failures: Vec<String>,
}

/// A test on its way, with one fault alive.
struct Running<'a> {
    seed: &'a Seed,
    child: Child,
    output: File,
    begun: Instant,
}

/// How it ended.
enum End {
    /// The test failed, or it hung where it would have had to go on.
    Noticed(&'static str),
    Passed,
    /// It did not come so far as to judge.
    Strange(String),
}

impl Trials {
    /// Without a fault all these tests pass, and each of them is there.
    pub(crate) fn control(&mut self, subject: &Subject, programs: &Programs, seeds: &[&Seed]) -> Result<()> {
        let places = seeds.iter().map(|seed| seed.place()).collect::<Result<BTreeSet<_>>>()?;
        let mut wrong = Vec::new();
        for (program, test) in places {
            let output = programs.command(program, test, None)?.output()?;
            let said = String::from_utf8_lossy(&output.stdout);
            if !output.status.success() || !said.contains(PASSED) {
                wrong.push(format!("{program}::{test} without a fault:\n{said}"));
            }
        }
        self.tell(
            &format!("{}::without_a_fault", subject.name),
            wrong.is_empty().then_some(()).ok_or(wrong.join("\n")),
        );
        Ok(())
    }

    /// Runs these, some beside each other.
    pub(crate) fn run_beside(&mut self, subject: &Subject, programs: &Programs, seeds: &[&Seed]) -> Result<()> {
        let mut waiting = seeds.iter();
        let mut running: Vec<Running<'_>> = Vec::new();
        loop {
            while running.len() < subject.at_once()
                && let Some(seed) = waiting.next()
            {
                running.push(Running::start(seed, programs)?);
            }
            if running.is_empty() {
                return Ok(());
            }
            thread::sleep(PAUSE);
            let mut left = Vec::new();
            for mut one in running {
                match one.look(subject.limit())? {
                    None => left.push(one),
                    Some(end) => self.judge(subject, one.seed, end),
                }
            }
            running = left;
        }
    }

    fn judge(&mut self, subject: &Subject, seed: &Seed, end: End) {
        let case = &seed.caught_by;
        let (words, verdict) = match end {
            End::Noticed(how) => (format!("{how} {case}"), Ok(())),
            End::Passed => (format!("not by {case}"), Err(format!("{case} does not notice it"))),
            End::Strange(said) => (format!("not judged by {case}"), Err(format!("{case} did not run:\n{said}"))),
        };
        self.tell(&format!("{}::{}, {words}", subject.name, seed.name), verdict);
    }

    fn tell(&mut self, what: &str, verdict: Result<(), String>) {
        println!("test mutants::{what} ... {}", if verdict.is_ok() { "ok" } else { "FAILED" });
        match verdict {
            Ok(()) => self.passed += 1,
            Err(why) => self.failures.push(format!("{what}: {why}")),
        }
    }

    /// The last lines, as test programs have them.
    pub(crate) fn end(self) -> CommandEnd {
        let (passed, failed) = (self.passed, self.failures.len());
        if failed > 0 {
            println!("\nfailures:\n{}\nfailures:", self.failures.join("\n"));
        }
        let word = if failed == 0 { "ok" } else { "FAILED" };
        println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out");
        if failed == 0 { CommandEnd::Passed } else { CommandEnd::Failed }
    }
}

impl<'a> Running<'a> {
    fn start(seed: &'a Seed, programs: &Programs) -> Result<Self> {
        let (program, test) = seed.place()?;
        // A file, since a pipe that is full would stop the test.
        let output = tempfile::tempfile().context("no temporary file can be made")?;
        let mut command = programs.command(program, test, Some(&seed.name))?;
        let child =
            command.stdout(output.try_clone()?).spawn().with_context(|| format!("{program} can't be started"))?;
        Ok(Running { seed, child, output, begun: Instant::now() })
    }

    fn look(&mut self, limit: Duration) -> Result<Option<End>> {
        if let Some(status) = self.child.try_wait()? {
            return match status.code() {
                Some(_) => self.how_it_ended(status.success()).map(Some),
                None => Ok(Some(End::Noticed("which crashes:"))),
            };
        }
        if self.begun.elapsed() <= limit {
            return Ok(None);
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(Some(End::Noticed("which hangs:")))
    }

    /// A program that ends before its test has failed has found no fault, nor has one that had no server.
    fn how_it_ended(&mut self, is_well: bool) -> Result<End> {
        let mut said = String::new();
        self.output.rewind()?;
        self.output.read_to_string(&mut said)?;
        let (_, test) = self.seed.place()?;
        let has_failed = said.lines().any(|line| line.contains(test) && line.trim_end().ends_with("FAILED"));
        Ok(match is_well {
            true if said.contains(PASSED) => End::Passed,
            false if has_failed && !said.contains(NO_SERVER) => End::Noticed("noticed by"),
            _ => End::Strange(said),
        })
    }
}
