//! Takes away what dead processes leave among the sessions: their files, and what they had not finished.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::alive::{self, Seen};
use crate::layout::Layout;
use crate::unfinished::PREFIX;

/// How many files are looked at in one go: less than a millisecond's work.
const STEP: usize = 64;
/// What a killed process left half done is older than this; nobody takes that long for it.
const LEFTOVER: Duration = Duration::from_mins(1);

/// All that lay among the sessions when this one came, in no order: who stays for a short time looks at some, chosen by chance, so that the
/// dead among however many living are found; who stays goes on with the rest.
pub(crate) struct Sweep {
    layout: Layout,
    rest: Vec<PathBuf>,
}

impl Sweep {
    pub(crate) fn begin(layout: &Layout) -> Self {
        let entries = fs::read_dir(layout.sessions()).into_iter().flatten().flatten();
        let mut rest: Vec<_> = entries.map(|entry| entry.path()).collect();
        fastrand::shuffle(&mut rest);
        Sweep { layout: layout.clone(), rest }
    }

    /// Looks at some. True: there are more.
    pub(crate) fn go_on(&mut self) -> bool {
        let from = self.rest.len().saturating_sub(STEP);
        for path in self.rest.split_off(from) {
            if is_unfinished(&path) {
                remove_leftover(&self.layout, &path);
            } else if matches!(alive::look(&self.layout, &path), Ok(Seen::Dead)) {
                // Names are never used again, so this removes no other file.
                let _ = fs::remove_file(path);
            }
        }
        !self.rest.is_empty()
    }
}

/// Removes what killed processes left half done in a folder where only few of them, or earlier versions, did so.
pub(crate) fn leftovers(layout: &Layout, folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if is_unfinished(&path) {
            remove_leftover(layout, &path);
        }
    }
}

fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
}

fn remove_leftover(layout: &Layout, path: &Path) {
    let Ok(found) = path.symlink_metadata() else { return };
    // A group that was just deleted comes with an old age, from its own process: whoever is first removes it.
    let age = found.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    if age.is_some_and(|age| age > LEFTOVER) {
        if found.is_dir() {
            let _ = fs::remove_dir_all(path);
        } else if !matches!(alive::look(layout, path), Ok(Seen::Alive(_))) {
            let _ = fs::remove_file(path);
        }
    }
}
