//! Clusters of three that lose their leader, or a part of themselves.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tooz_testbed::{Cluster, Kind};

use crate::Quirk;
use crate::stage::{connect, eventually, play, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("quorum::killed_leaders_lose_no_lock_and_no_turn", || play(killed_leaders())),
    ("quorum::a_holder_beside_the_minority_knows_before_the_majority_grants", || play(minority())),
    ("quorum::a_stopped_leader_is_left", || play(stopped_leader())),
    ("quorum::a_stopped_member_keeps_no_connect_waiting", || play(stopped_member())),
];

async fn killed_leaders() -> Result<()> {
    let cluster = Cluster::start(Kind::Etcd)?;
    let url = format!("{}?session_timeout=10s", cluster.url());
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let kept = one.lock("kept")?.acquire().await?;
    let mut turn = one.lock("turns")?.acquire().await?;
    let mut turns = [&two, &one].into_iter().cycle();
    for round in 0..3 {
        let next = turns.next().expect("it goes round").lock("turns")?;
        let waiting = tokio::spawn(async move { next.acquire().await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        let leader = cluster.leader()?;
        cluster.nodes()[leader].kill()?;
        let token = turn.fencing_token();
        // No release depends on one member.
        let _ = within("releasing", turn.release()).await?;
        turn = within("the next turn", waiting).await???;
        ensure!(turn.fencing_token() > token, "round {round}: the token did not grow");
        ensure!(kept.is_held(), "round {round}: the lock was lost");
        cluster.nodes()[leader].restart()?;
        cluster.wait_until_whole()?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(kept.is_held(), "the lock was lost");
    ensure!(two.lock("kept")?.try_acquire().await?.is_none(), "the lock was given away");
    Ok(())
}

async fn minority() -> Result<()> {
    let cluster = Cluster::start(Kind::Etcd)?;
    // Once beside the leader, who goes on answering keep-alives for a while, and once beside a follower.
    for beside_leader in [true, false] {
        let leader = cluster.leader()?;
        let cut = if beside_leader { leader } else { (leader + 1) % 3 };
        let one = connect(&format!("{}?session_timeout=4s", cluster.url_of(cut)), "one").await?;
        let two = connect(&format!("{}?session_timeout=4s", cluster.url_of((cut + 1) % 3)), "two").await?;
        let guard = one.lock("x")?.acquire().await?;
        let lock = two.lock("x")?;
        let waiting = tokio::spawn(async move { lock.acquire().await.map(|guard| (guard, Instant::now())) });
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.partition(cut);
        let loss = guard.loss();
        let told = tokio::spawn(async move {
            loss.wait().await;
            Instant::now()
        });
        let (other, granted) = within("the majority's grant", waiting).await???;
        ensure!(!guard.is_held(), "two hold it");
        let told = within("the loss", told).await??;
        ensure!(told <= granted, "granted {:?} before the loss was told", told - granted);
        ensure!(other.fencing_token() > guard.fencing_token(), "the token did not grow");
        cluster.heal();
        cluster.wait_until_whole()?;
        ensure!(!guard.is_held() && other.is_held(), "healing brought it back");
        within("closing", two.close()).await??;
        let _ = within("closing", one.close()).await?;
    }
    Ok(())
}

async fn stopped_leader() -> Result<()> {
    let cluster = Cluster::start(Kind::Etcd)?;
    let url = format!("{}?session_timeout=10s", cluster.url());
    let one = connect(&url, "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    let leader = cluster.leader()?;
    cluster.nodes()[leader].pause()?;
    // For less than the timeout: one that was stopped for longer may, in the moment of its return, end sessions that its
    // successor has kept alive meanwhile. That is etcd's; the holder is told, as of any end of its session.
    eventually("others serve", async || Ok(one.lock("y")?.try_acquire().await.is_ok())).await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    ensure!(guard.is_held(), "the session was lost with the leader");
    cluster.nodes()[leader].resume()?;
    cluster.wait_until_whole()?;
    ensure!(guard.is_held(), "the session was lost when the leader came back");
    within("releasing", guard.release()).await??;
    Ok(())
}

async fn stopped_member() -> Result<()> {
    let cluster = Cluster::start(Kind::Etcd)?;
    let stopped = (cluster.leader()? + 1) % 3;
    cluster.nodes()[stopped].pause()?;
    for index in 0..9 {
        let began = Instant::now();
        let one = connect(&format!("{}?session_timeout=10s", cluster.url()), &format!("m{index}")).await?;
        let took = began.elapsed();
        // The kernel of a stopped process takes connections that nothing ever answers.
        ensure!(took < Duration::from_secs(2), "connecting took {took:?}");
        within("acquiring", one.lock("x")?.acquire()).await??.release().await?;
        one.close().await?;
    }
    cluster.nodes()[stopped].resume()?;
    cluster.wait_until_whole()
}
