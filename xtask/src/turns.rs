//! What the trials of several suites keep among them, so that those that crowd run alone: see `turn` in `tooz-conformance`. And which of them
//! have taken the longest.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::progress::readable;
use crate::workspace::Workspace;

/// The variable that names the file.
pub(crate) const VARIABLE: &str = "TOOZ_TURNS";

/// So many are shown of the slowest.
const SHOWN: usize = 12;

/// The file that all suites lock.
pub(crate) fn file(workspace: &Workspace) -> PathBuf {
    workspace.target().join("turns")
}

fn log(workspace: &Workspace) -> PathBuf {
    workspace.target().join("turns.log")
}

/// Before the first trial of a run.
pub(crate) fn forget(workspace: &Workspace) {
    // There may be none, and what can't be taken away is a longer list at the most.
    let _ = fs::remove_file(log(workspace));
}

/// The slowest trials of this run, a line each; nothing if none has run.
pub(crate) fn slowest(workspace: &Workspace) -> Vec<String> {
    list(&fs::read_to_string(log(workspace)).unwrap_or_default())
}

fn list(log: &str) -> Vec<String> {
    let mut took: Vec<(u64, &str)> = log
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(millis, name)| Some((millis.parse().ok()?, name)))
        .collect();
    took.sort_unstable_by(|a, b| b.cmp(a));
    took.truncate(SHOWN);
    took.iter().map(|(millis, name)| format!("{:>10}  {name}", readable(Duration::from_millis(*millis)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_come_first() {
        let lines = list("1500\ta::b\nstrange\n30000\tc::d\n");
        assert!(lines.len() == 2 && lines[0].ends_with("  c::d") && lines[1].ends_with("  a::b"), "{lines:?}");
    }
}
