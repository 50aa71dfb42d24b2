//! What a worker says while it works: each thing before it is asked for and again when it is answered, so that of a worker that is killed
//! all is known but the last answer.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tooz_conformance::history::{
    ChangeKind, Listing, Mode, Queue, Reading, Share, Sighting, Temptation, Told, ToldLeader,
};

/// Who a worker is, and how it is to work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Role {
    pub(crate) url: String,
    pub(crate) member: String,
    pub(crate) seed: u64,
    pub(crate) session_timeout: Duration,
    pub(crate) operation_timeout: Duration,
    /// How many tasks contend for locks.
    pub(crate) tasks: usize,
    /// Which locks there are, and the group.
    pub(crate) locks: usize,
    /// How long a task rests between two requests at most.
    pub(crate) rest: Duration,
}

/// How many locks are contended for. One that is held for long keeps those waiting that want it, and the others go on meanwhile.
pub(crate) const LOCKS: usize = 5;

/// The group that all workers join.
pub(crate) const GROUP: &str = "crew";

/// Where a worker's records go.
pub(crate) type Say = Arc<dyn Fn(&Record) + Send + Sync>;

/// One line of a worker. The number tells which of its attempts, changes or watches it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Record {
    /// It has connected, and begins.
    Ready,
    /// A lock is asked for, or the leadership.
    Asked {
        number: u64,
        worker: String,
        of: Contest,
        lock: String,
        mode: Mode,
        at: u64,
    },
    Granted {
        number: u64,
        at: u64,
        token: u64,
    },
    NotHad {
        number: u64,
        at: u64,
        waited: bool,
    },
    Failed {
        number: u64,
        at: u64,
        error: String,
    },
    /// It was looked at, and held at that time.
    Held {
        number: u64,
        at: u64,
    },
    /// It is over.
    Ended {
        number: u64,
        believed_until: u64,
        released: Option<u64>,
        lost: Option<u64>,
    },
    /// A holder is to be broken.
    Breaking {
        number: u64,
        worker: String,
        lock: String,
        token: u64,
        at: u64,
    },
    Broken {
        number: u64,
        at: u64,
    },
    /// What others see of the membership is to change.
    Changing {
        number: u64,
        kind: ChangeKind,
        joins: bool,
        at: u64,
    },
    Changed {
        number: u64,
        at: u64,
    },
    /// Surely not.
    NotChanged {
        number: u64,
    },
    /// The membership was looked at, and stood at that time.
    Stands {
        at: u64,
    },
    /// The membership stood for the last time then.
    LostMembership {
        stood: u64,
    },
    /// It stands again; what it says is the last that it said.
    Rejoined {
        word: u64,
        at: u64,
    },
    Watching {
        number: u64,
        worker: String,
        at: u64,
    },
    Told {
        number: u64,
        told: Told,
    },
    WatchingLeader {
        number: u64,
        worker: String,
        at: u64,
    },
    ToldLeader {
        number: u64,
        told: ToldLeader,
    },
    /// A watch has ended, or was never begun.
    Unwatched {
        number: u64,
        at: u64,
    },
    Read(Reading),
    Saw {
        of: Contest,
        sighting: Sighting,
    },
    Shared(Share),
    Listed(Listing),
    Queued(Queue),
    Tempted(Temptation),
    /// The process did not get on, though none had stopped it.
    Stalled {
        from: u64,
        to: u64,
    },
}

/// What is contended for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Contest {
    Lock,
    Leadership,
}
