//! What happens to a session, as a state to look at and as a stream to follow.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::Error;
use crate::loss::LossReason;
use crate::mailbox::{Letter, Reader};

/// How a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// Nothing is owned yet, so there is nothing to lose.
    Idle,
    /// Alive.
    Open,
    /// Heartbeats fail or are overdue; what is held is still held until the deadline.
    Suspended,
    /// Lost; a new one is opened when something needs it.
    Lost,
    /// A session, or something that stood before (a membership, a watch, a wait for a lock), can't be had again just now. The error says
    /// why, so that somebody can mend it; until then it is tried again.
    Troubled(Error),
    /// Closed for ever.
    Closed,
}

/// What happens to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// The first failed or overdue heartbeat. Nothing is lost yet.
    Suspended,
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

/// The stream of [`SessionEvent`]s; it ends when the coordinator is closed. A reader that falls more than a thousand events
/// behind misses some; [`Coordinator::state`](crate::Coordinator::state) is always the present one.
pub struct SessionEvents {
    reader: Reader<SessionEvent>,
}

impl SessionEvents {
    pub(crate) fn new(reader: Reader<SessionEvent>) -> Self {
        SessionEvents { reader }
    }

    /// The next event, `None` after the close.
    ///
    /// # Cancel safety
    /// Dropping it loses no event.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for SessionEvents {
    type Item = SessionEvent;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<SessionEvent>> {
        loop {
            match std::task::ready!(self.reader.poll_next(context)) {
                Some(Letter::Item(event)) => return Poll::Ready(Some(event)),
                Some(Letter::Overflowed) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}
