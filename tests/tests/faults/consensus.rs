//! Three servers that agree by majority, of etcd, ZooKeeper or Consul: one dies, one is cut off with the holder on its side, and two die at once.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz::LossReason;
use tooz_testbed::{Kind, Server};

use crate::histories::{attempts, judge, players};
use crate::stage::{
    Belief, LATE, LONG, OPERATION, PATIENCE, SHORT, Stage, attempt, blocking, cases, hold, names, soon,
    wait_in_background, within,
};

cases! { "cluster", Cluster, alone: true;
    a_killed_leader_loses_nothing_that_is_held_and_awaited,
    a_paused_leader_loses_nothing_that_is_held_and_awaited,
    a_killed_follower_loses_nothing_that_is_held_and_awaited,
    a_holder_at_a_cut_off_follower_knows_its_loss_before_the_majority_grants,
    a_holder_at_a_cut_off_leader_knows_its_loss_before_the_majority_grants,
    without_a_majority_nothing_is_granted_and_the_deadline_rules,
    every_promise_is_kept_while_leaders_are_killed_and_paused,
}

/// What is done to a node.
type Deed = fn(&Server) -> anyhow::Result<()>;

/// The timeout of a session that a change of leaders is not to end. Followers of ZooKeeper notice a leader that stands still after
/// their `syncLimit`, which is 2 s here, and only then choose another. Those of Consul take three to four seconds for both.
fn lasting(stage: &Stage) -> Duration {
    if matches!(stage.backend.kind, Kind::ZooKeeper | Kind::Consul) { LONG * 2 } else { LONG }
}

/// Another node than that one.
fn other_than(node: usize) -> usize {
    (node + 1) % 3
}

async fn a_killed_leader_loses_nothing_that_is_held_and_awaited(stage: &Stage) {
    let leader = blocking(|| stage.cluster().leader());
    loses_nothing(stage, leader, Server::kill, Server::restart).await;
}

async fn a_paused_leader_loses_nothing_that_is_held_and_awaited(stage: &Stage) {
    let leader = blocking(|| stage.cluster().leader());
    loses_nothing(stage, leader, Server::pause, Server::resume).await;
}

async fn a_killed_follower_loses_nothing_that_is_held_and_awaited(stage: &Stage) {
    let leader = blocking(|| stage.cluster().leader());
    loses_nothing(stage, other_than(leader), Server::kill, Server::restart).await;
}

async fn loses_nothing(stage: &Stage, node: usize, away: Deed, back: Deed) {
    let node = &stage.cluster().nodes()[node];
    let lasting = lasting(stage);
    let (a, b) = (stage.connect("a", lasting).await, stage.connect("b", lasting).await);
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"here")).await.unwrap();
    let guard = hold(&a.lock("x").unwrap()).await;
    let token = guard.fencing_token();
    let waiter = wait_in_background(&b.lock("x").unwrap());
    // Others are in the middle of things.
    let passing = hold(&b.lock("y").unwrap()).await;
    let far_waiter = wait_in_background(&a.lock("y").unwrap());
    sleep(LATE / 4).await;
    blocking(|| away(node));
    let begun = Instant::now();
    if let Err(error) = soon("releasing", passing.release()).await {
        // Then it goes on in the background.
        assert!(error.is_retryable(), "{error:?}");
    }
    drop(soon("the turn of the waiter in the middle of it", far_waiter).await.unwrap());
    stage.note("from the fault to the next grant of another lock", begun.elapsed());
    sleep(lasting + LATE).await;
    assert!(guard.is_held(), "the lock was lost: {:?}", guard.loss().reason());
    assert!(membership.is_member(), "the membership was lost: {:?}", membership.loss().reason());
    assert!(!waiter.is_finished(), "the lock was given to two");
    assert_eq!(names(&b.group("g").unwrap()).await, ["a"]);
    soon("releasing", guard.release()).await.expect("releasing");
    let (next, _) = soon("the waiter's turn", waiter).await.unwrap();
    assert!(next.fencing_token() > token, "the token did not grow");
    blocking(|| back(node));
    blocking(|| stage.cluster().wait_until_whole());
    assert!(next.is_held() && attempt(&a.lock("x").unwrap()).await.is_none(), "mending freed the lock");
    soon("releasing", next.release()).await.expect("releasing");
    soon("leaving", membership.leave()).await.expect("leaving");
}

async fn a_holder_at_a_cut_off_follower_knows_its_loss_before_the_majority_grants(stage: &Stage) {
    let leader = blocking(|| stage.cluster().leader());
    knows_its_loss_first(stage, other_than(leader)).await;
}

/// It goes on answering keep-alives for a while: what it answers must not count.
async fn a_holder_at_a_cut_off_leader_knows_its_loss_before_the_majority_grants(stage: &Stage) {
    let leader = blocking(|| stage.cluster().leader());
    knows_its_loss_first(stage, leader).await;
}

async fn knows_its_loss_first(stage: &Stage, node: usize) {
    let cluster = stage.cluster();
    let (here, there) = (stage.url_of(node), stage.url_of(other_than(node)));
    let (a, b) = (stage.connect_to(&here, "a", SHORT).await, stage.connect_to(&there, "b", lasting(stage)).await);
    let guard = hold(&a.lock("x").unwrap()).await;
    let token = guard.fencing_token();
    let waiter = wait_in_background(&b.lock("x").unwrap());
    sleep(LATE / 4).await;
    let loss = guard.loss();
    let belief = Belief::of(guard);
    let telling = tokio::spawn(async move { (loss.wait().await, Instant::now()) });
    cluster.partition(node);
    let cut = Instant::now();
    // A new leader gives every lease its whole time again.
    let (next, granted) = within(SHORT * 2 + PATIENCE, "the majority's grant", waiter).await.unwrap();
    stage.note("from the cut to the majority's grant", granted - cut);
    let (last, guard) = belief.end().await;
    assert!(last < granted, "it was held for {:?} after another had it", last - granted);
    let (reason, told) = soon("the loss", telling).await.unwrap();
    assert!(told < granted, "the loss was told {:?} after another had it", told - granted);
    stage.note("from the loss told to the majority's grant", granted - told);
    assert_eq!(reason, LossReason::Expired);
    assert!(next.fencing_token() > token, "the token did not grow");

    cluster.heal();
    blocking(|| cluster.wait_until_whole());
    let again = wait_in_background(&a.lock("x").unwrap());
    sleep(SHORT).await;
    assert!(next.is_held() && !again.is_finished() && !guard.is_held(), "healing changed who holds it");
    soon("releasing", next.release()).await.expect("releasing");
    drop(within(PATIENCE + SHORT, "acquiring after healing", again).await.unwrap());
}

async fn without_a_majority_nothing_is_granted_and_the_deadline_rules(stage: &Stage) {
    let cluster = stage.cluster();
    let (a, b) = (stage.connect("a", SHORT).await, stage.connect("b", SHORT).await);
    let guard = hold(&a.lock("x").unwrap()).await;
    let waiter = wait_in_background(&b.lock("x").unwrap());
    let free = b.lock("free").unwrap();
    drop(hold(&free).await);
    sleep(LATE / 4).await;
    blocking(|| cluster.nodes()[0].kill());
    blocking(|| cluster.nodes()[1].kill());
    let expiry = Instant::now() + guard.expires_in().expect("a server is the judge");
    // Watched from now on: the try may take longer than the grant lasts.
    let belief = Belief::of(guard);
    let error = within(OPERATION + LATE, "a try", free.try_acquire()).await.expect_err("there is no majority");
    assert!(error.is_retryable(), "{error:?}");
    let (last, guard) = belief.end().await;
    assert!(last <= expiry, "it was held for {:?} after its expiry", last - expiry);
    assert!(!waiter.is_finished(), "a minority granted something");
    for node in [0, 1] {
        blocking(|| cluster.nodes()[node].restart());
    }
    blocking(|| cluster.wait_until_whole());
    let (next, _) = within(SHORT * 2 + PATIENCE, "the waiter's turn", waiter).await.unwrap();
    assert!(next.fencing_token() > guard.fencing_token() && !guard.is_held());
    eventually_free(&free).await;
}

async fn eventually_free(lock: &tooz::Lock) {
    let what = "what was tried without a majority is free";
    crate::stage::eventually(PATIENCE, what, async || attempt(lock).await.is_some()).await;
}

async fn every_promise_is_kept_while_leaders_are_killed_and_paused(stage: &Stage) {
    let cluster = stage.cluster();
    let time = Duration::from_secs(14);
    let others = players(stage, lasting(stage), time).await;
    let faults: [(Deed, Deed); 3] =
        [(Server::kill, Server::restart), (Server::pause, Server::resume), (Server::kill, Server::restart)];
    for (away, back) in faults {
        sleep(Duration::from_secs(1)).await;
        let leader = blocking(|| cluster.leader());
        blocking(|| away(&cluster.nodes()[leader]));
        sleep(Duration::from_secs(2)).await;
        blocking(|| back(&cluster.nodes()[leader]));
        blocking(|| cluster.wait_until_whole());
    }
    judge(stage, &attempts(others, time).await, 50);
}
