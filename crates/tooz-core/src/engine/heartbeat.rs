//! The heartbeat: one in flight, credited to the moment at which it was sent, until the session is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::backoff::Backoff;
use crate::base::clock::Moment;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::loss_reason::LossReason;
use crate::base::session_event::SessionEvent;
use crate::driver::group::{JoinRequest, Replace};
use crate::driver::lock::{LockMode, LockRequest};
use crate::driver::roster::RosterEntry;
use crate::engine::heart::RunsOn;
use crate::engine::inner::Inner;
use crate::engine::live_session::LiveSession;
use crate::engine::worry::Worry;

/// What became of one heartbeat.
enum Beat {
    /// The session lives on from the moment at which it was sent.
    Counts,
    /// The session lives, and another may follow.
    Failed(Error),
    SessionLost,
}

/// Beats until the session is lost, and answers why. `sent` is when the first timeout began.
pub(crate) async fn keep_alive(
    inner: &Arc<Inner>,
    live: &Arc<LiveSession>,
    sent: Moment,
    worry: &mut Worry,
) -> LossReason {
    let clock = live.clock().clone();
    let mut outage = live.watch_outage();
    let mut reconnects = live.reconnects.subscribe();
    let mut trouble = live.watch_trouble();
    trouble.mark_changed();
    let mut beside = Worry::new(inner, "keep up what stands beside the session");
    tokio::spawn(reconcile(Arc::clone(live), reconnects.clone(), inner.settings.operation_timeout));
    let mut interval = interval_of(live);
    let mut next = interval.map_or(Moment::NEVER, |interval| sent + interval);
    loop {
        let deadline = live.deadline();
        tokio::select! {
            reason = live.lost() => return reason,
            Ok(()) = outage.changed() => {
                let why = outage.borrow_and_update().clone();
                if let Some(why) = why {
                    suspend(inner, why);
                }
            }
            Ok(()) = trouble.changed() => match trouble.borrow_and_update().clone() {
                Some(error) => beside.say(&error),
                None => beside.is_over(),
            },
            Ok(()) = reconnects.changed() => {
                // A beat right away tells whether the session has outlived the cut.
                if interval.is_some() {
                    next = clock.now();
                } else {
                    resume(inner);
                }
            }
            () = clock.sleep_until(next.min(deadline)) => {}
        }
        if let Some(reason) = live.check() {
            return reason;
        }
        if clock.now() < next {
            continue;
        }
        let beat_every = interval.unwrap_or(Duration::MAX);
        if inner.is_stalled() {
            suspend(inner, stalled());
            next = clock.now() + beat_every / 4;
            continue;
        }
        let sent = clock.now();
        match beat(inner, live, beat_every / 2).await {
            Beat::Counts => {
                worry.is_over();
                resume(inner);
                interval = interval_of(live);
                next = interval.map_or(Moment::NEVER, |interval| sent + interval);
                inner.telemetry.heartbeat_answered(clock.now().since(sent));
            }
            Beat::Failed(error) => {
                // A server that can't be reached is what `Suspended` tells; one that refuses is in need of help as well.
                if !error.is_retryable() {
                    worry.say(&error);
                }
                suspend(inner, error);
                next = clock.now() + beat_every / 10;
            }
            Beat::SessionLost => return live.check().unwrap_or(LossReason::SessionEnded),
        }
    }
}

fn interval_of(live: &LiveSession) -> Option<Duration> {
    live.terms().ok()?.timeout.map(|timeout| timeout / 3)
}

/// Sends one heartbeat and judges its answer; without one for so long the session counts as suspended.
async fn beat(inner: &Arc<Inner>, live: &Arc<LiveSession>, patience: Duration) -> Beat {
    let clock = live.clock().clone();
    let sent = clock.now();
    let overdue = sent + patience;
    let asked = Arc::clone(live);
    // Where this is given up, at a loss or a close, the driver's future runs on.
    let mut beating = RunsOn::new(async move { asked.call(|session| session.beat()).await });
    let mut told = false;
    let result = loop {
        // The deadline is watched while the beat is under way: a hung request must not delay it.
        let until = if told { live.deadline() } else { overdue.min(live.deadline()) };
        tokio::select! {
            _ = live.lost() => return Beat::SessionLost,
            result = &mut beating => break result,
            () = clock.sleep_until(until) => {
                if live.check().is_some() {
                    return Beat::SessionLost;
                }
                suspend(inner, overdue_for(patience));
                told = true;
            }
        }
    };
    match result {
        Ok(revoked) => {
            for request in revoked {
                live.lose_one(request, LossReason::Broken);
            }
            let Ok(terms) = live.terms() else { return Beat::SessionLost };
            if let Some(timeout) = terms.timeout
                && !live.credit(sent, timeout, LiveSession::margin_of(&terms, timeout))
            {
                return Beat::SessionLost;
            }
            Beat::Counts
        }
        Err(error) if error.is_panic() => {
            live.lose(LossReason::DriverPanicked);
            Beat::SessionLost
        }
        Err(error) if error.kind() == ErrorKind::Lost => Beat::SessionLost,
        Err(error) => {
            inner.telemetry.heartbeat_failed(&error);
            Beat::Failed(error)
        }
    }
}

/// After a reconnect: what the backend has of this session, and what is known here, become the same. What is not known here, such as a
/// grant whose release the backend has forgotten in a crash, has no holder and is free for no other until it is given back: so this
/// goes on until it is.
async fn reconcile(live: Arc<LiveSession>, mut reconnects: watch::Receiver<u64>, limit: Duration) {
    let mut pauses = Backoff::for_reconnects();
    loop {
        tokio::select! {
            Ok(()) = reconnects.changed() => {}
            _ = live.lost() => return,
        }
        pauses.reset();
        while mend_what_differs(&live, limit).await.is_err() && live.check().is_none() {
            tokio::select! {
                () = pauses.pause() => {}
                _ = live.lost() => return,
            }
        }
    }
}

async fn mend_what_differs(live: &Arc<LiveSession>, limit: Duration) -> Result<()> {
    let what = || "compare what is owned".to_owned();
    let owned = live.call_within(limit, what, |session| async move { session.owned().await }).await?;
    if let Some(members) = owned.members {
        let (known, unknown): (Vec<_>, Vec<_>) = members.into_iter().partition(|(_, entry)| live.stands(entry.id));
        // The keeper of a membership is told that it is missing, or was said anew since.
        live.found.send_replace(Arc::new(known.into_iter().map(|(_, entry)| (entry.id, entry.capabilities)).collect()));
        for (group, RosterEntry { member, id, capabilities }) in unknown {
            let request = JoinRequest::new(group, member, id, capabilities, Replace::Nobody);
            let what = || format!("leave group {:?}", request.group);
            let leaving = request.clone();
            live.call_within(limit, what, |session| async move { session.leave(&leaving).await }).await?;
        }
    }
    for (key, id) in owned.locks {
        if !live.knows(id) {
            let request = LockRequest::new(key, LockMode::Exclusive, id);
            let what = || format!("release {}", request.key);
            let releasing = request.clone();
            match live.call_within(limit, what, |session| async move { session.release(&releasing).await }).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn suspend(inner: &Inner, why: Error) {
    let why = why.in_driver(inner.driver.name());
    if inner.suspension.begin(why.clone()) {
        inner.tell(&SessionEvent::Suspended(why));
    }
}

fn overdue_for(patience: Duration) -> Error {
    Error::new(ErrorKind::TimedOut, format!("the heartbeat has had no answer for {patience:.1?}"))
}

fn stalled() -> Error {
    Error::new(
        ErrorKind::TimedOut,
        "the application's runtime stands still for longer than stall_timeout, so that no heartbeat is sent",
    )
}

fn resume(inner: &Inner) {
    if inner.suspension.end() {
        inner.tell(&SessionEvent::Resumed);
    }
}
