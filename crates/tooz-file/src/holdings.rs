//! What the session believes it has: its grants, the places where it waits, the open files that it keeps for the next lock, and its memberships.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tooz_core::driver::{Granted, JoinRequest, LockKey, LockRequest, Mutex, MutexGuard, Reporter, RequestId, Space};
use tooz_core::{Error, ErrorKind, GroupId, LockMode, Result};

use crate::alive_file::AliveFile;
use crate::folder_stamp::FolderStamp;
use crate::layout::Layout;
use crate::lock_file::{LockFile, LockedFile};
use crate::wait::Wait;

/// How many lock files stay open after their last use, so that the next use makes no new description.
const IDLE_FILES: usize = 32;
/// How long what was seen of a path counts as seen now, once.
const FRESH: Duration = Duration::from_micros(200);

/// What one session has.
pub(crate) struct Holdings {
    reporter: Reporter,
    /// Where lock files are.
    lock_folders: [PathBuf; 2],
    locks: Mutex<HeldLocks>,
    memberships: Mutex<Memberships>,
}

#[derive(Default)]
struct HeldLocks {
    grants: BTreeMap<RequestId, HeldLock>,
    idle: HashMap<LockKey, Arc<LockFile>>,
    waits: HashMap<(LockKey, LockMode), Arc<Wait>>,
    /// The folders of the lock files as they were when all grants were looked after.
    folders: [FolderStamp; 2],
    is_closed: bool,
}

/// A file for each membership, open and locked. By group, and then by the join that made it: what happens in one group looks at no other.
type Memberships = HashMap<GroupId, HashMap<RequestId, AliveFile>>;

/// A lock that is held.
struct HeldLock {
    taken: LockedFile,
    /// When the path was looked at for this grant; `None` once that has served.
    looked_at: Option<Instant>,
    /// Others have a duplicate of the description: it must never serve another grant.
    is_duplicated: bool,
}

impl HeldLock {
    /// Gives the lock back. The file, if it may serve another grant.
    fn give_back(self) -> Option<Arc<LockFile>> {
        let file = self.taken.give_back()?;
        (!self.is_duplicated).then_some(file)
    }
}

/// Where an attempt to get a lock begins.
pub(crate) enum StartingPoint {
    /// The request has its grant already.
    Granted(Granted),
    /// With a file that is open.
    OpenFile(Arc<LockFile>),
    NoFile,
}

impl Holdings {
    pub(crate) fn new(layout: &Layout, reporter: Reporter) -> Self {
        Holdings {
            reporter,
            lock_folders: [Space::Lock, Space::Election].map(|space| layout.locks(space)),
            locks: Mutex::default(),
            memberships: Mutex::default(),
        }
    }

    /// What is there already for an attempt.
    pub(crate) fn start(&self, request: &LockRequest) -> Result<StartingPoint> {
        let mut locks = self.open_locks()?;
        if let Some(grant) = locks.grants.get(&request.id) {
            return Ok(StartingPoint::Granted(Granted::new(grant.taken.token)));
        }
        Ok(locks.idle.remove(&request.key).map_or(StartingPoint::NoFile, StartingPoint::OpenFile))
    }

    /// Counts a lock as held from now on.
    pub(crate) fn hold(&self, request: &LockRequest, taken: LockedFile) -> Result<Granted> {
        let granted = Granted::new(taken.token);
        match self.open_locks() {
            Ok(mut locks) => {
                let grant = HeldLock { taken, looked_at: Some(Instant::now()), is_duplicated: false };
                locks.grants.insert(request.id, grant);
                Ok(granted)
            }
            Err(ended) => {
                drop(taken.give_back());
                Err(ended)
            }
        }
    }

    /// The place where this session waits for that lock in that mode.
    pub(crate) fn wait_for(&self, request: &LockRequest, make: impl FnOnce() -> Arc<Wait>) -> Result<Arc<Wait>> {
        let mut locks = self.open_locks()?;
        Ok(Arc::clone(locks.waits.entry((request.key.clone(), request.mode)).or_insert_with(make)))
    }

    /// Forgets that place if its thread has gone; one that may be adopted stays.
    pub(crate) fn forget_idle_wait(&self, request: &LockRequest) {
        let mut locks = self.locks.lock();
        let key = (request.key.clone(), request.mode);
        if locks.waits.get(&key).is_some_and(|wait| wait.is_idle()) {
            locks.waits.remove(&key);
        }
    }

    /// Gives back the grant of that request, or withdraws it.
    pub(crate) fn give_back(&self, request: &LockRequest) {
        let mut locks = self.locks.lock();
        if let Some(grant) = locks.grants.remove(&request.id) {
            drop(locks);
            if let Some(file) = grant.give_back() {
                self.keep(&request.key, file);
            }
            return;
        }
        let wait = locks.waits.get(&(request.key.clone(), request.mode)).cloned();
        drop(locks);
        if let Some(wait) = wait {
            wait.unwant(request.id);
        }
    }

    /// Keeps a file without locks open for the next use.
    pub(crate) fn keep(&self, key: &LockKey, file: Arc<LockFile>) {
        let mut locks = self.locks.lock();
        if locks.is_closed || Arc::strong_count(&file) != 1 {
            return;
        }
        if locks.idle.len() >= IDLE_FILES
            && let Some(other) = locks.idle.keys().next().cloned()
        {
            locks.idle.remove(&other);
        }
        locks.idle.insert(key.clone(), file);
    }

    /// Judged by the path at the call: one call of the system. The first look, by which a grant is handed out, is saved
    /// if the path was looked at within the last moment anyway, when the grant was made.
    pub(crate) fn has(&self, id: RequestId) -> bool {
        let file = match self.locks.lock().grants.get_mut(&id) {
            Some(grant) => match grant.looked_at.take() {
                Some(at) if at.elapsed() < FRESH => return true,
                _ => Some(Arc::clone(&grant.taken.file)),
            },
            None => None,
        };
        // A path that can't be looked at proves nothing; the description still has the lock.
        file.is_some_and(|file| file.is_in_place().unwrap_or(true))
    }

    /// Tells of every grant whose file was deleted, which otherwise only the next `is_held()` finds. While no file came or went in their
    /// folders, that is known by two looks, however many grants there are.
    pub(crate) fn report_lost_grants(&self) {
        let held: Vec<_> = {
            let mut locks = self.locks.lock();
            // Unwanted threads end by themselves, and nothing else tells of it.
            locks.waits.retain(|_, wait| !wait.is_idle());
            if locks.grants.is_empty() {
                return;
            }
            let folders = self.lock_folders.each_ref().map(|folder| FolderStamp::of(folder));
            let unchanged = folders.iter().zip(&locks.folders).all(|(now, before)| now.is_same(before));
            locks.folders = folders;
            if unchanged {
                return;
            }
            locks.grants.iter().map(|(id, grant)| (*id, Arc::clone(&grant.taken.file))).collect()
        };
        for (id, file) in held {
            if !file.is_in_place().unwrap_or(true) {
                self.reporter.grant_lost(id);
            }
        }
    }

    /// Gives back every lock; what waits is answered `None`, and what was got too late goes back by itself.
    pub(crate) fn end_locks(&self) {
        let (grants, waits) = {
            let mut locks = self.locks.lock();
            locks.is_closed = true;
            locks.idle.clear();
            (std::mem::take(&mut locks.grants), std::mem::take(&mut locks.waits))
        };
        for wait in waits.into_values() {
            wait.abandon();
        }
        for grant in grants.into_values() {
            drop(grant.give_back());
        }
    }

    pub(crate) fn has_membership(&self, request: &JoinRequest) -> bool {
        self.memberships.lock().get(&request.group).is_some_and(|files| files.contains_key(&request.id))
    }

    /// Enters the file that `make` makes. A look after the files compares the one at the path with the one in this table: both change under
    /// its lock.
    pub(crate) fn enter_membership(
        &self,
        request: &JoinRequest,
        make: impl FnOnce() -> Result<AliveFile>,
    ) -> Result<()> {
        let mut memberships = self.memberships.lock();
        let file = make()?;
        memberships.entry(request.group.clone()).or_default().insert(request.id, file);
        Ok(())
    }

    /// Puts another file in the place of the one that is there.
    pub(crate) fn renew_membership(
        &self,
        request: &JoinRequest,
        make: impl FnOnce() -> Result<AliveFile>,
    ) -> Result<()> {
        let mut memberships = self.memberships.lock();
        match memberships.get_mut(&request.group).and_then(|files| files.get_mut(&request.id)) {
            Some(file) if file.is_in_place().unwrap_or(false) => {
                *file = make()?;
                Ok(())
            }
            _ => Err(Error::not_member(request)),
        }
    }

    /// Takes a membership out: it ends when the file is closed, or removed.
    pub(crate) fn end_membership(&self, request: &JoinRequest) -> Option<AliveFile> {
        let mut memberships = self.memberships.lock();
        let files = memberships.get_mut(&request.group)?;
        let file = files.remove(&request.id);
        if files.is_empty() {
            memberships.remove(&request.group);
        }
        file
    }

    /// Takes all memberships out.
    pub(crate) fn end_memberships(&self) -> Vec<(GroupId, AliveFile)> {
        let all = std::mem::take(&mut *self.memberships.lock());
        all.into_iter().flat_map(|(group, files)| files.into_values().map(move |file| (group.clone(), file))).collect()
    }

    /// Tells of every membership whose file is not at its place any more: taken over, or deleted.
    pub(crate) fn report_lost_memberships(&self) {
        let groups: Vec<_> = self.memberships.lock().keys().cloned().collect();
        for group in groups {
            self.report_lost_memberships_in(&group);
        }
    }

    /// Tells of every membership of one group whose file is not at its place any more.
    pub(crate) fn report_lost_memberships_in(&self, group: &GroupId) {
        let mut lost = Vec::new();
        let mut memberships = self.memberships.lock();
        let Some(files) = memberships.get_mut(group) else { return };
        files.retain(|id, file| {
            // A path that can't be looked at proves nothing; the file is still locked.
            let stays = file.is_in_place().unwrap_or(true);
            if !stays {
                lost.push(*id);
            }
            stays
        });
        if files.is_empty() {
            memberships.remove(group);
        }
        drop(memberships);
        for id in lost {
            self.reporter.membership_lost(group, id);
        }
    }

    /// Duplicates of all descriptions that keep a lock or a membership.
    pub(crate) fn descriptors(&self) -> Vec<OwnedFd> {
        let mut all = Vec::new();
        for grant in self.locks.lock().grants.values_mut() {
            grant.is_duplicated = true;
            all.extend(grant.taken.file.duplicate().ok().map(OwnedFd::from));
        }
        for file in self.memberships.lock().values().flat_map(HashMap::values) {
            all.extend(file.duplicate().ok().map(OwnedFd::from));
        }
        all
    }

    /// The locks, as long as the session has not ended.
    fn open_locks(&self) -> Result<MutexGuard<'_, HeldLocks>> {
        let locks = self.locks.lock();
        if locks.is_closed {
            return Err(Error::new(ErrorKind::Lost, "the session has ended"));
        }
        Ok(locks)
    }
}
