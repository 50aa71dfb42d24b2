//! Whether the disk has room for what a run builds: a compiler that finds none says so in the middle of it, and not always plainly.

use std::env;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;

use crate::steps;
use crate::workspace::Workspace;

/// What all steps leave from the first build on, in MB, with some room for the data of the servers.
const FROM_SCRATCH: u64 = 11_000;

/// The same where cargo keeps nothing for building a second time (`CARGO_INCREMENTAL=0`).
const FROM_SCRATCH_ONCE: u64 = 7_500;

/// What a run that builds little needs all the same.
const AT_LEAST: u64 = 1_500;

/// Fails where the disk would run full. `is_whole`: all steps are to be run.
pub(crate) fn is_there(workspace: &Workspace, is_whole: bool) -> Result<()> {
    let target = workspace.target();
    // One of the last steps that build makes that folder.
    let is_new = is_whole && !target.join(steps::OUT_OF_TREE_TARGET).exists();
    let there = target.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let disk = statvfs(there).with_context(|| format!("cannot ask how full the disk of {} is", there.display()))?;
    let free = disk.blocks_available() * disk.fragment_size() / 1_000_000;
    let from_scratch = if env::var_os("CARGO_INCREMENTAL").is_some_and(|value| value == "0") {
        FROM_SCRATCH_ONCE
    } else {
        FROM_SCRATCH
    };
    suffices(free, is_new.then_some(from_scratch), &target)
}

fn suffices(free: u64, from_scratch: Option<u64>, target: &Path) -> Result<()> {
    let needed = from_scratch.unwrap_or(AT_LEAST);
    if free < needed {
        bail!(
            "the disk of {} has {free} MB free, and {} needs about {needed} MB: free some, or let CARGO_TARGET_DIR name a folder on another disk",
            target.display(),
            if from_scratch.is_some() { "a first run" } else { "a run" }
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_run_needs_more() {
        let target = Path::new("/t");
        assert!(suffices(2_000, None, target).is_ok());
        let said = suffices(2_000, Some(FROM_SCRATCH), target).unwrap_err().to_string();
        assert!(said.contains("/t has 2000 MB") && said.contains("11000 MB"), "{said}");
        assert!(suffices(100, None, target).is_err() && suffices(20_000, Some(FROM_SCRATCH), target).is_ok());
    }
}
