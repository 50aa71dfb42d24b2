//! Until when a session counts, from its opening to its end.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tooz_core::{Error, ErrorKind, LossReason, SessionEvent, SessionState};

use crate::session::{Scripted, TIMEOUT, eventually, soon};
use crate::{group, hold};

/// The longest that core believes: a tenth of the timeout is kept between its own deadline and the backend's, where the driver asks for no more.
const BELIEVED: Duration = TIMEOUT.saturating_mul(9).checked_div(10).unwrap();

#[tokio::test]
async fn a_grant_is_over_a_margin_before_the_backend_can_grant_again() {
    let scripted = Scripted::new("margin");
    let (_coordinator, guard, _) = hold(&scripted).await;
    assert!(guard.remaining().unwrap() <= BELIEVED, "after the opening: {:?}", guard.remaining());
    scripted.clock.advance(TIMEOUT / 3);
    eventually(|| guard.remaining().unwrap() > TIMEOUT / 3 * 2).await;
    assert!(guard.remaining().unwrap() <= BELIEVED, "after a heartbeat: {:?}", guard.remaining());
    assert!(guard.expires_in().unwrap() > guard.remaining().unwrap());
}

#[tokio::test]
async fn an_opening_that_takes_longer_than_the_session_lives_is_none() {
    let scripted = Scripted::new("opened late");
    let coordinator = scripted.connect().await;
    let mut events = coordinator.events();
    scripted.holds_opens(true);
    let lock = coordinator.lock("x").unwrap();
    let acquiring = tokio::spawn(async move { lock.acquire().await });
    eventually(|| scripted.opens() == 1).await;
    scripted.clock.advance(TIMEOUT * 2);
    scripted.holds_opens(false);
    assert!(soon(acquiring).await.unwrap().unwrap().is_held(), "the next one counts");
    coordinator.close().await.unwrap();
    assert_eq!(events.next().await, None, "no session was open that could be lost");
}

#[tokio::test]
async fn an_opening_is_not_dropped_half_way_by_a_close() {
    let scripted = Scripted::new("closed while opening");
    let coordinator = scripted.connect().await;
    scripted.holds_opens(true);
    let lock = coordinator.lock("x").unwrap();
    let acquiring = tokio::spawn(async move { lock.acquire().await });
    eventually(|| scripted.opens() == 1).await;
    // The heart lives for as long as the end of the session is asked for.
    scripted.fails_closes(usize::MAX);
    let closing = tokio::spawn(async move { coordinator.close().await });
    eventually(|| scripted.closes() > 0).await;
    scripted.holds_opens(false);
    eventually(|| scripted.opened() == 1).await;
    assert!(soon(acquiring).await.unwrap().is_err());
    scripted.fails_closes(0);
    let _ = soon(closing).await.unwrap();
}

#[tokio::test]
async fn a_session_past_its_deadline_is_lost_before_any_task_has_found_out() {
    let scripted = Scripted::new("state");
    let (coordinator, _guard, _) = hold(&scripted).await;
    assert_eq!(coordinator.state(), SessionState::Open);
    // On the heart's own thread, so that no other task can find out in between.
    let (clock, asked) = (scripted.clock.clone(), coordinator.clone());
    let state = scripted.at_the_next_beat(move || {
        clock.advance(TIMEOUT * 2);
        asked.state()
    });
    scripted.clock.advance(TIMEOUT / 3);
    assert_eq!(soon(state).await.unwrap(), SessionState::Lost);
}

#[tokio::test]
async fn a_heartbeat_without_an_answer_is_told_at_half_of_the_timeout() {
    let scripted = Scripted::new("overdue");
    let (coordinator, guard, _) = hold(&scripted).await;
    let mut events = coordinator.events();
    scripted.holds_beats(true);
    scripted.clock.advance(TIMEOUT / 3);
    eventually(|| scripted.beats() == 1).await;
    scripted.clock.advance(TIMEOUT / 6);
    let Some(SessionEvent::Suspended(why)) = soon(events.next()).await else { panic!("it is told first") };
    assert_eq!(why.kind(), ErrorKind::TimedOut);
    let patience = format!("has had no answer for {:.1?}", TIMEOUT / 6);
    assert!(why.to_string().contains(&patience), "{why}");
    assert_eq!(coordinator.state(), SessionState::Suspended(why));
    assert!(guard.is_held());
    scripted.holds_beats(false);
    assert_eq!(soon(events.next()).await, Some(SessionEvent::Resumed));
    assert_eq!(coordinator.state(), SessionState::Open);
}

#[tokio::test]
async fn a_connection_that_goes_is_told_with_its_error() {
    let scripted = Scripted::new("outage");
    let (coordinator, guard, _) = hold(&scripted).await;
    let mut events = coordinator.events();
    let why = Error::new(ErrorKind::Unavailable, "the cable was pulled").in_driver("scripted");
    scripted.reporter().disconnected(why.clone());
    assert_eq!(soon(events.next()).await, Some(SessionEvent::Suspended(why)));
    assert!(guard.is_held());
    scripted.reporter().connected();
    assert_eq!(soon(events.next()).await, Some(SessionEvent::Resumed));
}

#[tokio::test]
async fn a_loss_stops_what_only_waits() {
    let scripted = Scripted::new("asleep");
    let (_coordinator, guard, _) = hold(&scripted).await;
    let guard = Arc::new(guard);
    let working = tokio::spawn({
        let guard = Arc::clone(&guard);
        async move { guard.while_held(pending::<()>()).await }
    });
    tokio::task::yield_now().await;
    scripted.reporter().session_lost("as the test says");
    assert_eq!(soon(working).await.unwrap(), Err(LossReason::SessionEnded));
}

#[tokio::test]
async fn a_look_that_finds_the_session_over_says_so() {
    let scripted = Scripted::new("over at a look");
    let (_coordinator, guard, _) = hold(&scripted).await;
    scripted.ends_at_a_look();
    assert!(!guard.is_held());
    assert_eq!(guard.loss().reason(), Some(LossReason::SessionEnded), "no other has broken the lock");
}

#[tokio::test]
async fn a_membership_that_is_dropped_leaves() {
    let scripted = Scripted::new("dropped");
    let group = group(&scripted).await;
    drop(soon(group.join(&1)).await.unwrap());
    eventually(|| scripted.left() == scripted.joins()).await;
}
