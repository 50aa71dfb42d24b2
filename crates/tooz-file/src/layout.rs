//! Where things lie: the paths `FOLDER/NAMESPACE/{.layout,sessions,locks,elections,groups}` and below, and what the record of the layout says.
//! Touches no file.
//!
//! The record tells two versions of tooz that look in different places to refuse each other, instead of holding the same lock at once. A namespace
//! without a record was made before there were any: it is kept in layout 1. So is one whose record was emptied by a power cut, as records
//! of layout 1 are not waited for until they are on the disk; a version that brings a layout 2 has to wait for its records.

use std::path::{Path, PathBuf};

use tooz_core::driver::{LockKey, Space, encode_name};
use tooz_core::{GroupId, MemberId, Namespace};

/// File names have at most 255 bytes; this leaves room for anything a tool may append.
const LONGEST: usize = 200;

/// The layout that this version speaks, and the one that namespaces without a record are kept in.
pub(crate) const SPOKEN: &str = "1";
const MARK: &str = "tooz file layout ";

/// What the names of unfinished files and folders begin with. No encoded name begins with a dot.
const UNFINISHED: &str = ".new-";

/// The paths of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    folder: PathBuf,
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(folder: &Path, namespace: &Namespace) -> Self {
        let root = folder.join(&*encode_name(namespace.as_str(), LONGEST));
        Layout { folder: folder.to_owned(), root }
    }

    /// The folder that all namespaces are in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of the namespace.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The record of the layout.
    pub(crate) fn record(&self) -> PathBuf {
        self.root.join(".layout")
    }

    pub(crate) fn sessions(&self) -> PathBuf {
        self.root.join("sessions")
    }

    pub(crate) fn groups(&self) -> PathBuf {
        self.root.join("groups")
    }

    pub(crate) fn group(&self, group: &GroupId) -> PathBuf {
        self.groups().join(&*encode_name(group.as_str(), LONGEST))
    }

    /// The folder in which the locks of that space are.
    pub(crate) fn locks(&self, space: Space) -> PathBuf {
        self.root.join(match space {
            Space::Lock => "locks",
            Space::Election => "elections",
        })
    }

    pub(crate) fn lock(&self, key: &LockKey) -> PathBuf {
        self.locks(key.space).join(&*encode_name(&key.name, LONGEST))
    }

    /// The folders in which everything is.
    pub(crate) fn branches(&self) -> [PathBuf; 4] {
        [self.sessions(), self.groups(), self.locks(Space::Lock), self.locks(Space::Election)]
    }

    /// A path for what has no name yet.
    pub(crate) fn unfinished(&self) -> PathBuf {
        self.sessions().join(unfinished_name())
    }
}

/// The file name of a member within its group's folder.
pub(crate) fn member_file(member: &MemberId) -> String {
    encode_name(member.as_str(), LONGEST).into_owned()
}

/// A name for what is not finished yet.
pub(crate) fn unfinished_name() -> String {
    format!("{UNFINISHED}{:016x}", fastrand::u64(..))
}

/// Whether the file or folder of that path is not finished.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes()))
}

/// What stands in the record of this version.
pub(crate) fn record_text() -> String {
    format!("{MARK}{SPOKEN}\n")
}

/// What the record of a namespace says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LayoutReading {
    Nothing,
    Ours,
    Foreign(String),
    /// What no version of tooz writes.
    Spoiled,
}

impl LayoutReading {
    pub(crate) fn of(text: &[u8]) -> Self {
        let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // Nothing, or a part that does not say which one.
        if MARK.as_bytes().starts_with(&text[..end]) {
            return LayoutReading::Nothing;
        }
        let text = String::from_utf8_lossy(&text[..end]);
        let layout = text.strip_prefix(MARK).map(str::trim).filter(|layout| !layout.is_empty());
        match layout {
            Some(SPOKEN) => LayoutReading::Ours,
            Some(other) => LayoutReading::Foreign(other.to_owned()),
            None => LayoutReading::Spoiled,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn our_record_is_ours_and_another_version_is_named() {
        assert_eq!(LayoutReading::of(record_text().as_bytes()), LayoutReading::Ours);
        assert_eq!(LayoutReading::of(b"tooz file layout 2\n"), LayoutReading::Foreign("2".to_owned()));
        assert_eq!(LayoutReading::of(b"\x7fELF\x02"), LayoutReading::Spoiled);
        assert_eq!(LayoutReading::of(b"tooz file layout 1\n\0\0"), LayoutReading::Ours);
        for lost in [&b""[..], b"\0\0", b"tooz fi", b"tooz file layout ", b"tooz fi\0\0"] {
            assert_eq!(LayoutReading::of(lost), LayoutReading::Nothing);
        }
    }

    proptest! {
        #[test]
        fn a_record_may_hold_anything(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let ours = LayoutReading::of(&text) == LayoutReading::Ours;
            prop_assert!(!ours || text.starts_with(MARK.as_bytes()));
        }

        #[test]
        fn no_name_leads_out_of_its_folder(name in "[^\\x00-\\x1f\\x7f]{1,60}", other in "[./A-Za-z%~-]{1,60}") {
            let layout = Layout::new(Path::new("/srv"), &Namespace::new("n").unwrap());
            for name in [name, other] {
                if let Ok(group) = GroupId::new(&name) {
                    let path = layout.group(&group);
                    prop_assert_eq!(path.parent(), Some(&*layout.groups()));
                    prop_assert!(!is_unfinished(&path));
                    let election = layout.lock(&LockKey::election(&group));
                    prop_assert_eq!(election.parent(), Some(&*layout.locks(Space::Election)));
                }
                if let Ok(member) = MemberId::new(&name) {
                    let file = member_file(&member);
                    prop_assert!(!file.contains('/') && !file.starts_with('.') && file.len() <= LONGEST);
                }
            }
        }
    }
}
