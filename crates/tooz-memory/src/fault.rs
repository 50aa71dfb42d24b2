//! The fault script: what a test lets go wrong, and when.

use std::time::Duration;

use tooz_core::{Error, ErrorKind, MemberId, Outcome};

/// What a session is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// The session is opened.
    Open,
    /// A heartbeat.
    Beat,
    /// A lock is tried or waited for.
    Lock,
    /// A grant or a place in a queue is given back.
    Release,
    /// A lock is broken.
    Break,
    /// A group is created or deleted.
    ChangeGroup,
    /// A member joins.
    Join,
    /// A member's capabilities change.
    Update,
    /// A member leaves.
    Leave,
    /// Holders, members or groups are read.
    Look,
    /// The session is closed.
    Close,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// It is done so much later, by the store's clock.
    Delay(Duration),
    /// It fails like this and is not done.
    Fail(ErrorKind),
    /// It is done, and its answer is lost.
    LoseReply,
}

/// One line of the script: happens to the next matching operation, once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fault {
    pub(crate) member: Option<MemberId>,
    pub(crate) operation: Operation,
    pub(crate) effect: Effect,
}

impl Fault {
    /// Happens to the next such operation of anybody.
    pub const fn new(operation: Operation, effect: Effect) -> Self {
        Fault { member: None, operation, effect }
    }

    /// Happens to this member only.
    pub fn of(mut self, member: MemberId) -> Self {
        self.member = Some(member);
        self
    }

    pub(crate) fn matches(&self, member: &MemberId, operation: Operation) -> bool {
        self.operation == operation && self.member.as_ref().is_none_or(|one| one == member)
    }
}

pub(crate) fn scripted(kind: ErrorKind) -> Error {
    Error::new(kind, "the fault script says so").with_outcome(Outcome::NotApplied)
}
