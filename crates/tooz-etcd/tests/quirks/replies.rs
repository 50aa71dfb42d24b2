//! Applied, but the reply was lost: nothing is done twice, and no key is left without a holder.

use std::time::Duration;

use anyhow::{Result, ensure};
use tooz_testbed::{Kind, Proxy, Server};

use crate::Quirk;
use crate::stage::{PATIENCE, connect, eventually, keys, play, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("replies::an_acquire_whose_reply_is_lost_holds_once", || play(acquire())),
    ("replies::a_try_whose_reply_is_lost_leaves_no_key", || play(try_acquire())),
    ("replies::a_release_whose_reply_is_lost_frees", || play(release())),
    ("replies::a_join_whose_reply_is_lost_is_in_once", || play(join())),
    ("replies::a_leave_whose_reply_is_lost_is_out", || play(leave())),
    ("replies::a_request_that_arrives_with_its_withdrawal_does_nothing", || play(late())),
    ("replies::a_request_that_arrives_long_after_its_release_does_nothing", || play(very_late())),
];

fn stage() -> Result<(Server, Proxy)> {
    let server = Server::start(Kind::Etcd)?;
    let proxy = Proxy::start(server.address())?;
    Ok((server, proxy))
}

async fn acquire() -> Result<()> {
    let (server, proxy) = stage()?;
    let (one, two) = (connect(&proxy.url("etcd"), "one").await?, connect(&server.url(), "two").await?);
    one.lock("warm")?.acquire().await?.release().await?;
    let swallow = proxy.swallow_reply(b"/locks/x/");
    let guard = within("acquiring", one.lock("x")?.acquire()).await??;
    ensure!(swallow.wait(Duration::ZERO), "the reply was not swallowed");
    let holders = two.lock("x")?.holders().await?;
    ensure!(holders.len() == 1 && holders[0].token == guard.fencing_token(), "held by {holders:?}");
    within("releasing", guard.release()).await??;
    ensure!(two.lock("x")?.try_acquire().await?.is_some(), "a ghost holds it");
    one.close().await?;
    two.close().await?;
    ensure!(keys(&server)?.is_empty(), "left over: {:?}", keys(&server)?);
    Ok(())
}

async fn try_acquire() -> Result<()> {
    let (server, proxy) = stage()?;
    let (one, two) = (connect(&proxy.url("etcd"), "one").await?, connect(&server.url(), "two").await?);
    one.lock("warm")?.acquire().await?.release().await?;
    let swallow = proxy.swallow_reply(b"/locks/x/");
    let answer = within("trying", one.lock("x")?.try_acquire()).await?;
    ensure!(swallow.wait(Duration::ZERO), "the reply was not swallowed");
    ensure!(answer.is_err(), "it can't be known whether it holds: {answer:?}");
    eventually("the lock is free", async || Ok(two.lock("x")?.try_acquire().await?.is_some())).await?;
    Ok(())
}

async fn release() -> Result<()> {
    let (server, proxy) = stage()?;
    let (one, two) = (connect(&proxy.url("etcd"), "one").await?, connect(&server.url(), "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let swallow = proxy.swallow_reply(b"/locks/x/");
    let released = within("releasing", guard.release()).await?;
    ensure!(swallow.wait(PATIENCE), "the reply was not swallowed");
    // Whether it says so or goes on in the background: it is free.
    drop(released);
    let guard = within("acquiring after it", two.lock("x")?.acquire()).await??;
    let again = one.lock("x")?.acquire_within(Duration::from_millis(500)).await?;
    ensure!(again.is_none() && guard.is_held(), "the repeated release freed another's lock");
    Ok(())
}

async fn join() -> Result<()> {
    let (server, proxy) = stage()?;
    let (one, two) = (connect(&proxy.url("etcd"), "one").await?, connect(&server.url(), "two").await?);
    two.group("g")?.create().await?;
    one.lock("warm")?.acquire().await?.release().await?;
    let swallow = proxy.swallow_reply(b"/members/g/one");
    let membership = within("joining", one.group("g")?.join(&"here")).await??;
    ensure!(swallow.wait(Duration::ZERO), "the reply was not swallowed");
    let members = two.group("g")?.members().await?;
    ensure!(members.len() == 1 && members[0].capabilities.as_json() == "\"here\"", "listed: {members:?}");
    membership.update(&"there").await?;
    within("leaving", membership.leave()).await??;
    ensure!(two.group("g")?.members().await?.is_empty(), "a ghost is a member");
    two.group("g")?.delete().await?;
    Ok(())
}

async fn leave() -> Result<()> {
    let (server, proxy) = stage()?;
    let (one, two) = (connect(&proxy.url("etcd"), "one").await?, connect(&server.url(), "two").await?);
    let group = one.group("g")?;
    let membership = group.join_or_create(&1).await?;
    let swallow = proxy.swallow_reply(b"/members/g/one");
    drop(within("leaving", membership.leave()).await?);
    ensure!(swallow.wait(PATIENCE), "the reply was not swallowed");
    eventually("it has left", async || Ok(two.group("g")?.members().await?.is_empty())).await?;
    let again = within("joining again", group.join(&2)).await??;
    tokio::time::sleep(Duration::from_millis(300)).await;
    ensure!(
        two.group("g")?.members().await?.len() == 1 && again.is_member(),
        "the repeated leave took the new one out"
    );
    Ok(())
}

/// Requests pile up on their way and reach the server all at once, in any order.
async fn late() -> Result<()> {
    let (server, proxy) = stage()?;
    let url = format!("{}?session_timeout=6s&operation_timeout=500ms", proxy.url("etcd"));
    let (one, two) = (connect(&url, "one").await?, connect(&server.url(), "two").await?);
    one.lock("warm")?.acquire().await?.release().await?;
    for round in 0..3 {
        proxy.drop_to_server();
        let answer = within("trying", one.lock("x")?.try_acquire()).await?;
        ensure!(answer.is_err(), "it reached no server: {answer:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        proxy.heal();
        eventually("the lock is free", async || {
            let got = two.lock("x")?.try_acquire().await;
            Ok(matches!(got, Ok(Some(_))))
        })
        .await?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let ghosts = keys(&server)?.into_iter().filter(|key| key.contains("/locks/x/")).count();
        ensure!(ghosts == 0, "round {round}: {ghosts} keys without a holder");
        drop(within("acquiring again", one.lock("x")?.acquire()).await??);
    }
    Ok(())
}

/// One way to the server holds what it was given; the request is granted over another and released, and only then the first
/// sending arrives.
async fn very_late() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let proxies = [Proxy::start(server.address())?, Proxy::start(server.address())?];
    let url = format!("etcd://{},{}?session_timeout=6s", proxies[0].address(), proxies[1].address());
    let one = connect(&url, "one").await?;
    one.group("g")?.create().await?;
    for round in 0..8 {
        one.lock("warm")?.acquire().await?.release().await?;
        // Which way is in use just now is not known: both are held in turn.
        let held = &proxies[round % 2];
        held.drop_to_server();
        let guard = within("acquiring", one.lock("x")?.acquire()).await??;
        let membership = within("joining", one.group("g")?.join(&round)).await??;
        within("releasing", guard.release()).await??;
        within("leaving", membership.leave()).await??;
        held.heal();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let ghosts: Vec<_> =
            keys(&server)?.into_iter().filter(|key| key.contains("/locks/x/") || key.ends_with("/g/one")).collect();
        ensure!(ghosts.is_empty(), "round {round}: without a holder: {ghosts:?}");
    }
    Ok(())
}
