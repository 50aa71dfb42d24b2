//! Three servers: the session moves between them, a leader dies or stands still, a minority is cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tokio::time::sleep;
use tooz_core::Result;
use tooz_testbed::{Cluster, Kind};

use crate::{connect, connect_for, namespace, quirk, soon, until};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        quirk("a_session_moves_to_another_server", || Box::pin(a_session_moves_to_another_server())),
        quirk("a_dead_leader_costs_no_lock", || Box::pin(a_dead_leader_costs_no_lock())),
        quirk("a_holder_in_the_minority_knows_first", || Box::pin(a_holder_in_the_minority_knows_first())),
        quirk("a_holder_at_a_leader_that_stood_still_knows_first", || {
            Box::pin(a_holder_at_a_leader_that_stood_still_knows_first())
        }),
        quirk("what_one_server_did_is_seen_at_the_others", || Box::pin(what_one_server_did_is_seen_at_the_others())),
    ]
}

fn cluster() -> Arc<Cluster> {
    Arc::new(Cluster::start(Kind::ZooKeeper).expect("an ensemble can be started"))
}

/// Every server the session is on goes down once; the lock, the place in the queue and the membership stay.
async fn a_session_moves_to_another_server() -> Result<()> {
    let (cluster, space) = (cluster(), namespace());
    let one = connect_for(&cluster.url(), "one", &space, Duration::from_secs(10)).await?;
    let two = connect_for(&cluster.url(), "two", &space, Duration::from_secs(10)).await?;
    let guard = one.lock("l")?.acquire().await?;
    let group = one.group("g")?;
    let membership = group.join_or_create(&()).await?;
    let waiting = tokio::spawn({
        let lock = two.lock("l")?;
        async move { lock.acquire().await }
    });
    sleep(Duration::from_millis(200)).await;
    for node in 0..3 {
        cluster.nodes()[node].kill().expect("it can be killed");
        sleep(Duration::from_secs(3)).await;
        cluster.nodes()[node].restart().expect("it starts again");
        cluster.wait_until_whole().expect("the ensemble is whole again");
        assert!(guard.is_held() && membership.is_member(), "lost with node {node}");
    }
    assert!(!waiting.is_finished());
    guard.release().await?;
    assert!(soon(waiting).await.expect("no panic")?.is_held());
    membership.leave().await?;
    one.close().await?;
    two.close().await
}

async fn a_dead_leader_costs_no_lock() -> Result<()> {
    let (cluster, space) = (cluster(), namespace());
    let one = connect_for(&cluster.url(), "one", &space, Duration::from_secs(10)).await?;
    let guard = one.lock("l")?.acquire().await?;
    let leader = cluster.leader().expect("a leader");
    cluster.nodes()[leader].kill().expect("it can be killed");
    let next = soon(one.lock("other")?.acquire()).await?;
    assert!(guard.is_held(), "the session was to live on");
    assert!(next.fencing_token() > guard.fencing_token(), "tokens grow over leaders");
    guard.release().await?;
    next.release().await?;
    one.close().await
}

/// Both are in this process, so their moments can be compared.
async fn knows_first(
    cluster: &Cluster,
    holder_at: usize,
    waiter_at: usize,
    break_it: impl FnOnce(),
    mend_it: impl FnOnce(),
) -> Result<()> {
    let space = namespace();
    let holder = connect_for(&cluster.url_of(holder_at), "holder", &space, Duration::from_secs(4)).await?;
    let waiter = connect_for(&cluster.url_of(waiter_at), "waiter", &space, Duration::from_secs(4)).await?;
    let guard = holder.lock("l")?.acquire().await?;
    let waiting = tokio::spawn({
        let lock = waiter.lock("l")?;
        async move {
            let granted = lock.acquire().await;
            (granted, Instant::now())
        }
    });
    sleep(Duration::from_millis(300)).await;
    break_it();
    let told = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn({
        let (loss, told) = (guard.loss(), Arc::clone(&told));
        async move {
            loss.wait().await;
            told.store(true, Ordering::SeqCst);
            Instant::now()
        }
    });
    until("the holder has given up or the waiter got it", || told.load(Ordering::SeqCst) || waiting.is_finished())
        .await;
    assert!(!guard.is_held(), "the waiter was granted before the holder knew");
    let (granted, at) = soon(waiting).await.expect("no panic");
    let lost_at = soon(watching).await.expect("no panic");
    assert!(granted?.is_held());
    assert!(lost_at < at, "the holder knew {:?} too late", lost_at - at);
    mend_it();
    let _ = holder.close().await;
    waiter.close().await
}

async fn a_holder_in_the_minority_knows_first() -> Result<()> {
    let cluster = cluster();
    let leader = cluster.leader().expect("a leader");
    let follower = (leader + 1) % 3;
    // The leader and a follower in turn are what is cut off; the waiter is on the other side.
    for (cut, other) in [(follower, leader), (leader, follower)] {
        knows_first(&cluster, cut, other, || cluster.partition(cut), || cluster.heal()).await?;
        cluster.wait_until_whole().expect("the ensemble is whole again");
    }
    Ok(())
}

/// A leader that stood still does not know at once that it was deposed, and goes on answering reads and `sync`.
async fn a_holder_at_a_leader_that_stood_still_knows_first() -> Result<()> {
    let cluster = cluster();
    let leader = cluster.leader().expect("a leader");
    let node = &cluster.nodes()[leader];
    let resumed = Arc::new(AtomicBool::new(false));
    let resume = {
        let (cluster, resumed) = (Arc::clone(&cluster), Arc::clone(&resumed));
        move || {
            node.pause().expect("it can be paused");
            // It comes back in the midst of its successor's first session timeout.
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(2500));
                cluster.nodes()[leader].resume().expect("it can be resumed");
                resumed.store(true, Ordering::SeqCst);
            });
        }
    };
    let space = namespace();
    let holder = connect_for(&cluster.url_of(leader), "holder", &space, Duration::from_secs(4)).await?;
    let waiter = connect_for(&cluster.url_of((leader + 1) % 3), "waiter", &space, Duration::from_secs(4)).await?;
    let guard = holder.lock("l")?.acquire().await?;
    let waiting = tokio::spawn({
        let lock = waiter.lock("l")?;
        async move { lock.acquire().await }
    });
    sleep(Duration::from_millis(300)).await;
    resume();
    until("it runs again", || resumed.load(Ordering::SeqCst)).await;
    // Whatever became of the session, both never believe in the lock at a time.
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        let finished = waiting.is_finished();
        assert!(!(finished && guard.is_held()), "two hold it");
        sleep(Duration::from_millis(2)).await;
    }
    drop(guard);
    soon(waiting).await.expect("no panic")?.release().await?;
    let _ = holder.close().await;
    waiter.close().await
}

async fn what_one_server_did_is_seen_at_the_others() -> Result<()> {
    let (cluster, space) = (cluster(), namespace());
    let mut members = Vec::new();
    for node in 0..3 {
        members.push(connect(&cluster.url_of(node), &format!("m{node}"), &space).await?);
    }
    for round in 0..30 {
        let (one, other) = (&members[round % 3], &members[(round + 1) % 3]);
        let group = format!("g{round}");
        let membership = one.group(&*group)?.join_or_create(&()).await?;
        assert_eq!(other.group(&*group)?.members().await?.len(), 1, "round {round}");
        let guard = one.lock("l")?.acquire().await?;
        assert_eq!(other.lock("l")?.holders().await?.len(), 1, "round {round}");
        guard.release().await?;
        assert!(other.lock("l")?.holders().await?.is_empty(), "round {round}");
        membership.leave().await?;
        other.group(&*group)?.delete().await?;
    }
    for member in members {
        member.close().await?;
    }
    Ok(())
}
