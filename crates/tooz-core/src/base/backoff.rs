//! How long to pause before the next try.

use std::ops::Range;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// More than any limit of a wait, and little enough to be added to a moment.
pub(crate) const A_DAY: Duration = Duration::from_hours(24);

/// How much later than it said a backend may end a session.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// A time by chance between these two parts of `time`, so that many that began together do not go on in step.
pub fn spread(time: Duration, parts: Range<f64>) -> Duration {
    time.mul_f64(parts.start + (parts.end - parts.start) * fastrand::f64())
}

/// Growing pauses without an end, for what is tried again and again.
///
/// Each is up to twice as long as the one before, and up to twice as long as it says by chance (`backon`'s jitter), so that many calls that
/// failed together do not come back together.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
}

impl Backoff {
    /// Pauses from the least to the most, to which chance adds up to as much again.
    pub fn between(least: Duration, most: Duration) -> Self {
        let builder =
            ExponentialBuilder::new().with_min_delay(least).with_max_delay(most).with_jitter().without_max_times();
        Backoff { builder, pauses: builder.build() }
    }

    /// For a backend that can't be reached: soon at first, then about once in two seconds.
    pub(crate) fn for_reconnects() -> Self {
        Self::between(Duration::from_millis(50), Duration::from_secs(1))
    }

    /// Begins at the least again: something worked.
    pub fn reset(&mut self) {
        self.pauses = self.builder.build();
    }

    /// Sleeps until the next try.
    ///
    /// # Cancel safety
    /// Dropping it ends the pause; the next one is longer nevertheless.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// How long the next pause is.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and takes part in no chain of iterators")]
    pub fn next(&mut self) -> Duration {
        self.pauses.next().unwrap_or(Duration::from_secs(1))
    }
}
