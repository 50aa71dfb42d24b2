//! How the way to the backend is: the round trip, and, where a session was wanted, how long it is sure and when its last heartbeat was.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tooz::{Coordinator, ErrorKind, LockGuard, Probe, SessionState};

use super::super::doctor::figures::Samples;
use crate::exit;
use crate::failure::CommandFailure;
use crate::speech::words::{in_words, on_one_line};

/// The lock that a session for looking has: it shares it with others of its kind.
const LOCK: &str = "tooz-status";

/// How long a session may take to be opened: a screen stands still meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many round trips are remembered.
const REMEMBERED: usize = 1_000;

/// How long is measured for a single look.
const SHORT_WHILE: Duration = Duration::from_millis(300);

/// What is measured again and again.
#[derive(Default)]
pub(super) struct Pulse {
    guard: Option<LockGuard>,
    round_trips: VecDeque<Duration>,
    /// Why there is no round trip.
    trouble: Option<String>,
}

/// How it is at one moment.
pub(super) struct Health {
    driver: &'static str,
    member: String,
    state: SessionState,
    round_trips: Option<Samples>,
    trouble: Option<String>,
    session: Option<SessionHealth>,
}

/// How long a session is sure.
struct SessionHealth {
    /// `None`: for as long as the process lives.
    timing: Option<Timing>,
}

struct Timing {
    timeout: Duration,
    remaining: Duration,
    last_heartbeat: Duration,
}

/// How long it took, or why there was none.
pub(super) type RoundTrip = Result<Duration, String>;

/// One bare round trip.
pub(super) async fn round_trip(coordinator: &Coordinator) -> RoundTrip {
    let begin = Instant::now();
    match coordinator.probe(Probe::Read).await {
        Ok(()) => Ok(begin.elapsed()),
        Err(error) if error.kind() == ErrorKind::Unsupported => Err("not told by this driver".to_owned()),
        Err(error) => Err(on_one_line(&in_words(&error))),
    }
}

impl Pulse {
    /// Opens a session: one that only looks has none.
    pub(super) async fn open_session(&mut self, coordinator: &Coordinator) -> Result<(), CommandFailure> {
        if self.guard.is_none() {
            let lock = coordinator.lock(LOCK)?;
            self.guard = lock.shared().acquire_within(PATIENCE).await?;
            if self.guard.is_none() {
                let code = exit::NOT_ACQUIRED;
                return Err(CommandFailure::not_acquired(
                    code,
                    format!("lock {LOCK:?} is held exclusively by another"),
                ));
            }
        }
        Ok(())
    }

    pub(super) async fn close_session(&mut self) {
        if let Some(guard) = self.guard.take() {
            // What could not be released ends with the session, right after this.
            let _ = guard.release().await;
        }
    }

    pub(super) fn has_session(&self) -> bool {
        self.guard.is_some()
    }

    /// Takes note of a round trip.
    pub(super) fn note(&mut self, round_trip: RoundTrip) {
        match round_trip {
            Ok(time) => {
                self.round_trips.push_back(time);
                if self.round_trips.len() > REMEMBERED {
                    self.round_trips.pop_front();
                }
                self.trouble = None;
            }
            Err(why) => self.trouble = Some(why),
        }
    }

    /// As many as can be had in a short while.
    pub(super) async fn measure_often(&mut self, coordinator: &Coordinator) {
        let begin = Instant::now();
        while self.trouble.is_none() && self.round_trips.len() < REMEMBERED && begin.elapsed() < SHORT_WHILE {
            self.note(round_trip(coordinator).await);
        }
    }

    pub(super) fn health(&self, coordinator: &Coordinator) -> Health {
        let times: Vec<_> = self.round_trips.iter().copied().collect();
        Health {
            driver: coordinator.driver().name(),
            member: coordinator.member().to_string(),
            state: coordinator.state(),
            round_trips: (!times.is_empty()).then(|| Samples::new(times)),
            trouble: self.trouble.clone(),
            session: self.guard.as_ref().map(|guard| SessionHealth { timing: timing(coordinator, guard) }),
        }
    }
}

/// The deadline lies a margin before the timeout, both counted from the last heartbeat that was answered.
fn timing(coordinator: &Coordinator, guard: &LockGuard) -> Option<Timing> {
    let (terms, remaining) = (coordinator.terms()?, guard.remaining()?);
    let timeout = terms.timeout?;
    let whole = timeout.saturating_sub(terms.margin.max(timeout / 10));
    Some(Timing { timeout, remaining, last_heartbeat: whole.saturating_sub(remaining) })
}

impl Health {
    /// Two lines for people.
    pub(super) fn lines(&self) -> [String; 2] {
        let round_trip = match (&self.trouble, &self.round_trips) {
            (Some(why), _) => why.clone(),
            (None, Some(samples)) => samples.words(),
            (None, None) => "not measured yet".to_owned(),
        };
        let session = match &self.session {
            None => "none: this only looks (--session, or the key s, opens one)".to_owned(),
            Some(SessionHealth { timing: None }) => {
                format!("{}, without a timeout: the kernel is the judge", self.state_word())
            }
            Some(SessionHealth { timing: Some(timing) }) => format!(
                "{}, sure for {}, last heartbeat {} ago, timeout {}",
                self.state_word(),
                seconds(timing.remaining),
                seconds(timing.last_heartbeat),
                seconds(timing.timeout),
            ),
        };
        [format!("{} as {}  round trip: {round_trip}", self.driver, self.member), format!("session: {session}")]
    }

    pub(super) fn json(&self) -> Value {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let timing = self.session.as_ref().and_then(|session| session.timing.as_ref());
        json!({
            "state": self.state_word(),
            "round_trip": self.round_trips.as_ref().map(Samples::json),
            "trouble": self.trouble,
            "timeout_ms": timing.map(|timing| millis(timing.timeout)),
            "remaining_ms": timing.map(|timing| millis(timing.remaining)),
            "last_heartbeat_ms": timing.map(|timing| millis(timing.last_heartbeat)),
        })
    }

    pub(super) fn driver(&self) -> &'static str {
        self.driver
    }

    pub(super) fn member(&self) -> &str {
        &self.member
    }

    fn state_word(&self) -> &'static str {
        match self.state {
            SessionState::Idle => "none",
            SessionState::Open => "open",
            SessionState::Suspended(_) => "suspended",
            SessionState::Lost => "lost",
            SessionState::Troubled(_) => "troubled",
            SessionState::Closed => "closed",
            _ => "other",
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
