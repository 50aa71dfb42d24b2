//! Locks as core asks for them: the tries at once, the wait, and who holds what. What a lock is in its file, `lock_file` knows.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tooz_core::driver::{Granted, LockKey, LockRequest, Locks, PushStream, Space, Wanted};
use tooz_core::{Error, ErrorKind, FencingToken, Holder, Result, Waiter};

use crate::error;
use crate::holders;
use crate::holdings::StartingPoint;
use crate::lock_file::{AttemptEnd, LockFile, LockedFile, Obstacle, Requester};
use crate::session::FileSession;
use crate::wait::Wait;

/// How often a file may be replaced under an attempt before that is called an error.
const REPLACED: usize = 8;
/// A lock file may be locked for microseconds by a process that only looks at it. So an attempt first yields the processor, then sleeps
/// for a short time, and longer where no session holds the lock, as then `None` would be a strange answer.
const QUICK_TRIES: u32 = 8;
const TRIES_BEHIND_A_WAITER: u32 = 12;
const TRIES_BEHIND_NO_HOLDER: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);
/// How many lock files are looked at before others have their turn: less than a millisecond's work.
const STEP: usize = 64;

/// What one try comes to.
enum TryEnd {
    Granted(Granted),
    /// Not to be had now. The file that it was tried with has no lock of ours.
    Busy(Arc<LockFile>),
}

#[async_trait]
impl Locks for FileSession {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        for tries in 0.. {
            let file = match self.try_once(request)? {
                TryEnd::Granted(granted) => return Ok(Some(granted)),
                TryEnd::Busy(file) => file,
            };
            let patience = match file.obstacle(request.mode)? {
                Obstacle::Holder => 0,
                Obstacle::Waiter => TRIES_BEHIND_A_WAITER,
                Obstacle::Passing => TRIES_BEHIND_NO_HOLDER,
            };
            self.holdings.keep(&request.key, file);
            if tries >= patience {
                break;
            }
            if tries < QUICK_TRIES {
                std::thread::yield_now();
            } else {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(None)
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        // Without a rival there is no thread and no second look.
        let file = match self.try_once(request)? {
            TryEnd::Granted(granted) => return Ok(Some(granted)),
            TryEnd::Busy(file) => file,
        };
        if !wanted.is_wanted() {
            self.holdings.keep(&request.key, file);
            return Ok(None);
        }
        let wait = self.holdings.wait_for(request, || {
            let (namespace, member) = (self.namespace.clone(), self.member.clone());
            Wait::new(namespace, member, self.pid, request.key.clone(), request.mode)
        })?;
        let mut answer = wait.want(request.id, file)?;
        wanted.queued();
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer.ok(),
            () = wanted.unwanted() => if wait.unwant(request.id) { None } else { answer.await.ok() },
        };
        self.end_wait(request, answer)
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        self.holdings.give_back(request);
        Ok(())
    }

    fn holds(&self, request: &LockRequest) -> bool {
        self.holdings.has(request.id)
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        self.namespace.compare()?;
        holders::holders(&self.namespace.layout, key)
    }

    async fn break_lock(&self, _key: &LockKey, _token: FencingToken) -> Result<()> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "a file lock is the kernel's and can't be broken: end the process whose pid its holder shows",
        ))
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        // Locks ring no bell: core follows the holders of elections alone, and it would cost each grant two writes.
        if key.space == Space::Lock || !self.upkeep.is_pushed() {
            return Ok(None);
        }
        // There must be a file to watch. A user who may not make one can still look from time to time.
        self.namespace.compare()?;
        let Ok(file) = LockFile::open(&self.namespace, key) else { return Ok(None) };
        self.upkeep
            .with_dispatch(|dispatch| dispatch.watch_lock(file.path()))
            .map_err(|error| error::at(error, "watch lock file", file.path()))
    }

    /// Looks at all files that locks have ever had, as they stay; a few at a time, so that all else goes on meanwhile.
    async fn locks(&self) -> Result<Vec<LockKey>> {
        self.namespace.compare()?;
        let mut in_use = Vec::new();
        for space in [Space::Lock, Space::Election] {
            let folder = self.namespace.layout.locks(space);
            let failed = |error| error::at(error, "list locks in", &folder);
            let mut entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                result => result.map_err(failed)?,
            };
            loop {
                let step: Vec<_> = entries.by_ref().take(STEP).collect();
                if step.is_empty() {
                    break;
                }
                for entry in step {
                    let entry = entry.map_err(failed)?;
                    if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                        in_use.extend(holders::key_if_in_use(&entry.path(), space)?);
                    }
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(in_use)
    }

    async fn waiters(&self, _key: &LockKey) -> Result<Vec<Waiter>> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "the line before a file lock is the kernel's, which does not tell who stands in it",
        ))
    }
}

impl FileSession {
    /// One try, at once.
    fn try_once(&self, request: &LockRequest) -> Result<TryEnd> {
        let mut open = match self.holdings.start(request)? {
            StartingPoint::Granted(granted) => return Ok(TryEnd::Granted(granted)),
            StartingPoint::OpenFile(file) => Some(file),
            StartingPoint::NoFile => None,
        };
        let requester = Requester { member: &self.member, mode: request.mode, id: request.id, pid: self.pid };
        for _ in 0..REPLACED {
            let file = match open.take() {
                Some(file) => file,
                None => LockFile::open(&self.namespace, &request.key)?,
            };
            match file.try_take(&requester)? {
                AttemptEnd::Taken(taken) => return self.holdings.hold(request, taken).map(TryEnd::Granted),
                AttemptEnd::Busy(file) => return Ok(TryEnd::Busy(file)),
                AttemptEnd::Stale => {}
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("the file of {} is replaced again and again: keep other programs out of the folder", request.key),
        ))
    }

    /// What came of a wait. No answer: it was withdrawn.
    fn end_wait(&self, request: &LockRequest, answer: Option<Result<LockedFile>>) -> Result<Option<Granted>> {
        let granted = answer.map(|answer| answer.and_then(|taken| self.holdings.hold(request, taken))).transpose();
        self.holdings.forget_idle_wait(request);
        granted
    }
}
