//! How the way to the backend is: the round trip, and, where a session was wanted, how long it is sure and when its last heartbeat was.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tooz::{Coordinator, ErrorKind, LockGuard, Probe, SessionState};

use super::super::doctor::figures::Samples;
use super::kept_session::{KeptSession, Standing};
use crate::failure::CommandFailure;
use crate::speech::words::{in_words, on_one_line};

/// An answer that takes longer is told of as one that has not come.
const LATE: Duration = Duration::from_secs(1);

/// How many round trips are remembered.
const REMEMBERED: usize = 1_000;

/// How long is measured for a single look.
const SHORT_WHILE: Duration = Duration::from_millis(300);

/// What is measured again and again.
#[derive(Default)]
pub(super) struct Pulse {
    session: Option<KeptSession>,
    round_trips: VecDeque<Duration>,
    /// When the question went out that is not answered yet.
    asked: Option<Instant>,
    /// Since when there is no round trip, and why.
    trouble: Option<(Instant, String)>,
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

/// How a session stands.
enum SessionHealth {
    Opening {
        since: Duration,
        why: Option<String>,
    },
    /// How long it is sure; `None`: for as long as the process lives.
    Open(Option<Timing>),
}

struct Timing {
    timeout: Duration,
    remaining: Duration,
    last_heartbeat: Duration,
}

/// What is said in place of a round trip that the driver has none of.
const NOT_TOLD: &str = "not told by this driver";

/// How long it took, or why there was none.
pub(super) type RoundTrip = Result<Duration, String>;

/// One bare round trip.
pub(super) async fn round_trip(coordinator: &Coordinator) -> RoundTrip {
    let begin = Instant::now();
    match coordinator.probe(Probe::Read).await {
        Ok(()) => Ok(begin.elapsed()),
        Err(error) if error.kind() == ErrorKind::Unsupported => Err(NOT_TOLD.to_owned()),
        Err(error) => Err(on_one_line(&in_words(&error))),
    }
}

impl Pulse {
    /// With a session: one that only looks has none.
    pub(super) async fn with_session(coordinator: &Coordinator) -> Result<Self, CommandFailure> {
        Ok(Pulse { session: Some(KeptSession::open(coordinator).await?), ..Pulse::default() })
    }

    pub(super) async fn toggle_session(&mut self, coordinator: &Coordinator) {
        match self.session.take() {
            Some(session) => session.close().await,
            None => self.session = Some(KeptSession::begin(coordinator)),
        }
    }

    pub(super) async fn close_session(&mut self) {
        if let Some(session) = self.session.take() {
            session.close().await;
        }
    }

    /// A question goes out now.
    pub(super) fn ask(&mut self) {
        self.asked = Some(Instant::now());
    }

    /// Whether the last question came to nothing.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.trouble.as_ref().is_some_and(|(_, why)| why != NOT_TOLD)
    }

    /// Since when there is no answer, and why not, as far as that is known.
    pub(super) fn trouble(&self) -> Option<(Instant, &str)> {
        let late = self.asked.filter(|asked| asked.elapsed() > LATE);
        match &self.trouble {
            Some((since, why)) => Some((*since, why)),
            None => late.map(|asked| (asked, "the question is not answered")),
        }
    }

    /// Takes note of a round trip.
    pub(super) fn note(&mut self, round_trip: RoundTrip) {
        let asked = self.asked.take();
        match round_trip {
            Ok(time) => {
                self.round_trips.push_back(time);
                if self.round_trips.len() > REMEMBERED {
                    self.round_trips.pop_front();
                }
                self.trouble = None;
            }
            Err(why) => {
                let since = self.trouble.as_ref().map(|(since, _)| *since).or(asked).unwrap_or_else(Instant::now);
                self.trouble = Some((since, why));
            }
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
            trouble: self.trouble().map(|(since, why)| no_answer(since, why)),
            session: self.session.as_ref().map(|session| session.look(|standing| of_session(coordinator, standing))),
        }
    }
}

fn no_answer(since: Instant, why: &str) -> String {
    if why == NOT_TOLD || since.elapsed() < LATE {
        return why.to_owned();
    }
    format!("no answer for {}: {why}", seconds(since.elapsed()))
}

fn of_session(coordinator: &Coordinator, standing: &Standing) -> SessionHealth {
    match standing {
        Standing::Opening(since, why) => SessionHealth::Opening { since: since.elapsed(), why: why.clone() },
        Standing::Open(guard) => SessionHealth::Open(timing(coordinator, guard)),
    }
}

/// The deadline lies a margin before the timeout, both counted from the last heartbeat that was answered. `None` where the kernel is the judge.
fn timing(coordinator: &Coordinator, guard: &LockGuard) -> Option<Timing> {
    let remaining = guard.remaining()?;
    let terms = coordinator.terms();
    let timeout = terms.and_then(|terms| terms.timeout).unwrap_or_else(|| coordinator.session_timeout());
    let margin = terms.map_or(Duration::ZERO, |terms| terms.margin);
    let whole = timeout.saturating_sub(margin.max(timeout / 10));
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
        [
            format!("{} as {}  round trip: {round_trip}", self.driver, self.member),
            format!("session: {}", self.of_session()),
        ]
    }

    fn of_session(&self) -> String {
        let word = self.state_word();
        match &self.session {
            None => "none: this only looks (--session, or the key s, opens one)".to_owned(),
            Some(SessionHealth::Opening { since, why }) => {
                let why = why.as_ref().map(|why| format!("{why}; ")).unwrap_or_default();
                let trouble = match &self.state {
                    SessionState::Troubled(error) => format!(": {}", on_one_line(&in_words(error))),
                    _ => String::new(),
                };
                format!("{why}opening one for {}{trouble}", seconds(*since))
            }
            Some(SessionHealth::Open(None)) => format!("{word}, without a timeout: the kernel is the judge"),
            Some(SessionHealth::Open(Some(timing))) => format!(
                "{word}, sure for {}, last heartbeat {} ago, timeout {}",
                seconds(timing.remaining),
                seconds(timing.last_heartbeat),
                seconds(timing.timeout),
            ),
        }
    }

    pub(super) fn json(&self) -> Value {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let timing = match &self.session {
            Some(SessionHealth::Open(timing)) => timing.as_ref(),
            _ => None,
        };
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

    /// One that is lost stays so in the library until something wants another: here that is wanted at once.
    fn state_word(&self) -> &'static str {
        match (&self.session, &self.state) {
            (Some(SessionHealth::Opening { .. }), SessionState::Troubled(_)) => "troubled",
            (Some(SessionHealth::Opening { why: Some(_), .. }), _) => "lost",
            (Some(SessionHealth::Opening { .. }), _) => "opening",
            (Some(SessionHealth::Open(Some(timing))), _) if timing.remaining.is_zero() => "lost",
            (_, SessionState::Idle) => "none",
            (_, SessionState::Open) => "open",
            (_, SessionState::Suspended(_)) => "suspended",
            (_, SessionState::Lost) => "lost",
            (_, SessionState::Troubled(_)) => "troubled",
            (_, SessionState::Closed) => "closed",
            _ => "other",
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
