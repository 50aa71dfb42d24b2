//! Locks as core asks for them and a driver answers.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::base::id::{GroupId, LockName, MemberId, RequestId};

/// What tells one grant from the grants before it: it grows with every grant of the lock with which it conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FencingToken(pub u64);

impl fmt::Display for FencingToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Whether a grant stands alone or beside others of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Nobody else holds the lock.
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
    /// The same in every repetition of this request.
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

/// A grant as anybody may see it.
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
    /// A holder of whom nothing more is known.
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
