//! What a session has at its backend: the terms that were agreed upon, and what it owns.

use std::time::Duration;

use crate::base::characteristic::Characteristics;
use crate::base::id::{GroupId, RequestId};
use crate::driver::lock::LockKey;
use crate::driver::roster::RosterEntry;

/// What a session and its backend agreed upon.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Terms {
    /// After this long without a heartbeat the backend may end the session; `None`: the kernel is the judge.
    pub timeout: Option<Duration>,
    /// The driver's smallest safe margin before that moment.
    pub margin: Duration,
    /// What this very session can do and promises.
    pub characteristics: Characteristics,
}

impl Terms {
    /// Terms with no margin of the driver's own.
    pub const fn new(timeout: Option<Duration>, characteristics: Characteristics) -> Self {
        Terms { timeout, margin: Duration::ZERO, characteristics }
    }

    /// Sets the driver's smallest margin.
    pub const fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }
}

/// What a session owns at its backend, finished or half done.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Owned {
    /// Lock grants and places in queues.
    pub locks: Vec<(LockKey, RequestId)>,
    /// Its members of groups. `None`: this backend forgets no join, update or leave that it has answered, so that there is nothing to mend.
    pub members: Option<Vec<(GroupId, RosterEntry)>>,
}

impl Owned {
    /// These grants and places in queues.
    pub const fn new(locks: Vec<(LockKey, RequestId)>) -> Self {
        Owned { locks, members: None }
    }

    /// And these members, all there are: for a backend that may fall back to an earlier state, as after a fail-over.
    #[must_use]
    pub fn with_members(mut self, members: Vec<(GroupId, RosterEntry)>) -> Self {
        self.members = Some(members);
        self
    }
}
