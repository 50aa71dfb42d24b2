//! Locks as core asks for them and a driver answers: the first room of the contract, and the values that pass through it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::base::backoff::Backoff;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::{GroupId, LockName, MemberId, RequestId};
use crate::driver::push::{PushStream, next_push};
use crate::driver::wanted::Wanted;

/// What is asked of a session about locks.
///
/// What core guarantees: one FIFO per lock and coordinator, at most one `try_lock` or `lock` in flight for a lock, none for
/// a lock that this session holds in a conflicting mode, and a `release` that may run beside a waiting `lock` of the same
/// lock. `acquire` calls `lock` alone, without a `try_lock` before it.
#[async_trait]
pub trait Locks: Send + Sync + 'static {
    /// Takes the lock if it can be had now; `None` if not. A repetition with the same id finds its own grant.
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>>;

    /// Waits for the lock. What the driver has to say and do meanwhile:
    ///
    /// - As soon as the backend has answered that another has the lock: [`Wanted::queued`]. A waiter that runs out of time knows by that alone
    ///   that the lock is taken; without it that is an error.
    /// - Where the driver repeats by itself what failed: [`Wanted::trouble`].
    /// - When the wait is not wanted any more ([`Wanted::unwanted`]): it withdraws and answers `None`, or `Some` if the grant won the race. A
    ///   wait that can't be cancelled may ignore this.
    ///
    /// On an error core withdraws by [`release`](Self::release), also where what was asked last was not done: the request may have a place in
    /// the queue.
    ///
    /// The default tries again at every hint of [`watch_lock`](Self::watch_lock), or after short jittered pauses.
    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        by_trying(self, request, wanted).await
    }

    /// Gives the grant of that request back, or withdraws it from the queue, also if it arrives there only later. May be
    /// repeated; a request that owns nothing is `Ok`. Never touches another request's grant.
    ///
    /// `Ok` tells the holder that no other could have the lock before, so it must come from a session that lives. Once that has
    /// ended the answer is `Lost`: the release is often what finds out, and then the lock may long be another's. `NotFound` where the session
    /// lives and the grant had been taken away before.
    async fn release(&self, request: &LockRequest) -> Result<()>;

    /// Whether the grant of that request is still what it was, as far as the process itself can see without waiting (a
    /// lock file that was not deleted). Called by every `is_held()`.
    fn holds(&self, _request: &LockRequest) -> bool {
        true
    }

    /// Its present holders.
    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>>;

    /// Takes away the grant with exactly that token; `NotFound` if it is not there any more.
    async fn break_lock(&self, _key: &LockKey, _token: FencingToken) -> Result<()> {
        Err(Error::unsupported("breaking a lock"))
    }

    /// Watches the holders of a lock: `Ready`, then `Dirty` at each change; `None`: core polls.
    async fn watch_lock(&self, _key: &LockKey) -> Result<Option<PushStream>> {
        Ok(None)
    }

    /// The locks and elections of the namespace that are in use: they have a holder or a waiter. In any order, each once.
    ///
    /// `Unsupported` where the backend does not know, because it keeps hashes in place of names.
    async fn locks(&self) -> Result<Vec<LockKey>> {
        Err(Error::unsupported("listing the locks in use"))
    }

    /// Its present waiters, first come first: one entry for each request in the queue. A waiter whose turn has come is a holder.
    ///
    /// `Unsupported` where the backend does not know.
    async fn waiters(&self, _key: &LockKey) -> Result<Vec<Waiter>> {
        Err(Error::unsupported("listing who waits for a lock"))
    }
}

/// A number that tells one grant from the grants before it: it grows with every grant of the lock with which it conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FencingToken(pub u64);

impl fmt::Display for FencingToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Whether a grant stands alone or beside others of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// No other holds the lock.
    Exclusive,
    /// Only other shared grants stand beside it.
    Shared,
}

impl LockMode {
    /// Whether two grants of these modes exclude each other.
    pub const fn conflicts_with(self, other: LockMode) -> bool {
        matches!(self, LockMode::Exclusive) || matches!(other, LockMode::Exclusive)
    }

    /// `exclusive` or `shared`.
    pub const fn name(self) -> &'static str {
        match self {
            LockMode::Exclusive => "exclusive",
            LockMode::Shared => "shared",
        }
    }
}

/// The two separate sets of locks: what users name, and one for the election of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Locks by name.
    Lock,
    /// The election of the group of that name.
    Election,
}

/// Which lock: the same name in two spaces is two locks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct LockKey {
    /// Lock or election.
    pub space: Space,
    /// The name of the lock, or of the group.
    pub name: Arc<str>,
}

impl LockKey {
    /// The key of a user's lock.
    pub fn lock(name: &LockName) -> Self {
        LockKey { space: Space::Lock, name: name.as_str().into() }
    }

    /// The key of a group's election.
    pub fn election(group: &GroupId) -> Self {
        LockKey { space: Space::Election, name: group.as_str().into() }
    }
}

/// `lock "x"` or `election of "g"`, as it stands in messages.
impl fmt::Display for LockKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.space {
            Space::Lock => write!(formatter, "lock {:?}", self.name),
            Space::Election => write!(formatter, "election of group {:?}", self.name),
        }
    }
}

impl fmt::Debug for LockKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// One wish for one lock. The grant that it leads to is known by the request's id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LockRequest {
    /// Which lock.
    pub key: LockKey,
    /// Exclusive or shared.
    pub mode: LockMode,
    /// Names the request: each repetition of it has this id.
    pub id: RequestId,
}

impl LockRequest {
    pub(crate) fn new(key: LockKey, mode: LockMode, id: RequestId) -> Self {
        LockRequest { key, mode, id }
    }
}

/// A driver's yes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Granted {
    /// The fencing token of the grant.
    pub token: FencingToken,
}

impl Granted {
    /// The lock is the request's, with this token.
    pub const fn new(token: FencingToken) -> Self {
        Granted { token }
    }
}

/// A grant as every client may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Whose it is.
    pub member: MemberId,
    /// Exclusive or shared.
    pub mode: LockMode,
    /// Its fencing token.
    pub token: FencingToken,
    /// When it was granted, by the backend's wall clock, where that is known.
    pub since: Option<SystemTime>,
    /// The process that holds it, where the backend is of one host and knows.
    pub pid: Option<u32>,
}

impl Holder {
    /// A holder without further details.
    pub const fn new(member: MemberId, mode: LockMode, token: FencingToken) -> Self {
        Holder { member, mode, token, since: None, pid: None }
    }

    /// Adds when the grant was given.
    pub const fn since(mut self, since: SystemTime) -> Self {
        self.since = Some(since);
        self
    }

    /// Adds the process that holds it.
    pub const fn pid(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }
}

/// A request that waits for a lock, as every client may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiter {
    /// The member that waits.
    pub member: MemberId,
    /// In which mode it wants the lock.
    pub mode: LockMode,
    /// Since when it waits, by the backend's wall clock, where that is known.
    pub since: Option<SystemTime>,
}

impl Waiter {
    /// A waiter without further details.
    pub const fn new(member: MemberId, mode: LockMode) -> Self {
        Waiter { member, mode, since: None }
    }

    /// Adds since when it waits.
    pub const fn since(mut self, since: SystemTime) -> Self {
        self.since = Some(since);
        self
    }
}

/// The default of [`Locks::lock`]: try, and try again at each hint of the lock's watch or after a short jittered pause.
async fn by_trying<L: Locks + ?Sized>(session: &L, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
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
