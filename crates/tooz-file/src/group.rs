//! Groups as core asks for them: every change under the group's own lock, each membership a file that the session keeps.

use std::time::Duration;

use async_trait::async_trait;
use nix::libc;
use tooz_core::driver::{Groups, JoinConflict, JoinRequest, PushStream, Roster};
use tooz_core::{Error, ErrorKind, GroupId, Result};

use crate::alive_file::{self, AliveFile, LifeSign};
use crate::error;
use crate::group_folder::{self, ChangePermission, GroupFolder, GroupReader, MemberFiles};
use crate::layout::member_file;
use crate::open_file::OpenMode;
use crate::record::MemberRecord;
use crate::session::FileSession;
use crate::version;

/// Between two readings where changes are many.
const PAUSE: Duration = Duration::from_millis(1);
/// How often a list is read again at once because the group was changed meanwhile, and how often with pauses.
const QUICK_READS: u32 = 20;
const READS: u32 = 100;
/// How often at most, however often the group changes: with the pauses that takes as long as one operation may.
const READS_AT_MOST: u32 = 5000;

#[async_trait]
impl Groups for FileSession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        version::settle(&self.namespace)?;
        GroupFolder::create(&self.namespace, group)
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        self.namespace.compare()?;
        let change = group_folder::change(&self.namespace, group, self.patience).await?;
        let files = change.folder.read()?;
        if !files.living.is_empty() {
            return Err(Error::group_not_empty(group, files.living.len()));
        }
        if let Some(strange) = files.strange.first() {
            return Err(error::in_the_way(strange, group));
        }
        change.delete()
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        self.namespace.compare()?;
        group_folder::list(&self.namespace)
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        let content = MemberRecord::write(&request.member, request.id, &request.capabilities)?;
        let change = group_folder::change(&self.namespace, &request.group, self.patience).await?;
        let name = member_file(&request.member);
        let path = change.folder.path.join(&name);
        let is_there = match alive_file::look(&path)? {
            LifeSign::Alive(theirs) => {
                let entry = MemberRecord::read(&path, &theirs)?;
                if entry.member != request.member {
                    return Err(error::collision(&path, entry.member.as_str(), request.member.as_str()));
                }
                match request.meets(entry.id) {
                    JoinConflict::Itself => true,
                    JoinConflict::Refused => {
                        return Err(Error::namesake(request).with_retry_after(self.session_timeout));
                    }
                    JoinConflict::Replaces => false,
                }
            }
            // Of another user with other rights, or no member's file: whose it is, and whether that one lives, can't be seen.
            LifeSign::Strange => return Err(error::foreign(&path)),
            LifeSign::Nothing | LifeSign::Dead => false,
        };
        if !is_there {
            let make = || AliveFile::create(&self.namespace, &change.folder.path, &name, &content);
            self.holdings.enter_membership(request, make)?;
            self.holdings.report_lost_memberships_in(&request.group);
        }
        drop(change);
        self.upkeep.follow_own(&path, &request.group);
        Ok(())
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        let content = MemberRecord::write(&request.member, request.id, &request.capabilities)?;
        let change =
            group_folder::change(&self.namespace, &request.group, self.patience).await.map_err(|error| match error
                .kind()
            {
                ErrorKind::NotFound => Error::not_member(request),
                _ => error,
            })?;
        let name = member_file(&request.member);
        let make = || AliveFile::create(&self.namespace, &change.folder.path, &name, &content);
        self.holdings.renew_membership(request, make)?;
        let path = change.folder.path.join(&name);
        drop(change);
        self.upkeep.follow_own(&path, &request.group);
        Ok(())
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        if !self.holdings.has_membership(request) {
            return Ok(());
        }
        let change = group_folder::change(&self.namespace, &request.group, self.patience).await;
        match (self.holdings.end_membership(request), change) {
            (Some(file), Ok(_change)) => file.remove(),
            // Closing the file ends the membership, whatever keeps the group locked; the next reader removes the dead file.
            _ => Ok(()),
        }
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        self.namespace.compare()?;
        let folder = GroupFolder::open(&self.namespace, group, OpenMode::Look)?;
        let (mut reads, mut in_vain, mut changes) = (0, 0, None);
        let (files, version) = loop {
            // A process may have been stopped in the middle of a change: then what is there is as true as it gets. As long as changes go on, none was.
            let is_patient = in_vain <= READS && reads <= READS_AT_MOST;
            let read = || if is_patient { folder.read_undisturbed() } else { folder.read().map(Some) };
            if let Some(read) = self.read_as_told(group, &read)? {
                break read;
            }
            // Asked for only here: most lists are read undisturbed.
            let now = Some(folder.changes()?);
            in_vain = if now == changes { in_vain + 1 } else { 0 };
            (reads, changes) = (reads + 1, now);
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
        // A reader clears the dead away, if it may and no other process is at it.
        if !files.dead.is_empty()
            && let Ok(folder) = GroupFolder::open(&self.namespace, group, OpenMode::Existing)
            && let Ok(ChangePermission::Change(change)) = folder.try_change()
            && change.folder.is_in_place().unwrap_or(false)
        {
            change.sweep(&files.dead);
        }
        Ok(Roster::new(files.living.into_iter().map(|(_, entry)| entry).collect(), version))
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        self.namespace.compare()?;
        let folder = self.namespace.layout.group(group);
        self.upkeep.with_dispatch(|dispatch| dispatch.watch_group(&folder, group)).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::ENOENT) => Error::no_group(group),
                _ => error::at(error, "watch group", &folder),
            }
        })
    }
}

impl FileSession {
    /// Reads a group, with the version of what its watchers were told.
    fn read_as_told(&self, group: &GroupId, read: GroupReader<'_>) -> Result<Option<(MemberFiles, u64)>> {
        match &*self.upkeep.dispatch() {
            Some(dispatch) => dispatch.read(group, read),
            None => Ok(read()?.map(|files| (files, 0))),
        }
    }
}
