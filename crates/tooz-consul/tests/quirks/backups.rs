//! Servers that come back with what they had: after a restart with all of it, after a restore with what a backup knew.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tooz_testbed::{Kind, Server};

use crate::Quirk;
use crate::stage::{connect, eventually, keys, moment, play, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("backups::a_restart_loses_nothing_and_tokens_grow", || play(restart())),
    ("backups::a_holder_whose_grant_the_backup_does_not_know_is_told", || play(unknown_grant())),
    ("backups::what_was_given_back_since_the_backup_is_free_again", || play(released_since())),
    ("backups::what_was_held_for_a_moment_does_not_come_back_with_a_backup", || play(held_for_a_moment())),
    ("backups::a_session_that_works_all_the_time_notices_a_restore", || play(busy())),
    ("backups::an_older_folder_under_the_server_is_noticed", || play(older_folder())),
    ("backups::a_member_that_the_backup_does_not_know_joins_again", || play(unknown_member())),
];

async fn restart() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let url = with(&server.url(), "session_timeout=10s");
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let lock = two.lock("x")?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    moment().await;
    server.restart()?;
    moment().await;
    ensure!(guard.is_held() && !waiting.is_finished(), "it was lost");
    let token = guard.fencing_token();
    let released = within("releasing", guard.release()).await?;
    ensure!(released.is_ok(), "{released:?}");
    let next = within("the waiter's turn", waiting).await???;
    ensure!(next.fencing_token() > token, "tokens do not grow over a restart");
    Ok(())
}

pub(crate) fn snapshot(server: &Server, what: &str) -> Result<()> {
    let file = server.folder().join("backup");
    let output = server.tool("consul")?.args(["snapshot", what]).arg(&file).output()?;
    ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn unknown_grant() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let url = with(&server.url(), "session_timeout=6s");
    let one = connect(&url, "one").await?;
    let known = one.lock("known")?.acquire().await?;
    moment().await;
    snapshot(&server, "save")?;
    let unknown = one.lock("unknown")?.acquire().await?;
    moment().await;
    snapshot(&server, "restore")?;
    within("the loss", unknown.loss().wait()).await?;
    ensure!(known.is_held(), "what the backup knows was lost");
    let token = unknown.fencing_token();
    let again = within("acquiring again", one.lock("unknown")?.acquire()).await??;
    ensure!(again.fencing_token() > token, "tokens do not grow over a restore");
    Ok(())
}

/// A key that was deleted since stands there again, locked by a session that lives.
async fn released_since() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let url = with(&server.url(), "session_timeout=6s");
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let kept = one.lock("kept")?.acquire().await?;
    moment().await;
    snapshot(&server, "save")?;
    guard.release().await?;
    moment().await;
    snapshot(&server, "restore")?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    eventually("it is free", async || Ok(two.lock("x")?.try_acquire().await?.is_some())).await?;
    ensure!(kept.is_held(), "what is held was lost");
    Ok(())
}

/// The backup as Consul gives it, without a program of its own: that takes some milliseconds.
pub(crate) fn save_at_once(server: &Server) -> Result<()> {
    let mut stream = TcpStream::connect(server.address())?;
    stream.write_all(b"GET /v1/snapshot HTTP/1.0\r\nHost: consul\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("no end of the head")?;
    ensure!(answer.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&answer[..end]));
    Ok(std::fs::write(server.folder().join("backup"), &answer[end + 4..])?)
}

/// The session has nothing any more when letters would begin to matter to it, so that no question of its is ended by the restore.
async fn held_for_a_moment() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let url = with(&server.url(), "session_timeout=3s");
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    save_at_once(&server)?;
    guard.release().await?;
    moment().await;
    snapshot(&server, "restore")?;
    eventually("it is free", async || Ok(two.lock("x")?.try_acquire().await?.is_some())).await
}

/// What it writes after the restore has a later index than all that it knew.
async fn busy() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let url = with(&server.url(), "session_timeout=6s");
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    save_at_once(&server)?;
    guard.release().await?;
    let lock = one.lock("busy")?;
    let working = tokio::spawn(async move {
        loop {
            drop(lock.acquire().await);
        }
    });
    moment().await;
    snapshot(&server, "restore")?;
    let freed = eventually("it is free", async || Ok(two.lock("x")?.try_acquire().await?.is_some())).await;
    working.abort();
    freed
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Connections end with the server, so that no question is ended by the change.
async fn older_folder() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let url = with(&server.url(), "session_timeout=10s");
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let (guard, kept) = (one.lock("x")?.acquire().await?, one.lock("kept")?.acquire().await?);
    moment().await;
    let (data, older) = (server.folder().join("data"), server.folder().join("older"));
    server.kill()?;
    copy(&data, &older)?;
    server.restart()?;
    within("releasing", guard.release()).await??;
    let unknown = within("acquiring", two.lock("x")?.acquire()).await??;
    moment().await;
    server.kill()?;
    std::fs::remove_dir_all(&data)?;
    copy(&older, &data)?;
    server.restart()?;
    within("the loss", unknown.loss().wait()).await?;
    eventually("it is free", async || Ok(two.lock("x")?.try_acquire().await?.is_some())).await?;
    ensure!(kept.is_held(), "what the older folder knows was lost");
    Ok(())
}

async fn unknown_member() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let url = with(&server.url(), "session_timeout=6s");
    let one = connect(&url, "one").await?;
    one.group("g")?.create().await?;
    let known = one.lock("known")?.acquire().await?;
    moment().await;
    snapshot(&server, "save")?;
    let membership = one.group("g")?.join(&1).await?;
    moment().await;
    snapshot(&server, "restore")?;
    let is_listed = || keys(&server).iter().any(|(key, _)| key.ends_with("/groups/g/m-one"));
    eventually("it is in again", async || Ok(is_listed())).await?;
    // Two heartbeats look at it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    ensure!(membership.is_member() && known.is_held() && is_listed(), "it was told to be taken over");
    membership.leave().await?;
    ensure!(!is_listed(), "it is listed still");
    Ok(())
}
