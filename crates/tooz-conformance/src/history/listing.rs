//! What is listed besides holders and members: the locks in use, and who waits; and what was tried with a group that has members.

use serde::{Deserialize, Serialize};

use crate::history::Mode;

/// The locks in use, as a worker was shown them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The worker.
    pub worker: String,
    /// When it asked.
    pub asked: u64,
    /// When it was answered.
    pub at: u64,
    /// Their names.
    pub locks: Vec<String>,
}

/// The waiters for a lock, as a worker was shown them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// The worker.
    pub worker: String,
    /// Which lock.
    pub lock: String,
    /// When it asked.
    pub asked: u64,
    /// When it was answered.
    pub at: u64,
    /// Each waiter's member and mode.
    pub waiters: Vec<(String, Mode)>,
}

/// Something that must be refused as long as its worker is a member of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemptationKind {
    /// To create the group once more.
    Create,
    /// To delete it.
    Delete,
    /// To join it under the worker's own name.
    Namesake,
}

/// A worker that was a member all the time tried what must be refused, and it was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Temptation {
    /// The worker.
    pub worker: String,
    /// Which group.
    pub group: String,
    /// What.
    pub kind: TemptationKind,
    /// When it asked.
    pub asked: u64,
    /// When it was answered.
    pub at: u64,
    /// Whether it was done.
    pub done: bool,
}
