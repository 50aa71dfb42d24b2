//! The fault script: what a test lets go wrong, and when.

use std::time::Duration;

use tooz_core::{Error, ErrorKind, MemberId, Outcome};

/// What a session is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// A connection is made.
    Connect,
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
    /// Holders, members, groups, or what a session owns are read.
    Look,
    /// A group or a lock begins to be watched.
    Watch,
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

impl Operation {
    /// Every operation there is.
    pub const ALL: &[Operation] = &[
        Operation::Connect,
        Operation::Open,
        Operation::Beat,
        Operation::Lock,
        Operation::Release,
        Operation::Break,
        Operation::ChangeGroup,
        Operation::Join,
        Operation::Update,
        Operation::Leave,
        Operation::Look,
        Operation::Watch,
        Operation::Close,
    ];
}

/// One line of the script: happens to the next matching operation, once, or to [each](Fault::each).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fault {
    pub(crate) member: Option<MemberId>,
    pub(crate) operation: Operation,
    pub(crate) effect: Effect,
    pub(crate) repeats: bool,
}

impl Fault {
    /// Happens to the next such operation of any member.
    pub const fn new(operation: Operation, effect: Effect) -> Self {
        Fault { member: None, operation, effect, repeats: false }
    }

    /// Happens to this member only.
    pub fn of(mut self, member: MemberId) -> Self {
        self.member = Some(member);
        self
    }

    /// Happens to every such operation, until [`Store::clear_script`](crate::Store::clear_script).
    pub const fn each(mut self) -> Self {
        self.repeats = true;
        self
    }

    pub(crate) fn matches(&self, member: &MemberId, operation: Operation) -> bool {
        self.operation == operation && self.member.as_ref().is_none_or(|one| one == member)
    }
}

pub(crate) fn scripted(kind: ErrorKind) -> Error {
    Error::new(kind, "the fault script says so").with_outcome(Outcome::NotApplied)
}
