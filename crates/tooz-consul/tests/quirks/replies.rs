//! Applied, but the reply was lost, or late: nothing is done twice, and no key is left without a holder.

use std::time::Duration;

use anyhow::{Result, ensure};
use tooz_testbed::{Kind, Proxy, Server};

use crate::Quirk;
use crate::stage::{PATIENCE, connect, eventually, keys, moment, places, play, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("replies::an_acquire_whose_reply_is_lost_holds_once", || play(acquire())),
    ("replies::a_try_whose_reply_is_lost_leaves_no_key", || play(try_acquire())),
    ("replies::a_release_whose_reply_is_lost_frees", || play(release())),
    ("replies::a_join_whose_reply_is_lost_is_in_once", || play(join())),
    ("replies::a_leave_whose_reply_is_lost_is_out", || play(leave())),
    ("replies::an_acquire_that_arrives_after_its_withdrawal_does_nothing", || play(late())),
    ("replies::each_of_two_withdrawals_in_a_row_counts", || play(twice())),
    ("replies::a_session_whose_making_was_not_answered_is_made_again", || play(session())),
];

fn stage() -> Result<(Server, Proxy)> {
    let server = Server::start(Kind::Consul)?;
    let proxy = Proxy::start(server.address())?;
    Ok((server, proxy))
}

async fn acquire() -> Result<()> {
    let (server, proxy) = stage()?;
    let (one, two) = (connect(&proxy.url("consul"), "one").await?, connect(&server.url(), "two").await?);
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
    ensure!(keys(&server).is_empty(), "left over: {:?}", keys(&server));
    Ok(())
}

async fn try_acquire() -> Result<()> {
    let (server, proxy) = stage()?;
    let url = with(&proxy.url("consul"), "session_timeout=10s");
    let (one, two) = (connect(&url, "one").await?, connect(&server.url(), "two").await?);
    one.lock("warm")?.acquire().await?.release().await?;
    // That of each sending: a new connection is tried too.
    proxy.drop_to_client();
    let answer = within("trying", one.lock("x")?.try_acquire()).await?;
    ensure!(answer.is_err(), "it can't be known whether it holds: {answer:?}");
    proxy.heal();
    eventually("the lock is free", async || Ok(two.lock("x")?.try_acquire().await?.is_some())).await
}

async fn release() -> Result<()> {
    let (server, proxy) = stage()?;
    let (one, two) = (connect(&proxy.url("consul"), "one").await?, connect(&server.url(), "two").await?);
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
    let (one, two) = (connect(&proxy.url("consul"), "one").await?, connect(&server.url(), "two").await?);
    two.group("g")?.create().await?;
    one.lock("warm")?.acquire().await?.release().await?;
    let swallow = proxy.swallow_reply(b"/groups/g/m-one");
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
    let (one, two) = (connect(&proxy.url("consul"), "one").await?, connect(&server.url(), "two").await?);
    let group = one.group("g")?;
    let membership = group.join_or_create(&1).await?;
    let swallow = proxy.swallow_reply(b"/groups/g/m-one");
    drop(within("leaving", membership.leave()).await?);
    ensure!(swallow.wait(PATIENCE), "the reply was not swallowed");
    eventually("it has left", async || Ok(two.group("g")?.members().await?.is_empty())).await?;
    let again = within("joining again", group.join(&2)).await??;
    moment().await;
    let members = two.group("g")?.members().await?;
    ensure!(members.len() == 1 && again.is_member(), "the repeated leave took the new one out");
    Ok(())
}

/// One way to the server holds what it was given; the request is granted by another way and released, and only then the first sending
/// arrives.
async fn late() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let proxies = [Proxy::start(server.address())?, Proxy::start(server.address())?];
    let url = format!("consul://{},{}?session_timeout=6s", proxies[0].address(), proxies[1].address());
    let one = connect(&url, "one").await?;
    one.group("g")?.create().await?;
    for round in 0..6 {
        one.lock("warm")?.acquire().await?.release().await?;
        // Which way is in use just now is not known: both are held in turn.
        let held = &proxies[round % 2];
        held.drop_to_server();
        let guard = within("acquiring", one.lock("x")?.acquire()).await??;
        let membership = within("joining", one.group("g")?.join(&round)).await??;
        within("releasing", guard.release()).await??;
        within("leaving", membership.leave()).await??;
        held.heal();
        moment().await;
        let ghosts: Vec<_> =
            keys(&server).into_iter().filter(|(key, _)| key.contains("/locks/x/") || key.ends_with("/m-one")).collect();
        ensure!(ghosts.is_empty(), "round {round}: without a holder: {ghosts:?}");
    }
    Ok(())
}

/// What is written with the same value leaves Consul's index where it is: then the second withdrawal would shut nothing out.
async fn twice() -> Result<()> {
    let (server, proxy) = stage()?;
    let url = with(&with(&proxy.url("consul"), "session_timeout=10s"), "operation_timeout=400ms");
    let (one, two) = (connect(&url, "one").await?, connect(&server.url(), "two").await?);
    let mut values = Vec::new();
    for _ in 0..3 {
        // What comes next after a lost answer finds out first what stands there: a try that comes to nothing would prove nothing.
        one.lock("warm")?.acquire().await?.release().await?;
        proxy.drop_to_client();
        let answer = within("trying", one.lock("x")?.try_acquire()).await?;
        ensure!(answer.is_err(), "it can't be known whether it holds: {answer:?}");
        proxy.heal();
        eventually("the lock is free", async || Ok(two.lock("x")?.try_acquire().await?.is_some())).await?;
        let is_own = |(key, value): &&(String, String)| key.contains("/sessions/") && value.contains("\"one\"");
        values.extend(keys(&server).iter().filter(is_own).map(|(_, value)| value.clone()));
    }
    let before = values.len();
    values.dedup();
    ensure!(before == 3 && values.len() == 3, "the session's key was written with these values: {values:?}");
    // The last of the other's tries is given back in the background.
    eventually("no place is left", async || Ok(places(&server, "x").is_empty())).await
}

async fn session() -> Result<()> {
    let (_server, proxy) = stage()?;
    let one = connect(&proxy.url("consul"), "one").await?;
    let swallow = proxy.swallow_reply(b"/session/create");
    let guard = within("acquiring", one.lock("x")?.acquire()).await??;
    ensure!(swallow.wait(PATIENCE) && guard.is_held(), "the reply was not swallowed");
    Ok(())
}
