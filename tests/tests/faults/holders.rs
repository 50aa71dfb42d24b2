//! Processes are killed or stopped while they hold, wait and lead.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz::{LeaderEvent, LeaderWatch};

use crate::stage::{LATE, MOMENT, PATIENCE, SHORT, Stage, attempt, cases, hold, soon, wait_in_background, within};
use crate::worker::{Command, Other};

cases! { "holders", Server, alone: false;
    a_killed_holders_lock_is_the_next_ones_in_time,
    a_stopped_holder_sees_its_loss_at_the_first_look_and_frees_no_other_lock,
    a_waiter_killed_in_the_queue_is_skipped,
    a_waiter_stopped_in_the_queue_is_skipped,
    a_killed_leader_is_followed_by_a_vacancy_and_a_greater_epoch,
    a_killed_process_leaves_nothing_behind,
}

async fn a_killed_holders_lock_is_the_next_ones_in_time(stage: &Stage) {
    let lock = stage.connect("here", SHORT).await.lock("x").unwrap();
    let mut other = Other::start(stage, "there", SHORT).await;
    let token = other.hold("x").await;
    let waiter = wait_in_background(&lock);
    sleep(MOMENT).await;
    let killed = Instant::now();
    other.kill().await;
    let (guard, granted) = soon("the dead one's lock", waiter).await.unwrap();
    let took = granted - killed;
    stage.note("from the kill to the next grant", took);
    assert!(took <= stage.inherited_after(SHORT) + LATE, "it took {took:?}");
    assert!(guard.fencing_token().0 > token, "the token did not grow");
    soon("releasing", guard.release()).await.expect("releasing");
}

async fn a_stopped_holder_sees_its_loss_at_the_first_look_and_frees_no_other_lock(stage: &Stage) {
    let lock = stage.connect("here", SHORT).await.lock("x").unwrap();
    let third = stage.connect("third", SHORT).await.lock("x").unwrap();
    let mut other = Other::start(stage, "there", SHORT).await;
    let token = other.hold("x").await;
    let waiter = wait_in_background(&lock);
    sleep(MOMENT).await;
    let stopped = Instant::now();
    other.tell(&Command::StopThenLookAndRelease).await;
    let (guard, granted) = soon("the stopped one's lock", waiter).await.unwrap();
    stage.note("from the stop to the next grant", granted - stopped);
    assert!(granted - stopped <= stage.ended_after(SHORT) + LATE, "it took {:?}", granted - stopped);
    assert!(guard.fencing_token().0 > token, "the token did not grow");
    other.resume();
    let reply = other.reply(PATIENCE).await;
    assert_eq!(reply.held, Some(false), "the first look after the continue");
    assert_eq!(reply.release.as_deref(), Some("Lost"), "the release of what was lost");
    sleep(MOMENT * 2).await;
    assert!(guard.is_held() && attempt(&third).await.is_none(), "the stopped one freed another's lock");
    let holders = soon("holders", third.holders()).await.unwrap();
    assert_eq!(holders.len(), 1, "{holders:?}");
    assert_eq!(holders[0].token, guard.fencing_token());
    soon("releasing", guard.release()).await.expect("releasing");
    other.end().await;
}

async fn a_waiter_killed_in_the_queue_is_skipped(stage: &Stage) {
    let (guard, other, waiter) = a_waiter_between(stage).await;
    let mut other = other;
    other.kill().await;
    its_turn_comes(stage, guard, waiter).await;
}

async fn a_waiter_stopped_in_the_queue_is_skipped(stage: &Stage) {
    let (guard, other, waiter) = a_waiter_between(stage).await;
    other.stop();
    its_turn_comes(stage, guard, waiter).await;
    // Its place is gone, and what it is granted later is its own affair.
    other.resume();
}

type Waiter = tokio::task::JoinHandle<(tooz::LockGuard, Instant)>;

/// A grant here, a waiter in another process behind it, and one here behind that.
async fn a_waiter_between(stage: &Stage) -> (tooz::LockGuard, Other, Waiter) {
    let first = stage.connect("first", SHORT).await;
    let last = stage.connect("last", SHORT).await;
    let guard = hold(&first.lock("x").unwrap()).await;
    let mut other = Other::start(stage, "between", SHORT).await;
    other.ask(&Command::Wait { lock: "x".into() }).await;
    sleep(MOMENT * 2).await;
    let waiter = wait_in_background(&last.lock("x").unwrap());
    sleep(MOMENT).await;
    (guard, other, waiter)
}

async fn its_turn_comes(stage: &Stage, guard: tooz::LockGuard, waiter: Waiter) {
    let gone = Instant::now();
    soon("releasing", guard.release()).await.expect("releasing");
    let (guard, granted) = soon("the turn of the waiter behind", waiter).await.unwrap();
    stage.note("from the end of one in the queue to the turn of the waiter behind", granted - gone);
    assert!(granted - gone <= stage.ended_after(SHORT) + LATE, "it took {:?}", granted - gone);
    soon("releasing", guard.release()).await.expect("releasing");
}

async fn elected(watch: &mut LeaderWatch) -> tooz::Leader {
    match soon("an election", watch.next()).await {
        Some(LeaderEvent::Elected(leader)) => leader,
        other => panic!("{other:?} in place of an election"),
    }
}

async fn a_killed_leader_is_followed_by_a_vacancy_and_a_greater_epoch(stage: &Stage) {
    let next = stage.connect("next", SHORT).await;
    let observer = stage.connect("observer", SHORT).await;
    let mut other = Other::start(stage, "leader", SHORT).await;
    let epoch = other.ask(&Command::Lead { group: "g".into() }).await.token.expect("a leadership has an epoch");
    // One client that campaigns too, and one that only looks.
    let mut watches = Vec::new();
    for coordinator in [&next, &observer] {
        let mut watch = soon("watching", coordinator.group("g").unwrap().watch_leader()).await.unwrap();
        let leader = elected(&mut watch).await;
        assert_eq!((leader.member.as_str(), leader.epoch.0), ("leader", epoch));
        watches.push(watch);
    }
    let membership = soon("joining", next.group("g").unwrap().join(&())).await.unwrap();
    let candidate = tokio::spawn(async move {
        let leadership = membership.campaign().await.expect("campaigning");
        (leadership, membership, Instant::now())
    });
    sleep(MOMENT).await;
    let killed = Instant::now();
    other.kill().await;
    let (leadership, _membership, since) = soon("the election", candidate).await.unwrap();
    stage.note("from the kill of the leader to the next", since - killed);
    assert!(since - killed <= stage.inherited_after(SHORT) + LATE, "it took {:?}", since - killed);
    assert!(leadership.epoch().0 > epoch, "the epoch did not grow");
    for watch in &mut watches {
        assert_eq!(within(LATE * 2, "the vacancy", watch.next()).await, Some(LeaderEvent::Vacant));
        let leader = elected(watch).await;
        assert_eq!((leader.member.as_str(), leader.epoch), ("next", leadership.epoch()));
    }
    soon("resigning", leadership.resign()).await.expect("resigning");
    for watch in &mut watches {
        assert_eq!(soon("the vacancy", watch.next()).await, Some(LeaderEvent::Vacant));
    }
}

/// What is asked for no more goes too: of a dead process nothing stays at the server.
async fn a_killed_process_leaves_nothing_behind(stage: &Stage) {
    let held = stage.connect("here", SHORT).await;
    let guard = hold(&held.lock("awaited").unwrap()).await;
    let mut other = Other::start(stage, "there", SHORT).await;
    other.hold("held").await;
    other.ask(&Command::Wait { lock: "awaited".into() }).await;
    other.ask(&Command::Lead { group: "g".into() }).await;
    sleep(MOMENT).await;
    other.kill().await;
    sleep(stage.inherited_after(SHORT).max(SHORT + Duration::from_secs(1))).await;
    soon("releasing", guard.release()).await.expect("releasing");
    soon("deleting", held.group("g").unwrap().delete()).await.expect("a group of the dead can be deleted");
    stage.nothing_is_left().await;
}
