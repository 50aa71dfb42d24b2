//! The blocking handles from a plain thread, over the memory driver.
#![cfg(all(feature = "blocking", feature = "memory"))]

use std::thread;
use std::time::Duration;

use tooz::blocking::{self, Coordinator};
use tooz::{Characteristic, ErrorKind, GroupEvent, LeaderEvent, LockMode, LossReason, SessionEvent, SessionState};

fn connect(store: &str, member: &str) -> Coordinator {
    blocking::connect(&format!("memory://{store}"), member).unwrap()
}

#[test]
fn a_lock_goes_from_thread_to_thread() {
    let (one, two) = (connect("b-lock", "one"), connect("b-lock", "two"));
    let (lock, other) = (one.lock("x").unwrap(), two.lock("x").unwrap());
    let guard = lock.acquire().unwrap();
    assert!(guard.is_held() && guard.check().is_ok() && guard.mode() == LockMode::Exclusive);
    assert!(other.try_acquire().unwrap().is_none());
    assert!(other.acquire_within(Duration::from_millis(5)).unwrap().is_none());
    assert_eq!(lock.holders().unwrap().len(), 1);
    let token = guard.fencing_token();
    let waiting = thread::spawn(move || other.acquire().unwrap().fencing_token());
    while lock.waiters().unwrap().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    let loss = guard.loss();
    assert_eq!(loss.wait_for(Duration::from_millis(1)).unwrap(), None);
    guard.release().unwrap();
    assert!(waiting.join().unwrap() > token);
    assert_eq!(loss.wait().unwrap(), LossReason::Released);
    let readers = [lock.shared().acquire().unwrap(), lock.shared().try_acquire().unwrap().unwrap()];
    drop(readers);
    one.close().unwrap();
    assert_eq!(lock.acquire().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_group_is_joined_watched_led_and_left() {
    let (one, two) = (connect("b-group", "one"), connect("b-group", "two"));
    let group = one.group("g").unwrap();
    let membership = group.join_or_create("ready").unwrap();
    assert!(membership.is_member() && membership.over().is_none());
    let mut watch = two.group("g").unwrap().watch().unwrap();
    assert!(matches!(watch.next(), Some(GroupEvent::Snapshot(members)) if members.len() == 1));
    assert!(watch.next_for(Duration::from_millis(1)).unwrap().is_none() && watch.end().is_none());
    let leadership = membership.campaign().unwrap();
    assert!(leadership.is_leader() && leadership.check().is_ok());
    assert_eq!(group.leader().unwrap().map(|leader| leader.epoch), Some(leadership.epoch()));
    let mut leaders = group.watch_leader().unwrap();
    assert!(matches!(leaders.next(), Some(LeaderEvent::Elected(_))));
    let partitioner = membership.partitioner().unwrap();
    assert!(partitioner.belongs_to_self("k") && partitioner.members_for("k", 1).len() == 1);
    membership.update("busy").unwrap();
    assert!(matches!(watch.next(), Some(GroupEvent::Updated(_))));
    leadership.resign().unwrap();
    assert_eq!(leaders.next(), Some(LeaderEvent::Vacant));
    membership.leave().unwrap();
    assert_eq!(membership.wait_standing().unwrap_err().kind(), ErrorKind::Lost);
    assert!(matches!(watch.next(), Some(GroupEvent::Left(_))));
    group.delete().unwrap();
    assert!(matches!(watch.next(), Some(GroupEvent::Deleted)) && watch.next().is_none());
    assert_eq!(watch.end().unwrap().kind(), ErrorKind::NotFound);
    let mut events = one.events();
    one.close().unwrap();
    assert!(events.all(|event| !matches!(event, SessionEvent::Reopened)), "it ends with the coordinator");
}

#[test]
fn what_the_leader_does_begins_anew_with_the_next_leadership() {
    let one = connect("b-lead", "one");
    let store = tooz::memory::Store::named("b-lead");
    let group = one.group("g").unwrap();
    let mut epochs = Vec::new();
    let answer = group
        .lead(|leadership| {
            epochs.push(leadership.epoch());
            if epochs.len() == 1 {
                store.expire(one.member());
                let reason = leadership.loss().wait().unwrap();
                assert_eq!(leadership.check(), Err(reason));
                leadership.check()?;
            }
            assert!(leadership.remaining().is_some() && leadership.expires_in().is_some());
            Ok(epochs.len())
        })
        .unwrap();
    assert_eq!(answer, 2);
    assert!(epochs[0] < epochs[1], "{epochs:?}");
    assert!(group.members().unwrap().is_empty() && group.leader().unwrap().is_none());
    let membership = group.join("here").unwrap();
    let error = group.lead(|_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("Membership::lead"), "{error}");
    assert!(membership.lead(|leadership| Ok(leadership.is_leader())).unwrap());
    one.close().unwrap();
}

#[test]
fn what_is_done_under_a_lock_begins_anew_with_the_next_grant() {
    let one = connect("b-hold", "one");
    let lock = one.lock("x").unwrap();
    let mut grants = 0;
    let answer = lock
        .hold(|guard| {
            grants += 1;
            if grants == 1 {
                lock.break_lock(&lock.holders().unwrap()[0]).unwrap();
                guard.loss().wait().unwrap();
            }
            guard.check()?;
            assert!(guard.loss().remaining().is_some());
            Ok("done")
        })
        .unwrap();
    assert_eq!((answer, grants), ("done", 2));
    assert!(lock.holders().unwrap().is_empty());
    one.close().unwrap();
}

#[test]
fn a_coordinator_says_how_it_is_without_async() {
    let one = connect("b-says", "one");
    assert_eq!(one.member().as_str(), "one");
    assert_eq!(one.state(), SessionState::Idle);
    assert!(one.terms().is_none() && one.session_timeout() > Duration::ZERO);
    assert!(one.characteristics().has(Characteristic::SharedLocks));
    let _ = one.check_up().unwrap();
    let guard = one.lock("x").unwrap().acquire().unwrap();
    assert_eq!(one.state(), SessionState::Open);
    assert!(one.terms().is_some());
    drop(guard);
    one.close().unwrap();
    assert_eq!(one.state(), SessionState::Closed);
}

#[test]
fn inside_a_runtime_each_call_says_what_is_wrong() {
    let one = connect("b-inside", "one");
    let lock = one.lock("x").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let error = runtime.block_on(async { lock.acquire().unwrap_err() });
    assert!(error.to_string().contains("inside an async runtime"), "{error}");
    assert!(lock.try_acquire().unwrap().is_some(), "it was not asked for");
}
