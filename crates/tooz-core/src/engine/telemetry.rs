//! What a coordinator tells operators: events to `tracing`, figures to `metrics`. Each moment of a session's, a lock's and a membership's life has one
//! method here, and both are told by it.
//!
//! What happens on the heart is told by the thread of [`trace`](crate::engine::trace), so that a subscriber that blocks can't stop the beat. What happens in a
//! caller's hands (a lock that is acquired or given back) is told there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Level;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::{GroupId, MemberId};
use crate::base::loss_reason::LossReason;
use crate::base::session_event::SessionEvent;
use crate::driver::lock::{FencingToken, LockKey, LockMode, Space};
use crate::engine::claim::ClaimSubject;
use crate::engine::meter::{Labels, Meter, MeterOptions};
use crate::engine::metric::{
    HEARTBEAT, HEARTBEATS, HELD, HOLD, LEADER_CHANGES, LOSSES, MEMBERS, MEMBERSHIPS, REMAINING, REQUEST, REQUESTS,
    SESSIONS, WAIT, WAITING, WAITS,
};
use crate::engine::trace::{is_heard, tell};

const NONE: (&str, &str) = ("", "");

/// The word of one coordinator to its operators.
pub(crate) struct Telemetry {
    driver: &'static str,
    member: MemberId,
    meter: Meter,
}

impl Telemetry {
    pub(crate) fn new(driver: &'static str, member: MemberId, namespace: &str, options: &MeterOptions) -> Self {
        Telemetry { driver, member, meter: Meter::new(driver, namespace, options) }
    }

    pub(crate) fn driver(&self) -> &'static str {
        self.driver
    }

    pub(crate) fn member(&self) -> &MemberId {
        &self.member
    }

    /// The clock for what is only told; without a listener it is not asked.
    fn now() -> Option<Instant> {
        (Meter::IS_ON || tracing::enabled!(target: "tooz::acquire", Level::DEBUG)).then(Instant::now)
    }

    /// A call for a lock begins. Its end is told by [`WaitRecord::over`], or by the drop.
    pub(crate) fn wait<'a>(&'a self, key: &'a LockKey, mode: LockMode) -> WaitRecord<'a> {
        self.meter.change(&WAITING, kind_and_mode(key, mode), Some(subject(key)), 1.0);
        WaitRecord { telemetry: self, key, mode, begun: Self::now(), is_over: false }
    }

    /// A grant is in its holder's hands. The answer is when, for [`Telemetry::given_back`].
    pub(crate) fn held(&self, key: &LockKey, mode: LockMode) -> Option<Instant> {
        self.meter.change(&HELD, kind_and_mode(key, mode), Some(subject(key)), 1.0);
        Self::now()
    }

    /// A holder lets go of what it had since then. A loss was told before.
    pub(crate) fn given_back(
        &self,
        key: &LockKey,
        mode: LockMode,
        token: FencingToken,
        since: Option<Instant>,
        lost: Option<LossReason>,
    ) {
        let [kind, mode_label, _] = kind_and_mode(key, mode);
        self.meter.change(&HELD, [kind, mode_label, NONE], Some(subject(key)), -1.0);
        let Some(since) = since else { return };
        let held = since.elapsed();
        let end = if lost.is_some() { "lost" } else { "released" };
        self.meter.sample(&HOLD, [kind, mode_label, ("end", end)], Some(subject(key)), held);
        if lost.is_some() {
            return;
        }
        let (driver, member, name, token) = (self.driver, &self.member, &*key.name, token.0);
        match key.space {
            Space::Lock => {
                tracing::debug!(target: "tooz::release", driver, %member, lock = name, token, ?held, "released");
            }
            Space::Election => {
                tracing::info!(target: "tooz::lead", driver, %member, group = name, epoch = token, ?held, "resigned");
            }
        }
    }

    /// A session is open. It is the first one of the coordinator, or one more after a loss.
    pub(crate) fn opened(&self, is_first: bool) {
        self.meter.count(&SESSIONS, Labels::default(), None);
        let (driver, member) = (self.driver, self.member.clone());
        tell(move || {
            if is_first {
                tracing::debug!(target: "tooz::session", driver, %member, "open");
            } else {
                tracing::info!(target: "tooz::session", driver, %member, "reopened");
            }
        });
    }

    /// What the application's listeners hear as well. Losses, troubles and reopened sessions have methods of their own.
    pub(crate) fn told(&self, event: &SessionEvent) {
        let (driver, member) = (self.driver, self.member.clone());
        match event {
            SessionEvent::Suspended(error) => {
                let error = error.clone();
                tell(move || {
                    tracing::warn!(target: "tooz::session", driver, %member, %error, "suspended: heartbeats fail or are overdue");
                })
            }
            SessionEvent::Resumed => tell(move || {
                tracing::info!(target: "tooz::session", driver, %member, "resumed: nothing was lost");
            }),
            SessionEvent::Recovered => tell(move || {
                tracing::info!(target: "tooz::trouble", driver, %member, "recovered");
            }),
            SessionEvent::Lost(_) | SessionEvent::Reopened | SessionEvent::Troubled(_) => true,
        };
    }

    /// A heartbeat was answered, so long after it was sent.
    pub(crate) fn heartbeat_answered(&self, after: Duration) {
        self.meter.count(&HEARTBEATS, [("outcome", "ok"), NONE, NONE], None);
        self.meter.sample(&HEARTBEAT, Labels::default(), None, after);
        if tracing::enabled!(target: "tooz::renew", Level::TRACE) {
            let (driver, member) = (self.driver, self.member.clone());
            tell(move || {
                let _span = tracing::trace_span!(target: "tooz::renew", "renew", driver, %member).entered();
                tracing::trace!(target: "tooz::renew", ?after, "heartbeat");
            });
        }
    }

    pub(crate) fn heartbeat_failed(&self, error: &Error) {
        self.meter.count(&HEARTBEATS, [("outcome", error.kind().name()), NONE, NONE], None);
        let (driver, member, error) = (self.driver, self.member.clone(), error.to_string());
        tell(move || {
            let _span = tracing::warn_span!(target: "tooz::renew", "renew", driver, %member).entered();
            tracing::warn!(target: "tooz::renew", error, "heartbeat failed");
        });
    }

    pub(crate) fn troubled(&self, error: &Error) {
        let (driver, member, error) = (self.driver, self.member.clone(), error.to_string());
        tell(move || {
            let _span = tracing::warn_span!(target: "tooz::trouble", "trouble", driver, %member).entered();
            tracing::warn!(target: "tooz::trouble", error, "this does not work, and is tried again");
        });
    }

    pub(crate) fn session_ended(&self, why: String) {
        let driver = self.driver;
        tell(move || tracing::debug!(target: "tooz::lose", driver, why, "the driver reports the end of its session"));
    }

    /// One grant or membership is lost, and the session is not.
    pub(crate) fn lost_one(&self, claim: &ClaimSubject, reason: LossReason) {
        self.lost(claim, reason);
        let (driver, what) = (self.driver, what(claim));
        tell(move || {
            let _span = tracing::error_span!(target: "tooz::lose", "lose", driver, what).entered();
            tracing::error!(target: "tooz::lose", %reason, "one grant lost, the session lives on");
        });
    }

    /// A session is lost, and with it what it held.
    pub(crate) fn session_lost<'a>(&self, claims: impl Iterator<Item = &'a ClaimSubject>, reason: LossReason) {
        self.meter.count(&LOSSES, [("what", "session"), ("reason", reason.name()), NONE], None);
        for claim in claims {
            self.lost(claim, reason);
        }
        let (driver, member) = (self.driver, self.member.clone());
        tell(move || {
            let _span = tracing::error_span!(target: "tooz::lose", "lose", driver, %member).entered();
            tracing::error!(target: "tooz::lose", %reason, "session lost: its locks and leaderships are gone");
        });
    }

    fn lost(&self, claim: &ClaimSubject, reason: LossReason) {
        let what = match claim {
            ClaimSubject::Lock(request) if request.key.space == Space::Election => "leadership",
            ClaimSubject::Lock(_) => "lock",
            ClaimSubject::Membership => "membership",
        };
        let named = match claim {
            ClaimSubject::Lock(request) => Some(subject(&request.key)),
            ClaimSubject::Membership => None,
        };
        self.meter.count(&LOSSES, [("what", what), ("reason", reason.name()), NONE], named);
    }

    /// The member stands in a group, for the first time or again.
    pub(crate) fn joined(&self, group: &GroupId, is_first: bool) {
        self.meter.change(&MEMBERSHIPS, Labels::default(), None, 1.0);
        if !is_heard(Level::INFO) {
            return;
        }
        let (driver, member, group) = (self.driver, self.member.clone(), group.clone());
        tell(move || {
            let again = !is_first;
            tracing::info!(target: "tooz::join", driver, %member, %group, again, "joined");
        });
    }

    /// The member stands there no more, and will not by itself, for that reason; or it is out for a while.
    pub(crate) fn left(&self, group: &GroupId, reason: LossReason) {
        self.meter.change(&MEMBERSHIPS, Labels::default(), None, -1.0);
        if reason == LossReason::Released && is_heard(Level::INFO) {
            let (driver, member, group) = (self.driver, self.member.clone(), group.clone());
            tell(move || tracing::info!(target: "tooz::join", driver, %member, %group, "left"));
        }
    }

    /// A watch knows so many members more of a group.
    pub(crate) fn members(&self, group: &Arc<str>, more: isize) {
        #[allow(clippy::cast_precision_loss, reason = "members are few")]
        self.meter.change(&MEMBERS, Labels::default(), Some(("group", group)), more as f64);
    }

    /// A watch has seen another leader than before.
    pub(crate) fn leader_changed(&self, group: &Arc<str>) {
        self.meter.count(&LEADER_CHANGES, Labels::default(), Some(("group", group)));
    }

    /// A driver has answered a request.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "only what is counted asks"))]
    pub(crate) fn requested<T>(&self, operation: &'static str, began: Instant, answer: &Result<T>) {
        let outcome = match answer {
            Ok(_) => "ok",
            Err(error) => error.kind().name(),
        };
        self.meter.count(&REQUESTS, [("operation", operation), ("outcome", outcome), NONE], None);
        self.meter.sample(&REQUEST, [("operation", operation), NONE, NONE], None, began.elapsed());
    }

    /// How long the session lives for sure, and all that waits to be told.
    pub(crate) fn tick(&self, remaining: Option<Duration>) {
        if let Some(remaining) = remaining {
            self.meter.level(&REMAINING, remaining.as_secs_f64());
        }
        self.meter.flush();
    }

    /// The coordinator is closed: what its user gives back from here on is told at once.
    pub(crate) fn closed(&self) {
        self.meter.end();
        let (driver, member) = (self.driver, self.member.clone());
        tell(move || tracing::debug!(target: "tooz::session", driver, %member, "closed"));
    }
}

/// One call for a lock, until it has its answer or is dropped.
pub(crate) struct WaitRecord<'a> {
    telemetry: &'a Telemetry,
    key: &'a LockKey,
    mode: LockMode,
    begun: Option<Instant>,
    is_over: bool,
}

impl WaitRecord<'_> {
    /// It has its answer: a token, none, or an error.
    pub(crate) fn over(mut self, answer: Result<Option<FencingToken>, &Error>) {
        self.is_over = true;
        let Some(waited) = self.begun.map(|begun| begun.elapsed()) else { return };
        let outcome = match answer {
            Ok(Some(_)) => "granted",
            Ok(None) => "busy",
            Err(error) if error.kind() == ErrorKind::Closed => "closed",
            Err(_) => "error",
        };
        self.ended(outcome);
        let Ok(Some(token)) = answer else { return };
        let [kind, mode, _] = kind_and_mode(self.key, self.mode);
        self.telemetry.meter.sample(&WAIT, [kind, mode, NONE], Some(subject(self.key)), waited);
        let Telemetry { driver, member, .. } = self.telemetry;
        let (name, token, mode) = (&*self.key.name, token.0, self.mode.name());
        match self.key.space {
            Space::Lock => {
                tracing::debug!(target: "tooz::acquire", driver, %member, lock = name, mode, token, ?waited, "acquired");
            }
            Space::Election => {
                tracing::info!(target: "tooz::lead", driver, %member, group = name, epoch = token, ?waited, "elected");
            }
        }
    }

    fn ended(&self, outcome: &'static str) {
        let [kind, mode, _] = kind_and_mode(self.key, self.mode);
        let named = Some(subject(self.key));
        self.telemetry.meter.count(&WAITS, [kind, mode, ("outcome", outcome)], named);
    }
}

impl Drop for WaitRecord<'_> {
    fn drop(&mut self) {
        let labels = kind_and_mode(self.key, self.mode);
        self.telemetry.meter.change(&WAITING, labels, Some(subject(self.key)), -1.0);
        if !self.is_over {
            self.ended("cancelled");
        }
    }
}

fn kind_and_mode(key: &LockKey, mode: LockMode) -> Labels {
    let kind = match key.space {
        Space::Lock => "lock",
        Space::Election => "election",
    };
    [("kind", kind), ("mode", mode.name()), NONE]
}

fn subject(key: &LockKey) -> (&'static str, &Arc<str>) {
    let label = match key.space {
        Space::Lock => "lock",
        Space::Election => "group",
    };
    (label, &key.name)
}

fn what(claim: &ClaimSubject) -> String {
    match claim {
        ClaimSubject::Lock(request) => request.key.to_string(),
        ClaimSubject::Membership => "membership".to_owned(),
    }
}
