//! Durations as a histogram: percentiles of what was measured, no averages.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// How long nothing happens before a hand-over, so that the waiter is in the queue.
pub(crate) const SILENCE: Duration = Duration::from_millis(10);

/// What was measured, in nanoseconds.
pub(crate) struct Sample {
    histogram: Histogram<u64>,
    /// So many come first that do not count.
    warm_up: usize,
}

impl Sample {
    pub(crate) fn new() -> Self {
        // Three digits, from a nanosecond to an hour: what is measured lies well within.
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("the bounds are constants");
        Sample { histogram, warm_up: 0 }
    }

    /// Of [`with_warm_up`] rounds, those that count.
    pub(crate) fn after_warm_up(rounds: usize) -> Self {
        Sample { warm_up: warm_up(rounds), ..Sample::new() }
    }

    /// Of nanoseconds.
    pub(crate) fn of<'a>(times: impl IntoIterator<Item = &'a u64>) -> Self {
        let mut sample = Sample::new();
        times.into_iter().for_each(|time| sample.add(Duration::from_nanos(*time)));
        sample
    }

    pub(crate) fn add(&mut self, duration: Duration) {
        if self.warm_up > 0 {
            self.warm_up -= 1;
            return;
        }
        self.histogram.saturating_record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    /// Adds what `future` takes, and passes its answer on.
    pub(crate) async fn time<T>(&mut self, future: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let answer = future.await;
        self.add(begun.elapsed());
        answer
    }

    pub(crate) fn median(&self) -> Duration {
        Duration::from_nanos(self.summary().p50)
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            count: self.histogram.len(),
            p50: self.histogram.value_at_quantile(0.5),
            p99: self.histogram.value_at_quantile(0.99),
            max: self.histogram.max(),
        }
    }
}

/// The one in the middle; not a number where there is none.
pub(crate) fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// So many rounds, and before them some to warm up.
pub(crate) const fn with_warm_up(rounds: usize) -> usize {
    rounds + warm_up(rounds)
}

const fn warm_up(rounds: usize) -> usize {
    rounds / 10
}

/// Percentiles in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

/// Nanoseconds as people read them, three digits.
pub(crate) fn words(nanos: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let nanos = nanos as f64;
    let (value, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    if value < 10.0 {
        format!("{value:.2} {unit}")
    } else if value < 100.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}
