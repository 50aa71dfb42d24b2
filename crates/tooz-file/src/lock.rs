//! The locks of one session: what it holds, where it waits, and the open files that it keeps for the next time.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot::Receiver;
use tooz_core::driver::{Granted, LockKey, LockRequest, Mutex, MutexGuard, Reporter, RequestId, Space, Wanted};
use tooz_core::{Error, ErrorKind, Holder, LockMode, MemberId, Result};

use crate::glance::Glance;
use crate::layout::Layout;
use crate::lock_file::{self, Attempt, Claim, LockFile, Obstacle, Taken};
use crate::wait::Wait;

/// How many lock files stay open after their last use, so that the next use makes no new description.
const IDLE_FILES: usize = 32;
/// How often a file may be replaced under an attempt before that is called an error.
const REPLACED: usize = 8;
/// How long what was seen of a path counts as seen now, once.
const FRESH: Duration = Duration::from_micros(200);
/// What stands in the way and is no holder goes within microseconds, if its thread runs: first the processor is given away,
/// then some time, more of it where nobody holds the lock, as then `None` would be a strange answer.
const QUICK_GLANCES: u32 = 8;
const GLANCES_AT_A_WAITER: u32 = 12;
const GLANCES_AT_NOBODY: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// The locks of one session.
pub(crate) struct HeldLocks {
    layout: Layout,
    member: MemberId,
    reporter: Reporter,
    pid: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: BTreeMap<RequestId, Grant>,
    idle: HashMap<LockKey, Arc<LockFile>>,
    waits: HashMap<(LockKey, LockMode), Arc<Wait>>,
    /// The folders of the lock files as they were when all grants were looked after.
    folders: [Glance; 2],
    closed: bool,
}

struct Grant {
    taken: Taken,
    /// When the path was looked at for this grant; `None` once that has served.
    looked_at: Option<Instant>,
    /// Somebody has a duplicate of the description: it must never serve another grant.
    duplicated: bool,
}

impl HeldLocks {
    pub(crate) fn new(layout: Layout, member: MemberId, reporter: Reporter) -> Self {
        HeldLocks { layout, member, reporter, pid: std::process::id(), state: Mutex::default() }
    }

    pub(crate) async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        for glance in 0.. {
            let file = match self.attempt(request)? {
                Ok(granted) => return Ok(Some(granted)),
                Err(file) => file,
            };
            let patience = match file.obstacle(request.mode)? {
                Obstacle::Holder => 0,
                Obstacle::Waiter => GLANCES_AT_A_WAITER,
                Obstacle::Passing => GLANCES_AT_NOBODY,
            };
            self.keep(&request.key, file);
            if glance >= patience {
                break;
            }
            if glance < QUICK_GLANCES {
                std::thread::yield_now();
            } else {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(None)
    }

    pub(crate) async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        // Without a rival there is no thread and no second look.
        let file = match self.attempt(request)? {
            Ok(granted) => return Ok(Some(granted)),
            Err(file) => file,
        };
        if !wanted.is_wanted() {
            self.keep(&request.key, file);
            return Ok(None);
        }
        let wait = self.wait_for(request)?;
        let mut answer = wait.want(request.id, file)?;
        wanted.queued();
        tokio::select! {
            biased;
            answer = &mut answer => self.settle(request, answer.ok()),
            () = wanted.unwanted() => {
                let answer = if wait.unwant(request.id) { None } else { answered(answer).await };
                self.settle(request, answer)
            }
        }
    }

    pub(crate) fn release(&self, request: &LockRequest) {
        let mut state = self.state();
        let Some(grant) = state.held.remove(&request.id) else {
            let wait = state.waits.get(&(request.key.clone(), request.mode)).cloned();
            drop(state);
            if let Some(wait) = wait {
                wait.unwant(request.id);
            }
            return;
        };
        drop(state);
        let duplicated = grant.duplicated;
        if let Some(file) = grant.taken.give_back()
            && !duplicated
        {
            self.keep(&request.key, file);
        }
    }

    /// Judged by the path at the call: one call of the system. The first look, by which a grant is handed out, is saved
    /// if the path was looked at within the last moment anyway, when the grant was made.
    pub(crate) fn holds(&self, id: RequestId) -> bool {
        let file = match self.state().held.get_mut(&id) {
            Some(grant) => match grant.looked_at.take() {
                Some(at) if at.elapsed() < FRESH => return true,
                _ => Some(Arc::clone(&grant.taken.file)),
            },
            None => None,
        };
        // A path that can't be looked at proves nothing; the description still has the lock.
        file.is_some_and(|file| file.is_in_place().unwrap_or(true))
    }

    pub(crate) fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        lock_file::holders(&self.layout, key)
    }

    /// Makes sure that the lock has a file, so that it can be watched.
    pub(crate) fn file_to_watch(&self, key: &LockKey) -> Result<Arc<LockFile>> {
        LockFile::open(&self.layout, key)
    }

    /// Tells of every grant whose file was deleted: nobody else would before the next `is_held()`. While no file came or went in their folders,
    /// that is known by two looks, however many grants there are.
    pub(crate) fn report_losses(&self) {
        let held: Vec<_> = {
            let mut state = self.state();
            // Threads that nobody wants any more end by themselves, and nobody else hears of it.
            state.waits.retain(|_, wait| !wait.is_idle());
            if state.held.is_empty() {
                return;
            }
            let folders = [Space::Lock, Space::Election].map(|space| Glance::at(&self.layout.locks(space)));
            let unchanged = folders.iter().zip(&state.folders).all(|(now, before)| now.is_same(before));
            state.folders = folders;
            if unchanged {
                return;
            }
            state.held.iter().map(|(id, grant)| (*id, Arc::clone(&grant.taken.file))).collect()
        };
        for (id, file) in held {
            if !file.is_in_place().unwrap_or(true) {
                self.reporter.grant_lost(id);
            }
        }
    }

    /// Duplicates of all descriptions that hold something.
    pub(crate) fn descriptors(&self) -> Vec<OwnedFd> {
        let mut state = self.state();
        let grants = state.held.values_mut();
        grants
            .filter_map(|grant| {
                grant.duplicated = true;
                grant.taken.file.duplicate().ok().map(OwnedFd::from)
            })
            .collect()
    }

    /// Gives back everything; what waits is answered `None`, and what was got too late goes back by itself.
    pub(crate) fn close(&self) {
        let (held, waits) = {
            let mut state = self.state();
            state.closed = true;
            state.idle.clear();
            (std::mem::take(&mut state.held), std::mem::take(&mut state.waits))
        };
        for wait in waits.into_values() {
            wait.abandon();
        }
        for grant in held.into_values() {
            drop(grant.taken.give_back());
        }
    }

    /// One try, at once: the grant, or the file that it was tried with.
    fn attempt(&self, request: &LockRequest) -> Result<Result<Granted, Arc<LockFile>>> {
        let idle = {
            let mut state = self.state();
            if state.closed {
                return Err(closed());
            }
            if let Some(grant) = state.held.get(&request.id) {
                return Ok(Ok(Granted::new(grant.taken.token)));
            }
            state.idle.remove(&request.key)
        };
        let claim = Claim { member: &self.member, mode: request.mode, id: request.id, pid: self.pid };
        let mut idle = idle;
        for _ in 0..REPLACED {
            let file = match idle.take() {
                Some(file) => file,
                None => LockFile::open(&self.layout, &request.key)?,
            };
            match file.try_take(&claim)? {
                Attempt::Taken(taken) => return self.hold(request, taken).map(Ok),
                Attempt::Busy(file) => return Ok(Err(file)),
                Attempt::Stale => {}
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("the file of {} is replaced again and again: keep other programs out of the folder", request.key),
        ))
    }

    fn hold(&self, request: &LockRequest, taken: Taken) -> Result<Granted> {
        let granted = Granted::new(taken.token);
        let mut state = self.state();
        if state.closed {
            drop(state);
            drop(taken.give_back());
            return Err(closed());
        }
        let grant = Grant { taken, looked_at: Some(Instant::now()), duplicated: false };
        state.held.insert(request.id, grant);
        Ok(granted)
    }

    fn wait_for(&self, request: &LockRequest) -> Result<Arc<Wait>> {
        let mut state = self.state();
        if state.closed {
            return Err(closed());
        }
        let wait = state.waits.entry((request.key.clone(), request.mode)).or_insert_with(|| {
            Wait::new(self.layout.clone(), self.member.clone(), self.pid, request.key.clone(), request.mode)
        });
        Ok(Arc::clone(wait))
    }

    /// What came of a wait. No answer: it was withdrawn.
    fn settle(&self, request: &LockRequest, answer: Option<Result<Taken>>) -> Result<Option<Granted>> {
        let settled = match answer {
            Some(Ok(taken)) => self.hold(request, taken).map(Some),
            Some(Err(error)) => Err(error),
            None => Ok(None),
        };
        // A place whose thread has gone is forgotten; one that may be adopted stays.
        let mut state = self.state();
        let place = (request.key.clone(), request.mode);
        if state.waits.get(&place).is_some_and(|wait| wait.is_idle()) {
            state.waits.remove(&place);
        }
        drop(state);
        settled
    }

    fn keep(&self, key: &LockKey, file: Arc<LockFile>) {
        let mut state = self.state();
        if state.closed || Arc::strong_count(&file) != 1 {
            return;
        }
        if state.idle.len() >= IDLE_FILES
            && let Some(other) = state.idle.keys().next().cloned()
        {
            state.idle.remove(&other);
        }
        state.idle.insert(key.clone(), file);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

async fn answered(answer: Receiver<Result<Taken>>) -> Option<Result<Taken>> {
    answer.await.ok()
}

fn closed() -> Error {
    Error::new(ErrorKind::Lost, "the session has ended")
}
