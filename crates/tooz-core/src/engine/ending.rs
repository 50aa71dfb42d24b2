//! How a session is ended at the backend: once while the coordinator lives on, and for good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::backoff::{A_DAY, Backoff};
use crate::base::contain::contained;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::loss_reason::LossReason;
use crate::engine::inner::Inner;
use crate::engine::live_session::LiveSession;

/// Ends a session at the backend, for at most the operation timeout. An attempt that has failed then is repeated beside what comes next, as
/// long as the session could live: what it owned would be in the way of the next one.
pub(super) async fn end(inner: &Inner, live: &Arc<LiveSession>) -> Result<()> {
    let limit = inner.settings.operation_timeout;
    let ended = close_once(live, limit).await;
    live.ended.set(live.check().unwrap_or(LossReason::SessionEnded));
    if ended.is_err() {
        let live = Arc::clone(live);
        let timeout = live.terms().ok().and_then(|terms| terms.timeout);
        let give_up = Instant::now() + timeout.unwrap_or(inner.settings.session_timeout).min(A_DAY);
        tokio::spawn(async move {
            let mut pauses = Backoff::for_reconnects();
            while Instant::now() < give_up && close_once(&live, limit).await.is_err() {
                pauses.pause().await;
            }
        });
    }
    ended
}

/// Ends the last session at the backend, for at most the operation timeout. The attempts are repeated within that, and none goes on beside it.
pub(super) async fn end_for_good(inner: &Inner, live: &Arc<LiveSession>) -> Result<()> {
    let limit = inner.settings.operation_timeout;
    let give_up = Instant::now() + limit.min(A_DAY);
    let mut pauses = Backoff::for_reconnects();
    // A later Ok may mean no more than that there is nothing left to ask over: what the first attempt met is what is told.
    let mut first = None;
    let ended = loop {
        let left = give_up.saturating_duration_since(Instant::now());
        let ended = close_once(live, left).await.map_err(|error| match error.kind() {
            // The last of several attempts had less time than all of them.
            ErrorKind::TimedOut if Instant::now() >= give_up => not_ended_within(limit),
            _ => error,
        });
        match &ended {
            Err(error) if error.is_retryable() && give_up > Instant::now() => {
                first.get_or_insert_with(|| error.clone());
                tokio::time::timeout_at(give_up.into(), pauses.pause()).await.unwrap_or_default();
                if Instant::now() >= give_up {
                    break ended;
                }
            }
            _ => break ended,
        }
    };
    live.ended.set(live.check().unwrap_or(LossReason::SessionEnded));
    first.map_or(ended, Err)
}

pub(super) async fn close_once(live: &Arc<LiveSession>, limit: Duration) -> Result<()> {
    let session = Arc::clone(live.session());
    let closing = contained(async move { session.close().await });
    tokio::time::timeout(limit, closing).await.unwrap_or_else(|_| Err(not_ended_within(limit)))
}

fn not_ended_within(limit: Duration) -> Error {
    Error::new(
        ErrorKind::TimedOut,
        format!("the session could not be ended within {limit:.1?}; the backend ends it at its timeout"),
    )
}
