//! The members of a group that this session watches, as its watchers were told: a change is looked at where it happened, and told as that.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use tooz_core::RosterEntry;
use tooz_core::driver::{Change, Pushed, Watchers};

use crate::alive_file::{self, LifeSign};
use crate::group_folder::MemberFiles;
use crate::record::MemberRecord;

/// The members by the names of their files. All files are read when core asks for all members, and never for a change.
#[derive(Default)]
pub(crate) struct WatchedGroup {
    members: BTreeMap<OsString, RosterEntry>,
    /// Counts changes; 0: the group was not read yet.
    version: u64,
}

impl WatchedGroup {
    /// Takes over what was read just now, tells what is new in it, and answers the version that it makes.
    pub(crate) fn read(&mut self, files: &MemberFiles, watchers: &mut Watchers) -> u64 {
        if self.version == 0 {
            self.members = files.living.iter().cloned().collect();
            self.version = 1;
            return self.version;
        }
        let now: BTreeMap<_, _> = files.living.iter().map(|(name, entry)| (name.as_os_str(), entry)).collect();
        let gone: Vec<_> = self.members.keys().filter(|name| !now.contains_key(name.as_os_str())).cloned().collect();
        for name in gone {
            self.set(&name, None, watchers);
        }
        for (name, entry) in now {
            self.set(name, Some(entry.clone()), watchers);
        }
        self.version
    }

    /// Looks at one file, and tells if it says something new.
    pub(crate) fn look(&mut self, folder: &Path, name: &OsStr, watchers: &mut Watchers) {
        if watchers.is_empty() {
            return;
        }
        let path = folder.join(name);
        let entry = match alive_file::look(&path) {
            _ if self.version == 0 => Err(()),
            Ok(LifeSign::Alive(content)) => Ok(MemberRecord::read(&path, &content).ok()),
            Ok(LifeSign::Nothing | LifeSign::Dead | LifeSign::Strange) => Ok(None),
            Err(_) => Err(()),
        };
        match entry {
            Ok(entry) => self.set(name, entry, watchers),
            // Core reads again, and hears what is wrong.
            Err(()) => watchers.push(&Pushed::Dirty),
        }
    }

    fn set(&mut self, name: &OsStr, entry: Option<RosterEntry>, watchers: &mut Watchers) {
        let before = self.members.get(name);
        if before == entry.as_ref() {
            return;
        }
        let changes = match (before, &entry) {
            (Some(before), Some(now)) if before.member == now.member && before.id == now.id => {
                vec![Change::Updated(now.clone())]
            }
            (Some(before), Some(now)) => vec![Change::Left(before.member.clone()), Change::Joined(now.clone())],
            (None, Some(now)) => vec![Change::Joined(now.clone())],
            (Some(before), None) => vec![Change::Left(before.member.clone())],
            (None, None) => Vec::new(),
        };
        match entry {
            Some(entry) => drop(self.members.insert(name.to_owned(), entry)),
            None => drop(self.members.remove(name)),
        }
        for change in changes {
            let after = self.version;
            self.version += 1;
            watchers.push(&Pushed::Delta { after: Some(after), version: self.version, change });
        }
    }
}
