//! The clock that judges deadlines: it counts on while the machine sleeps, and a test can move it forward.

use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// A point in time of a [`Clock`], in nanoseconds since the machine was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment that never comes.
    pub const NEVER: Moment = Moment(u64::MAX);

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Moment(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment that lies `duration` before this one.
    pub fn before(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_sub(nanos(duration)))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(duration)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A clock that never goes back and counts the time in which the machine was suspended (`CLOCK_BOOTTIME` on Linux).
///
/// Clones are the same clock. [`advance`](Self::advance) is for test doubles: it moves all clones forward.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Shift>>);

#[derive(Debug, Default)]
struct Shift {
    nanos: AtomicU64,
    moved: Notify,
}

impl Clock {
    /// The machine's clock. A test can't move it.
    pub const fn boot_time() -> Self {
        Clock(None)
    }

    /// The machine's clock plus a shift that starts at zero and only grows.
    pub fn movable() -> Self {
        Clock(Some(Arc::default()))
    }

    /// Now.
    pub fn now(&self) -> Moment {
        let shift = self.0.as_ref().map_or(0, |shift| shift.nanos.load(Ordering::Acquire));
        Moment(boot_nanos().saturating_add(shift))
    }

    /// Moves a movable clock forward and wakes the tasks that sleep by it. Does nothing to the machine's clock.
    pub fn advance(&self, by: Duration) {
        if let Some(shift) = &self.0 {
            shift.nanos.fetch_add(nanos(by), Ordering::AcqRel);
            shift.moved.notify_waiters();
        }
    }

    /// Sleeps until `moment`, also when the clock is moved past it meanwhile.
    ///
    /// A suspended machine does not count while it sleeps, so this may end up to a second after a resume: the sleep is
    /// cut into seconds and the clock is read again after each.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn sleep_until(&self, moment: Moment) {
        loop {
            // Listening begins before the clock is read, so that a move in between is heard.
            let moved = self.moved();
            tokio::pin!(moved);
            let left = moment.since(self.now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(Duration::from_secs(1))) => {}
                () = &mut moved => {}
            }
        }
    }

    fn moved(&self) -> impl Future<Output = ()> + '_ {
        let notified = self.0.as_ref().map(|shift| shift.moved.notified());
        async move {
            match notified {
                Some(notified) => notified.await,
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(unix)]
fn boot_nanos() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
    // Elsewhere the monotonic clock is the nearest; on Apple systems it counts sleep as well.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;
    let time = clock_gettime(CLOCK).expect("the clock is part of every supported kernel");
    #[allow(clippy::cast_sign_loss, clippy::useless_conversion)]
    {
        i64::from(time.tv_sec()) as u64 * 1_000_000_000 + i64::from(time.tv_nsec()) as u64
    }
}

#[cfg(not(unix))]
fn boot_nanos() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    nanos(START.get_or_init(Instant::now).elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_moved_clock_wakes_its_sleepers() {
        let clock = Clock::movable();
        let until = clock.now() + Duration::from_hours(1);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(until).await }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_hours(2));
        sleeper.await.unwrap();
    }
}
