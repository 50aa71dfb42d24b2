//! What the watches of groups and of leaders share: how they begin, and how often they look without being told.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::base::backoff::spread;
use crate::base::error::{Error, ErrorKind, Result};
use crate::driver::push::{PushStream, Pushed, next_push};
use crate::engine::inner::Inner;
use crate::engine::patience::MOMENT;

/// How often to read without being told: where nothing is pushed, often; where it is, once in a session timeout.
pub(crate) fn reading_period(inner: &Inner, pushed: bool) -> Duration {
    let timeout = inner.settings.session_timeout;
    let period =
        if pushed { timeout } else { (timeout / 20).clamp(Duration::from_millis(50), Duration::from_millis(500)) };
    spread(period, 0.8..1.0)
}

/// The first answer of a watch, under any executor, at most after the operation timeout: a caller that gives up by that ends it.
pub(crate) async fn started_within(
    inner: &Inner,
    start: oneshot::Receiver<Result<()>>,
    what: impl FnOnce() -> String,
) -> Result<()> {
    let limit = inner.settings.operation_timeout;
    let mut start = pin!(start);
    let mut timer = inner.heart().timer(limit.saturating_add(MOMENT));
    let answer = poll_fn(|context| match start.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => timer.poll(context).map(|()| None),
    });
    let late = || {
        let message =
            format!("no answer within {limit:?}: {}; raise operation_timeout if the backend is just slow", what());
        Error::new(ErrorKind::TimedOut, message)
    };
    let result = match answer.await {
        Some(answer) => answer.unwrap_or_else(|_| Err(Error::closed())),
        None if inner.heart().is_stopped() => Err(Error::closed()),
        None => Err(late()),
    };
    result.map_err(|error| error.in_driver(inner.driver.name()))
}

pub(crate) async fn wait_for_ready(stream: &mut PushStream, limit: Duration) -> Result<()> {
    let ready = async {
        while let Some(pushed) = next_push(stream).await? {
            if matches!(pushed, Pushed::Ready) {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the backend ended the watch before it began"))
    };
    tokio::time::timeout(limit, ready)
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::TimedOut, format!("the watch was not ready within {limit:?}"))))
}

/// The next push; never, where nothing is pushed.
pub(crate) async fn next_of(stream: &mut Option<PushStream>) -> Result<Option<Pushed>> {
    match stream {
        Some(stream) => next_push(stream).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::push::push_channel;

    #[tokio::test]
    async fn a_watch_has_begun_when_it_says_so_and_not_before() {
        let (pusher, mut stream) = push_channel();
        pusher.push(Pushed::Dirty);
        let late = wait_for_ready(&mut stream, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        pusher.push(Pushed::Ready);
        wait_for_ready(&mut stream, Duration::from_secs(10)).await.unwrap();
        drop(pusher);
        let ended = wait_for_ready(&mut stream, Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::Unavailable);
    }
}
