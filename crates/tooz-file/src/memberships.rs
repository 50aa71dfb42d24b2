//! What one session is a member of: a file for each membership, which it keeps open and locked.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use tooz_core::driver::{JoinRequest, Mutex, MutexGuard, Reporter, RequestId};
use tooz_core::{Error, GroupId, Result};

use crate::alive::AliveFile;

/// By group, and then by the join that made it: what happens in one group looks at no other.
type Files = HashMap<GroupId, HashMap<RequestId, AliveFile>>;

/// The memberships of one session.
pub(crate) struct Memberships {
    reporter: Reporter,
    files: Mutex<Files>,
}

impl Memberships {
    pub(crate) fn new(reporter: Reporter) -> Self {
        Memberships { reporter, files: Mutex::default() }
    }

    pub(crate) fn has(&self, request: &JoinRequest) -> bool {
        self.files().get(&request.group).is_some_and(|files| files.contains_key(&request.id))
    }

    /// Enters the file that `make` makes. Who looks after the files compares the one at the path with the one in this table: both change under
    /// its lock.
    pub(crate) fn enter(&self, request: &JoinRequest, make: impl FnOnce() -> Result<AliveFile>) -> Result<()> {
        let mut files = self.files();
        let file = make()?;
        files.entry(request.group.clone()).or_default().insert(request.id, file);
        Ok(())
    }

    /// Puts another file in the place of the one that is there.
    pub(crate) fn renew(&self, request: &JoinRequest, make: impl FnOnce() -> Result<AliveFile>) -> Result<()> {
        let mut files = self.files();
        match files.get_mut(&request.group).and_then(|files| files.get_mut(&request.id)) {
            Some(file) if file.is_in_place().unwrap_or(false) => {
                *file = make()?;
                Ok(())
            }
            _ => Err(Error::not_member(request)),
        }
    }

    /// Takes a membership out: it ends when the file is closed, or removed.
    pub(crate) fn end(&self, request: &JoinRequest) -> Option<AliveFile> {
        let mut all = self.files();
        let files = all.get_mut(&request.group)?;
        let file = files.remove(&request.id);
        if files.is_empty() {
            all.remove(&request.group);
        }
        file
    }

    /// Takes all of them out.
    pub(crate) fn end_all(&self) -> Vec<(GroupId, AliveFile)> {
        let all = std::mem::take(&mut *self.files());
        all.into_iter().flat_map(|(group, files)| files.into_values().map(move |file| (group.clone(), file))).collect()
    }

    /// Tells of every membership whose file is not at its place any more: taken over, or deleted.
    pub(crate) fn report_losses(&self) {
        let groups: Vec<_> = self.files().keys().cloned().collect();
        for group in groups {
            self.report_losses_in(&group, &|_| true);
        }
    }

    /// The same for the files of one group that have such a name.
    pub(crate) fn report_losses_in(&self, group: &GroupId, concerns: &dyn Fn(&OsStr) -> bool) {
        let mut lost = Vec::new();
        let mut all = self.files();
        let Some(files) = all.get_mut(group) else { return };
        files.retain(|id, file| {
            // A path that can't be looked at proves nothing; the file is still locked.
            let concerned = file.path().file_name().is_none_or(concerns);
            let stays = !concerned || file.is_in_place().unwrap_or(true);
            if !stays {
                lost.push(*id);
            }
            stays
        });
        if files.is_empty() {
            all.remove(group);
        }
        drop(all);
        for id in lost {
            self.reporter.membership_lost(group, id);
        }
    }

    /// Duplicates of all descriptions that keep a membership alive.
    pub(crate) fn descriptors(&self) -> Vec<OwnedFd> {
        let all = self.files();
        all.values().flat_map(HashMap::values).filter_map(|file| file.duplicate().ok().map(OwnedFd::from)).collect()
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock()
    }
}
