//! `cargo xtask test`: every step, a summary, and one last line that says it all.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::Verdict;
use crate::progress::{Progress, Show};
use crate::steps::{self, BUILD, Report, Step};
use crate::summary::{self, Line, Outcome};
use crate::workspace::Workspace;

/// Which steps to run, and how much to say.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run only these steps; `itest` stands for all backends
    #[arg(long, value_name = "STEP", num_args = 1..)]
    only: Vec<String>,
    /// Leave these steps out
    #[arg(long, value_name = "STEP", num_args = 1..)]
    skip: Vec<String>,
    /// List the steps there are
    #[arg(long)]
    list: bool,
    /// Show the output of all steps, not only of those that fail
    #[arg(long, short)]
    verbose: bool,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<Verdict> {
    let steps = select(steps::all(workspace)?, &options.only, &options.skip)?;
    if options.list {
        for step in steps {
            println!("{:<16} {}", step.name, step.about);
        }
        return Ok(Verdict::Passed);
    }

    let show = if options.verbose { Show::All } else { Show::Glimpse };
    let mut lines = Vec::new();
    let mut built = true;
    for (index, step) in steps.iter().enumerate() {
        let title = format!("[{:>2}/{}] {}", index + 1, steps.len(), step.name);
        let progress = Progress::start(title, show);
        let line = if built {
            run_step(step, workspace, progress)
        } else {
            progress.finish("not run, because the build failed");
            Line::new(&step.name, Outcome::NotRun, Duration::ZERO, Report::default())
        };
        if step.name == BUILD && line.outcome == Outcome::Failed {
            built = false;
        }
        lines.push(line);
    }
    Ok(summary::print(&lines))
}

fn run_step(step: &Step, workspace: &Workspace, progress: Progress) -> Line {
    let report = step.run(workspace, &progress);
    let (outcome, word) = if report.failed { (Outcome::Failed, "FAILED") } else { (Outcome::Passed, "ok") };
    let elapsed = progress.finish(word);
    if report.failed {
        println!("\n---- {} ----", step.name);
        for line in &report.output {
            println!("{line}");
        }
        println!();
    }
    Line::new(&step.name, outcome, elapsed, report)
}

fn select(steps: Vec<Step>, only: &[String], skip: &[String]) -> Result<Vec<Step>> {
    for wanted in only.iter().chain(skip) {
        if !steps.iter().any(|step| is_called(step, wanted)) {
            let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
            bail!("there is no step `{wanted}`; there are: {}", names.join(", "));
        }
    }
    Ok(steps
        .into_iter()
        .filter(|step| only.is_empty() || only.iter().any(|name| is_called(step, name)))
        .filter(|step| !skip.iter().any(|name| is_called(step, name)))
        .collect())
}

fn is_called(step: &Step, name: &str) -> bool {
    step.name == name || (name == "itest" && step.name.starts_with("itest-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    fn selected(only: &[&str], skip: &[&str]) -> Result<Vec<String>> {
        let (_folder, workspace) = repository(&[
            ("crates/tooz/Cargo.toml", "[features]\nred = []"),
            ("crates/tooz-red/Cargo.toml", ""),
            ("crates/tooz-red/tests/conformance.rs", ""),
        ]);
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let steps = select(steps::all(&workspace)?, &owned(only), &owned(skip))?;
        Ok(steps.into_iter().map(|step| step.name).collect())
    }

    #[test]
    fn only_keeps_the_order_of_the_steps() {
        assert_eq!(selected(&["itest", "fmt"], &[]).unwrap(), ["fmt", "itest-red"]);
    }

    #[test]
    fn skip_leaves_out() {
        assert!(!selected(&[], &["deny"]).unwrap().contains(&"deny".to_owned()));
    }

    #[test]
    fn an_unknown_step_is_an_error_that_lists_the_steps() {
        let error = selected(&["frmt"], &[]).unwrap_err().to_string();
        assert!(error.contains("`frmt`") && error.contains("fmt, clippy"), "{error}");
    }
}
