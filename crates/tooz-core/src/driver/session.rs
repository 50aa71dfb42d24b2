//! The session: THE trait that a driver implements. The types that pass between a driver and core are its neighbours in this folder.
//!
//! Everything else, guards, local queues, re-join, deadlines, the heart, election, partitioning, is written once in core
//! on top of it. Driver code runs in the heart's runtime, so `tokio::spawn`, timers and sockets of a driver live there,
//! and a blocked application starves none of them. A driver's future is never dropped half-way while its session lives.

use std::time::Duration;

use async_trait::async_trait;

use crate::base::backoff::Backoff;
use crate::base::clock::Clock;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::{GroupId, RequestId};
use crate::driver::checkup::{Checkup, Probe};
use crate::driver::group::{JoinRequest, Roster};
use crate::driver::lock::{FencingToken, Granted, Holder, LockKey, LockRequest};
use crate::driver::push::{PushStream, next_push};
use crate::driver::terms::{Owned, Terms};
use crate::driver::wanted::Wanted;

/// One session of a backend, and all that is asked of it.
///
/// Required are the methods of locks and [`close`](Self::close); the others answer `Unsupported`, or do what a backend
/// without that ability would. Every statement ends within a third of the session timeout, by a limit of the driver's own.
///
/// [`ErrorKind::Lost`] from any method is the driver's word that the whole session is over: core then opens a new one.
///
/// What core guarantees: one FIFO per lock and coordinator, at most one `try_lock` or `lock` in flight for a lock, none for
/// a lock that this session holds in a conflicting mode, and a `release` that may run beside a waiting `lock` of the same
/// lock. `acquire` calls `lock` alone, without a `try_lock` before it.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// What was agreed, as of now: read again after each beat. A timeout that has become shorter counts from the beat after which it is
    /// read first, so it must not hold at the backend before that.
    fn terms(&self) -> Terms;

    /// The clock that judges this session. Only test doubles have one of their own.
    fn clock(&self) -> Clock {
        Clock::boot_time()
    }

    /// Begins to own: makes the lease, the session key, the locked file. Called once, before the first lock or join; what
    /// comes before it (`holders`, `members`, `groups`, `watch_…`, `create_group`, `delete_group`) owns nothing.
    async fn open(&self) -> Result<()> {
        Ok(())
    }

    /// One heartbeat. It counts from the moment of the call, so it must prove that the authority which grants to others has
    /// seen it after that. Answers the requests whose grants were taken away meanwhile; `Lost` if the session is over.
    /// Not called where [`Terms::timeout`] is `None`.
    async fn beat(&self) -> Result<Vec<RequestId>> {
        Ok(Vec::new())
    }

    /// Takes the lock if it can be had now; `None` if not. A repetition with the same id finds its own grant.
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>>;

    /// Waits for the lock. Unwanted: withdraws and answers `None`, or `Some` if the grant won the race. A wait that can't
    /// be cancelled may ignore `wanted`. As soon as the backend has answered that somebody else has the lock, the driver says so by
    /// [`Wanted::queued`], and what it repeats by itself by [`Wanted::trouble`]. On an error core withdraws by [`release`](Self::release), also where what was asked last was
    /// not done: the request may have a place in the queue.
    ///
    /// The default tries again at every hint of [`watch_lock`](Self::watch_lock), or after short jittered pauses.
    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        by_trying(self, request, wanted).await
    }

    /// Gives the grant of that request back, or withdraws it from the queue, also if it arrives there only later. May be
    /// repeated; a request that owns nothing is `Ok`. Never touches another request's grant.
    ///
    /// `Ok` tells the holder that nobody else could have the lock before, so it must come from a session that lives. Once that has
    /// ended the answer is `Lost`: the release is often what finds out, and then the lock may long be another's. `NotFound` where the session
    /// lives and the grant had been taken away before.
    async fn release(&self, request: &LockRequest) -> Result<()>;

    /// Whether the grant of that request is still what it was, as far as the process itself can see without waiting (a
    /// lock file that was not deleted). Called by every `is_held()`.
    fn holds(&self, _request: &LockRequest) -> bool {
        true
    }

    /// Who holds it now.
    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>>;

    /// Takes away the grant with exactly that token; `NotFound` if it is not there any more.
    async fn break_lock(&self, _key: &LockKey, _token: FencingToken) -> Result<()> {
        Err(Error::unsupported("breaking a lock"))
    }

    /// Makes a group; `AlreadyExists` if there is one.
    async fn create_group(&self, _group: &GroupId) -> Result<()> {
        Err(Error::unsupported("creating a group"))
    }

    /// Deletes a group without members; `NotFound`, `NotEmpty`.
    async fn delete_group(&self, _group: &GroupId) -> Result<()> {
        Err(Error::unsupported("deleting a group"))
    }

    /// The groups of the namespace.
    async fn groups(&self) -> Result<Vec<GroupId>> {
        Err(Error::unsupported("listing groups"))
    }

    /// Enters the member. `NotFound`: no such group; `AlreadyExists` with `retry_after`: another living member of that id, see
    /// [`Replace`](crate::driver::Replace). A repetition with the same id finds its own entry and is `Ok`.
    async fn join(&self, _request: &JoinRequest) -> Result<()> {
        Err(Error::unsupported("joining a group"))
    }

    /// New capabilities for the membership of that join; `NotMember` if it is not there any more.
    async fn update(&self, _request: &JoinRequest) -> Result<()> {
        Err(Error::unsupported("updating capabilities"))
    }

    /// Ends the membership of that join, also if it arrives only later. May be repeated; nothing to end is `Ok`.
    async fn leave(&self, _request: &JoinRequest) -> Result<()> {
        Err(Error::unsupported("leaving a group"))
    }

    /// The living members with their capabilities; `NotFound`.
    async fn members(&self, _group: &GroupId) -> Result<Roster> {
        Err(Error::unsupported("listing members"))
    }

    /// Watches a group; `None`: core polls. The stream ends with `Gone`, with the session, or when it is dropped.
    async fn watch_group(&self, _group: &GroupId) -> Result<Option<PushStream>> {
        Ok(None)
    }

    /// Watches who holds a lock: `Ready`, then `Dirty` at each change; `None`: core polls.
    async fn watch_lock(&self, _key: &LockKey) -> Result<Option<PushStream>> {
        Ok(None)
    }

    /// What this session owns at the backend. After a reconnect core gives back what it does not know, and says again what the backend
    /// has forgotten of its memberships.
    async fn owned(&self) -> Result<Owned> {
        Ok(Owned::default())
    }

    /// Duplicates of the file descriptors by which the kernel keeps what this session holds: as long as one of each is open
    /// in any process, nothing is freed. Empty where a server is the judge.
    #[cfg(unix)]
    fn descriptors(&self) -> Vec<std::os::fd::OwnedFd> {
        Vec::new()
    }

    /// One bare round trip, for measuring and for `tooz doctor`. It proves nothing about the session and owns nothing.
    async fn probe(&self, _probe: Probe) -> Result<()> {
        Ok(())
    }

    /// Looks at the server and at those of its settings that the driver's page warns of. Owns nothing and changes nothing.
    async fn check_up(&self) -> Result<Checkup> {
        Ok(Checkup::default())
    }

    /// Ends the session: hands over or frees all that it owns, then the session itself. Also called for a session that was
    /// lost, to end it at the server, and for one that was never opened; and again when it has failed. Core does not wait longer than the
    /// operation timeout.
    async fn close(&self) -> Result<()>;
}

/// The default of [`Session::lock`]: try, and try again at each hint of the lock's watch or after a short jittered pause.
async fn by_trying<S: Session + ?Sized>(
    session: &S,
    request: &LockRequest,
    wanted: &Wanted,
) -> Result<Option<Granted>> {
    if let Some(granted) = session.try_lock(request).await? {
        return Ok(Some(granted));
    }
    wanted.queued();
    // Without hints it is tried from time to time.
    let mut hints = match session.watch_lock(&request.key).await {
        Err(error) if error.kind() == ErrorKind::Lost => return Err(error),
        hints => hints.unwrap_or(None),
    };
    // Hints may be lost, so even with them the lock is tried from time to time.
    let most = if hints.is_some() { Duration::from_secs(1) } else { Duration::from_millis(200) };
    let mut pauses = Backoff::between(Duration::from_millis(5), most);
    while wanted.is_wanted() {
        if let Some(granted) = session.try_lock(request).await? {
            return Ok(Some(granted));
        }
        tokio::select! {
            () = pauses.pause() => {}
            ended = hint(&mut hints) => {
                pauses.reset();
                if ended {
                    hints = None;
                }
            }
            () = wanted.unwanted() => {}
        }
    }
    Ok(None)
}

/// Waits for a hint; true when there will be no more.
async fn hint(hints: &mut Option<PushStream>) -> bool {
    match hints {
        Some(stream) => !matches!(next_push(stream).await, Ok(Some(_))),
        None => std::future::pending().await,
    }
}
