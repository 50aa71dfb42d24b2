//! What was taken away behind one's back, and what must not be.

use std::time::Duration;

use anyhow::{Result, ensure};
use tooz_core::{ErrorKind, JoinOptions, LossReason};
use tooz_testbed::{Kind, Server};

use crate::Quirk;
use crate::ask;
use crate::stage::{at_once, connect, eventually, keys, moment, places, play, session_of, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("force::a_holder_whose_lock_is_broken_is_told_within_a_second", || play(broken())),
    ("force::a_later_grant_is_not_broken_by_an_earlier_token", || play(later_grant())),
    ("force::a_member_that_is_taken_over_is_told_within_a_second", || play(taken_over())),
    ("force::a_member_of_a_dead_session_is_replaced_without_a_letter", || play(dead_member())),
    ("force::a_session_that_an_operator_ends_is_told_at_once", || play(destroyed())),
    ("force::a_session_whose_key_is_deleted_is_told_at_once", || play(without_key())),
    ("force::a_key_that_is_deleted_by_hand_is_found_in_its_turn", || play(deleted())),
    ("force::a_waiter_whose_place_is_deleted_takes_another", || play(waiter())),
    ("force::what_no_driver_wrote_stands_in_the_way_and_can_be_broken", || play(stranger())),
    ("force::a_member_comes_back_at_once_after_its_session_was_ended", || play(comes_back())),
];

async fn broken() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let url = with(&server.url(), "session_timeout=20s");
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let (guard, other) = (one.lock("x")?.acquire().await?, one.lock("y")?.acquire().await?);
    moment().await;
    let holders = two.lock("x")?.holders().await?;
    two.lock("x")?.break_lock(&holders[0]).await?;
    let reason = at_once("the loss", guard.loss().wait()).await?;
    ensure!(reason != LossReason::SessionEnded && other.is_held(), "told {reason:?}");
    ensure!(two.lock("x")?.try_acquire().await?.is_some(), "it is not free");
    eventually("the letter was taken", async || Ok(!keys(&server).iter().any(|(key, _)| key.contains("/m-")))).await
}

async fn later_grant() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let (one, two) = (connect(&server.url(), "one").await?, connect(&server.url(), "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let holders = two.lock("x")?.holders().await?;
    guard.release().await?;
    let guard = one.lock("x")?.acquire().await?;
    let error = two.lock("x")?.break_lock(&holders[0]).await.err();
    ensure!(error.is_some_and(|error| error.kind() == ErrorKind::NotFound), "an earlier token broke it");
    moment().await;
    ensure!(guard.is_held(), "it was told to have lost it");
    Ok(())
}

async fn taken_over() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let url = with(&server.url(), "session_timeout=20s");
    let (one, two) = (connect(&url, "same").await?, connect(&url, "same").await?);
    let membership = one.group("g")?.join_or_create(&1).await?;
    let guard = one.lock("x")?.acquire().await?;
    moment().await;
    let next = two.group("g")?.join_with(JoinOptions::new().take_over()).await?;
    at_once("the loss", membership.loss().wait()).await?;
    ensure!(!membership.is_member() && next.is_member() && guard.is_held(), "only the membership was taken");
    Ok(())
}

/// Between the reading of the entry and the transaction, its session may end: then the letter is refused.
async fn dead_member() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    for _ in 0..10 {
        let (one, two) = (connect(&server.url(), "same").await?, connect(&server.url(), "same").await?);
        let group = two.group("g")?;
        let membership = one.group("g")?.join_or_create(&1).await?;
        two.lock("warm")?.acquire().await?.release().await?;
        let id = keys(&server)
            .iter()
            .find_map(|(key, _)| Some(key.split_once("/sessions/")?.1.trim_matches('/').to_owned()));
        let address = server.address();
        let ending = std::thread::spawn(move || {
            id.map(|id| ask::http(address, "PUT", &format!("/v1/session/destroy/{id}"), ""))
        });
        let joined = within("taking over", group.join_with(JoinOptions::new().take_over())).await?;
        let _ = ending.join();
        ensure!(joined.is_ok(), "refused: {:?}", joined.err());
        drop((membership, joined));
        one.close().await?;
        two.close().await?;
    }
    Ok(())
}

async fn destroyed() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&with(&server.url(), "session_timeout=20s"), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    moment().await;
    let session = session_of(&server, "one")?;
    ask::http(server.address(), "PUT", &format!("/v1/session/destroy/{session}"), "");
    let reason = at_once("the loss", guard.loss().wait()).await?;
    ensure!(reason == LossReason::SessionEnded, "told {reason:?}");
    drop(within("acquiring in the new session", one.lock("x")?.acquire()).await??);
    Ok(())
}

async fn without_key() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&with(&server.url(), "session_timeout=20s"), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    moment().await;
    let session = session_of(&server, "one")?;
    ask::http(server.address(), "DELETE", &format!("/v1/kv/tooz/tooz/sessions/{session}/"), "");
    at_once("the loss", guard.loss().wait()).await?;
    drop(within("acquiring in the new session", one.lock("x")?.acquire()).await??);
    Ok(())
}

async fn deleted() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&server.url(), "one").await?;
    let (guard, other) = (one.lock("x")?.acquire().await?, one.lock("y")?.acquire().await?);
    let membership = one.group("g")?.join_or_create(&1).await?;
    moment().await;
    for key in [places(&server, "x")[0].clone(), "tooz/tooz/groups/g/m-one".to_owned()] {
        ask::http(server.address(), "DELETE", &format!("/v1/kv/{key}"), "");
    }
    within("the loss", guard.loss().wait()).await?;
    within("the member's loss", membership.loss().wait()).await?;
    ensure!(other.is_held(), "only these were taken");
    Ok(())
}

async fn waiter() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let (one, two) = (connect(&server.url(), "one").await?, connect(&server.url(), "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let mine = places(&server, "x");
    let lock = two.lock("x")?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    eventually("two are there", async || Ok(places(&server, "x").len() == 2)).await?;
    for key in places(&server, "x").iter().filter(|key| !mine.contains(key)) {
        ask::http(server.address(), "DELETE", &format!("/v1/kv/{key}"), "");
    }
    moment().await;
    ensure!(!waiting.is_finished() && guard.is_held(), "the waiter has it though it is held");
    guard.release().await?;
    ensure!(within("the waiter's grant", waiting).await???.is_held(), "the waiter waited for nothing");
    Ok(())
}

async fn stranger() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&server.url(), "one").await?;
    ask::http(server.address(), "PUT", "/v1/kv/tooz/tooz/locks/x/by-hand", "something");
    ensure!(one.lock("x")?.try_acquire().await?.is_none(), "it is not in the way");
    let holders = one.lock("x")?.holders().await?;
    ensure!(holders.len() == 1 && holders[0].member.as_str() == "unreadable:by-hand", "held by {holders:?}");
    one.lock("x")?.break_lock(&holders[0]).await?;
    ensure!(one.lock("x")?.try_acquire().await?.is_some(), "it is in the way still");
    one.group("g")?.create().await?;
    ask::http(server.address(), "PUT", "/v1/kv/tooz/tooz/groups/g/m-nobody", "something");
    ensure!(one.group("g")?.members().await?.is_empty(), "a member that no driver wrote");
    one.group("g")?.delete().await?;
    ensure!(one.groups().await?.is_empty(), "it is listed still");
    Ok(())
}

/// By default Consul bars a key for 15 s when its session has ended.
async fn comes_back() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&server.url(), "one").await?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    moment().await;
    let session = session_of(&server, "one")?;
    ask::http(server.address(), "PUT", &format!("/v1/session/destroy/{session}"), "");
    let began = std::time::Instant::now();
    eventually("it is in again", async || {
        let there = keys(&server).iter().any(|(key, _)| key.ends_with("/g/m-one"));
        Ok(there && !session_of(&server, "one").is_ok_and(|now| now == session) && membership.is_member())
    })
    .await?;
    ensure!(began.elapsed() < Duration::from_secs(3), "it was barred for {:?}", began.elapsed());
    Ok(())
}
