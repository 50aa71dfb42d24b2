//! The server's clock. It is a variable that is set once a second: while the server stands still so does the clock, and a heartbeat that is served
//! before the next tick counts from the old time.
//!
//! One key with a long time limit stands still in that clock, so what is left of it tells the clock's time. It is read in the same write as
//! each heartbeat, before it, and compared with what was read before.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tooz_core::driver::Mutex;

use crate::reply::KEPT;

/// How many readings are compared.
const READINGS: usize = 8;

/// How far the clock may be behind where it was seen to be: a second between two ticks, and what a request may take.
const LAG: Duration = Duration::from_millis(1200);

/// So long after the server has gone on its clock is right: it has ticked.
pub(crate) const TICK: Duration = Duration::from_millis(1100);

/// How far the clock is behind the server's time at most, just before a tick.
const BEHIND: f64 = 1.0;

/// By how much the wall clock that is read may be later than the clock that is read before it in the same request: a tick.
const APART: f64 = 1.0;

/// How long before it arrives a first token may have been reckoned.
const UNDER_WAY: f64 = 1.0;

/// By how much the server keeps a session longer than its timeout: its clock may be a second behind when it begins to count, and is a second too
/// early when it ends.
pub(crate) const LONGER: u64 = 2;

/// The clock as this session has seen it.
pub(crate) struct ServerClock {
    begun: Instant,
    state: Mutex<ClockState>,
}

#[derive(Default)]
struct ClockState {
    /// Which key was read: another one would make another zero.
    mark: String,
    /// At which of our times the clock would have been at its zero, by each reading; the true one is not before that.
    zeros: VecDeque<f64>,
    /// The wall clock at its zero.
    wall: Option<f64>,
    time: Option<Bounds>,
}

/// Between which two the server's time is.
#[derive(Clone, Copy)]
struct Bounds {
    /// What it was at the least when ours was zero.
    least: f64,
    /// What it was at the most. Where the clock is behind in one reading, an earlier one keeps this one up.
    most: f64,
}

/// What was read in one request.
pub(crate) struct ClockReading<'a> {
    pub(crate) mark: &'a str,
    /// How many seconds are left of that key.
    pub(crate) left: i64,
    pub(crate) sent: Instant,
    pub(crate) received: Instant,
}

impl ServerClock {
    pub(crate) fn new() -> Self {
        ServerClock { begun: Instant::now(), state: Mutex::default() }
    }

    /// Takes a reading, and answers whether the clock goes right, as far as can be known.
    pub(crate) fn read(&self, reading: &ClockReading<'_>) -> bool {
        let clock = seconds(i64::from(KEPT) - reading.left);
        let at = |moment: Instant| moment.duration_since(self.begun).as_secs_f64();
        let mut state = self.state.lock();
        let is_known = state.mark == reading.mark || state.mark.is_empty();
        if state.mark != reading.mark {
            reading.mark.clone_into(&mut state.mark);
            state.zeros.clear();
            state.wall = None;
        }
        state.zeros.push_back(at(reading.sent) - clock);
        if state.zeros.len() > READINGS {
            state.zeros.pop_front();
        }
        let first = state.zeros.iter().copied().fold(f64::INFINITY, f64::min);
        if let Some(wall) = state.wall {
            let (least, most) = (wall - APART + clock - at(reading.received), wall + BEHIND - first);
            state.time = Some(Bounds { least, most });
        }
        is_known && at(reading.received) - clock - first <= LAG.as_secs_f64()
    }

    /// The server has said its wall clock just when that was read.
    pub(crate) fn set(&self, reading: &ClockReading<'_>, wall: u64) {
        let clock = seconds(i64::from(KEPT) - reading.left);
        {
            let mut state = self.state.lock();
            if state.mark != reading.mark {
                reading.mark.clone_into(&mut state.mark);
                state.zeros.clear();
            }
            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
            let wall = wall as f64;
            state.wall = Some(wall - clock);
        }
        self.read(reading);
    }

    /// The server has said its wall clock, and of its other clock nothing is known.
    pub(crate) fn set_wall(&self, wall: u64, sent: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
        let wall = wall as f64;
        let sent = sent.duration_since(self.begun).as_secs_f64();
        self.state.lock().time =
            Some(Bounds { least: wall - self.begun.elapsed().as_secs_f64(), most: wall + BEHIND - sent });
    }

    /// The server's time in µs, or later, whichever client reckons it: where a journal begins, its first token is that.
    pub(crate) fn token(&self) -> u64 {
        let time = self.state.lock().time.map_or(0.0, |time| time.most + self.begun.elapsed().as_secs_f64());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "µs since 1970 are below 2^53")]
        let token = (time * 1e6) as u64;
        token
    }

    /// How long it takes until a journal that begins anew begins with a later token than that one, whichever client begins it.
    pub(crate) fn until_past(&self, token: u64) -> Duration {
        let time = self.state.lock().time.map_or(0.0, |time| time.least + self.begun.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "µs since 1970 are below 2^53")]
        let token = token as f64 / 1e6;
        Duration::try_from_secs_f64(token + UNDER_WAY - time).unwrap_or_default()
    }
}

/// How many seconds a session of that timeout is kept.
pub(crate) fn kept(timeout: Duration) -> u32 {
    let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0) + LONGER;
    u32::try_from(seconds).unwrap_or(KEPT).min(KEPT)
}

fn seconds(count: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "at most thirty days")]
    let seconds = count as f64;
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server's clock says that stood still for `lag`, when that many seconds have passed.
    fn read(clock: &ServerClock, passed: f64, lag: f64) -> bool {
        let sent = clock.begun + Duration::from_secs_f64(passed);
        #[expect(clippy::cast_possible_truncation)]
        let left = i64::from(KEPT) - (passed - lag) as i64;
        clock.read(&ClockReading { mark: "a", left, sent, received: sent + Duration::from_millis(5) })
    }

    #[test]
    fn a_clock_that_ticks_is_right_at_any_phase() {
        for phase in 0..20 {
            let clock = ServerClock::new();
            for beat in 0..40 {
                assert!(read(&clock, 10.0 + f64::from(phase) * 0.05 + f64::from(beat) * 0.67, 0.0), "{phase} {beat}");
            }
        }
    }

    #[test]
    fn a_clock_that_stood_still_is_wrong_until_it_ticks() {
        let clock = ServerClock::new();
        assert!(read(&clock, 10.2, 0.0));
        assert!(read(&clock, 13.5, 0.0));
        assert!(!read(&clock, 19.5, 6.0));
        assert!(!read(&clock, 19.6, 3.0));
        assert!(read(&clock, 20.7, 0.0));
    }

    #[test]
    fn another_mark_begins_anew_and_is_no_proof() {
        let clock = ServerClock::new();
        assert!(read(&clock, 10.0, 0.0));
        let sent = clock.begun + Duration::from_secs(12);
        let reading = ClockReading { mark: "b", left: i64::from(KEPT), sent, received: sent };
        assert!(!clock.read(&reading));
        assert!(clock.read(&ClockReading {
            left: i64::from(KEPT) - 1,
            sent: sent + Duration::from_secs(1),
            received: sent + Duration::from_secs(1),
            ..reading
        }));
    }

    #[test]
    fn tokens_are_not_behind_the_servers_time() {
        let clock = ServerClock::new();
        let now = Instant::now();
        clock.set(&ClockReading { mark: "a", left: i64::from(KEPT) - 5, sent: now, received: now }, 1_800_000_000);
        let token = clock.token();
        assert!((1_800_000_001_000_000..1_800_000_002_000_000).contains(&token), "{token}");
        // The next reading moves it on by the server's clock, and not by ours.
        clock.read(&ClockReading { mark: "a", left: i64::from(KEPT) - 65, sent: now, received: now });
        assert!(clock.token() >= token + 59_000_000);
    }

    /// One reckons at the end of the server's second, the other at its beginning: what is the latest time for the one is past for the other only
    /// when it is past for all.
    #[test]
    fn a_token_is_past_only_when_it_is_past_for_all() {
        let now = Instant::now();
        let reckon = |begun_ms: u64, sent_ms: u64, received_ms: u64| {
            let clock = ServerClock { begun: now + Duration::from_millis(begun_ms), state: Mutex::default() };
            let [sent, received] = [sent_ms, received_ms].map(|ms| now + Duration::from_millis(ms));
            // The server's second 5 lasts from 100 to 1100 ms.
            clock.set(&ClockReading { mark: "a", left: i64::from(KEPT) - 5, sent, received }, 1_800_000_000);
            clock
        };
        let all = [reckon(0, 101, 102), reckon(50, 1090, 1099), reckon(0, 500, 700)];
        let at = |clock: &ServerClock, passed: f64| {
            let time = clock.state.lock().time.unwrap();
            let ours = passed - clock.begun.duration_since(now).as_secs_f64();
            (time.least + ours, time.most + ours)
        };
        for clock in &all {
            let (least, most) = at(clock, 2.0);
            let true_time = 1_800_000_001.9;
            assert!(least <= true_time && true_time <= most, "{least} {most}");
        }
        let token = all[0].token();
        for clock in &all {
            let wait = clock.until_past(token);
            assert!(wait > Duration::from_secs(1) && wait < Duration::from_secs(6), "{wait:?}");
            assert_eq!(clock.until_past(token - 10_000_000), Duration::ZERO);
        }
    }

    /// The clock of a server that stood still is behind until it ticks; tokens are not.
    #[test]
    fn a_clock_that_stood_still_takes_no_token_back() {
        let clock = ServerClock::new();
        let now = clock.begun + Duration::from_secs(20);
        clock.set(&ClockReading { mark: "a", left: i64::from(KEPT) - 14, sent: now, received: now }, 1_800_000_000);
        let before = clock.token();
        let later = now + Duration::from_secs(6);
        clock.read(&ClockReading { mark: "a", left: i64::from(KEPT) - 14, sent: later, received: later });
        assert!(clock.token() >= before);
    }
}
