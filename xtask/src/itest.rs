//! `cargo xtask itest`: the tests of one driver or of several, each case on its own line.

use anyhow::{Result, bail};

use crate::Verdict;
use crate::invocation::Invocation;
use crate::progress::{Progress, Show};
use crate::tally::{Case, Tally};
use crate::workspace::Workspace;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Backends to test, such as `memory`
    backends: Vec<String>,
    /// List the backends there are
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<Verdict> {
    let known = workspace.backends()?;
    if options.list {
        for backend in known {
            println!("{backend}");
        }
        return Ok(Verdict::Passed);
    }
    check(&options.backends, &known)?;

    let mut total = Tally::default();
    for (index, backend) in options.backends.iter().enumerate() {
        if index > 0 {
            println!();
        }
        total.add(&test(workspace, backend)?);
    }
    println!();
    if !total.not_claimed.is_empty() {
        println!("not claimed:");
        for case in &total.not_claimed {
            println!("    {case}");
        }
    }
    println!("{} ignored, {} not claimed", total.ignored(), total.not_claimed.len());
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { Verdict::Passed } else { Verdict::Failed })
}

/// The tests of one driver: its conformance suite, and its own.
///
/// A server that a driver needs belongs around this call, for `itest` and `test` alike: it starts before, its
/// address goes into the environment of the tests, and it is stopped by its process id afterwards.
pub(crate) fn tests_of(workspace: &Workspace, backend: &str) -> Invocation {
    Invocation::cargo(workspace.root()).arguments([
        "test",
        "--package",
        &format!("tooz-{backend}"),
        "--all-features",
        "--no-fail-fast",
    ])
}

/// A run that finished well without a single case proves nothing: most likely the suite's own `main` is not used.
pub(crate) fn refuse_emptiness(tally: &mut Tally) -> Option<&'static str> {
    if tally.has_cases() {
        return None;
    }
    tally.failed = 1;
    Some("error: no test case was found; does [[test]] conformance say `harness = false`?")
}

fn test(workspace: &Workspace, backend: &str) -> Result<Tally> {
    let progress = Progress::start(format!("itest {backend}"), Show::Glimpse);
    let mut tally = Tally::default();
    // Failures are explained after the cases: all that is no case is kept for then.
    let mut rest = Vec::new();
    let finished = tests_of(workspace, backend).run(|line| {
        tally.read(line);
        if Case::parse(line).is_some() {
            progress.print(line);
        } else {
            progress.glimpse(line);
            rest.push(line.to_owned());
        }
    })?;
    tally.close(finished.success);
    let empty = refuse_emptiness(&mut tally);
    if tally.failed > 0 {
        rest.extend(finished.ending);
        rest.extend(empty.map(str::to_owned));
        for line in &rest {
            progress.print(line);
        }
    }
    progress.finish(if tally.failed == 0 { "ok" } else { "FAILED" });
    Ok(tally)
}

fn check(wanted: &[String], known: &[String]) -> Result<()> {
    let valid = known.join(", ");
    if wanted.is_empty() {
        bail!("name one backend or more; there are: {valid}");
    }
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        bail!("there is no backend `{unknown}`; there are: {valid}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn an_unknown_backend_is_an_error_that_lists_the_valid_ones() {
        let error = check(&names(&["memory", "moon"]), &names(&["file", "memory"])).unwrap_err();
        assert_eq!(error.to_string(), "there is no backend `moon`; there are: file, memory");
    }

    #[test]
    fn a_run_without_cases_fails() {
        let mut tally = Tally::default();
        tally.close(true);
        assert!(refuse_emptiness(&mut tally).is_some());
        assert_eq!(tally.failed, 1);
    }
}
