//! An etcd that takes no writes: its space is used up, or a member is corrupt.

use std::time::Duration;

use anyhow::{Result, ensure};
use tooz_core::{ErrorKind, LockGuard};
use tooz_testbed::{Kind, Proxy, Server};

use crate::Quirk;
use crate::stage::{connect, eventually, keys, play, post, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("alarms::a_full_server_loses_no_held_lock_and_lets_go_of_all", || play(full())),
    ("alarms::a_corrupt_server_is_told_and_not_asked_for_ever", || play(corrupt())),
];

fn alarm(server: &Server, action: &str, name: &str) -> Result<()> {
    let members = post(server.address(), "/v3/cluster/member/list", "{}")?;
    let (_, after) = members.split_once("\"members\":[{\"ID\":\"").ok_or_else(|| anyhow::anyhow!("{members}"))?;
    let member = after.split('"').next().unwrap_or_default();
    let body = format!("{{\"action\":\"{action}\",\"memberID\":\"{member}\",\"alarm\":\"{name}\"}}");
    post(server.address(), "/v3/maintenance/alarm", &body).map(drop)
}

async fn full() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let proxy = Proxy::start(server.address())?;
    let (one, two) = (connect(&proxy.url("etcd"), "one").await?, connect(&server.url(), "two").await?);
    let (kept, freed) = (one.lock("kept")?.acquire().await?, one.lock("freed")?.acquire().await?);
    let membership = one.group("g")?.join_or_create(&1).await?;
    let next = two.lock("freed")?;
    let waiting = tokio::spawn(async move { next.acquire().await });
    eventually("it waits", async || Ok(keys(&server)?.iter().filter(|key| key.contains("/locks/freed/")).count() == 2))
        .await?;
    alarm(&server, "ACTIVATE", "NOSPACE")?;
    let refused = within("acquiring", one.lock("x")?.try_acquire()).await?.err();
    let words = refused.map(|error| (error.kind(), error.to_string()));
    ensure!(words.is_some_and(|(kind, words)| kind == ErrorKind::Config && words.contains("NOSPACE")), "what it says");
    // What is given back is free, also where it is not known whether it was taken.
    within("releasing", freed.release()).await??;
    let turn: LockGuard = within("the waiter", waiting).await???;
    let swallow = proxy.swallow_reply(b"/locks/y/");
    let answer = within("trying", one.lock("y")?.try_acquire()).await?;
    ensure!(swallow.wait(Duration::ZERO) && answer.is_err(), "the reply was not swallowed: {answer:?}");
    // Longer than a withdrawal that failed would leave the session, and longer than its timeout.
    tokio::time::sleep(Duration::from_secs(6)).await;
    ensure!(kept.is_held() && turn.is_held() && membership.is_member(), "something was lost");
    ensure!(two.group("g")?.members().await?.len() == 1, "the member is gone");
    alarm(&server, "DEACTIVATE", "NOSPACE")?;
    within("acquiring", two.lock("y")?.acquire()).await??.release().await?;
    within("acquiring", one.lock("x")?.acquire()).await??.release().await?;
    ensure!(kept.is_held() && membership.is_member(), "something was lost");
    membership.leave().await?;
    Ok(())
}

async fn corrupt() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let (one, two) = (connect(&server.url(), "one").await?, connect(&server.url(), "two").await?);
    let kept = one.lock("kept")?.acquire().await?;
    alarm(&server, "ACTIVATE", "CORRUPT")?;
    let error = within("acquiring", two.lock("x")?.acquire()).await?.err();
    let words = error.map(|error| (error.kind(), error.to_string()));
    ensure!(
        words.as_ref().is_some_and(|(kind, words)| *kind == ErrorKind::Config && words.contains("CORRUPT")),
        "it says {words:?}"
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(kept.is_held(), "the lock was lost");
    alarm(&server, "DEACTIVATE", "CORRUPT")?;
    within("acquiring", two.lock("x")?.acquire()).await??.release().await?;
    Ok(())
}
