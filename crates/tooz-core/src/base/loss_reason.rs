//! Why something is not held any more.

use std::fmt;

use serde::Serialize;

/// Why something is not held any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossReason {
    /// The deadline passed without a heartbeat that counts.
    Expired,
    /// The backend ended the session, or the connection on which it lives.
    SessionEnded,
    /// This grant was taken away: broken by force, evicted, its file deleted.
    Broken,
    /// Another process took the membership over.
    TakenOver,
    /// The group is gone.
    GroupDeleted,
    /// The membership that this depends on has ended.
    NotMember,
    /// Not a loss: the holder gave it back.
    Released,
    /// The driver panicked in the life of the session, which is over by that.
    DriverPanicked,
    /// The coordinator was closed.
    Closed,
    /// This is a forked child; what the parent holds is the parent's.
    Forked,
}

impl fmt::Display for LossReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            LossReason::Expired => "the deadline passed without a heartbeat",
            LossReason::SessionEnded => "the backend ended the session",
            LossReason::Broken => "the grant was taken away",
            LossReason::TakenOver => "another process took the membership over",
            LossReason::GroupDeleted => "the group was deleted",
            LossReason::NotMember => "the membership has ended",
            LossReason::Released => "it was given back",
            LossReason::DriverPanicked => "the driver panicked",
            LossReason::Closed => "the coordinator was closed",
            LossReason::Forked => "this is a forked process",
        })
    }
}
