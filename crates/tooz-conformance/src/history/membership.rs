//! What is written down of groups: who was a member from when to when, and who was listed.

use serde::{Deserialize, Serialize};

/// All that one member did in one group, in its order. A member that is started anew goes on with the same stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stay {
    /// The member.
    pub member: String,
    /// The group.
    pub group: String,
    /// In the order in which they were asked for. One takes effect before the next, if it does at all.
    pub changes: Vec<Change>,
}

/// Something that changes what is listed of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it was.
    pub kind: ChangeKind,
    /// The earliest moment at which it may have taken effect.
    pub asked: u64,
    /// By when it has taken effect for sure. `None`: it may have at any time before the next that is sure, or never.
    pub done: Option<u64>,
}

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It is listed from now on, and says this of itself. Each word is new, so that it tells which change was seen.
    Says(u64),
    /// It asked to join with this word and has no answer: it may be listed with it for a while at any later time, also after what it did next, since what
    /// comes too late is given back. Of such a change, `done` is by when that is over.
    Stray(u64),
    /// It left.
    Left,
    /// It was lost, with its session.
    Lost,
}

impl ChangeKind {
    /// What is listed after that; `None`: nothing.
    pub const fn listed(self) -> Option<u64> {
        match self {
            ChangeKind::Says(word) | ChangeKind::Stray(word) => Some(word),
            ChangeKind::Left | ChangeKind::Lost => None,
        }
    }
}

/// A member as it was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The member.
    pub member: String,
    /// What it said of itself.
    pub word: u64,
}

/// The members of a group, as a worker was shown them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The worker.
    pub worker: String,
    /// The group.
    pub group: String,
    /// When it asked.
    pub asked: u64,
    /// When it was answered.
    pub at: u64,
    /// Who was listed.
    pub members: Vec<Listed>,
}
