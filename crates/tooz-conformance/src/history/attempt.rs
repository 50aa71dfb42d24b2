//! What is written down of a lock: attempts to get it, and holders that were broken.

use serde::{Deserialize, Serialize};

use crate::history::Mode;

/// One attempt to get a lock, and all that came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The worker: it does one thing after another.
    pub worker: String,
    /// Which lock.
    pub lock: String,
    /// How.
    pub mode: Mode,
    /// When it was asked for.
    pub asked: u64,
    /// What was answered.
    pub answer: Response,
}

/// What an attempt was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// It is not known: an error, or the worker died. It may have been granted, then or later.
    Unknown {
        /// By when it is over for sure, granted or not; `None`: it may be granted at any later time.
        until: Option<u64>,
    },
    /// It was not to be had.
    NotHad {
        /// When that was answered.
        at: u64,
        /// Whether it waited and its time was over: then its withdrawal may go on for a while after the answer.
        waited: bool,
    },
    /// It was granted.
    Granted(Grant),
}

/// A grant, from the holder's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// When the holder got it.
    pub at: u64,
    /// Its fencing token.
    pub token: u64,
    /// Until when the holder believed that it held it: the release that it asked for, the loss that it was told of, or the
    /// deadline as computed, whichever came first. `None`: to the end of the history.
    pub believed_until: Option<u64>,
    /// When the release was answered with success; `None`: it was lost, failed, or never asked for.
    pub released: Option<u64>,
    /// When the holder found that it had lost it, if it did.
    pub lost: Option<u64>,
}

/// An attempt to take a lock from its holder by force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Break {
    /// The worker.
    pub worker: String,
    /// Which lock.
    pub lock: String,
    /// Which holder, by its token.
    pub token: u64,
    /// When it was asked for.
    pub asked: u64,
    /// When success was answered; `None`: it failed, or that is not known.
    pub done: Option<u64>,
}

/// The holders of a lock, as a worker was shown them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The worker.
    pub worker: String,
    /// Which lock; of an election, which group.
    pub lock: String,
    /// When it asked.
    pub asked: u64,
    /// When it was answered.
    pub at: u64,
    /// Each holder's mode and token.
    pub holders: Vec<(Mode, u64)>,
}
