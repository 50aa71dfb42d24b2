//! Watches that were interrupted.

use std::time::Duration;

use anyhow::{Result, ensure};
use tooz_core::{Coordinator, GroupEvent, GroupWatch};
use tooz_testbed::{Kind, Proxy, Server};

use crate::Quirk;
use crate::stage::{connect, etcdctl, play, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("watches::an_interruption_misses_nothing", || play(interrupted())),
    ("watches::what_was_compacted_meanwhile_is_a_reset", || play(compacted())),
    ("watches::many_changes_of_one_revision_are_all_told", || play(at_once())),
];

async fn stage() -> Result<(Server, Proxy, Coordinator, GroupWatch)> {
    let server = Server::start(Kind::Etcd)?;
    let proxy = Proxy::start(server.address())?;
    // The periodic reading must not come to the rescue.
    let watcher = connect(&format!("{}?session_timeout=60s", proxy.url("etcd")), "watcher").await?;
    watcher.group("g")?.create().await?;
    let mut watch = watcher.group("g")?.watch().await?;
    ensure!(matches!(within("the snapshot", watch.next()).await?, Some(GroupEvent::Snapshot(_))), "no snapshot");
    Ok((server, proxy, watcher, watch))
}

async fn interrupted() -> Result<()> {
    let (server, proxy, _watcher, mut watch) = stage().await?;
    let one = connect(&server.url(), "one").await?;
    proxy.refuse();
    proxy.reset();
    let membership = one.group("g")?.join(&1).await?;
    membership.update(&2).await?;
    membership.leave().await?;
    proxy.heal();
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(within("the news", watch.next()).await?);
    }
    let [Some(GroupEvent::Joined(_)), Some(GroupEvent::Updated(_)), Some(GroupEvent::Left(_))] = told.as_slice() else {
        anyhow::bail!("told {told:?}");
    };
    Ok(())
}

async fn compacted() -> Result<()> {
    let (server, proxy, _watcher, mut watch) = stage().await?;
    let one = connect(&server.url(), "one").await?;
    proxy.refuse();
    proxy.reset();
    let membership = one.group("g")?.join(&1).await?;
    for index in 0..5 {
        membership.update(&index).await?;
    }
    let status = etcdctl(&server, &["get", "x", "-w", "fields"])?;
    let revision = status.lines().find_map(|line| line.strip_prefix("\"Revision\" : ")).expect("it says").to_owned();
    etcdctl(&server, &["compact", &revision])?;
    proxy.heal();
    match within("the news", watch.next()).await? {
        Some(GroupEvent::Reset(members)) => ensure!(members.len() == 1, "{members:?}"),
        other => anyhow::bail!("told {other:?}"),
    }
    membership.leave().await?;
    let next = within("what comes after it", watch.next()).await?;
    ensure!(matches!(next, Some(GroupEvent::Left(_))), "told {next:?}");
    Ok(())
}

async fn at_once() -> Result<()> {
    let (server, _proxy, _watcher, mut watch) = stage().await?;
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        let one = connect(&server.url(), name).await?;
        all.push((one.group("g")?.join(&name).await?, one));
        within("the join", watch.next()).await?;
    }
    // One deletion by hand takes all members in one revision.
    etcdctl(&server, &["del", "/tooz/tooz/members/g/a", "/tooz/tooz/members/g/d"])?;
    let mut left = 0;
    while left < 3 {
        let next = tokio::time::timeout(Duration::from_secs(2), watch.next()).await?;
        ensure!(matches!(next, Some(GroupEvent::Left(_))), "told {next:?}");
        left += 1;
    }
    Ok(())
}
