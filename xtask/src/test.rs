//! `cargo xtask test`: every step, a summary, and one last line that says it all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::MultiProgress;

use crate::CommandEnd;
use crate::progress::{Progress, Show};
use crate::room;
use crate::servers;
use crate::steps::{self, ALONE, BUILD, Beside, Report, Step};
use crate::summary::{self, StepEnd, SummaryLine};
use crate::turns;
use crate::workspace::Workspace;

/// So many suites of drivers at a time, each with its servers: they wait far more than they compute. Of three at a time on two slow processors, some were too late for
/// the time limits of short sessions.
const SUITES: usize = 2;

/// So many drivers at a time with their trials that crowd: each of those waits for its servers most of its time.
const CROWDS: usize = 2;

/// So many builds at a time: each has long stretches in which it uses one processor.
const BUILDS: usize = 2;

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

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<CommandEnd> {
    let steps = select(steps::all(workspace)?, &options.only, &options.skip)?;
    if options.list {
        for step in steps {
            println!("{:<16} {}", step.name, step.about);
        }
        return Ok(CommandEnd::Passed);
    }
    room::is_there(workspace, options.only.is_empty() && options.skip.is_empty())?;
    // The servers come over the network while the processors build.
    let lines = thread::scope(|scope| {
        scope.spawn(|| servers::provide_ahead(steps.iter().filter_map(Step::backend)));
        run_in_order(workspace, &steps, options)
    });
    let slowest = turns::slowest(workspace);
    if !slowest.is_empty() {
        println!("\nthe slowest trials of the drivers:\n{}", slowest.join("\n"));
    }
    Ok(summary::print(&lines))
}

/// Runs the steps, each where its turn is, and says what became of them.
fn run_in_order(workspace: &Workspace, steps: &[Step], options: &Options) -> Vec<SummaryLine> {
    let show = if options.verbose { Show::All } else { Show::Glimpse };
    let mut lines = Vec::new();
    let mut built = true;
    let title = |index: usize, step: &Step| format!("[{:>2}/{}] {}", index + 1, steps.len(), step.name);
    turns::forget(workspace);
    for group in steps.chunk_by(|one, next| one.beside == next.beside) {
        let first = lines.len();
        let others = MultiProgress::new();
        let run = |built: bool, index: usize, step: &Step| {
            let title = title(first + index, step);
            let progress = match step.beside {
                Beside::Nothing => Progress::start(title, show),
                Beside::Builds | Beside::Suites | Beside::Crowds => Progress::start_beside(title, show, &others),
            };
            if built { run_step(step, workspace, progress) } else { not_run(step, progress) }
        };
        match group[0].beside {
            Beside::Nothing => {
                for (index, step) in group.iter().enumerate() {
                    let line = run(built, index, step);
                    if step.name == BUILD && line.outcome == StepEnd::Failed {
                        built = false;
                    }
                    lines.push(line);
                }
            }
            Beside::Builds => lines.extend(in_lanes(group, BUILDS, |index, step| run(built, index, step))),
            Beside::Suites => lines.extend(in_lanes(group, SUITES, |index, step| run(built, index, step))),
            Beside::Crowds => lines.extend(in_lanes(group, CROWDS, |index, step| run(built, index, step))),
        }
    }
    lines
}

/// Runs steps, so many at a time, and answers what became of them in their own order. It begins with the last, since the
/// longest of all is among these, and would go on alone.
fn in_lanes(suites: &[Step], at_once: usize, run: impl Fn(usize, &Step) -> SummaryLine + Sync) -> Vec<SummaryLine> {
    let chosen: Vec<_> = suites.iter().enumerate().rev().collect();
    let next = AtomicUsize::new(0);
    let lane = || {
        let taken = std::iter::from_fn(|| {
            let (index, step) = *chosen.get(next.fetch_add(1, Ordering::Relaxed))?;
            Some((index, run(index, step)))
        });
        taken.collect::<Vec<_>>()
    };
    let mut lines = thread::scope(|scope| {
        let lanes: Vec<_> = (0..at_once).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("a step reports, and does not panic")).collect::<Vec<_>>()
    });
    lines.sort_by_key(|(index, _)| *index);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn not_run(step: &Step, progress: Progress) -> SummaryLine {
    progress.finish("not run, because the build failed");
    SummaryLine::new(&step.name, StepEnd::NotRun, Duration::ZERO, Report::default())
}

fn run_step(step: &Step, workspace: &Workspace, progress: Progress) -> SummaryLine {
    let report = step.run(workspace, &progress);
    let (outcome, word) = if report.failed { (StepEnd::Failed, "FAILED") } else { (StepEnd::Passed, "ok") };
    let elapsed = progress.finish(word);
    if report.failed {
        // In one piece, since other steps may be at it too.
        println!("\n---- {} ----\n{}\n", step.name, report.output.join("\n"));
    }
    SummaryLine::new(&step.name, outcome, elapsed, report)
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

/// Both parts of a driver's suite have its name.
fn is_called(step: &Step, name: &str) -> bool {
    let whole = step.name.strip_suffix(ALONE).unwrap_or(&step.name);
    [whole, &step.name].contains(&name) || (name == "itest" && step.name.starts_with("itest-"))
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
        assert_eq!(selected(&["itest", "fmt"], &[]).unwrap(), ["fmt", "itest-red", "itest-red-alone"]);
    }

    #[test]
    fn skip_leaves_out() {
        assert!(!selected(&[], &["deny"]).unwrap().contains(&"deny".to_owned()));
    }

    #[test]
    fn what_runs_side_by_side_is_told_in_its_order() {
        let files: Vec<_> = ["a", "b", "c", "d", "e"]
            .iter()
            .flat_map(|name| {
                [format!("crates/tooz-{name}/Cargo.toml"), format!("crates/tooz-{name}/tests/conformance.rs")]
            })
            .collect();
        let mut all = vec![("crates/tooz/Cargo.toml", "[features]\na = []\nb = []\nc = []\nd = []\ne = []")];
        all.extend(files.iter().map(|file| (file.as_str(), "")));
        let (_folder, workspace) = repository(&all);
        let suites: Vec<_> =
            steps::all(&workspace).unwrap().into_iter().filter(|step| step.beside == Beside::Suites).collect();
        assert_eq!(suites.len(), 5);
        let lines = in_lanes(&suites, SUITES, |index, step| {
            // The first takes longest.
            thread::sleep(Duration::from_millis(10 * (5 - index as u64)));
            SummaryLine::new(&step.name, StepEnd::Passed, Duration::ZERO, Report::default())
        });
        let names: Vec<_> = lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["itest-a", "itest-b", "itest-c", "itest-d", "itest-e"]);
    }

    #[test]
    fn an_unknown_step_is_an_error_that_lists_the_steps() {
        let error = selected(&["frmt"], &[]).unwrap_err().to_string();
        assert!(error.contains("`frmt`") && error.contains("fmt, clippy"), "{error}");
    }
}
