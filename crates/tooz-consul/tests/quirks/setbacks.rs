//! Servers that are set back at a bad moment: when an answer is lost, in a crowd of requests, late in a question that waits.

use std::time::Duration;

use anyhow::{Result, ensure};
use tooz_core::{Coordinator, GroupEvent};
use tooz_testbed::{Kind, Proxy, Server};

use crate::Quirk;
use crate::backups::{copy, save_at_once, snapshot};
use crate::liar::Liar;
use crate::stage::{PATIENCE, connect, eventually, moment, play, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("setbacks::one_whose_first_answer_is_lost_is_noticed", || play(lost_answer())),
    ("setbacks::one_after_which_all_connections_are_lost_is_noticed", || play(lost_connections())),
    ("setbacks::one_in_a_crowd_of_acquires_is_noticed", || play(crowd())),
    ("setbacks::an_answer_that_is_lost_without_one_costs_nothing", || play(lost_alone())),
    ("setbacks::after_an_older_folder_letters_and_watches_are_not_deaf", || play(deaf())),
    ("setbacks::one_late_in_a_question_that_waits_is_noticed_at_once", || play(late_in_a_question())),
];

/// Told by a question that is answered at once, and long before the next heartbeat or the end of the question.
const SOON: Duration = Duration::from_secs(5);

/// A lock that is given back, as a backup does not know.
async fn ghost(server: &Server, one: &Coordinator) -> Result<()> {
    let guard = one.lock("ghost")?.acquire().await?;
    save_at_once(server)?;
    guard.release().await?;
    Ok(())
}

async fn is_free(two: &Coordinator) -> Result<()> {
    let lock = two.lock("ghost")?;
    eventually("the ghost is gone", async || Ok(lock.try_acquire().await?.is_some())).await
}

const LOST: (&str, &str) = ("500 Internal Server Error", "leadership lost while committing log");

/// The session has no question open that would be ended by the restore.
async fn lost_answer() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let liar = Liar::before(server.address())?;
    let one = connect(&with(&liar.url(), "session_timeout=10s"), "one").await?;
    let two = connect(&server.url(), "two").await?;
    ghost(&server, &one).await?;
    moment().await;
    liar.say_after("/locks/lost/", 1, LOST.0, LOST.1);
    snapshot(&server, "restore")?;
    drop(within("trying", one.lock("lost")?.try_acquire()).await?);
    ensure!(liar.left() == 0, "no answer was lost");
    one.lock("next")?.acquire().await?.release().await?;
    is_free(&two).await
}

async fn lost_connections() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let proxy = Proxy::start(server.address())?;
    let one = connect(&with(&proxy.url("consul"), "session_timeout=10s"), "one").await?;
    let two = connect(&server.url(), "two").await?;
    two.group("g")?.create().await?;
    let left = one.group("left")?.join_or_create(&1).await?;
    ghost(&server, &one).await?;
    left.leave().await?;
    let unknown = one.lock("unknown")?.acquire().await?;
    let membership = one.group("g")?.join(&1).await?;
    moment().await;
    proxy.drop_to_client();
    snapshot(&server, "restore")?;
    let lock = one.lock("lost")?;
    let acquiring = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    proxy.reset();
    proxy.heal();
    within("the loss", unknown.loss().wait()).await?;
    ensure!(within("acquiring", acquiring).await???.is_held(), "it is not held");
    is_free(&two).await?;
    let (left, group) = (two.group("left")?, two.group("g")?);
    eventually("it has left", async || Ok(left.members().await?.is_empty())).await?;
    eventually("it is in again", async || Ok(group.members().await?.len() == 1)).await?;
    ensure!(membership.is_member(), "it was told to be taken over");
    Ok(())
}

/// Most of the acquires have waited for their turn since before the backup was made.
async fn crowd() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let proxy = Proxy::start(server.address())?;
    let one = connect(&with(&proxy.url("consul"), "session_timeout=20s"), "one").await?;
    let two = connect(&server.url(), "two").await?;
    let ghost = one.lock("ghost")?.acquire().await?;
    proxy.delay(Duration::from_millis(30));
    let asking: Vec<_> = (0..400)
        .map(|number| {
            let lock = one.lock(format!("x-{number}"));
            tokio::spawn(async move { anyhow::Ok(lock?.acquire().await?) })
        })
        .collect();
    moment().await;
    save_at_once(&server)?;
    ghost.release().await?;
    snapshot(&server, "restore")?;
    for one in asking {
        drop(within("acquiring", one).await??);
    }
    is_free(&two).await
}

/// An answer that gets lost is not taken for a set-back, and what comes next is done all the same.
async fn lost_alone() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let proxy = Proxy::start(server.address())?;
    let one = connect(&with(&proxy.url("consul"), "session_timeout=10s"), "one").await?;
    let kept = one.lock("kept")?.acquire().await?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    for number in 0..3 {
        let swallow = proxy.swallow_reply(b"/locks/x/");
        let guard = within("acquiring", one.lock("x")?.acquire()).await??;
        ensure!(swallow.wait(PATIENCE), "round {number}: the reply was not swallowed");
        within("releasing", guard.release()).await??;
        one.lock("y")?.acquire().await?.release().await?;
    }
    ensure!(kept.is_held() && membership.is_member(), "something was lost");
    Ok(())
}

/// The servers come back far below the indexes that were told before.
async fn deaf() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let url = with(&server.url(), "session_timeout=60s");
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    two.lock("warm")?.acquire().await?.release().await?;
    let mut watch = two.group("g")?.watch().await?;
    moment().await;
    let (data, older) = (server.folder().join("data"), server.folder().join("older"));
    server.kill()?;
    copy(&data, &older)?;
    server.restart()?;
    for _ in 0..60 {
        one.lock("busy")?.acquire().await?.release().await?;
    }
    // A letter, and a change of the group: so both questions know a late index.
    let broken = one.lock("broken")?.acquire().await?;
    let lock = two.lock("broken")?;
    lock.break_lock(&lock.holders().await?[0]).await?;
    within("the loss", broken.loss().wait()).await?;
    membership.update(&2).await?;
    moment().await;
    server.kill()?;
    std::fs::remove_dir_all(&data)?;
    copy(&older, &data)?;
    server.restart()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let lock = two.lock("x")?;
    lock.break_lock(&lock.holders().await?[0]).await?;
    let told = tokio::time::timeout(SOON, guard.loss().wait()).await;
    ensure!(told.is_ok(), "the letter was not heard");
    let joined = two.group("g")?.join(&3).await?;
    let hearing = async {
        while let Some(event) = watch.next().await {
            if matches!(event, GroupEvent::Joined(info) if info.member.as_str() == "two") {
                return true;
            }
        }
        false
    };
    let heard = tokio::time::timeout(SOON, hearing).await;
    ensure!(heard == Ok(true) && joined.is_member(), "the watch was deaf: {heard:?}");
    Ok(())
}

/// One question waits for 10 s, and the first heartbeat is after 20 s.
async fn late_in_a_question() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&with(&server.url(), "session_timeout=60s"), "one").await?;
    let known = one.lock("known")?.acquire().await?;
    moment().await;
    save_at_once(&server)?;
    let unknown = one.lock("unknown")?.acquire().await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    snapshot(&server, "restore")?;
    let told = tokio::time::timeout(SOON, unknown.loss().wait()).await;
    ensure!(told.is_ok(), "it was not looked");
    ensure!(known.is_held(), "what the backup knows was lost");
    Ok(())
}
