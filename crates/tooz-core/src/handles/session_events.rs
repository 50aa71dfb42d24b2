//! What happens to a session, as a stream to follow.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::base::event_queue::{Delivery, Reader};
use crate::base::session_event::SessionEvent;

/// The stream of [`SessionEvent`]s; it ends when the coordinator is closed. A reader that falls more than a thousand events
/// behind misses some; [`Coordinator::state`](crate::Coordinator::state) is always the present one.
///
/// ```
/// use tooz_core::SessionEvent;
/// # use tooz_memory as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tooz_core::Result<()> {
/// # let coordinator = tooz_core::connect("memory://session-events", "worker-1").await?;
/// let mut events = coordinator.events();
/// let guard = coordinator.lock("nightly")?.acquire().await?;
/// # guard.release().await?;
/// # coordinator.close().await?;
/// while let Some(event) = events.next().await {
///     match event {
///         SessionEvent::Suspended(error) => println!("what is held is sure until its deadline only: {error}"),
///         SessionEvent::Troubled(error) => println!("tried again, but needs help: {error}"),
///         other => println!("{other:?}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
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
                Some(Delivery::Item(event)) => return Poll::Ready(Some(event)),
                Some(Delivery::Lagged) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}
