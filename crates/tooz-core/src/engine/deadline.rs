//! Until when a session lives: one deadline, judged by the clock and latched by the first that finds it passed.

use std::time::Duration;

use crate::base::clock::Moment;
use crate::base::latch::Latch;
use crate::base::loss_reason::LossReason;
use crate::base::sync::atomic::{AtomicU64, Ordering};

/// The deadline while there is none to keep: not opened yet, or the kernel is the judge.
const NEVER: u64 = Moment::NEVER.as_nanos();
/// The deadline of what is lost for ever.
const LOST: u64 = 0;

/// | deadline | means | becomes |
/// |---|---|---|
/// | `NEVER` | there is none yet | a moment, by the first credit; `LOST` |
/// | a moment | the session lives until then | a later one, by a newer credit; `LOST` |
/// | `LOST` | the session is over | nothing else |
pub(crate) struct Deadline {
    until: AtomicU64,
    expiry: AtomicU64,
    /// When the last heartbeat that counts was sent. Heartbeats of one session never overlap, so this has one writer.
    credited: AtomicU64,
    pub(crate) loss: Latch,
}

/// What the clock says of a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Lives,
    /// The deadline is passed, and that has to be latched.
    Passed,
    Lost(LossReason),
}

impl Default for Deadline {
    fn default() -> Self {
        Deadline {
            until: AtomicU64::new(NEVER),
            expiry: AtomicU64::new(NEVER),
            credited: AtomicU64::new(0),
            loss: Latch::default(),
        }
    }
}

impl Deadline {
    /// Judges. The clock is asked only where there is a deadline.
    pub(crate) fn judge(&self, now: impl FnOnce() -> Moment) -> Judgement {
        match self.until.load(Ordering::Acquire) {
            LOST => Judgement::Lost(self.loss.get().unwrap_or(LossReason::Expired)),
            NEVER => Judgement::Lives,
            deadline if now().as_nanos() >= deadline => Judgement::Passed,
            _ => Judgement::Lives,
        }
    }

    /// Lost for ever. Whether this was the first reason.
    pub(crate) fn lose(&self, reason: LossReason) -> bool {
        // The deadline goes first: what is told of the loss must find it lost already.
        self.until.store(LOST, Ordering::Release);
        self.loss.set(reason)
    }

    /// Credits a heartbeat to the moment at which it was sent. False: it came too late, and counts for nothing.
    ///
    /// An older heartbeat never moves the deadline back. A newer one does where the backend has shortened the timeout: from then on the
    /// shorter one is what it keeps.
    pub(crate) fn credit(&self, sent: Moment, timeout: Duration, margin: Duration, now: impl Fn() -> Moment) -> bool {
        let expiry = sent + timeout;
        let new = expiry.before(margin).as_nanos().max(LOST + 1);
        loop {
            let current = self.until.load(Ordering::Acquire);
            if current == LOST || (current != NEVER && now().as_nanos() >= current) {
                return false;
            }
            if sent.as_nanos() < self.credited.load(Ordering::Acquire) {
                return true;
            }
            if self.until.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                self.credited.store(sent.as_nanos(), Ordering::Release);
                self.expiry.store(expiry.as_nanos(), Ordering::Release);
                return true;
            }
        }
    }

    pub(crate) fn get(&self) -> Moment {
        Moment::from_nanos(self.until.load(Ordering::Acquire))
    }

    /// The moment at which the backend may grant to others, if nothing but the time ends the session.
    pub(crate) fn expiry(&self) -> Moment {
        Moment::from_nanos(self.expiry.load(Ordering::Acquire))
    }
}
