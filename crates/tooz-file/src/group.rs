//! The groups as one session uses them: every change under the group's own lock, its memberships as files that it keeps.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tooz_core::driver::{JoinConflict, JoinRequest, Reporter, Roster};
use tooz_core::{Error, ErrorKind, GroupId, Outcome, Result};

use crate::alive::{self, AliveFile, Seen};
use crate::error;
use crate::group_folder::{self, Change, GroupFolder, Seats};
use crate::layout::{How, Layout, member_file};
use crate::member_record::MemberRecord;
use crate::memberships::Memberships;

/// A change takes some 100 µs; who finds the group locked looks again after about this long.
const PAUSE: Duration = Duration::from_millis(1);
/// How often a list is read again at once because somebody changed the group meanwhile, and how often with pauses.
const QUICK_READS: u32 = 20;
const READS: u32 = 100;

/// The groups of one namespace, and the memberships of one session.
pub(crate) struct GroupFolders {
    layout: Layout,
    patience: Duration,
    session_timeout: Duration,
    memberships: Arc<Memberships>,
}

/// One reading of a group. `None`: somebody was at it.
pub(crate) type Read<'a> = &'a dyn Fn() -> Result<Option<Seats>>;

impl GroupFolders {
    pub(crate) fn new(layout: Layout, patience: Duration, session_timeout: Duration, reporter: Reporter) -> Self {
        GroupFolders { layout, patience, session_timeout, memberships: Arc::new(Memberships::new(reporter)) }
    }

    pub(crate) fn memberships(&self) -> &Arc<Memberships> {
        &self.memberships
    }

    pub(crate) fn create(&self, group: &GroupId) -> Result<()> {
        self.layout.settle()?;
        GroupFolder::create(&self.layout, group)
    }

    pub(crate) async fn delete(&self, group: &GroupId) -> Result<()> {
        self.layout.compare()?;
        let change = self.change(group).await?;
        let seats = change.folder.read()?;
        if !seats.living.is_empty() {
            return Err(Error::group_not_empty(group, seats.living.len()));
        }
        if let Some(strange) = seats.strange.first() {
            return Err(error::in_the_way(strange, group));
        }
        change.delete()
    }

    pub(crate) fn list(&self) -> Result<Vec<GroupId>> {
        self.layout.compare()?;
        group_folder::list(&self.layout)
    }

    /// The living members. `reading` reads them, and says which version of the group that is.
    pub(crate) async fn members(
        &self,
        group: &GroupId,
        reading: impl Fn(Read<'_>) -> Result<Option<(Seats, u64)>> + Send + Sync,
    ) -> Result<Roster> {
        self.layout.compare()?;
        let folder = GroupFolder::open(&self.layout, group, How::Look)?;
        let mut reads = 0;
        let (seats, version) = loop {
            // Somebody may have been stopped in the middle of a change: then what is there is as true as it gets.
            let patient = reads <= READS;
            let read = || if patient { folder.read_undisturbed() } else { folder.read().map(Some) };
            if let Some(read) = reading(&read)? {
                break read;
            }
            reads += 1;
            if reads > QUICK_READS {
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
        Ok(Roster::new(seats.living.into_iter().map(|(_, entry)| entry).collect(), version))
    }

    /// Joins, and answers which file says so.
    pub(crate) async fn join(&self, request: &JoinRequest) -> Result<PathBuf> {
        let content = MemberRecord::write(request)?;
        let change = self.change(&request.group).await?;
        let name = member_file(&request.member);
        let path = change.folder.path.join(&name);
        match alive::look(&self.layout, &path)? {
            Seen::Alive(theirs) => {
                let entry = MemberRecord::read(&path, &theirs)?;
                if entry.member != request.member {
                    return Err(error::collision(&path, entry.member.as_str(), request.member.as_str()));
                }
                match request.meets(entry.id) {
                    JoinConflict::Itself => return Ok(path),
                    JoinConflict::Refused => {
                        return Err(Error::namesake(request).with_retry_after(self.session_timeout));
                    }
                    JoinConflict::Replaces => {}
                }
            }
            // Of another user with other rights, or no member's file: whose it is, and whether that one lives, can't be seen.
            Seen::Strange => return Err(error::foreign(&path)),
            Seen::Nothing | Seen::Dead => {}
        }
        self.memberships.enter(request, || AliveFile::create(&self.layout, &change.folder.path, &name, &content))?;
        self.memberships.report_losses_in(&request.group, &|_| true);
        Ok(path)
    }

    /// New capabilities; answers which file says so now.
    pub(crate) async fn update(&self, request: &JoinRequest) -> Result<PathBuf> {
        let content = MemberRecord::write(request)?;
        let change = self.change(&request.group).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::not_member(request),
            _ => error,
        })?;
        let name = member_file(&request.member);
        self.memberships.renew(request, || AliveFile::create(&self.layout, &change.folder.path, &name, &content))?;
        Ok(change.folder.path.join(OsStr::new(&name)))
    }

    pub(crate) async fn leave(&self, request: &JoinRequest) -> Result<()> {
        if !self.memberships.has(request) {
            return Ok(());
        }
        let change = self.change(&request.group).await;
        match (self.memberships.end(request), change) {
            (Some(file), Ok(_change)) => file.remove(),
            // Closing the file ends the membership, whatever keeps the group locked; who sees the dead file removes it.
            _ => Ok(()),
        }
    }

    /// Leaves every group.
    pub(crate) async fn close(&self) {
        for (group, file) in self.memberships.end_all() {
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
