//! How far the leader's knowledge of a session may lag behind, and the margins that follow. Arithmetic alone: nothing here waits.

use std::time::Duration;

/// A connection is dead when nothing has come from the server for this long; the library pings often enough to know.
pub(crate) fn idle_timeout(asked: Duration) -> Duration {
    asked / 5
}

/// What a session and its ensemble agreed upon, and the pace of the servers.
#[derive(Clone, Copy)]
pub(crate) struct Timing {
    /// The session timeout that was asked for.
    pub(crate) asked: Duration,
    /// The session timeout that the ensemble agreed to.
    pub(crate) negotiated: Duration,
    /// The servers' tick, as well as it is known.
    pub(crate) tick: Duration,
}

impl Timing {
    /// The longest time between two pings, by the rules of the client library: it pings after three of its ticks, and looks once in a tick.
    fn longest_silence(self) -> Duration {
        let idle = idle_timeout(self.asked);
        let tick = if idle > self.negotiated * 3 / 5 { self.negotiated / 20 } else { idle / 8 };
        (tick * 3).min(Duration::from_secs(10)) + tick
    }

    /// How long this process may stand still without consequences.
    pub(crate) fn tolerated_standstill(self) -> Duration {
        self.longest_silence() / 2
    }

    /// After how long the servers have told their leader which sessions are alive: they do so twice in a tick.
    pub(crate) fn telling(self) -> Duration {
        self.tick.mul_f64(0.6)
    }

    /// The longest time by which the leader's knowledge of this session may lag behind: the servers tell it of pings once in
    /// half a tick, and a ping may be a while ago, a little longer where this process did not run in between.
    pub(crate) fn lag(self) -> Duration {
        self.longest_silence() + self.tolerated_standstill() + self.telling()
    }

    /// The smallest safe time between the deadline and the end of the session.
    pub(crate) fn margin(self) -> Duration {
        self.lag().max(self.negotiated / 4)
    }

    /// What is left to the deadline when a heartbeat is due, less a tenth for the heartbeats themselves.
    pub(crate) fn left_for_a_beat(self) -> Duration {
        (self.negotiated * 2 / 3).saturating_sub(self.margin() + self.negotiated / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_grows_with_the_tick_and_is_a_quarter_at_least() {
        let timing = |seconds, tick| {
            let timeout = Duration::from_secs(seconds);
            Timing { asked: timeout, negotiated: timeout, tick: Duration::from_millis(tick) }
        };
        assert_eq!(timing(60, 100).margin(), Duration::from_secs(15));
        let (fast, slow) = (timing(10, 250).margin(), timing(10, 6000).margin());
        assert!(fast < slow && slow > Duration::from_millis(3600), "{fast:?} {slow:?}");
        assert_eq!(timing(10, 6000).left_for_a_beat() + slow + Duration::from_secs(1), Duration::from_secs(10) * 2 / 3);
        assert_eq!(timing(2, 6000).left_for_a_beat(), Duration::ZERO);
    }
}
