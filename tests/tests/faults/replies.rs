//! A request is done, and its reply gets lost: there is exactly one owner afterwards, and nothing is left behind.
//!
//! The proxy lets the request through whose bytes hold the name, lets nothing of the answer through, and then resets
//! the connection. All names here are such that every driver has them in its requests as they are.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tooz::{Coordinator, GroupEvent, GroupWatch, LockGuard};
use tooz_testbed::{Proxy, Swallow};

use crate::stage::{
    LONG, MOMENT, OPERATION, PATIENCE, Stage, attempt, blocking, cases, eventually, hold, names, soon,
    wait_in_background, within,
};

cases! { "replies", Server, alone: false;
    a_lost_reply_of_acquire_leaves_one_owner,
    a_lost_reply_of_try_acquire_leaves_one_owner_or_none,
    a_lost_reply_of_a_wait_keeps_the_place_or_takes_another,
    a_lost_reply_of_release_frees_once,
    a_lost_reply_of_join_leaves_one_member,
    a_lost_reply_of_update_is_done,
    a_lost_reply_of_leave_leaves_none,
}

pub(crate) const NAME: &str = "swallowed";

/// Two coordinators: `a` by way of a proxy, with an open session, and `b`, for whom nothing gets lost.
pub(crate) async fn two(stage: &Stage) -> (Proxy, Coordinator, Coordinator) {
    let proxy = stage.proxy();
    let a = stage.connect_to(&stage.url_by(&proxy), "a", LONG).await;
    let b = stage.connect("b", LONG).await;
    soon("releasing", hold(&a.lock("warm").unwrap()).await.release()).await.unwrap();
    (proxy, a, b)
}

fn swallow(proxy: &Proxy) -> Swallow {
    proxy.swallow_reply(NAME.as_bytes())
}

/// A case that lost no reply has shown nothing.
pub(crate) fn must_have_happened(swallow: &Swallow) {
    assert!(blocking(|| Ok(swallow.wait(PATIENCE))), "no request with that name was sent");
}

async fn a_lost_reply_of_acquire_leaves_one_owner(stage: &Stage) {
    let (proxy, a, b) = two(stage).await;
    let swallowed = swallow(&proxy);
    let guard = hold(&a.lock(NAME).unwrap()).await;
    must_have_happened(&swallowed);
    let lock = b.lock(NAME).unwrap();
    let holders = soon("holders", lock.holders()).await.unwrap();
    assert_eq!(holders.len(), 1, "{holders:?}");
    assert_eq!(holders[0].token, guard.fencing_token(), "the grant in hand is another one than the server's");
    assert!(attempt(&lock).await.is_none() && guard.is_held());
    soon("releasing", guard.release()).await.expect("releasing");
    soon("releasing", hold(&lock).await.release()).await.expect("releasing");
    stage.nothing_is_left().await;
}

async fn a_lost_reply_of_try_acquire_leaves_one_owner_or_none(stage: &Stage) {
    let (proxy, a, b) = two(stage).await;
    let swallowed = swallow(&proxy);
    let tried = within(OPERATION + PATIENCE, "trying", a.lock(NAME).unwrap().try_acquire()).await;
    must_have_happened(&swallowed);
    let lock = b.lock(NAME).unwrap();
    match tried {
        Ok(Some(guard)) => {
            assert!(attempt(&lock).await.is_none() && guard.is_held());
            soon("releasing", guard.release()).await.expect("releasing");
        }
        Ok(None) => panic!("it has no holder, and it was refused"),
        // It was not known, so it is withdrawn.
        Err(error) => assert!(error.is_retryable(), "{error:?}"),
    }
    eventually(PATIENCE, "it is free", async || attempt(&lock).await.is_some()).await;
    stage.nothing_is_left().await;
}

async fn a_lost_reply_of_a_wait_keeps_the_place_or_takes_another(stage: &Stage) {
    let (proxy, a, b) = two(stage).await;
    let guard = hold(&b.lock(NAME).unwrap()).await;
    let swallowed = swallow(&proxy);
    let waiter = wait_in_background(&a.lock(NAME).unwrap());
    must_have_happened(&swallowed);
    sleep(MOMENT).await;
    assert!(guard.is_held() && !waiter.is_finished(), "the lock was given to two");
    soon("releasing", guard.release()).await.expect("releasing");
    let (guard, _) = soon("the waiter's turn", waiter).await.unwrap();
    let lock = b.lock(NAME).unwrap();
    assert!(attempt(&lock).await.is_none() && guard.is_held());
    soon("releasing", guard.release()).await.expect("releasing");
    // A second place of the same waiter would be granted now, and no task would have the grant.
    eventually(OPERATION, "it is free", async || attempt(&lock).await.is_some()).await;
    stage.nothing_is_left().await;
}

async fn a_lost_reply_of_release_frees_once(stage: &Stage) {
    let (proxy, a, b) = two(stage).await;
    let guard = hold(&a.lock(NAME).unwrap()).await;
    let waiter = wait_in_background(&b.lock(NAME).unwrap());
    sleep(MOMENT).await;
    let swallowed = swallow(&proxy);
    soon("releasing", guard.release()).await.expect("releasing");
    must_have_happened(&swallowed);
    is_the_next_ones(stage, waiter, &a).await;
}

/// What was given back with a lost reply has its next holder, and whatever is repeated now, it is not that one's lock.
pub(crate) async fn is_the_next_ones(stage: &Stage, waiter: JoinHandle<(LockGuard, Instant)>, former: &Coordinator) {
    let (next, _) = soon("the waiter's turn", waiter).await.unwrap();
    sleep(MOMENT * 4).await;
    let tried = attempt(&former.lock(NAME).unwrap()).await;
    assert!(next.is_held() && tried.is_none(), "the repeated release freed another's");
    soon("releasing", next.release()).await.expect("releasing");
    stage.nothing_is_left().await;
}

/// What the watch tells until it is quiet for a while.
pub(crate) async fn told(watch: &mut GroupWatch) -> Vec<GroupEvent> {
    let mut events = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_millis(500), watch.next()).await {
        events.push(event);
    }
    events
}

async fn a_lost_reply_of_join_leaves_one_member(stage: &Stage) {
    let (proxy, a, b) = two(stage).await;
    let group = b.group(NAME).unwrap();
    soon("creating", group.create()).await.unwrap();
    let mut watch = soon("watching", group.watch()).await.unwrap();
    let swallowed = swallow(&proxy);
    let membership = soon("joining", a.group(NAME).unwrap().join(&"here")).await.expect("joining");
    must_have_happened(&swallowed);
    assert!(membership.is_member());
    assert_eq!(names(&group).await, ["a"]);
    let events = told(&mut watch).await;
    assert!(matches!(&events[..], [GroupEvent::Snapshot(_), GroupEvent::Joined(_)]), "{events:?}");
    soon("leaving", membership.leave()).await.expect("leaving");
    soon("deleting", group.delete()).await.expect("a group without members can be deleted");
    drop(watch);
    stage.nothing_is_left().await;
}

async fn a_lost_reply_of_update_is_done(stage: &Stage) {
    let (proxy, a, b) = two(stage).await;
    let membership = soon("joining", a.group(NAME).unwrap().join_or_create(&"first")).await.unwrap();
    let swallowed = swallow(&proxy);
    soon("updating", membership.update(&"second")).await.expect("updating");
    must_have_happened(&swallowed);
    let members = soon("listing", b.group(NAME).unwrap().members()).await.unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
    assert_eq!(members[0].capabilities.get::<String>().unwrap(), "second");
}

async fn a_lost_reply_of_leave_leaves_none(stage: &Stage) {
    let (proxy, a, b) = two(stage).await;
    let group = b.group(NAME).unwrap();
    let membership = soon("joining", a.group(NAME).unwrap().join_or_create(&"here")).await.unwrap();
    let mut watch = soon("watching", group.watch()).await.unwrap();
    let swallowed = swallow(&proxy);
    soon("leaving", membership.leave()).await.expect("leaving");
    must_have_happened(&swallowed);
    assert!(names(&group).await.is_empty(), "who left is still listed");
    // A new membership of the same member is not the one that left: what is repeated does not end it.
    let again = soon("joining again", a.group(NAME).unwrap().join(&"again")).await.expect("joining again");
    sleep(MOMENT * 4).await;
    assert!(again.is_member());
    assert_eq!(names(&group).await, ["a"]);
    let events = told(&mut watch).await;
    let [GroupEvent::Snapshot(_), GroupEvent::Left(_), GroupEvent::Joined(_)] = &events[..] else {
        panic!("{events:?}");
    };
    soon("leaving", again.leave()).await.expect("leaving");
    soon("deleting", group.delete()).await.expect("a group without members can be deleted");
    drop(watch);
    stage.nothing_is_left().await;
}
