//! What the trials of several suites keep among them, so that those that crowd run alone: see `turn` in `tooz-conformance`. And which of them
//! have taken the longest.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::invocation::Invocation;
use crate::progress::readable;
use crate::workspace::Workspace;

/// The variable that names the file.
pub(crate) const VARIABLE: &str = "TOOZ_TURNS";

/// How the name of such a file begins.
const FILE: &str = "turns";

/// The variable that says which trials a program has.
const TRIALS: &str = "TOOZ_TRIALS";

/// The test programs of drivers that know it.
const KNOW_IT: [&str; 2] = ["conformance", "quirks"];

/// The program, in the folder of its package, with the faults that all servers share. It knows it too.
pub(crate) const FAULTS: (&str, &str) = ("tests", "faults");

/// Which trials of a driver are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trials {
    All,
    /// Those that run beside others.
    Beside,
    /// Those that crowd the machine: what runs after all others finds it empty, and need not wait until it is.
    Alone,
}

impl Trials {
    /// How a program is told; `None`: it has nothing to do with these.
    pub(crate) fn tell(self, program: (&str, &str), invocation: Invocation) -> Option<Invocation> {
        let knows_it = program == FAULTS || KNOW_IT.contains(&program.1);
        match self {
            Trials::Beside if knows_it => Some(invocation.environment(TRIALS, "beside")),
            Trials::Alone if knows_it => Some(invocation.environment(TRIALS, "alone")),
            Trials::Alone => None,
            Trials::All | Trials::Beside => Some(invocation),
        }
    }
}

/// What the list says of a trial that had nothing beside it.
const ALONE: &str = "alone";

/// So many are shown of the slowest.
const SHOWN: usize = 12;

/// The file that all suites lock whose trials keep out of each other's way. What runs alone does so in its own suite: one such trial of another driver may
/// be beside it, which leaves a processor to each.
pub(crate) fn file(workspace: &Workspace, backend: &str, trials: Trials) -> PathBuf {
    workspace.target().join(if trials == Trials::Alone { format!("{FILE}-{backend}") } else { FILE.to_owned() })
}

fn logs(workspace: &Workspace) -> Vec<PathBuf> {
    let is_log = |name: &str| name.starts_with(FILE) && Path::new(name).extension().is_some_and(|end| end == "log");
    let entries = fs::read_dir(workspace.target()).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_log)).map(|entry| entry.path()).collect()
}

/// Before the first trial of a run.
pub(crate) fn forget(workspace: &Workspace) {
    for log in logs(workspace) {
        // What can't be taken away is a longer list at the most.
        let _ = fs::remove_file(log);
    }
}

/// Where the time of this run went: the slowest trials, a line each, and how long those took that kept others out. Nothing if none has run.
pub(crate) fn slowest(workspace: &Workspace) -> Vec<String> {
    let all = logs(workspace).iter().filter_map(|log| fs::read_to_string(log).ok()).collect::<String>();
    list(&all)
}

fn list(log: &str) -> Vec<String> {
    let mut took: Vec<(u64, &str, &str)> = log.lines().filter_map(read).collect();
    if took.is_empty() {
        return Vec::new();
    }
    let alone: u64 = took.iter().filter(|(_, how, _)| *how == ALONE).map(|(millis, ..)| millis).sum();
    took.sort_unstable_by(|a, b| b.cmp(a));
    took.truncate(SHOWN);
    let mut lines: Vec<_> = took
        .iter()
        .map(|(millis, how, name)| format!("{:>10}  {how:<6}  {name}", readable(Duration::from_millis(*millis))))
        .collect();
    lines.push(format!("{:>10}  all that run alone", readable(Duration::from_millis(alone))));
    lines
}

/// Its milliseconds, how it ran, and its name.
fn read(line: &str) -> Option<(u64, &str, &str)> {
    let mut parts = line.splitn(3, '\t');
    let millis = parts.next()?.parse().ok()?;
    Some((millis, parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_come_first() {
        let lines = list("1500\tbeside\ta::b\nstrange\n30000\talone\tc::d\n500\talone\te::f\n");
        assert!(lines.len() == 4 && lines[0].ends_with("  c::d") && lines[1].ends_with("  a::b"), "{lines:?}");
        assert!(lines[3].contains("30.5 s") && list("").is_empty(), "{lines:?}");
    }
}
