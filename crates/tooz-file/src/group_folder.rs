//! One group is one folder: `.group` is the group itself, every other file is a member.
//!
//! Whoever changes it locks `.group` first, and counts the change there before and after. Who only looks takes no lock and
//! writes nothing: if the count is the same after reading as before, no change came between.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::libc;
use tooz_core::driver::decode_name;
use tooz_core::{Error, GroupId, Result, RosterEntry};

use crate::alive::{self, Seen};
use crate::error;
use crate::layout::{How, Identity, Layout};
use crate::member_record::MemberRecord;
use crate::ofd::{self, Kind, Range};
use crate::record::{self, Name};
use crate::unfinished::{self, Naming, Unfinished};

/// The group's own file.
const OWN: &str = ".group";
const CHANGES: Range = Range::byte(0);
/// The open folder of a group.
pub(crate) struct GroupFolder<'a> {
    layout: &'a Layout,
    pub(crate) path: PathBuf,
    own: File,
    identity: Identity,
    group: GroupId,
}

/// The permission to change a group, as long as it lives.
pub(crate) struct Change<'a> {
    pub(crate) folder: GroupFolder<'a>,
    count: u64,
}

impl<'a> GroupFolder<'a> {
    /// Makes a group: it appears with all that belongs to it.
    pub(crate) fn create(layout: &Layout, group: &GroupId) -> Result<()> {
        let path = layout.group(group);
        for _ in 0..2 {
            let mut made = Unfinished::folder(layout)?;
            let own = made.path().join(OWN);
            let failed = |error| error::at(error, "make group", &path);
            let file = layout.create(&own).map_err(failed)?;
            file.write_all_at(&record::head(group.as_str()), 0).map_err(failed)?;
            if is_cut(&path) {
                // Only this file knows the whole name: it is to be there after a power cut.
                file.sync_all().map_err(failed)?;
            }
            match made.take_name(&path).map_err(failed)? {
                Naming::Done => return Ok(()),
                Naming::NoFolder | Naming::NoLinks => layout.make_branch(&layout.groups())?,
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

    /// Opens a group that is there. [`How::Look`] suffices for reading.
    pub(crate) fn open(layout: &'a Layout, group: &GroupId, how: How) -> Result<Self> {
        let path = layout.group(group);
        let own = path.join(OWN);
        let file = layout.open(&own, how).map_err(|error| match error.raw_os_error() {
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
        Ok(GroupFolder { layout, path, own: file, identity, group: group.clone() })
    }

    /// Begins a change, if nobody else is at it. `Ok(Err(..))` gives the folder back.
    pub(crate) fn try_change(self) -> Result<Result<Change<'a>, GroupFolder<'a>>> {
        if !self.io(ofd::try_lock(&self.own, CHANGES, Kind::Alone))? {
            return Ok(Err(self));
        }
        // A power cut may have taken the name.
        record::claim(&self.own, &self.path.join(OWN), self.group.as_str())?;
        // Odd while somebody is at it. A killed process may have left it odd.
        let count = (self.io(self.count())? + 1) | 1;
        self.io(self.own.write_all_at(&count.to_le_bytes(), record::HEAD))?;
        Ok(Ok(Change { folder: self, count }))
    }

    /// Whether the group is still the one that was opened.
    pub(crate) fn is_in_place(&self) -> Result<bool> {
        self.io(self.identity.is_at(&self.path.join(OWN)))
    }

    /// The living members, and the files of the dead. `None`: somebody changed the group meanwhile, or is at it.
    pub(crate) fn read_undisturbed(&self) -> Result<Option<Seats>> {
        let before = self.io(self.count())?;
        if before % 2 == 1 && self.io(ofd::blocker(&self.own, CHANGES, Kind::Alone))?.is_some() {
            return Ok(None);
        }
        let seats = self.read()?;
        Ok((self.io(self.count())? == before).then_some(seats))
    }

    /// The same without asking whether somebody is at it: each change is one step by itself.
    pub(crate) fn read(&self) -> Result<Seats> {
        let mut seats = Seats::default();
        let entries = match fs::read_dir(&self.path) {
            // Deleted after it was opened: nobody is in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(seats),
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
            match alive::look(self.layout, &path)? {
                Seen::Nothing => {}
                Seen::Dead => seats.dead.push(path),
                // A member on its way in (of an earlier version): it has no name yet.
                Seen::Alive(_) if unfinished => {}
                // One that can't be read keeps nobody from reading the others.
                Seen::Alive(content) => match MemberRecord::read(&path, &content) {
                    Ok(entry) => seats.living.push((name, entry)),
                    Err(_) => seats.strange.push(path),
                },
                Seen::Strange => seats.strange.push(path),
            }
        }
        Ok(seats)
    }

    fn count(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        record::read_up_to(&self.own, &mut bytes, record::HEAD)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn io<T>(&self, result: io::Result<T>) -> Result<T> {
        result.map_err(|error| error::at(error, "use group", &self.path))
    }
}

/// Who is in a group.
#[derive(Default)]
pub(crate) struct Seats {
    /// By the names of their files.
    pub(crate) living: Vec<(OsString, RosterEntry)>,
    pub(crate) dead: Vec<PathBuf>,
    /// What is no member's file, or one that we may not read.
    pub(crate) strange: Vec<PathBuf>,
}

impl Change<'_> {
    /// Removes the files of the dead, if they are still dead.
    pub(crate) fn sweep(&self, dead: &[PathBuf]) {
        for path in dead {
            if matches!(alive::look(self.folder.layout, path), Ok(Seen::Dead)) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Deletes the group: it disappears in one step, its remains afterwards.
    pub(crate) fn delete(self) -> Result<()> {
        let layout = self.folder.layout;
        let last = layout.sessions().join(unfinished::name());
        let gone = || fs::rename(&self.folder.path, &last);
        let gone = match gone() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                layout.make_branch(&layout.sessions())?;
                gone()
            }
            result => result,
        };
        self.folder.io(gone)?;
        let _ = fs::remove_dir_all(&last);
        Ok(())
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        // The count is even again before the lock goes. Should this fail, it stays odd without a lock, which readers know.
        let _ = self.folder.own.write_all_at(&(self.count + 1).to_le_bytes(), record::HEAD);
        let _ = ofd::unlock(&self.folder.own, CHANGES);
    }
}

/// The groups of the namespace, by the names in their own files. One that can't be read keeps nobody from reading the others.
pub(crate) fn list(layout: &Layout) -> Result<Vec<GroupId>> {
    let groups = layout.groups();
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
        let own = match layout.open(&entry.path().join(OWN), How::Look) {
            Ok(own) => own,
            // This process is short of something: the others could not be read either.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => {
                return Err(error::at(error, "look at group", &entry.path()));
            }
            // Deleted meanwhile, no group, or not for us.
            Err(_) => continue,
        };
        let Ok((head, length)) = record::read_head(&own) else { continue };
        let name = match Name::of(&head[..length]) {
            Name::Of(name) => std::str::from_utf8(name).ok().map(str::to_owned),
            // The folder's name says it, unless it was cut; such a group gets its name again at its next change.
            Name::Lost => entry.file_name().to_str().and_then(decode_name),
            Name::Foreign => None,
        };
        found.extend(name.and_then(|name| GroupId::new(name).ok()));
    }
    found.sort();
    Ok(found)
}

/// Whether the name of a folder is not all of the group's name.
fn is_cut(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).and_then(decode_name).is_none()
}
