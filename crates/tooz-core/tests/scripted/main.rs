//! Core on a session of which the test says each answer, under a clock that the test moves.

mod deadlines;
mod session;
mod watches;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tooz_core::driver::{LockKey, Replace, RequestId};
use tooz_core::{
    Characteristic, Characteristics, Coordinator, ErrorKind, Group, JoinOptions, LockGuard, LockName, LossReason,
    SessionEvent,
};

use crate::session::{Scripted, TIMEOUT, begin, eventually, soon};

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
async fn what_only_the_backend_knows_is_given_back_after_a_reconnect() {
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
    scripted.fails_releases(usize::MAX);
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
    begin(waiting.as_mut()).await;
    scripted.holds_locks(false);
    eventually(|| scripted.granted() == 1).await;
    // The answer lies ready, and is not taken.
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(waiting);
    eventually(|| scripted.released().len() == 1).await;
}

#[tokio::test]
async fn a_grant_whose_time_is_over_before_it_is_looked_at_is_not_handed_out() {
    let scripted = Scripted::new("late");
    let coordinator = scripted.connect().await;
    scripted.holds_locks(true);
    let lock = coordinator.lock("x").unwrap();
    let mut waiting = Box::pin(lock.acquire());
    begin(waiting.as_mut()).await;
    scripted.holds_locks(false);
    eventually(|| scripted.granted() == 1).await;
    // This process stands still: the answer lies there for longer than the session lives.
    tokio::time::sleep(Duration::from_millis(50)).await;
    scripted.clock.advance(TIMEOUT * 2);
    assert!(soon(waiting).await.unwrap().is_held(), "it is asked for again");
}

#[tokio::test]
async fn a_reader_is_answered_by_the_next_session_when_the_one_it_asked_is_lost() {
    let scripted = Scripted::new("reader");
    let (coordinator, guard, _) = hold(&scripted).await;
    scripted.holds_looks(true);
    let lock = coordinator.lock("y").unwrap();
    let reading = tokio::spawn(async move { lock.holders().await });
    eventually(|| scripted.looks() == 1).await;
    scripted.reporter().session_lost("as the test says");
    soon(guard.loss().wait()).await;
    eventually(|| scripted.looks() == 2).await;
    scripted.holds_looks(false);
    assert_eq!(soon(reading).await.unwrap().unwrap(), []);
}

#[tokio::test]
async fn a_release_that_fails_once_is_asked_again() {
    let scripted = Scripted::new("release");
    let (_coordinator, guard, request) = hold(&scripted).await;
    scripted.fails_releases(1);
    soon(guard.release()).await.unwrap();
    assert_eq!(scripted.released(), [request]);
}

#[tokio::test]
async fn a_release_that_fails_and_then_hangs_says_why_it_failed() {
    let scripted = Scripted::new("says why");
    let (_coordinator, guard, _) = hold(&scripted).await;
    scripted.fails_releases(1);
    scripted.holds_releases(true);
    let error = soon(guard.release()).await.unwrap_err().to_string();
    assert!(error.contains("as the test says"), "not the rest of the time limit: {error}");
}

#[tokio::test]
async fn an_update_during_a_rejoin_is_said_after_it() {
    let scripted = Scripted::new("said after");
    let membership = soon(group(&scripted).await.join(&1)).await.unwrap();
    scripted.holds_joins(true);
    scripted.reporter().session_lost("as the test says");
    eventually(|| scripted.joins().len() == 2).await;
    let updating = async {
        let said = membership.update(&2);
        tokio::pin!(said);
        begin(said.as_mut()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        scripted.holds_joins(false);
        said.await
    };
    soon(updating).await.unwrap();
    assert_eq!(scripted.updates(), ["2"]);
}

#[tokio::test]
async fn a_leave_during_a_rejoin_is_done_after_it() {
    let scripted = Scripted::new("left after");
    let membership = soon(group(&scripted).await.join(&1)).await.unwrap();
    scripted.holds_joins(true);
    scripted.reporter().session_lost("as the test says");
    eventually(|| scripted.joins().len() == 2).await;
    let leaving = tokio::spawn(membership.leave());
    tokio::time::sleep(Duration::from_millis(50)).await;
    scripted.holds_joins(false);
    soon(leaving).await.unwrap().unwrap();
    assert_eq!(scripted.left().last(), scripted.joins().last(), "the entry of the new session is gone");
}

#[tokio::test]
async fn who_waits_for_a_namesake_joins_after_it_and_who_does_not_is_refused() {
    let scripted = Scripted::new("namesake");
    let group = group(&scripted).await;
    scripted.refuses_joins(2);
    assert_eq!(soon(group.join(&1)).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let membership = soon(group.join_with(JoinOptions::new().wait())).await.unwrap();
    assert!(membership.is_member());
    assert!(scripted.replaces().iter().all(|replace| *replace == Replace::Nobody));
}

#[tokio::test]
async fn a_join_whose_reply_was_lost_is_repeated_as_the_same() {
    let scripted = Scripted::new("repeated");
    scripted.loses_join_replies(1);
    let membership = soon(group(&scripted).await.join(&1)).await.unwrap();
    assert!(membership.is_member());
    let joins = scripted.joins();
    assert!(joins.len() == 2 && joins[0] == joins[1], "{joins:?}");
}

#[tokio::test]
async fn a_join_that_fails_again_and_again_says_why() {
    let scripted = Scripted::new("says why not");
    scripted.loses_join_replies(usize::MAX);
    let error = soon(group(&scripted).await.join(&1)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("as the test says"), "{error}");
}

#[tokio::test]
async fn who_takes_over_says_so() {
    let scripted = Scripted::new("taken over");
    let membership = soon(group(&scripted).await.join_with(JoinOptions::new().take_over())).await.unwrap();
    assert!(membership.is_member());
    assert_eq!(scripted.replaces(), [Replace::Anybody]);
}

#[tokio::test]
async fn a_member_owns_no_key_past_its_deadline_and_waits_to_stand_again() {
    let scripted = Scripted::new("keys");
    let membership = Arc::new(soon(group(&scripted).await.join(&1)).await.unwrap());
    let partitioner = soon(membership.partitioner()).await.unwrap();
    assert!(partitioner.belongs_to_self("key"), "it is alone");
    scripted.holds_joins(true);
    // On the heart's own thread, so that no other task can find out in between.
    let (clock, asked) = (scripted.clock.clone(), Arc::clone(&membership));
    let owned = scripted.at_the_next_beat(move || {
        clock.advance(TIMEOUT * 2);
        let stands = pin!(asked.wait_standing()).poll(&mut Context::from_waker(Waker::noop()));
        (partitioner.belongs_to_self("key"), asked.is_member(), stands.is_ready())
    });
    scripted.clock.advance(TIMEOUT / 3);
    assert_eq!(soon(owned).await.unwrap(), (false, false, false));
    let standing = async {
        let standing = membership.wait_standing();
        tokio::pin!(standing);
        begin(standing.as_mut()).await;
        scripted.holds_joins(false);
        standing.await
    };
    soon(standing).await.unwrap();
    assert!(membership.is_member());
}

#[tokio::test]
async fn the_last_handle_closes() {
    let scripted = Scripted::new("handles");
    let (coordinator, guard, _) = hold(&scripted).await;
    drop(coordinator);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(guard.is_held() && scripted.closes() == 0, "a guard is a handle too");
    drop(guard);
    eventually(|| scripted.closes() == 1).await;
}

#[tokio::test]
async fn a_time_of_zero_is_no_time() {
    let scripted = Scripted::new("zero");
    let error = soon(scripted.options().operation_timeout(Duration::ZERO).connect()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("operation_timeout"), "{error}");
}

#[tokio::test]
async fn what_is_required_is_looked_for() {
    let scripted = Scripted::new("required");
    let wanted = Characteristics::of(&[Characteristic::BreakableLocks]);
    let error = soon(scripted.options().require(wanted).connect()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("BreakableLocks"), "{error}");
}

#[tokio::test]
async fn elections_are_no_locks_in_use() {
    let scripted = Scripted::new("in use");
    let coordinator = scripted.connect().await;
    let lock = LockKey::lock(&"x".parse().unwrap());
    scripted.tells_in_use(vec![LockKey::election(&"g".parse().unwrap()), lock]);
    let names = soon(coordinator.locks()).await.unwrap();
    assert_eq!(names.iter().map(LockName::as_str).collect::<Vec<_>>(), ["x"]);
}

#[tokio::test]
async fn no_group_is_no_vacancy() {
    let scripted = Scripted::new("vacancy");
    let group = group(&scripted).await;
    assert_eq!(soon(group.leader()).await.unwrap(), None);
    scripted.deletes_the_group();
    assert_eq!(soon(group.leader()).await.unwrap_err().kind(), ErrorKind::NotFound);
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
