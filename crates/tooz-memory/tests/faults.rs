//! What the fault script and the movable clock can show of core's promises.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tooz_core::{
    ConnectOptions, Coordinator, ErrorKind, GroupEvent, LeaderEvent, LossReason, MemberId, SessionEvent, SessionState,
};
use tooz_memory::{Effect, Fault, Operation, Store};

async fn connect(store: &str, member: &str) -> Coordinator {
    connect_with(store, member, "operation_timeout=1s").await
}

async fn connect_with(store: &str, member: &str, option: &str) -> Coordinator {
    // The registry finds the driver, since this test names its crate.
    let options = ConnectOptions::new(&format!("memory://{store}?session_timeout=2s&{option}")).unwrap();
    options.member(member).unwrap().connect().await.unwrap()
}

fn member(name: &str) -> MemberId {
    name.parse().unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future).await.expect("it takes too long")
}

#[tokio::test]
async fn a_lock_goes_from_one_to_the_next_with_a_greater_token() {
    let (one, two) = (connect("handover", "one").await, connect("handover", "two").await);
    let first = one.lock("x").unwrap().acquire().await.unwrap();
    assert!(two.lock("x").unwrap().try_acquire().await.unwrap().is_none());
    let waiting = tokio::spawn(async move { (two.lock("x").unwrap().acquire().await.unwrap(), two) });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let token = first.fencing_token();
    first.release().await.unwrap();
    let (second, two) = within(waiting).await.unwrap();
    assert!(second.fencing_token() > token);
    within(two.close()).await.unwrap();
    assert!(!second.is_held());
    assert_eq!(two.state(), SessionState::Closed);
    assert_eq!(two.lock("x").unwrap().acquire().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn the_deadline_is_judged_by_the_clock_and_not_by_a_task() {
    let one = connect("deadline", "one").await;
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    assert!(guard.is_held());
    // 1.9 s: past the deadline (2 s less a tenth), not yet past the expiry.
    Store::named("deadline").advance(Duration::from_millis(1900));
    assert!(!guard.is_held(), "no await stands between the move and this");
    assert_eq!(within(guard.loss().wait()).await, LossReason::Expired);
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
}

#[tokio::test]
async fn a_lost_session_is_replaced_and_memberships_come_back_but_locks_do_not() {
    let (one, two) = (connect("rejoin", "one").await, connect("rejoin", "two").await);
    let group = one.group("g").unwrap();
    group.create().await.unwrap();
    let membership = group.join(&"first").await.unwrap();
    let mut watch = two.group("g").unwrap().watch().await.unwrap();
    assert!(matches!(watch.next().await, Some(GroupEvent::Snapshot(members)) if members.len() == 1));
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    let leadership = within(membership.campaign()).await.unwrap();
    let mut leaders = two.group("g").unwrap().watch_leader().await.unwrap();
    assert!(
        matches!(within(leaders.next()).await, Some(LeaderEvent::Elected(leader)) if leader.epoch == leadership.epoch())
    );
    let mut events = one.events();
    Store::named("rejoin").expire(&member("one"));
    assert!(!guard.is_held());
    assert_eq!(within(events.next()).await, Some(SessionEvent::Lost(LossReason::SessionEnded)));
    assert_eq!(within(events.next()).await, Some(SessionEvent::Reopened));
    assert_eq!(within(watch.next()).await, Some(GroupEvent::Left(member("one"))));
    assert!(
        matches!(within(watch.next()).await, Some(GroupEvent::Joined(entry)) if entry.capabilities.as_json() == "\"first\"")
    );
    assert_eq!(within(leaders.next()).await, Some(LeaderEvent::Vacant));
    // Others may see the entry a moment before its own task hears that it was made.
    within(async {
        while !membership.is_member() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(!leadership.is_leader());
    assert!(two.lock("x").unwrap().try_acquire().await.unwrap().is_some());
    within(membership.leave()).await.unwrap();
    within(group.delete()).await.unwrap();
    assert_eq!(within(watch.next()).await, Some(GroupEvent::Left(member("one"))));
    assert_eq!(within(watch.next()).await, Some(GroupEvent::Deleted));
    assert_eq!(within(watch.next()).await, None);
}

#[tokio::test]
async fn a_lost_reply_leaves_no_lock_without_a_holder() {
    let store = Store::named("reply");
    let (one, two) = (connect("reply", "one").await, connect("reply", "two").await);
    let lock = one.lock("x").unwrap();
    store.script(Fault::new(Operation::Lock, Effect::LoseReply));
    assert_eq!(lock.try_acquire().await.unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(two.lock("x").unwrap().holders().await.unwrap().is_empty());
    store.script(Fault::new(Operation::Lock, Effect::LoseReply));
    let guard = within(lock.acquire()).await.unwrap();
    store.script(Fault::new(Operation::Release, Effect::LoseReply));
    // Asked again, and found done.
    within(guard.release()).await.unwrap();
    assert!(within(two.lock("x").unwrap().acquire_within(Duration::from_secs(2))).await.unwrap().is_some());
    let group = one.group("g").unwrap();
    store.script(Fault::new(Operation::Join, Effect::LoseReply));
    let membership = within(group.join_or_create(&1)).await;
    assert!(membership.is_ok() || membership.unwrap_err().kind() == ErrorKind::NotFound);
    assert!(store.is_script_done());
}

#[tokio::test]
async fn a_release_that_arrives_after_the_end_of_the_session_is_no_success() {
    let store = Store::named("late");
    // By the machine's clock, which the delay does not move: nothing here should end by it.
    let one = connect_with("late", "one", "operation_timeout=60s").await;
    let two = connect("late", "two").await;
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    // On its way for longer than the session lives: when it was asked for, the lock was held, when it arrives, it is another's.
    store.script(Fault::new(Operation::Release, Effect::Delay(Duration::from_secs(3))).of(member("one")));
    let releasing = tokio::spawn(guard.release());
    while !store.is_script_done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.advance(Duration::from_secs(3));
    let next = within(two.lock("x").unwrap().acquire()).await.unwrap();
    assert_eq!(within(releasing).await.unwrap().unwrap_err().kind(), ErrorKind::Lost);
    assert!(next.is_held());
    assert!(
        one.lock("x").unwrap().try_acquire().await.unwrap().is_none(),
        "the late release has freed the next one's lock"
    );
}

#[tokio::test]
async fn cut_off_for_less_than_the_timeout_loses_nothing_and_for_longer_everything() {
    let store = Store::named("cut");
    let one = connect("cut", "one").await;
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    let mut events = one.events();
    store.partition(&member("one"));
    let suspended = within(events.next()).await;
    assert!(
        matches!(&suspended, Some(SessionEvent::Suspended(error)) if error.kind() == ErrorKind::Unavailable),
        "{suspended:?}"
    );
    assert!(guard.is_held());
    store.heal(&member("one"));
    assert_eq!(within(events.next()).await, Some(SessionEvent::Resumed));
    assert!(guard.is_held());
    store.partition(&member("one"));
    let cut = Instant::now();
    assert_eq!(within(guard.loss().wait()).await, LossReason::Expired);
    assert!(cut.elapsed() <= Duration::from_secs(2), "known before the store can grant it again");
    assert_eq!(one.lock("x").unwrap().try_acquire().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let waiting = tokio::spawn(async move { one.lock("x").unwrap().acquire().await.map(|guard| guard.is_held()) });
    tokio::time::sleep(Duration::from_millis(200)).await;
    store.heal(&member("one"));
    assert!(within(waiting).await.unwrap().unwrap());
}

#[tokio::test]
async fn a_closed_coordinator_ends_every_wait() {
    let (one, two) = (connect("closing", "one").await, connect("closing", "two").await);
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    let lock = two.lock("x").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await.map(drop) });
    tokio::time::sleep(Duration::from_millis(50)).await;
    within(two.close()).await.unwrap();
    assert_eq!(within(waiting).await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    drop(one);
    assert!(guard.is_held(), "a guard keeps its coordinator");
    drop(guard);
    let three = connect("closing", "three").await;
    assert!(within(three.lock("x").unwrap().acquire()).await.unwrap().is_held());
}

#[tokio::test]
async fn an_update_under_which_the_session_ends_is_done_by_the_re_join() {
    let (one, two) = (connect("update", "one").await, connect("update", "two").await);
    let membership = one.group("g").unwrap().join_or_create(&"first").await.unwrap();
    let loss = membership.loss();
    Store::named("update").script(Fault::new(Operation::Update, Effect::Fail(ErrorKind::Lost)).of(member("one")));
    within(membership.update(&"second")).await.unwrap();
    assert_eq!(loss.reason(), Some(LossReason::SessionEnded));
    assert!(membership.is_member(), "it was answered before it was true");
    let members = two.group("g").unwrap().members().await.unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
    assert_eq!(members[0].capabilities.get::<String>().unwrap(), "second");
}

#[tokio::test]
async fn a_grant_that_expired_before_it_was_taken_is_none() {
    let (one, two) = (connect("late-grant", "one").await, connect("late-grant", "two").await);
    let held = one.lock("x").unwrap().acquire().await.unwrap();
    let lock = two.lock("x").unwrap();
    let mut waiting = std::pin::pin!(lock.acquire());
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.is_err());
    // The lock is the waiter's from here on, but the waiter's process stands still.
    held.release().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    Store::named("late-grant").advance(Duration::from_millis(1900));
    let guard = within(waiting).await.unwrap();
    assert!(guard.is_held(), "it was lost when it was handed out");
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_that_takes_seconds_holds_up_no_heartbeat() {
    let one = connect("heavy", "one").await;
    let group = one.group("g").unwrap();
    group.create().await.unwrap();
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    let mut partitioner = group.partitioner().await.unwrap();
    let heavy = ["two", "three", "four", "five"];
    let mut there = Vec::new();
    for name in heavy {
        let coordinator = connect("heavy", name).await;
        // The greatest weight that counts: 320,000 points.
        let membership = coordinator.group("g").unwrap().join(&HashMap::from([("weight", 10_000)])).await.unwrap();
        there.push((coordinator, membership));
    }
    let begun = Instant::now();
    while partitioner.members_for("key", heavy.len()).len() < heavy.len() {
        assert!(begun.elapsed() < Duration::from_mins(2), "the ring does not come");
        tokio::time::timeout(Duration::from_mins(2), partitioner.changed()).await.expect("the ring comes");
    }
    assert_eq!(guard.loss().reason(), None, "after {:?}", begun.elapsed());
    assert!(guard.is_held());
    guard.release().await.unwrap();
}

#[tokio::test]
async fn thousands_share_a_lock_and_the_writer_behind_them_gets_it() {
    let (readers, writer) = (connect("thousands", "readers").await, connect("thousands", "writer").await);
    let shared = readers.lock("x").unwrap().shared();
    let mut guards = Vec::new();
    for _ in 0..3000 {
        guards.push(shared.acquire().await.unwrap());
    }
    assert_eq!(writer.lock("x").unwrap().holders().await.unwrap().len(), guards.len());
    let waiting =
        tokio::spawn(async move { writer.lock("x").unwrap().acquire().await.map(|guard| guard.fencing_token()) });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let last = guards.iter().map(tooz_core::LockGuard::fencing_token).max();
    for guard in guards {
        guard.release().await.unwrap();
    }
    assert!(Some(within(waiting).await.unwrap().unwrap()) > last);
}

#[tokio::test]
async fn a_forgotten_group_is_made_again_by_a_member_that_was_to_create_it_and_by_no_other() {
    let (one, two) = (connect("forgotten", "one").await, connect("forgotten", "two").await);
    let (group, other) = (one.group("g").unwrap(), two.group("g").unwrap());
    let membership = group.join_or_create(&1).await.unwrap();
    let mut partitioner = membership.partitioner().await.unwrap();
    let existing = one.group("h").unwrap();
    existing.create().await.unwrap();
    let fixed = existing.join(&1).await.unwrap();
    let store = Store::named("forgotten");
    store.partition(&member("one"));
    store.expire(&member("one"));
    for group in [&other, &two.group("h").unwrap()] {
        within(group.delete()).await.unwrap();
    }
    store.heal(&member("one"));
    within(async {
        while !membership.is_member() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(within(other.members()).await.unwrap().len(), 1);
    within(async {
        while !partitioner.belongs_to_self("k") {
            assert!(partitioner.changed().await, "the partitioner is followed as long as the membership is not over");
        }
    })
    .await;
    assert_eq!(within(fixed.wait_standing()).await, Err(LossReason::GroupDeleted), "it was to create none");
    // Left for good, the partitioner ends.
    within(membership.leave()).await.unwrap();
    within(other.delete()).await.unwrap();
    within(async { while partitioner.changed().await {} }).await;
    assert!(!partitioner.belongs_to_self("k"));
}
