//! What is measured: the bare round trip, and a lock that no other wants.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tooz::driver::Verdict;
use tooz::{Coordinator, ErrorKind, Probe};

use super::PATIENCE;
use super::report::Report;
use super::scratch::Scratch;

/// How often is measured, if it does not take too long: ten of these are slower than the p99.
const SAMPLES: usize = 1_000;

/// Of fewer the p99 is one or two outliers, and the slowest is told in its place.
const ENOUGH: usize = 500;

/// A link so slow that the samples are not done by then has been measured well enough.
const LIMIT: Duration = Duration::from_secs(2);

/// Measured times, sorted.
pub(in crate::commands) struct Samples(Vec<Duration>);

impl Samples {
    async fn take<E>(mut once: impl AsyncFnMut() -> Result<(), E>) -> Result<Samples, E> {
        let begin = Instant::now();
        let mut times = Vec::with_capacity(SAMPLES);
        while times.is_empty() || (times.len() < SAMPLES && begin.elapsed() < LIMIT) {
            let sent = Instant::now();
            once().await?;
            times.push(sent.elapsed());
        }
        Ok(Samples::new(times))
    }

    /// At least one time.
    pub(in crate::commands) fn new(mut times: Vec<Duration>) -> Self {
        times.sort();
        Samples(times)
    }

    /// The time that so many of a hundred stay below; the nearest that was measured.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank - 1]
    }

    /// For people.
    pub(in crate::commands) fn words(&self) -> String {
        let (half, count) = (millis(self.percentile(50)), self.0.len());
        match self.most() {
            Some(most) => format!("p50 {half}, p99 {} ({count} times)", millis(most)),
            None => format!("p50 {half}, at most {} ({count} times)", millis(self.percentile(100))),
        }
    }

    /// For machines.
    pub(in crate::commands) fn json(&self) -> Value {
        let at = |percent| micros(self.percentile(percent));
        json!({ "p50_us": at(50), "p99_us": self.most().map(micros), "max_us": at(100), "count": self.0.len() })
    }

    /// The p99, where there are enough of them to tell.
    fn most(&self) -> Option<Duration> {
        (self.0.len() >= ENOUGH).then(|| self.percentile(99))
    }
}

/// A time in whole microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A time in milliseconds, with as many digits as mean something.
pub(super) fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    let digits = if millis < 1.0 { 3 } else { usize::from(millis < 100.0) };
    format!("{millis:.digits$} ms")
}

/// Measures the bare round trip, and judges it by the heartbeats that have to come back in time.
pub(super) async fn round_trip(coordinator: &Coordinator, report: &mut Report) {
    for (name, probe) in [("read", Probe::Read), ("write", Probe::Write)] {
        let about = if name == "read" { "round trip, read" } else { "round trip, write" };
        let samples = match Samples::take(async || coordinator.probe(probe).await).await {
            Ok(samples) => samples,
            Err(error) if error.kind() == ErrorKind::Unsupported => continue,
            Err(error) => {
                report.trouble(about, Verdict::Wrong, error.into());
                continue;
            }
        };
        report.measured(name, samples.json());
        let timeout = coordinator.terms().and_then(|terms| terms.timeout);
        let (verdict, mend) = judge(samples.percentile(99), timeout);
        report.add(about, verdict, samples.words(), mend);
    }
}

/// A heartbeat has a third of the timeout; one that needs a good part of that will be late some day.
fn judge(slowest: Duration, timeout: Option<Duration>) -> (Verdict, &'static str) {
    match timeout {
        Some(timeout) if slowest > timeout / 3 => (
            Verdict::Wrong,
            "heartbeats come back too late: raise session_timeout in the URL to far more than ten times this",
        ),
        Some(timeout) if slowest > timeout / 20 => {
            (Verdict::Warning, "heartbeats come back in time, but not by far: raise session_timeout in the URL")
        }
        _ => (Verdict::Good, ""),
    }
}

/// Measures a lock that no other wants, taken and given back.
pub(super) async fn uncontended(coordinator: &Coordinator, scratch: &Scratch, report: &mut Report) {
    let lock = match coordinator.lock(scratch.lock()) {
        Ok(lock) => lock,
        Err(error) => return report.trouble("lock and release", Verdict::Wrong, error.into()),
    };
    // Not for ever: a backend may hang after it has answered all else.
    let once = async || match lock.acquire_within(PATIENCE).await? {
        Some(guard) => guard.release().await,
        // No other process knows this name.
        None => Ok(()),
    };
    match Samples::take(once).await {
        Ok(samples) => {
            report.measured("lock_and_release", samples.json());
            report.good("lock and release", samples.words());
        }
        Err(error) => report.trouble("lock and release", Verdict::Wrong, error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_times() {
        let samples = Samples((1..=100).map(Duration::from_millis).collect());
        assert_eq!(samples.percentile(50), Duration::from_millis(50));
        assert_eq!(samples.percentile(99), Duration::from_millis(99));
        let one = Samples(vec![Duration::from_millis(7)]);
        assert_eq!((one.percentile(50), one.percentile(99)), (Duration::from_millis(7), Duration::from_millis(7)));
        assert_eq!(one.words(), "p50 7.0 ms, at most 7.0 ms (1 times)");
        assert_eq!(one.json()["p99_us"], Value::Null);
        let many = Samples(vec![Duration::from_millis(7); ENOUGH]);
        assert_eq!(many.words(), "p50 7.0 ms, p99 7.0 ms (500 times)");
    }

    #[test]
    fn a_round_trip_is_judged_by_the_heartbeat() {
        let judged = |slowest, timeout| judge(Duration::from_millis(slowest), timeout).0;
        let timeout = Some(Duration::from_secs(3));
        assert_eq!(judged(10, timeout), Verdict::Good);
        assert_eq!(judged(200, timeout), Verdict::Warning);
        assert_eq!(judged(1100, timeout), Verdict::Wrong);
        assert_eq!(judged(1100, None), Verdict::Good);
    }

    #[test]
    fn times_have_the_digits_that_mean_something() {
        assert_eq!(millis(Duration::from_micros(87)), "0.087 ms");
        assert_eq!(millis(Duration::from_micros(2345)), "2.3 ms");
        assert_eq!(millis(Duration::from_millis(2345)), "2345 ms");
    }
}
