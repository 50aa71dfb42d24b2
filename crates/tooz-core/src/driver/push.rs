//! What a driver tells by itself: the hints of a watch, and the channel that carries them.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::base::contain::contained;
use crate::base::error::Result;
use crate::base::event_queue::{Delivery, Feeder, Reader, event_queue};
use crate::base::id::MemberId;
use crate::driver::roster::RosterEntry;

/// One change of a group.
#[derive(Clone, Debug)]
pub enum Change {
    /// A member came.
    Joined(RosterEntry),
    /// A member has gone: left, was replaced, or died.
    Left(MemberId),
    /// A member's capabilities are new.
    Updated(RosterEntry),
}

/// What a driver's watch tells. It is a hint: core reads again where it can't follow.
#[derive(Clone, Debug)]
pub enum Pushed {
    /// From here on nothing is missed. Said first, once; core then reads.
    Ready,
    /// Exactly this happened between two versions of the roster.
    Delta {
        /// The version that it follows; `None`: whatever came before.
        after: Option<u64>,
        /// The version that it makes.
        version: u64,
        /// What happened.
        change: Change,
    },
    /// Something changed: read again.
    Dirty,
    /// Changes were missed: read again, and tell the user so.
    Gap,
    /// The group was deleted.
    Gone,
}

/// The stream of a watch as a driver hands it to core.
pub type PushStream = Pin<Box<dyn Stream<Item = Pushed> + Send>>;

/// The driver's end of a [`push_channel`].
pub struct Pusher(Feeder<Pushed>);

/// Makes a stream for [`Groups::watch_group`](crate::driver::Groups::watch_group) that can be fed from any thread.
///
/// It is bounded and never blocks: a reader that is too slow finds [`Pushed::Gap`] in place of what it missed.
pub fn push_channel() -> (Pusher, PushStream) {
    let (feeder, reader) = event_queue();
    (Pusher(feeder), Box::pin(PushReader(reader)))
}

impl Pusher {
    /// Tells the watcher. Dropping the pusher ends the stream, and core watches anew.
    pub fn push(&self, pushed: Pushed) {
        self.0.push(pushed);
    }

    /// Whether the watcher has gone, so that nothing needs to be told any more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Ends when the watcher has gone.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

struct PushReader(Reader<Pushed>);

impl Stream for PushReader {
    type Item = Pushed;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Pushed>> {
        self.0.poll_next(context).map(|next| {
            next.map(|next| match next {
                Delivery::Item(pushed) => pushed,
                Delivery::Lagged => Pushed::Gap,
            })
        })
    }
}

/// The next push of a driver's stream; `None` at its end. A stream that panics is no more of use.
pub(crate) async fn next_push(stream: &mut PushStream) -> Result<Option<Pushed>> {
    contained(async { Ok(std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await) }).await
}
