//! Whether this process stood still of late: stopped, suspended, or kept from running by other processes.
//!
//! The leader hears of a session's life from the servers, once in half a tick. The margin counts on something having been sent in
//! each of the longest silences (between two pings) before a heartbeat. From a process that stood still nothing came for longer, so that what the leader
//! knows may be older: should the server die right after the first heartbeat, the session ends before the deadline that this
//! heartbeat would give. Hence such a heartbeat has to show that the leader has heard of it.

use std::time::Duration;

use tokio::time::sleep;
use tooz_core::driver::{Clock, Moment, Mutex};

/// Notices when this process stood still.
pub(crate) struct Standstill {
    /// It goes on while the machine is suspended.
    clock: Clock,
    /// A longer time between two looks is a standstill.
    tolerated: Duration,
    seen: Mutex<Looks>,
}

struct Looks {
    last: Moment,
    stood_still_until: Option<Moment>,
}

impl Standstill {
    pub(crate) fn new(tolerated: Duration) -> Self {
        Self::by(Clock::boot_time(), tolerated)
    }

    fn by(clock: Clock, tolerated: Duration) -> Self {
        let seen = Mutex::new(Looks { last: clock.now(), stood_still_until: None });
        Standstill { clock, tolerated, seen }
    }

    /// Looks twice in the tolerated time, for ever.
    pub(crate) async fn run(&self) {
        loop {
            self.look();
            sleep(self.tolerated / 2).await;
        }
    }

    /// When it last ceased to stand still, if that is not longer ago than `time`.
    pub(crate) fn ended_within(&self, time: Duration) -> Option<Moment> {
        self.look();
        let until = self.seen.lock().stood_still_until;
        until.filter(|until| self.clock.now().since(*until) < time)
    }

    fn look(&self) {
        let mut seen = self.seen.lock();
        let now = self.clock.now();
        if now.since(seen.last) > self.tolerated {
            seen.stood_still_until = Some(now);
        }
        seen.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_remembered_for_a_while() {
        const TOLERATED: Duration = Duration::from_mins(1);
        const MEMORY: Duration = Duration::from_secs(150);
        let clock = Clock::movable();
        let standstill = Standstill::by(clock.clone(), TOLERATED);
        // Between the steps the clock goes on by itself.
        clock.advance(TOLERATED / 2);
        assert_eq!(standstill.ended_within(MEMORY), None, "it was in time");
        clock.advance(TOLERATED * 2);
        let until = standstill.ended_within(MEMORY);
        for _ in 0..5 {
            assert!(until.is_some() && standstill.ended_within(MEMORY) == until);
            clock.advance(TOLERATED / 2);
        }
        assert_eq!(standstill.ended_within(MEMORY), None, "it is over");
    }
}
