//! How long the outcome of what is taken back may stay unknown, before the session is ended for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::clock::{Clock, Moment};
use crate::base::error::{Error, Outcome};

/// How much longer a caller waits than the request itself may take: both end at the same moment otherwise, and the request's own word tells more.
pub(crate) const MOMENT: Duration = Duration::from_millis(20);

/// However much else gets done, what is taken back is not waited for longer than so many times its patience.
const AT_MOST: u32 = 10;

/// Counts the releases, withdrawals and leaves of one session that the backend has done.
#[derive(Default)]
pub(crate) struct ReturnCounter(AtomicU64);

impl ReturnCounter {
    pub(super) fn made(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The patience with one request. Thousands that are given back at once stand before each other at the backend, so each is waited for
/// while others of its session get done: the session costs more than what is to be taken back.
pub(crate) struct Patience<'a> {
    clock: &'a Clock,
    progress: &'a ReturnCounter,
    /// How long nothing may get done.
    each: Duration,
    seen: u64,
    over: Moment,
    last: Moment,
}

impl<'a> Patience<'a> {
    pub(super) fn new(clock: &'a Clock, progress: &'a ReturnCounter, each: Duration) -> Self {
        let now = clock.now();
        let last = now + each.saturating_mul(AT_MOST);
        Patience { clock, progress, each, seen: progress.count(), over: now + each, last }
    }

    /// How long an attempt waits before it looks whether others get done. Each attempt has the whole of it: one that comes after long
    /// refusals may have to wait for its turn too.
    pub(super) fn each(&self) -> Duration {
        self.each
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Whether nothing got done since the last look, or all of it has lasted too long.
    pub(super) fn is_over(&mut self) -> bool {
        let (now, done) = (self.now(), self.progress.count());
        if done != self.seen {
            self.seen = done;
            self.over = self.last.min(now + self.each);
        }
        now >= self.over
    }

    /// Whether that error is to end the session. What can't be done just now, and surely was not, is repeated for as long as the session lives.
    pub(super) fn ends_with(&mut self, error: &Error) -> bool {
        let has_not_begun = error.is_retryable() && error.outcome() == Outcome::NotApplied;
        self.is_over() && !has_not_begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;

    const EACH: Duration = Duration::from_secs(6);

    #[test]
    fn it_lasts_while_others_get_done_but_not_for_ever() {
        let clock = Clock::movable();
        let progress = ReturnCounter::default();
        let mut patience = Patience::new(&clock, &progress, EACH);
        assert!(!patience.is_over());
        for _ in 1..AT_MOST {
            clock.advance(EACH);
            progress.made();
            assert!(!patience.is_over());
        }
        clock.advance(EACH);
        progress.made();
        assert!(patience.is_over(), "it has an end");
        let mut patience = Patience::new(&clock, &progress, EACH);
        clock.advance(EACH);
        assert!(patience.is_over(), "what got done before it began does not count");
    }

    #[test]
    fn what_surely_was_not_done_and_may_be_later_ends_nothing() {
        let clock = Clock::movable();
        let progress = ReturnCounter::default();
        let mut patience = Patience::new(&clock, &progress, EACH);
        let busy = Error::new(ErrorKind::Unavailable, "busy").with_outcome(Outcome::NotApplied);
        let lost = Error::new(ErrorKind::Unavailable, "the answer is lost").with_outcome(Outcome::Unknown);
        let refused = Error::new(ErrorKind::Unauthorized, "no").with_outcome(Outcome::NotApplied);
        assert!(!patience.ends_with(&lost));
        clock.advance(EACH);
        assert!(!patience.ends_with(&busy));
        assert!(patience.ends_with(&lost) && patience.ends_with(&refused));
    }
}
