//! How a session is and what happens to it, as values.

use crate::base::error::Error;
use crate::base::loss_reason::LossReason;

/// How a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// Nothing is owned yet, so there is nothing to lose.
    Idle,
    /// Alive.
    Open,
    /// Heartbeats fail or are overdue; what is held is still held until the deadline. The error says what was met last.
    Suspended(Error),
    /// Lost; a new one is opened when something needs it.
    Lost,
    /// A session, or something that stood before (a membership, a watch, a wait for a lock), can't be had again just now. The error says
    /// why, so that a person can mend it; until then it is tried again.
    Troubled(Error),
    /// Closed for ever.
    Closed,
}

/// What happens to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// The first failed or overdue heartbeat, or the end of the connection, and by what. Nothing is lost yet. A heartbeat is overdue after a sixth of
    /// the session's timeout.
    Suspended(Error),
    /// Heartbeats work again before the deadline: nothing was lost.
    Resumed,
    /// The session is dead for ever: locks and leaderships are lost.
    Lost(LossReason),
    /// A new session is open; memberships are re-established in it, locks are not.
    Reopened,
    /// A session, or something that stood before, can't be had again: told once for each reason, and tried again until it can.
    Troubled(Error),
    /// All that was [`Troubled`](Self::Troubled) stands again, or is not wanted any more.
    Recovered,
}
