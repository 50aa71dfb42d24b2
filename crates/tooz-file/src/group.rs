//! The groups as one session uses them: every change under the group's own lock, its memberships as files that it keeps.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tooz_core::{Error, ErrorKind, GroupId, JoinRequest, Meeting, Outcome, Reporter, RequestId, Result, Roster};

use crate::alive::{self, AliveFile, Seen};
use crate::error;
use crate::group_folder::{self, Change, GroupFolder, MemberRecord};
use crate::layout::{How, Layout, member_file};

/// A change takes some 100 µs; who finds the group locked looks again after about this long.
const PAUSE: Duration = Duration::from_millis(1);
/// How often a list is read again at once because somebody changed the group meanwhile, and how often with pauses.
const QUICK_READS: u32 = 20;
const READS: u32 = 100;

/// The groups of one namespace, and the memberships of one session.
pub(crate) struct Groups {
    layout: Layout,
    patience: Duration,
    session_timeout: Duration,
    memberships: Arc<Memberships>,
}

/// What this session is a member of, by the join that made it.
pub(crate) struct Memberships {
    reporter: Reporter,
    files: Mutex<HashMap<RequestId, (GroupId, AliveFile)>>,
}

impl Groups {
    pub(crate) fn new(layout: Layout, patience: Duration, session_timeout: Duration, reporter: Reporter) -> Self {
        let memberships = Arc::new(Memberships { reporter, files: Mutex::default() });
        Groups { layout, patience, session_timeout, memberships }
    }

    pub(crate) fn memberships(&self) -> &Arc<Memberships> {
        &self.memberships
    }

    pub(crate) fn create(&self, group: &GroupId) -> Result<()> {
        GroupFolder::create(&self.layout, group)
    }

    pub(crate) async fn delete(&self, group: &GroupId) -> Result<()> {
        let change = self.change(group).await?;
        let seats = change.folder.read()?;
        if !seats.living.is_empty() {
            return Err(Error::group_not_empty(group, seats.living.len()));
        }
        change.delete()
    }

    pub(crate) fn list(&self) -> Result<Vec<GroupId>> {
        group_folder::list(&self.layout)
    }

    pub(crate) async fn members(&self, group: &GroupId) -> Result<Roster> {
        let folder = GroupFolder::open(&self.layout, group, How::Look)?;
        let mut reads = 0;
        let seats = loop {
            if let Some(seats) = folder.read_undisturbed()? {
                break seats;
            }
            reads += 1;
            if reads > READS {
                // Somebody was stopped in the middle of a change: what is there is as true as it gets.
                break folder.read()?;
            } else if reads > QUICK_READS {
                tokio::time::sleep(PAUSE).await;
            } else {
                std::thread::yield_now();
            }
        };
        // Also what was deleted while it was read is not there.
        if !folder.is_in_place()? {
            return Err(Error::no_group(group));
        }
        // Who sees the dead clears them away, if it may and nobody else is at it.
        if !seats.dead.is_empty()
            && let Ok(folder) = GroupFolder::open(&self.layout, group, How::Existing)
            && let Ok(Ok(change)) = folder.try_change()
            && change.folder.is_in_place().unwrap_or(false)
        {
            change.sweep(&seats.dead);
        }
        Ok(Roster::new(seats.living, 0))
    }

    pub(crate) async fn join(&self, request: &JoinRequest) -> Result<()> {
        let content = MemberRecord::write(request)?;
        let change = self.change(&request.group).await?;
        let name = member_file(&request.member);
        let path = change.folder.path.join(&name);
        if let Seen::Alive(theirs) = alive::look(&self.layout, &path)? {
            let entry = MemberRecord::read(&path, &theirs)?;
            if entry.member != request.member {
                return Err(error::collision(&path, entry.member.as_str(), request.member.as_str()));
            }
            match request.meets(entry.id) {
                Meeting::Itself => return Ok(()),
                Meeting::Refused => return Err(Error::namesake(request).with_retry_after(self.session_timeout)),
                Meeting::Replaces => {}
            }
        }
        // Watchers of ours compare the file at the path with the one in this table: both change under its lock.
        let mut files = self.memberships.files();
        let file = AliveFile::create(&self.layout, &change.folder.path, &name, &content)?;
        files.insert(request.id, (request.group.clone(), file));
        drop(files);
        self.memberships.report_losses(|group| *group == request.group);
        Ok(())
    }

    pub(crate) async fn update(&self, request: &JoinRequest) -> Result<()> {
        let content = MemberRecord::write(request)?;
        let change = self.change(&request.group).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::not_member(request),
            _ => error,
        })?;
        let mut files = self.memberships.files();
        match files.get_mut(&request.id) {
            Some((_, file)) if file.is_in_place().unwrap_or(false) => {
                *file = AliveFile::create(&self.layout, &change.folder.path, &member_file(&request.member), &content)?;
                Ok(())
            }
            _ => Err(Error::not_member(request)),
        }
    }

    pub(crate) async fn leave(&self, request: &JoinRequest) -> Result<()> {
        if !self.memberships.files().contains_key(&request.id) {
            return Ok(());
        }
        let change = self.change(&request.group).await;
        let left = self.memberships.files().remove(&request.id);
        match (left, change) {
            (Some((_, file)), Ok(_change)) => file.remove(),
            // Closing the file ends the membership, whatever keeps the group locked; who sees the dead file removes it.
            _ => Ok(()),
        }
    }

    /// Leaves every group.
    pub(crate) async fn close(&self) {
        let all: Vec<_> = self.memberships.files().drain().map(|(_, membership)| membership).collect();
        for (group, file) in all {
            if let Ok(_change) = self.change(&group).await {
                let _ = file.remove();
            }
        }
    }

    /// The permission to change a group, when it is ours: nobody has it for longer than a few calls of the system take.
    async fn change(&self, group: &GroupId) -> Result<Change<'_>> {
        let until = Instant::now() + self.patience;
        loop {
            let folder = GroupFolder::open(&self.layout, group, How::Existing)?;
            if let Ok(change) = folder.try_change()? {
                if change.folder.is_in_place()? {
                    return Ok(change);
                }
                // It was deleted while we waited, and perhaps made again.
                continue;
            }
            if Instant::now() > until {
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    format!(
                        "group {group:?} was being changed by another process for {:?}: is that one stopped?",
                        self.patience
                    ),
                )
                .with_outcome(Outcome::NotApplied));
            }
            tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
    }
}

impl Memberships {
    /// Tells of every membership whose file is not at its place any more: taken over, or deleted.
    pub(crate) fn report_losses(&self, of: impl Fn(&GroupId) -> bool) {
        let mut lost = Vec::new();
        self.files().retain(|id, (group, file)| {
            // A path that can't be looked at proves nothing; the file is still locked.
            let stays = !of(group) || file.is_in_place().unwrap_or(true);
            if !stays {
                lost.push((group.clone(), *id));
            }
            stays
        });
        for (group, id) in lost {
            self.reporter.membership_lost(&group, id);
        }
    }

    /// The folders in which there is a member of ours.
    pub(crate) fn has(&self, layout: &Layout, folder: &Path) -> bool {
        self.files().values().any(|(group, _)| layout.group(group) == folder)
    }

    /// Duplicates of all descriptions that keep a membership alive.
    pub(crate) fn descriptors(&self) -> Vec<OwnedFd> {
        self.files().values().filter_map(|(_, file)| file.duplicate().ok().map(OwnedFd::from)).collect()
    }

    /// Closes all files: the members are dead, and whoever sees them removes them.
    pub(crate) fn drop_all(&self) {
        self.files().clear();
    }

    fn files(&self) -> MutexGuard<'_, HashMap<RequestId, (GroupId, AliveFile)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
