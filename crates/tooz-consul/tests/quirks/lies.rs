//! What an agent says that must not be believed: of a leader that was just elected, of one that lost its place, of a path that was moved.

use std::time::Duration;

use anyhow::{Result, ensure};
use tooz_core::{ConnectOptions, ErrorKind, Outcome};
use tooz_testbed::{Kind, Server};

use crate::Quirk;
use crate::liar::Liar;
use crate::stage::{connect, eventually, moment, places, play, session_of, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("lies::a_session_that_a_new_leader_does_not_know_is_not_lost", || play(unknown_session())),
    ("lies::a_session_that_a_proven_leader_does_not_know_is_lost", || play(ended_session())),
    ("lies::keys_that_a_new_leader_does_not_know_are_not_lost", || play(unknown_keys())),
    ("lies::a_leadership_lost_while_committing_leaves_no_ghost", || play(leadership_lost())),
    ("lies::a_leadership_lost_after_committing_is_found_again", || play(leadership_lost_after())),
    ("lies::a_redirect_is_never_followed", || play(redirect())),
    ("lies::connecting_waits_for_the_election_of_a_leader", || play(election())),
];

fn stage() -> Result<(Server, Liar)> {
    let server = Server::start(Kind::Consul)?;
    let liar = Liar::before(server.address())?;
    Ok((server, liar))
}

async fn unknown_session() -> Result<()> {
    let (_server, liar) = stage()?;
    let one = connect(&liar.url(), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    liar.say("/session/renew/", 3, "404 Not Found", "Session id not found");
    eventually("the heartbeats were told so", async || Ok(liar.left() == 0)).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(guard.is_held(), "it was believed");
    guard.release().await?;
    Ok(())
}

async fn ended_session() -> Result<()> {
    let (_server, liar) = stage()?;
    let one = connect(&with(&liar.url(), "session_timeout=20s"), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    liar.say("/session/info/", 1, "200 OK", "[]");
    liar.say("/session/renew/", 1, "404 Not Found", "Session id not found");
    within("the loss", guard.loss().wait()).await?;
    ensure!(!guard.is_held(), "it was not believed");
    Ok(())
}

/// The holder's mailbox and the waiter's look are answered as if there were nothing.
async fn unknown_keys() -> Result<()> {
    let (server, liar) = stage()?;
    let (one, two) = (connect(&liar.url(), "one").await?, connect(&liar.url(), "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let lock = two.lock("x")?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    eventually("two wait", async || Ok(places(&server, "x").len() == 2)).await?;
    moment().await;
    // Those without the word `consistent`, which only a proven leader answers.
    liar.say("/sessions/", 2, "404 Not Found", "");
    liar.say(&format!("{}?index=", places(&server, "x")[0]), 1, "404 Not Found", "");
    liar.say("/locks/x/?recurse HTTP", 2, "404 Not Found", "");
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(guard.is_held() && !waiting.is_finished(), "it was believed");
    ensure!(places(&server, "x").len() == 2, "the waiter took another place: {:?}", places(&server, "x"));
    guard.release().await?;
    ensure!(within("the waiter's turn", waiting).await???.is_held(), "the waiter waited for nothing");
    Ok(())
}

const LOST: (&str, &str) = ("500 Internal Server Error", "leadership lost while committing log");

async fn leadership_lost() -> Result<()> {
    let (server, liar) = stage()?;
    let (one, two) = (connect(&liar.url(), "one").await?, connect(&server.url(), "two").await?);
    one.lock("warm")?.acquire().await?.release().await?;
    liar.say("/locks/x/", 1, LOST.0, LOST.1);
    let error = within("trying", one.lock("x")?.try_acquire()).await?.err();
    ensure!(error.as_ref().is_some_and(|error| error.outcome() == Outcome::Unknown), "it is not known: {error:?}");
    eventually("it is free", async || Ok(two.lock("x")?.try_acquire().await?.is_some())).await
}

async fn leadership_lost_after() -> Result<()> {
    let (server, liar) = stage()?;
    let (one, two) = (connect(&liar.url(), "one").await?, connect(&server.url(), "two").await?);
    one.lock("warm")?.acquire().await?.release().await?;
    liar.say_after("/locks/x/", 1, LOST.0, LOST.1);
    let error = within("trying", one.lock("x")?.try_acquire()).await?.err();
    ensure!(error.as_ref().is_some_and(|error| error.outcome() == Outcome::Unknown), "it is not known: {error:?}");
    eventually("what was made is withdrawn", async || Ok(two.lock("x")?.try_acquire().await?.is_some())).await?;
    // One that waits asks again by itself, with the same request.
    liar.say_after("/locks/y/", 1, LOST.0, LOST.1);
    let guard = within("acquiring", one.lock("y")?.acquire()).await??;
    ensure!(places(&server, "y").len() == 1 && guard.is_held(), "held by {:?}", places(&server, "y"));
    liar.say_after("/locks/y/", 1, LOST.0, LOST.1);
    drop(within("releasing", guard.release()).await?);
    eventually("it is free", async || Ok(two.lock("y")?.try_acquire().await?.is_some())).await
}

async fn redirect() -> Result<()> {
    let (server, liar) = stage()?;
    let one = connect(&liar.url(), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    liar.say("/locks/x/", 1, "301 Moved Permanently", "");
    let error = within("looking", one.lock("x")?.holders()).await?.err();
    ensure!(error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Backend), "answered {error:?}");
    ensure!(!liar.heard().iter().any(|line| line.contains("/kv/another")), "it was followed");
    ensure!(guard.is_held() && !session_of(&server, "one")?.is_empty(), "it was lost");
    for name in ["a//b", "../b", "a/../b", "/x", ".", "..", "%2F", "a b", "a?b#c", "Ä", "=41"] {
        let guard = within("acquiring", one.lock(name)?.acquire()).await??;
        let holders = one.lock(name)?.holders().await?;
        ensure!(holders.len() == 1 && holders[0].token == guard.fencing_token(), "{name}: held by {holders:?}");
    }
    ensure!(liar.heard().iter().all(|line| !line.contains('%') && !line.contains("..")), "a path that is cleaned");
    Ok(())
}

/// What an agent says whose leader has just died.
async fn election() -> Result<()> {
    let (_server, liar) = stage()?;
    let words = "rpc error getting client: failed to get conn: dial tcp 127.0.0.1:1: connect: connection refused";
    liar.say("/layout", 4, "500 Internal Server Error", words);
    let one = connect(&with(&liar.url(), "connect_timeout=20s"), "one").await?;
    ensure!(liar.left() == 0 && one.lock("x")?.acquire().await?.is_held(), "it did not connect");
    // One that has no leader for good is told of with its own words, and not before the time is over.
    liar.say("/layout", 100, "500 Internal Server Error", "No cluster leader");
    let options = ConnectOptions::new(&with(&liar.url(), "connect_timeout=1s"))?.member("two")?;
    let error = within("connecting", options.connect()).await?.err();
    let is_named = |error: &tooz_core::Error| error.to_string().contains("No cluster leader");
    ensure!(error.as_ref().is_some_and(is_named), "answered {error:?}");
    Ok(())
}
