//! The server's clock. It is a variable that is set once a second: while the server stands still so does the clock, and a heartbeat that is served
//! before the next tick counts from the old time.
//!
//! One key with a long time limit stands still in that clock, so what is left of it tells the clock's time. It is read in the same write as
//! each heartbeat, before it, and compared with what was read before.
//!
//! A heartbeat is credited from its sending, and the server counts from its clock. So what must be small is how long after the time of that clock
//! it was sent, and not how long its answer took: a slow network is no clock that stands still.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tooz_core::driver::Mutex;

use crate::reply::KEPT;

/// How many readings are compared.
const READINGS: usize = 8;

/// How long after the time of the server's clock, in seconds, a heartbeat that counts may have been sent: what a session is kept longer, and most of
/// the margin.
const LATE: f64 = 2.2;

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
    /// The last few readings of it.
    moments: VecDeque<ClockMoment>,
    /// The wall clock at its zero.
    wall: Option<f64>,
    time: Option<Bounds>,
}

/// What the clock said, and between which two of our times it said so.
#[derive(Clone, Copy)]
struct ClockMoment {
    clock: f64,
    sent: f64,
    received: f64,
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

    /// Takes a reading, and answers whether what was sent with it may be counted from the clock: whether that goes right, as far as can be known.
    pub(crate) fn read(&self, reading: &ClockReading<'_>) -> bool {
        let at = |moment: Instant| moment.duration_since(self.begun).as_secs_f64();
        let clock = seconds(i64::from(KEPT) - reading.left);
        let moment = ClockMoment { clock, sent: at(reading.sent), received: at(reading.received) };
        let mut state = self.state.lock();
        let is_known = state.mark == reading.mark || state.mark.is_empty();
        if state.mark != reading.mark {
            reading.mark.clone_into(&mut state.mark);
            state.moments.clear();
            state.wall = None;
        }
        state.moments.push_back(moment);
        if state.moments.len() > READINGS {
            state.moments.pop_front();
        }
        if let Some(wall) = state.wall {
            let (least, most) = (wall - APART + clock - moment.received, wall + BEHIND - state.first());
            state.time = Some(Bounds { least, most });
        }
        is_known && moment.sent - clock <= state.zero() + LATE
    }

    /// Whether that stands in the key by which the clock was read last.
    pub(crate) fn is_read_by(&self, mark: Option<&[u8]>) -> bool {
        mark.is_some_and(|mark| self.state.lock().mark.as_bytes() == mark)
    }

    /// The server has said its wall clock just when that was read.
    pub(crate) fn set(&self, reading: &ClockReading<'_>, wall: u64) {
        let clock = seconds(i64::from(KEPT) - reading.left);
        {
            let mut state = self.state.lock();
            if state.mark != reading.mark {
                reading.mark.clone_into(&mut state.mark);
                state.moments.clear();
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

impl ClockState {
    /// The earliest of our times at which the clock would have been at its zero, by one reading. A request on its way, too, makes it early.
    fn first(&self) -> f64 {
        self.moments.iter().map(|moment| moment.sent - moment.clock).fold(f64::INFINITY, f64::min)
    }

    /// Not before which of our times the clock was at its zero, just after a tick.
    ///
    /// Of the last few readings one at least was right, and the clock behind by no more than a second: that is what is known in any case. A reading that
    /// was long on its way says little then, and for all others, so there is another proof: where the clock has gone on between two readings it has
    /// ticked after the first was sent.
    fn zero(&self) -> f64 {
        let mut proven = f64::NEG_INFINITY;
        for (before, after) in self.moments.iter().zip(self.moments.iter().skip(1)) {
            if before.clock < after.clock {
                proven = proven.max(before.sent - after.clock);
            }
            // No answer comes before the time of its clock: where this computer has stood still itself, what it had proven is over.
            proven = proven.min(after.received - after.clock);
        }
        proven.max(self.first() - BEHIND)
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
mod tests;
