//! The stamp of a folder: whether a file came, went or was replaced in it since the last look, by one call of the system. A single file has one, too.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Two changes within one tick of a file system's clock look like one. The coarsest tick is 2 s, on FAT.
const TICK: Duration = Duration::from_secs(3);

/// What a folder looked like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FolderStamp {
    seen: Option<Stamp>,
    /// The change that is seen is so old that a later one looks different.
    is_settled: bool,
}

/// Which folder is there, and when it changed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl FolderStamp {
    pub(crate) fn of(folder: &Path) -> Self {
        let Ok(found) = fs::symlink_metadata(folder) else { return FolderStamp::default() };
        FolderStamp { seen: Some(Stamp::of(&found)), is_settled: is_older(&found, SystemTime::now()) }
    }

    /// Whether nothing happened in the folder between `before` and now. False also where that can't be known.
    pub(crate) fn is_same(&self, before: &FolderStamp) -> bool {
        before.is_settled && before.seen.is_some() && self.seen == before.seen
    }
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        // The time of the change of the folder itself: no program can set it.
        let changed = (found.ctime(), found.ctime_nsec());
        Stamp { device: found.dev(), inode: found.ino(), changed }
    }
}

fn is_older(found: &Metadata, now: SystemTime) -> bool {
    let changed =
        u64::try_from(found.ctime()).ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    changed.is_some_and(|changed| now.duration_since(changed).is_ok_and(|age| age > TICK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_has_just_changed_is_never_taken_for_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let glance = FolderStamp::of(folder.path());
        assert!(!FolderStamp::of(folder.path()).is_same(&glance), "another change may have come in the same tick");
        let settled = FolderStamp { is_settled: true, ..glance };
        assert!(FolderStamp::of(folder.path()).is_same(&settled));
        std::thread::sleep(Duration::from_millis(50));
        fs::write(folder.path().join("x"), "").unwrap();
        assert!(!FolderStamp::of(folder.path()).is_same(&settled));
        assert!(!FolderStamp::of(&folder.path().join("none")).is_same(&FolderStamp { is_settled: true, seen: None }));
    }
}
