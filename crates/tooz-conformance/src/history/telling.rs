//! What is written down of watches and partitioners: what they told, and when.

use serde::{Deserialize, Serialize};

use crate::history::Listed;

/// One watch of a group's members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// The worker.
    pub worker: String,
    /// The group.
    pub group: String,
    /// When it was asked for.
    pub asked: u64,
    /// What it told, in its order.
    pub told: Vec<Told>,
    /// Until when it was listened to.
    pub until: u64,
}

/// One event of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// When it was told.
    pub at: u64,
    /// What.
    pub what: Telling,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Telling {
    /// The members as the watch began.
    Snapshot(Vec<Listed>),
    /// One came.
    Joined(Listed),
    /// One went.
    Left(String),
    /// One says something else of itself.
    Updated(Listed),
    /// The members as they are after a gap.
    Reset(Vec<Listed>),
    /// The group has gone.
    Deleted,
}

/// One watch of a group's leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderWatching {
    /// The worker.
    pub worker: String,
    /// The group.
    pub group: String,
    /// When it was asked for.
    pub asked: u64,
    /// What it told, in its order.
    pub told: Vec<ToldLeader>,
    /// Until when it was listened to.
    pub until: u64,
}

/// One event of a watch of a leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldLeader {
    /// When it was told.
    pub at: u64,
    /// The epoch of the leader; `None`: there is none.
    pub epoch: Option<u64>,
}

/// Which member owns each key, as a partitioner said. Which keys these are is the same in all shares of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The worker.
    pub worker: String,
    /// The group.
    pub group: String,
    /// When it was asked.
    pub at: u64,
    /// The owner of the first key, of the second, and so on.
    pub owners: Vec<String>,
}
