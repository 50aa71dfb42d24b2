//! A Redis primary, two replicas and three Sentinels: the primary dies, stands still, or is cut off from all but its clients.
//!
//! Replication is asynchronous, so each case gives it a moment before it breaks something: what a failover may lose is not
//! judged here, what it must not lose is.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz_testbed::{Proxy, Server};

use crate::stage::{
    Belief, LATE, PATIENCE, Stage, attempt, blocking, cases, hold, names, soon, wait_in_background, within,
};

cases! { "sentinel", Cluster, alone: true;
    a_killed_primary_loses_nothing_that_is_held_and_awaited,
    a_paused_and_deposed_primary_loses_nothing_and_grants_nothing_twice,
    a_primary_cut_off_from_its_replicas_keeps_no_belief_alive,
    a_holder_left_alone_with_a_cut_off_primary_knows_its_loss_before_another_is_granted,
}

/// Longer than a failover takes.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For what was written to reach the replicas.
const REPLICATION: Duration = Duration::from_millis(500);

/// Waits until another node than that one is the primary.
fn failover(stage: &Stage, old: usize) {
    let begun = Instant::now();
    blocking(|| stage.cluster().leader_other_than(old));
    stage.note("until there was another primary", begun.elapsed());
}

async fn a_killed_primary_loses_nothing_that_is_held_and_awaited(stage: &Stage) {
    let cluster = stage.cluster();
    loses_nothing(
        stage,
        async |old| {
            blocking(|| cluster.nodes()[old].kill());
            failover(stage, old);
        },
        async |old| blocking(|| cluster.nodes()[old].restart()),
    )
    .await;
}

/// After its pause it believes to be the primary still, for as long as it is not told.
async fn a_paused_and_deposed_primary_loses_nothing_and_grants_nothing_twice(stage: &Stage) {
    let cluster = stage.cluster();
    loses_nothing(
        stage,
        async |old| {
            blocking(|| cluster.nodes()[old].pause());
            failover(stage, old);
            blocking(|| cluster.nodes()[old].resume());
        },
        async |_| {},
    )
    .await;
}

async fn loses_nothing(stage: &Stage, fault: impl AsyncFnOnce(usize), mending: impl AsyncFnOnce(usize)) {
    let cluster = stage.cluster();
    let (a, b) = (stage.connect("a", TIMEOUT).await, stage.connect("b", TIMEOUT).await);
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"here")).await.unwrap();
    let guard = hold(&a.lock("x").unwrap()).await;
    let token = guard.fencing_token();
    let waiter = wait_in_background(&b.lock("x").unwrap());
    sleep(REPLICATION).await;
    let old = blocking(|| cluster.leader());
    fault(old).await;

    // Longer than the timeout: no session lives on by what the old primary was told.
    sleep(TIMEOUT + LATE).await;
    assert!(guard.is_held(), "the lock was lost: {:?}", guard.loss().reason());
    assert!(membership.is_member(), "the membership was lost: {:?}", membership.loss().reason());
    assert!(!waiter.is_finished(), "the lock was given to two");
    assert_eq!(names(&b.group("g").unwrap()).await, ["a"]);
    let third = stage.connect("third", TIMEOUT).await;
    assert!(attempt(&third.lock("x").unwrap()).await.is_none(), "the lock was given to two");
    soon("releasing", guard.release()).await.expect("releasing");
    let (next, _) = soon("the waiter's turn", waiter).await.unwrap();
    assert!(next.fencing_token() > token, "the token did not grow");

    mending(old).await;
    blocking(|| cluster.wait_until_whole());
    assert!(next.is_held() && attempt(&third.lock("x").unwrap()).await.is_none(), "mending freed the lock");
    soon("releasing", next.release()).await.expect("releasing");
    soon("leaving", membership.leave()).await.expect("leaving");
}

/// It answers its clients, and so would keep the old holder's session alive while the new primary grants to another.
async fn a_primary_cut_off_from_its_replicas_keeps_no_belief_alive(stage: &Stage) {
    // Whose session follows to the new primary is kept.
    no_belief_is_kept_alive(stage, &stage.url(), || (), || ()).await;
}

/// The worst of it: the client reaches the deposed primary alone, which answers as ever.
async fn a_holder_left_alone_with_a_cut_off_primary_knows_its_loss_before_another_is_granted(stage: &Stage) {
    let start = |sentinel: &Server| Proxy::start(sentinel.address()).expect("a proxy can be started");
    let ways: Vec<_> = stage.cluster().sentinels().iter().map(start).collect();
    let addresses: Vec<_> = ways.iter().map(|way| way.address().to_string()).collect();
    let all = stage.cluster().url();
    let options = all.split_once("/0").expect("the URL names the database").1;
    let url = format!("redis://{}/0{options}", addresses.join(","));
    no_belief_is_kept_alive(stage, &url, || ways.iter().for_each(Proxy::stall), || ways.iter().for_each(Proxy::heal))
        .await;
}

async fn no_belief_is_kept_alive(stage: &Stage, url: &str, leave_alone: impl FnOnce(), bring_back: impl FnOnce()) {
    let cluster = stage.cluster();
    let a = stage.connect_to(url, "a", TIMEOUT).await;
    let lock = a.lock("x").unwrap();
    let guard = hold(&lock).await;
    let token = guard.fencing_token();
    sleep(REPLICATION).await;
    let old = blocking(|| cluster.leader());
    leave_alone();
    let belief = Belief::of(guard);
    cluster.partition(old);
    let cut = Instant::now();
    failover(stage, old);
    let b = stage.connect("b", TIMEOUT).await;
    let mut waiter = wait_in_background(&b.lock("x").unwrap());
    // Its session may have followed to the new primary, and is kept then; or it ends, and it knows first.
    let limit = TIMEOUT * 2;
    let (next, last) = tokio::select! {
        granted = &mut waiter => {
            let (next, granted) = granted.unwrap();
            stage.note("from the cut to the next grant", granted - cut);
            let (last, _lost) = belief.end().await;
            assert!(last < granted, "it was held for {:?} after another had it", last - granted);
            (next, last)
        }
        () = sleep(limit) => {
            let (last, guard) = belief.stop();
            assert!(guard.is_held(), "it was lost, but for {limit:?} no other was granted");
            within(PATIENCE, "releasing", guard.release()).await.expect("releasing");
            (soon("the waiter's turn", waiter).await.unwrap().0, last)
        }
    };
    stage.note("it was held after the cut for", last - cut);
    assert!(next.fencing_token() > token, "the token did not grow");
    bring_back();
    cluster.heal();
    blocking(|| cluster.wait_until_whole());
    assert!(next.is_held() && attempt(&lock).await.is_none(), "healing freed the lock");
    soon("releasing", next.release()).await.expect("releasing");
    let limit = TIMEOUT + PATIENCE;
    drop(within(limit, "acquiring after healing", lock.acquire()).await.expect("acquiring after healing"));
}
