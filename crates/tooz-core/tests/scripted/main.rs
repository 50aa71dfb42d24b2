//! Core on a session of which the test says each answer, under a clock that the test moves.

mod session;

use std::time::Duration;

use tooz_core::driver::{LockKey, RequestId};
use tooz_core::{Coordinator, ErrorKind, Group, LockGuard, LossReason, SessionEvent};

use crate::session::{Scripted, TIMEOUT, eventually, soon};

/// With the coordinator, which closes when its last handle goes.
async fn hold(scripted: &Scripted) -> (Coordinator, LockGuard, RequestId) {
    let coordinator = scripted.connect().await;
    let guard = soon(coordinator.lock("x").unwrap().acquire()).await.unwrap();
    (coordinator, guard, scripted.requests()[0])
}

async fn group(scripted: &Scripted) -> Group {
    scripted.connect().await.group("g").unwrap()
}

#[tokio::test]
async fn a_heartbeat_counts_from_its_sending() {
    let scripted = Scripted::new("sending");
    let (_coordinator, guard, _) = hold(&scripted).await;
    // The reply is on its way for a quarter of the timeout, which is before the next heartbeat is due.
    scripted.holds_beats(true);
    scripted.clock.advance(TIMEOUT / 3);
    eventually(|| scripted.beats() == 1).await;
    scripted.clock.advance(TIMEOUT / 4);
    let before = guard.remaining().unwrap();
    scripted.holds_beats(false);
    eventually(|| guard.remaining().unwrap() > before).await;
    assert!(guard.remaining().unwrap() < TIMEOUT * 3 / 4, "{:?} are left", guard.remaining());
}

#[tokio::test]
async fn what_a_heartbeat_finds_revoked_is_broken() {
    let scripted = Scripted::new("revoked");
    let (_coordinator, guard, request) = hold(&scripted).await;
    scripted.revoke(request);
    scripted.clock.advance(TIMEOUT / 3);
    assert_eq!(soon(guard.loss().wait()).await, LossReason::Broken);
}

#[tokio::test]
async fn a_grant_that_was_taken_for_broken_is_given_back_by_its_request() {
    let scripted = Scripted::new("taken for broken");
    let (_coordinator, guard, request) = hold(&scripted).await;
    scripted.reporter().grant_lost(request);
    assert_eq!(soon(guard.loss().wait()).await, LossReason::Broken);
    drop(guard);
    eventually(|| scripted.released().contains(&request)).await;
}

#[tokio::test]
async fn what_the_backend_has_and_nobody_knows_is_given_back_after_a_reconnect() {
    let scripted = Scripted::new("unknown");
    let (_coordinator, guard, request) = hold(&scripted).await;
    let unknown = RequestId(7);
    let key = LockKey::lock(&"y".parse().unwrap());
    scripted.owns(vec![(key.clone(), unknown), (key, request)]);
    scripted.reporter().connected();
    eventually(|| scripted.released().contains(&unknown)).await;
    assert!(guard.is_held() && !scripted.released().contains(&request), "what is known stays");
}

#[tokio::test]
async fn what_the_driver_sees_gone_is_not_held() {
    let scripted = Scripted::new("gone");
    let (_coordinator, guard, request) = hold(&scripted).await;
    assert!(guard.is_held());
    scripted.forget(request);
    assert!(!guard.is_held());
    assert_eq!(guard.loss().reason(), Some(LossReason::Broken));
}

#[tokio::test]
async fn a_membership_ends_when_an_update_finds_it_gone() {
    let scripted = Scripted::new("update");
    let membership = soon(group(&scripted).await.join(&1)).await.unwrap();
    scripted.fails_updates(Some(ErrorKind::NotMember));
    assert_eq!(soon(membership.update(&2)).await.unwrap_err().kind(), ErrorKind::NotMember);
    eventually(|| membership.over() == Some(LossReason::Broken)).await;
}

#[tokio::test]
async fn a_session_that_could_not_be_ended_is_asked_again() {
    let scripted = Scripted::new("ending");
    let (_coordinator, guard, _) = hold(&scripted).await;
    scripted.fails_closes(1);
    scripted.reporter().session_lost("as the test says");
    assert_eq!(soon(guard.loss().wait()).await, LossReason::SessionEnded);
    eventually(|| scripted.closes() == 2).await;
}

#[tokio::test]
async fn a_new_session_is_told() {
    let scripted = Scripted::new("reopened");
    let coordinator = scripted.connect().await;
    let mut events = coordinator.events();
    let _guard = soon(coordinator.lock("x").unwrap().acquire()).await.unwrap();
    scripted.reporter().session_lost("as the test says");
    assert_eq!(soon(events.next()).await, Some(SessionEvent::Lost(LossReason::SessionEnded)));
    let _again = soon(coordinator.lock("y").unwrap().acquire()).await.unwrap();
    assert_eq!(soon(events.next()).await, Some(SessionEvent::Reopened));
}

#[tokio::test]
async fn what_passes_by_itself_is_no_trouble() {
    let scripted = Scripted::new("passing");
    let coordinator = scripted.connect().await;
    let mut events = coordinator.events();
    scripted.fails_locks(1);
    let _guard = soon(coordinator.lock("x").unwrap().acquire()).await.unwrap();
    coordinator.close().await.unwrap();
    assert_eq!(events.next().await, None, "one failure is not told");
}

#[tokio::test]
async fn a_withdrawal_that_stays_unknown_ends_the_session() {
    let scripted = Scripted::new("withdrawal");
    let coordinator = scripted.connect().await;
    let guard = soon(coordinator.lock("x").unwrap().acquire()).await.unwrap();
    let mut events = coordinator.events();
    scripted.fails_releases(true);
    assert!(soon(guard.release()).await.is_err(), "it goes on in the background");
    // Longer than any patience with it, and beats go on.
    for _ in 0..40 {
        scripted.clock.advance(TIMEOUT / 4);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(soon(events.next()).await, Some(SessionEvent::Lost(LossReason::SessionEnded)));
}

#[tokio::test]
async fn a_waiter_here_gets_the_lock_when_the_session_of_the_holder_here_is_lost() {
    let scripted = Scripted::new("stirred");
    let coordinator = scripted.connect().await;
    let lock = coordinator.lock("x").unwrap();
    let guard = soon(lock.acquire()).await.unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    scripted.reporter().session_lost("as the test says");
    let next = soon(waiter).await.unwrap().unwrap();
    assert!(next.is_held() && !guard.is_held());
}

#[tokio::test]
async fn a_grant_that_was_not_looked_at_goes_back() {
    let scripted = Scripted::new("unseen");
    let coordinator = scripted.connect().await;
    scripted.holds_locks(true);
    let lock = coordinator.lock("x").unwrap();
    let mut waiting = Box::pin(lock.acquire());
    let polled = std::future::poll_fn(|context| std::task::Poll::Ready(waiting.as_mut().poll(context))).await;
    assert!(polled.is_pending());
    scripted.holds_locks(false);
    eventually(|| scripted.granted() == 1).await;
    // The answer lies ready, and is not taken.
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(waiting);
    eventually(|| scripted.released().len() == 1).await;
}

#[test]
fn a_runtime_that_stands_still_loses_its_session() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let scripted = Scripted::new("stall");
        let limit = Duration::from_millis(100);
        let coordinator = soon(scripted.options().stall_timeout(limit).connect()).await.unwrap();
        let guard = soon(coordinator.lock("x").unwrap().acquire()).await.unwrap();
        std::thread::sleep(limit * 4);
        for _ in 0..8 {
            scripted.clock.advance(TIMEOUT / 4);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!guard.is_held(), "a dead-locked application keeps no lock");
    });
}
