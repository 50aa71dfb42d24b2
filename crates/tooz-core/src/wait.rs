//! Patience: how long to pause before the next try, and the lock wait of a backend that can't queue.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::contain::contained;
use crate::mailbox::PushStream;
use crate::session::{Granted, LockRequest, Pushed, Session, Wanted};
use crate::{ErrorKind, Result};

/// More than any limit that somebody waits for, and little enough to be added to a moment.
pub(crate) const A_DAY: Duration = Duration::from_hours(24);

/// Growing, jittered pauses without an end.
pub(crate) struct Backoff {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
}

impl Backoff {
    pub(crate) fn between(least: Duration, most: Duration) -> Self {
        let builder =
            ExponentialBuilder::new().with_min_delay(least).with_max_delay(most).with_jitter().without_max_times();
        Backoff { builder, pauses: builder.build() }
    }

    /// For a backend that can't be reached: soon at first, then about once in two seconds.
    pub(crate) fn for_reconnects() -> Self {
        Self::between(Duration::from_millis(50), Duration::from_secs(1))
    }

    pub(crate) fn reset(&mut self) {
        self.pauses = self.builder.build();
    }

    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// How long the next pause is.
    pub(crate) fn next(&mut self) -> Duration {
        self.pauses.next().unwrap_or(Duration::from_secs(1))
    }
}

/// The default of [`Session::lock`]: try, and try again at each hint of the lock's watch or after a short jittered pause.
pub(crate) async fn by_trying<S: Session + ?Sized>(
    session: &S,
    request: &LockRequest,
    wanted: &Wanted,
) -> Result<Option<Granted>> {
    if let Some(granted) = session.try_lock(request).await? {
        return Ok(Some(granted));
    }
    wanted.queued();
    // Without hints it is tried from time to time.
    let mut hints = match session.watch_lock(&request.key).await {
        Err(error) if error.kind() == ErrorKind::Lost => return Err(error),
        hints => hints.unwrap_or(None),
    };
    // Hints may be lost, so even with them the lock is tried from time to time.
    let most = if hints.is_some() { Duration::from_secs(1) } else { Duration::from_millis(200) };
    let mut pauses = Backoff::between(Duration::from_millis(5), most);
    while wanted.is_wanted() {
        if let Some(granted) = session.try_lock(request).await? {
            return Ok(Some(granted));
        }
        tokio::select! {
            () = pauses.pause() => {}
            ended = hint(&mut hints) => {
                pauses.reset();
                if ended {
                    hints = None;
                }
            }
            () = wanted.unwanted() => {}
        }
    }
    Ok(None)
}

/// Waits for a hint; true when there will be no more.
async fn hint(hints: &mut Option<PushStream>) -> bool {
    match hints {
        Some(stream) => !matches!(next_push(stream).await, Ok(Some(_))),
        None => std::future::pending().await,
    }
}

/// The next push of a driver's stream; `None` at its end. A stream that panics is no more of use.
pub(crate) async fn next_push(stream: &mut PushStream) -> Result<Option<Pushed>> {
    contained(async { Ok(std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await) }).await
}
