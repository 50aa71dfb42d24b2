//! Groups: what a join does to a deletion beside it, what a watch is told, and what is too large.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tooz_core::{ErrorKind, GroupEvent};
use tooz_testbed::{Kind, Server};

use crate::Quirk;
use crate::ask;
use crate::stage::{connect, moment, play, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("groups::a_join_between_reading_and_deleting_makes_the_deletion_fail", || play(join_beside_deletion())),
    ("groups::many_that_join_while_it_is_deleted_are_in_or_refused", || play(race())),
    ("groups::a_change_that_changes_nothing_is_not_told", || play(no_change())),
    ("groups::too_large_capabilities_are_refused_with_the_limit", || play(too_large())),
];

fn marker(server: &Server) -> Result<(u64, String)> {
    let answer = ask::http(server.address(), "GET", "/v1/kv/tooz/tooz/groups/g/", "");
    let entries: Vec<serde_json::Value> = serde_json::from_str(&answer)?;
    let marker = entries.first().context("there is a marker")?;
    Ok((marker["ModifyIndex"].as_u64().context("an index")?, marker["Value"].to_string()))
}

/// The same member with the same words joins again and again: Consul's index moves only where the value does.
async fn join_beside_deletion() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&server.url(), "one").await?;
    let group = one.group("g")?;
    group.create().await?;
    for _ in 0..5 {
        let (read, value) = marker(&server)?;
        group.join(&1).await?.leave().await?;
        ensure!(marker(&server)?.1 != value, "a join left the marker as it was");
        let membership = group.join(&1).await?;
        let deleted = ask::http(server.address(), "DELETE", &format!("/v1/kv/tooz/tooz/groups/g/?cas={read}"), "");
        ensure!(deleted.trim() == "false", "what was read before the join deleted the group: {deleted}");
        membership.leave().await?;
    }
    group.delete().await?;
    Ok(())
}

async fn race() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&server.url(), "one").await?;
    let mut all = Vec::new();
    for index in 0..4 {
        all.push(connect(&server.url(), &format!("m{index}")).await?);
    }
    for round in 0..15 {
        let group = one.group("g")?;
        group.create().await?;
        let joining: Vec<_> = all
            .iter()
            .map(|one| one.group("g"))
            .map(|group| tokio::spawn(async move { anyhow::Ok(group?.join(&1).await) }))
            .collect();
        let deleted = group.delete().await;
        let mut members = Vec::new();
        for one in joining {
            match one.await?? {
                Ok(membership) => members.push(membership),
                Err(error) => ensure!(error.kind() == ErrorKind::NotFound, "round {round}: refused with {error}"),
            }
        }
        match deleted {
            Ok(()) => ensure!(members.is_empty(), "round {round}: {} members of a deleted group", members.len()),
            Err(error) => ensure!(error.kind() == ErrorKind::NotEmpty, "round {round}: not deleted for {error}"),
        }
        for membership in members {
            membership.leave().await?;
        }
        let _ = group.delete().await;
    }
    Ok(())
}

async fn no_change() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let (one, two) = (connect(&server.url(), "one").await?, connect(&server.url(), "two").await?);
    let membership = one.group("g")?.join_or_create(&1).await?;
    let mut watch = two.group("g")?.watch().await?;
    ensure!(matches!(within("the snapshot", watch.next()).await?, Some(GroupEvent::Snapshot { .. })), "no snapshot");
    // The marker is written, and so is a key that is no member.
    ask::http(server.address(), "PUT", "/v1/kv/tooz/tooz/groups/g/by-hand", "something");
    ask::http(server.address(), "DELETE", "/v1/kv/tooz/tooz/groups/g/by-hand", "");
    moment().await;
    let told = tokio::time::timeout(Duration::from_millis(500), watch.next()).await;
    ensure!(told.is_err(), "told {told:?}");
    membership.update(&2).await?;
    let told = within("the update", watch.next()).await?;
    ensure!(matches!(told, Some(GroupEvent::Updated { .. })), "told {told:?}");
    Ok(())
}

async fn too_large() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&with(&server.url(), "session_timeout=10s"), "one").await?;
    one.group("g")?.create().await?;
    let error = one.group("g")?.join(&"x".repeat(300 << 10)).await.err().context("it is too large")?;
    ensure!(error.kind() == ErrorKind::Config && error.to_string().contains("it may have 262144"), "{error}");
    let membership = within("joining", one.group("g")?.join(&"x".repeat(250 << 10))).await??;
    let error = membership.update(&"x".repeat(300 << 10)).await.err().context("it is too large")?;
    ensure!(error.kind() == ErrorKind::Config && membership.is_member(), "{error}");
    Ok(())
}
