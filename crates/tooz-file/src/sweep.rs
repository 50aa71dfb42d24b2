//! Takes away what dead processes leave among the sessions: their files, and what they had not finished.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::alive_file::{self, LifeSign};
use crate::layout::{Layout, is_unfinished};

/// How many files are looked at in one go: less than a millisecond's work.
const STEP: usize = 64;
/// What a killed process left half done is older than this; no process takes that long for it.
const LEFTOVER: Duration = Duration::from_mins(1);

/// All that lay among the sessions when this one came, in no order: a session that stays for a short time looks at some, chosen by chance, so that
/// the dead among however many living are found; one that stays goes on with the rest.
///
/// The rest is for one session of the namespace at a time: a thousand that came together would look at a thousand files each, all at once.
pub(crate) struct Sweep {
    sessions: PathBuf,
    rest: Vec<PathBuf>,
    duty: Duty,
}

/// Whether this session is the one that goes on with its rest.
enum Duty {
    NotYet,
    /// As long as the folder is locked by this.
    Ours(#[expect(dead_code, reason = "it is kept for its lock")] Flock<File>),
    /// This file system has no such locks: all go on.
    Free,
}

/// Whether something is left to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remainder {
    Nothing,
    Some,
}

impl Sweep {
    pub(crate) fn begin(layout: &Layout) -> Self {
        let sessions = layout.sessions();
        let entries = fs::read_dir(&sessions).into_iter().flatten().flatten();
        let mut rest: Vec<_> = entries.map(|entry| entry.path()).collect();
        fastrand::shuffle(&mut rest);
        let mut sweep = Sweep { sessions, rest, duty: Duty::NotYet };
        sweep.step();
        sweep
    }

    /// Looks at some of the rest, if it is this session's turn.
    pub(crate) fn go_on(&mut self) -> Remainder {
        if self.rest.is_empty() || !self.has_turn() {
            return self.what_is_left();
        }
        self.step();
        self.what_is_left()
    }

    fn what_is_left(&self) -> Remainder {
        if self.rest.is_empty() { Remainder::Nothing } else { Remainder::Some }
    }

    fn has_turn(&mut self) -> bool {
        if let Duty::NotYet = self.duty {
            let Ok(folder) = File::open(&self.sessions) else { return false };
            self.duty = match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
                Ok(ours) => Duty::Ours(ours),
                Err((_, Errno::EWOULDBLOCK)) => return false,
                Err(_) => Duty::Free,
            };
        }
        true
    }

    fn step(&mut self) {
        let from = self.rest.len().saturating_sub(STEP);
        for path in self.rest.split_off(from) {
            if is_unfinished(&path) {
                remove_leftover(&path);
            } else if matches!(alive_file::look(&path), Ok(LifeSign::Dead)) {
                // Names are never used again, so this removes no other file.
                let _ = fs::remove_file(path);
            }
        }
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
        } else if !matches!(alive_file::look(path), Ok(LifeSign::Alive(_))) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use tooz_core::Namespace;

    use super::*;

    #[test]
    fn the_rest_is_for_one_session_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path(), &Namespace::new("n").unwrap());
        fs::create_dir_all(layout.sessions()).unwrap();
        for one in 0..3 * STEP {
            fs::write(layout.sessions().join(one.to_string()), "").unwrap();
        }
        let [mut one, mut other] = [Sweep::begin(&layout), Sweep::begin(&layout)];
        let left = |sweep: &Sweep| sweep.rest.len();
        assert_eq!((left(&one), left(&other)), (2 * STEP, STEP), "each looks at some when it comes");
        assert_eq!((one.go_on(), other.go_on()), (Remainder::Some, Remainder::Some));
        assert_eq!((left(&one), left(&other)), (STEP, STEP), "it is the first one's turn");
        assert_eq!(one.go_on(), Remainder::Nothing);
        drop(one);
        assert_eq!(other.go_on(), Remainder::Nothing);
        assert!(fs::read_dir(layout.sessions()).unwrap().next().is_none());
    }
}
