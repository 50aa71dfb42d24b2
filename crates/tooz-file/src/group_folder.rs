//! One group is one folder: `.group` is the group itself, every other file is a member.
//!
//! Whoever changes it locks `.group` first, and counts the change there before and after. Who only looks takes no lock and
//! writes nothing: if the count is the same after reading as before, no change came between.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::libc;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tooz_core::{Capabilities, Error, ErrorKind, GroupId, JoinRequest, MemberId, RequestId, Result, RosterEntry};

use crate::alive::{self, Seen};
use crate::error;
use crate::layout::{How, Identity, Layout, unfinished};
use crate::ofd::{self, Kind, Range};
use crate::record::{self, Name};

/// The group's own file.
const OWN: &str = ".group";
const CHANGES: Range = Range::byte(0);
/// What a killed process left half done is older than this; nobody takes that long for it.
const LEFTOVER: Duration = Duration::from_mins(1);

/// A member as it stands in its file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MemberRecord<'a> {
    member: std::borrow::Cow<'a, str>,
    request: String,
    pid: u32,
    #[serde(borrow)]
    capabilities: &'a RawValue,
}

impl MemberRecord<'_> {
    /// The content of a member's file.
    pub(crate) fn write(request: &JoinRequest) -> Result<Vec<u8>> {
        let wrong = |error| Error::new(ErrorKind::Backend, "these capabilities can't be written").with_source(error);
        let capabilities: &RawValue = serde_json::from_str(request.capabilities.as_json()).map_err(wrong)?;
        let record = MemberRecord {
            member: request.member.as_str().into(),
            request: request.id.to_string(),
            pid: std::process::id(),
            capabilities,
        };
        let mut content = serde_json::to_vec(&record).map_err(wrong)?;
        content.push(b'\n');
        Ok(content)
    }

    /// Reads what `write` wrote.
    pub(crate) fn read(path: &Path, content: &[u8]) -> Result<RosterEntry> {
        let strange =
            |error: &dyn std::fmt::Display| error::strange(path, format_args!("is no member's file: {error}"));
        let record: MemberRecord<'_> = serde_json::from_slice(content).map_err(|error| strange(&error))?;
        let member = MemberId::new(record.member).map_err(|error| strange(&error))?;
        let id: RequestId = record.request.parse().map_err(|error| strange(&error))?;
        Ok(RosterEntry::new(member, id, Capabilities::from_json(record.capabilities.get())?))
    }
}

/// The open folder of a group.
pub(crate) struct GroupFolder<'a> {
    layout: &'a Layout,
    pub(crate) path: PathBuf,
    own: File,
    identity: Identity,
}

/// The permission to change a group, as long as it lives.
pub(crate) struct Change<'a> {
    pub(crate) folder: GroupFolder<'a>,
    count: u64,
}

impl<'a> GroupFolder<'a> {
    /// Makes a group: it appears with all that belongs to it.
    pub(crate) fn create(layout: &Layout, group: &GroupId) -> Result<()> {
        let groups = layout.groups();
        let path = layout.group(group);
        layout.make_folder(&groups)?;
        sweep_leftovers(&groups);
        let first = groups.join(unfinished());
        let made = layout.make_folder(&first).and_then(|()| {
            let own = first.join(OWN);
            let file = layout.open(&own, How::CreateNew).map_err(|error| error::at(error, "make file", &own))?;
            record::claim(&file, &own, group.as_str())?;
            // An empty folder would be taken for free; a group is never empty.
            fs::rename(&first, &path).map_err(|error| match error.raw_os_error() {
                Some(libc::ENOTEMPTY | libc::EEXIST) => Error::group_exists(group),
                _ => error::at(error, "make folder", &path),
            })
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&first);
        }
        made
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
        match record::read_name(&file).map_err(failed)? {
            Name::Of(theirs) if theirs != group.as_str() => {
                return Err(error::collision(&path, &theirs, group.as_str()));
            }
            _ => {}
        }
        let identity = Identity::of(&file.metadata().map_err(failed)?);
        Ok(GroupFolder { layout, path, own: file, identity })
    }

    /// Begins a change, if nobody else is at it. `Ok(Err(..))` gives the folder back.
    pub(crate) fn try_change(self) -> Result<Result<Change<'a>, GroupFolder<'a>>> {
        if !self.io(ofd::try_lock(&self.own, CHANGES, Kind::Alone))? {
            return Ok(Err(self));
        }
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
            match alive::look(self.layout, &path)? {
                Seen::Nothing => {}
                Seen::Dead => seats.dead.push(path),
                // A member on its way in: it has no name yet.
                Seen::Alive(_) if name.as_encoded_bytes().starts_with(b".") => {}
                Seen::Alive(content) => seats.living.push(MemberRecord::read(&path, &content)?),
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
    pub(crate) living: Vec<RosterEntry>,
    pub(crate) dead: Vec<PathBuf>,
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
        let groups = self.folder.layout.groups();
        let last = groups.join(unfinished());
        self.folder.io(fs::rename(&self.folder.path, &last))?;
        let _ = fs::remove_dir_all(&last);
        sweep_leftovers(&groups);
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

/// The groups of the namespace, by the names in their own files.
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
            // Deleted meanwhile, or no group.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => continue,
            Err(error) => return Err(error::at(error, "look at group", &entry.path())),
        };
        if let Name::Of(name) = record::read_name(&own).map_err(failed)? {
            found.push(GroupId::new(name)?);
        }
    }
    found.sort();
    Ok(found)
}

/// Removes what killed processes left half done.
fn sweep_leftovers(groups: &Path) {
    let Ok(entries) = fs::read_dir(groups) else { return };
    for entry in entries.flatten() {
        let unfinished = entry.file_name().as_encoded_bytes().starts_with(b".new-");
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let age = age.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        if unfinished && age.is_some_and(|age| age > LEFTOVER) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
