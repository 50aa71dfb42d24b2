//! Tries of a change that meets others' changes: with pauses by chance in between, until the time for it is over.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tooz_core::driver::Backoff;

/// The tries of one change.
pub(crate) struct Tries {
    pauses: Backoff,
    end: Instant,
    is_first: bool,
}

impl Tries {
    pub(crate) fn within(time: Duration) -> Self {
        let pauses = Backoff::between(Duration::from_millis(2), Duration::from_millis(50));
        Tries { pauses, end: Instant::now() + time, is_first: true }
    }

    /// Waits for the next try; the first comes at once. False: the time is over.
    pub(crate) async fn next(&mut self) -> bool {
        if std::mem::take(&mut self.is_first) {
            return true;
        }
        let pause = self.pauses.next();
        if Instant::now() + pause >= self.end {
            return false;
        }
        sleep(pause).await;
        true
    }

    /// Waits for something else within the same time; `None`: the time is over.
    pub(crate) async fn wait_for<T>(&self, other: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.end, other).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tries_go_on_until_the_time_is_over() {
        let (began, mut tries, mut count) = (Instant::now(), Tries::within(Duration::from_secs(5)), 0);
        while tries.next().await {
            count += 1;
        }
        assert!(count > 20, "{count}");
        assert!(began.elapsed() <= Duration::from_secs(5));
        assert!(tries.wait_for(std::future::pending::<()>()).await.is_none());
        assert!(Tries::within(Duration::ZERO).next().await, "one there is at least");
    }
}
