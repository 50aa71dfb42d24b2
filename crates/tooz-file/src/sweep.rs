//! Takes away what dead processes leave among the sessions: their files, and what they had not finished.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::alive_file::{self, Seen};
use crate::layout::{Layout, is_unfinished};

/// How many files are looked at in one go: less than a millisecond's work.
const STEP: usize = 64;
/// What a killed process left half done is older than this; no process takes that long for it.
const LEFTOVER: Duration = Duration::from_mins(1);

/// All that lay among the sessions when this one came, in no order: a session that stays for a short time looks at some, chosen by chance, so that
/// the dead among however many living are found; one that stays goes on with the rest.
pub(crate) struct Sweep {
    rest: Vec<PathBuf>,
}

/// Whether something is left to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    Some,
}

impl Sweep {
    pub(crate) fn begin(layout: &Layout) -> Self {
        let entries = fs::read_dir(layout.sessions()).into_iter().flatten().flatten();
        let mut rest: Vec<_> = entries.map(|entry| entry.path()).collect();
        fastrand::shuffle(&mut rest);
        Sweep { rest }
    }

    /// Looks at some.
    pub(crate) fn go_on(&mut self) -> Rest {
        let from = self.rest.len().saturating_sub(STEP);
        for path in self.rest.split_off(from) {
            if is_unfinished(&path) {
                remove_leftover(&path);
            } else if matches!(alive_file::look(&path), Ok(Seen::Dead)) {
                // Names are never used again, so this removes no other file.
                let _ = fs::remove_file(path);
            }
        }
        if self.rest.is_empty() { Rest::Nothing } else { Rest::Some }
    }
}

/// Removes what killed processes left half done in a folder where only few of them, or earlier versions, did so.
pub(crate) fn leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if is_unfinished(&path) {
            remove_leftover(&path);
        }
    }
}

fn remove_leftover(path: &Path) {
    let Ok(found) = path.symlink_metadata() else { return };
    // A group that was just deleted comes with an old age, from its own process: the first to see it removes it.
    let age = found.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    if age.is_some_and(|age| age > LEFTOVER) {
        if found.is_dir() {
            let _ = fs::remove_dir_all(path);
        } else if !matches!(alive_file::look(path), Ok(Seen::Alive(_))) {
            let _ = fs::remove_file(path);
        }
    }
}
