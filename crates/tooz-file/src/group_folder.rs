//! One group is one folder: `.group` is the group itself, every other file is a member.
//!
//! A change locks `.group` first, and is counted there before and after. A reader takes no lock and
//! writes nothing: if the count is the same after reading as before, no change came between.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use tooz_core::driver::{decode_name, spread};
use tooz_core::{Error, ErrorKind, GroupId, Outcome, Result, RosterEntry};

use crate::alive_file::{self, LifeSign};
use crate::byte_lock::{self, LockKind, Range};
use crate::error;
use crate::namespace_folder::NamespaceFolder;
use crate::open_file::{self, Identity, OpenMode};
use crate::record::{self, MemberRecord, Name};
use crate::unfinished::{Naming, Unfinished};

/// The group's own file.
const OWN: &str = ".group";
const CHANGES: Range = Range::byte(0);
/// A change takes some 100 µs; a session that finds the group locked asks again after about this long.
const PAUSE: Duration = Duration::from_millis(1);

/// The open folder of a group.
pub(crate) struct GroupFolder<'a> {
    namespace: &'a NamespaceFolder,
    pub(crate) path: PathBuf,
    own: File,
    identity: Identity,
    group: GroupId,
}

/// What asking for the permission to change a group comes to.
pub(crate) enum ChangePermission<'a> {
    Change(GroupChange<'a>),
    /// Another process is at it.
    Busy,
}

/// One reading of a group. `None`: a change was under way.
pub(crate) type GroupReader<'a> = &'a dyn Fn() -> Result<Option<MemberFiles>>;

/// The permission to change a group, as long as it lives.
pub(crate) struct GroupChange<'a> {
    pub(crate) folder: GroupFolder<'a>,
    count: u64,
}

impl<'a> GroupFolder<'a> {
    /// Makes a group: it appears with all that belongs to it.
    pub(crate) fn create(namespace: &NamespaceFolder, group: &GroupId) -> Result<()> {
        let path = namespace.layout.group(group);
        for _ in 0..2 {
            let mut made = Unfinished::folder(namespace)?;
            let own = made.path().join(OWN);
            let failed = |error| error::at(error, "make group", &path);
            let file = namespace.create(&own).map_err(failed)?;
            file.write_all_at(&record::head(group.as_str()), 0).map_err(failed)?;
            if is_cut(&path) {
                // Only this file knows the whole name: it is to be there after a power cut.
                file.sync_all().map_err(failed)?;
            }
            match made.take_name(&path).map_err(failed)? {
                Naming::Done => return Ok(()),
                Naming::NoFolder | Naming::NoLinks => namespace.make_branch(&namespace.layout.groups())?,
                // An empty folder would be taken for free; a group is never empty. One that has lost its own file gets it again.
                Naming::Taken => {
                    return match fs::hard_link(&own, path.join(OWN)) {
                        Ok(()) => Ok(()),
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::group_exists(group)),
                        Err(error) => Err(failed(error)),
                    };
                }
            }
        }
        Err(error::at(io::Error::from_raw_os_error(libc::ENOENT), "make group", &path))
    }

    /// Opens a group that is there. [`OpenMode::Look`] suffices for reading.
    pub(crate) fn open(namespace: &'a NamespaceFolder, group: &GroupId, how: OpenMode) -> Result<Self> {
        namespace.compare()?;
        let path = namespace.layout.group(group);
        let own = path.join(OWN);
        let file = open_file::open(&own, how).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => Error::no_group(group),
            _ => error::at(error, "open group", &path),
        })?;
        let failed = |error| error::at(error, "look at group", &path);
        let (head, length) = record::read_head(&file).map_err(failed)?;
        match Name::of(&head[..length]) {
            Name::Of(theirs) if theirs != group.as_str().as_bytes() => {
                return Err(error::collision(&path, &String::from_utf8_lossy(theirs), group.as_str()));
            }
            Name::Foreign => return Err(error::foreign(&own)),
            Name::Of(_) | Name::Lost => {}
        }
        let identity = Identity::of(&file.metadata().map_err(failed)?);
        Ok(GroupFolder { namespace, path, own: file, identity, group: group.clone() })
    }

    /// Begins a change, if no other process is at it.
    pub(crate) fn try_change(self) -> Result<ChangePermission<'a>> {
        if !self.io(byte_lock::try_lock(&self.own, CHANGES, LockKind::Alone))? {
            return Ok(ChangePermission::Busy);
        }
        // A power cut may have taken the name.
        record::ensure_name(&self.own, &self.path.join(OWN), self.group.as_str())?;
        // Odd while a change is under way. A killed process may have left it odd.
        let count = (self.io(self.count())? + 1) | 1;
        self.io(self.own.write_all_at(&count.to_le_bytes(), record::HEAD))?;
        Ok(ChangePermission::Change(GroupChange { folder: self, count }))
    }

    /// Whether the group is still the one that was opened.
    pub(crate) fn is_in_place(&self) -> Result<bool> {
        self.io(self.identity.is_at(&self.path.join(OWN)))
    }

    /// The living members, and the files of the dead. `None`: the group was changed meanwhile, or a change is under way.
    pub(crate) fn read_undisturbed(&self) -> Result<Option<MemberFiles>> {
        let before = self.io(self.count())?;
        if before % 2 == 1 && self.io(byte_lock::blocker(&self.own, CHANGES, LockKind::Alone))?.is_some() {
            return Ok(None);
        }
        let files = self.read()?;
        Ok((self.io(self.count())? == before).then_some(files))
    }

    /// The living members, and the files of the dead, without asking whether a change is under way: each change is one step by itself.
    pub(crate) fn read(&self) -> Result<MemberFiles> {
        let mut files = MemberFiles::default();
        let entries = match fs::read_dir(&self.path) {
            // Deleted after it was opened: it has no members.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
            result => self.io(result)?,
        };
        for entry in entries {
            let entry = self.io(entry)?;
            let name = entry.file_name();
            if name == OWN {
                continue;
            }
            let path = entry.path();
            let unfinished = name.as_encoded_bytes().starts_with(b".");
            match alive_file::look(&path)? {
                LifeSign::Nothing => {}
                LifeSign::Dead => files.dead.push(path),
                // A member on its way in (of an earlier version): it has no name yet.
                LifeSign::Alive(_) if unfinished => {}
                // One that can't be read does not hide the others.
                LifeSign::Alive(content) => match MemberRecord::read(&path, &content) {
                    Ok(entry) => files.living.push((name, entry)),
                    Err(_) => files.strange.push(path),
                },
                LifeSign::Strange => files.strange.push(path),
            }
        }
        Ok(files)
    }

    /// How often the group was changed, in half changes.
    pub(crate) fn changes(&self) -> Result<u64> {
        self.io(self.count())
    }

    fn count(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        open_file::read_up_to(&self.own, &mut bytes, record::HEAD)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn io<T>(&self, result: io::Result<T>) -> Result<T> {
        result.map_err(|error| error::at(error, "use group", &self.path))
    }
}

/// The files in a group's folder.
#[derive(Default)]
pub(crate) struct MemberFiles {
    /// By the names of their files.
    pub(crate) living: Vec<(OsString, RosterEntry)>,
    pub(crate) dead: Vec<PathBuf>,
    /// What is no member's file, or one that we may not read.
    pub(crate) strange: Vec<PathBuf>,
}

impl GroupChange<'_> {
    /// Removes the files of the dead, if they are still dead.
    pub(crate) fn sweep(&self, dead: &[PathBuf]) {
        for path in dead.iter().filter(|path| path.starts_with(&self.folder.path)) {
            if matches!(alive_file::look(path), Ok(LifeSign::Dead)) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Deletes the group: it disappears in one step, its remains afterwards.
    pub(crate) fn delete(self) -> Result<()> {
        let namespace = self.folder.namespace;
        let last = namespace.layout.unfinished();
        let gone = || fs::rename(&self.folder.path, &last);
        let gone = match gone() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                namespace.make_branch(&namespace.layout.sessions())?;
                gone()
            }
            result => result,
        };
        self.folder.io(gone)?;
        let _ = fs::remove_dir_all(&last);
        Ok(())
    }
}

impl Drop for GroupChange<'_> {
    fn drop(&mut self) {
        // The count is even again before the lock goes. Should this fail, it stays odd without a lock, which readers know.
        let _ = self.folder.own.write_all_at(&(self.count + 1).to_le_bytes(), record::HEAD);
        let _ = byte_lock::unlock(&self.folder.own, CHANGES);
    }
}

/// The permission to change a group, when it is ours: no process has it for longer than a few calls of the system take.
pub(crate) async fn change<'a>(
    namespace: &'a NamespaceFolder,
    group: &GroupId,
    patience: Duration,
) -> Result<GroupChange<'a>> {
    let until = Instant::now() + patience;
    loop {
        let folder = GroupFolder::open(namespace, group, OpenMode::Existing)?;
        if let ChangePermission::Change(change) = folder.try_change()? {
            if change.folder.is_in_place()? {
                return Ok(change);
            }
            // It was deleted while we waited, and perhaps made again.
            continue;
        }
        if Instant::now() > until {
            return Err(Error::new(
                ErrorKind::TimedOut,
                format!("group {group:?} was being changed by another process for {patience:?}: is that one stopped?"),
            )
            .with_outcome(Outcome::NotApplied));
        }
        tokio::time::sleep(spread(PAUSE, 0.5..1.5)).await;
    }
}

/// The groups of the namespace, by the names in their own files. One that can't be read does not hide the others.
pub(crate) fn list(namespace: &NamespaceFolder) -> Result<Vec<GroupId>> {
    let groups = namespace.layout.groups();
    let failed = |error| error::at(error, "list groups in", &groups);
    let entries = match fs::read_dir(&groups) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let own = match open_file::open(&entry.path().join(OWN), OpenMode::Look) {
            Ok(own) => own,
            // This process is short of something: the others could not be read either.
            Err(error) if open_file::is_short(&error) => {
                return Err(error::at(error, "look at group", &entry.path()));
            }
            // Deleted meanwhile, no group, or not for us.
            Err(_) => continue,
        };
        let Ok((head, length)) = record::read_head(&own) else { continue };
        // A group whose name is lost gets it again at its next change.
        let name = record::full_name(&head[..length], &entry.path());
        found.extend(name.and_then(|name| GroupId::new(name).ok()));
    }
    // A folder that was copied or linked by hand says the name of another.
    found.sort();
    found.dedup();
    Ok(found)
}

/// Whether the name of a folder is not all of the group's name.
fn is_cut(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).and_then(decode_name).is_none()
}
