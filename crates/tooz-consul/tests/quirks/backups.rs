//! Servers that come back with what they had: after a restart with all of it, after a restore with what a backup knew.

use std::time::Duration;

use anyhow::{Result, ensure};
use tooz_testbed::{Kind, Server};

use crate::Quirk;
use crate::stage::{connect, eventually, moment, play, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("backups::a_restart_loses_nothing_and_tokens_grow", || play(restart())),
    ("backups::a_holder_whose_grant_the_backup_does_not_know_is_told", || play(unknown_grant())),
    ("backups::what_was_given_back_since_the_backup_is_free_again", || play(released_since())),
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

fn snapshot(server: &Server, what: &str) -> Result<()> {
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
