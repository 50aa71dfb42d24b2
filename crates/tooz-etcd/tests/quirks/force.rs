//! What was taken away behind one's back, and what must not be.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tooz_core::{ErrorKind, LossReason};
use tooz_testbed::{Kind, Proxy, Server};

use crate::Quirk;
use crate::stage::{connect, etcdctl, eventually, keys, play, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("force::a_holder_whose_key_is_deleted_is_told", || play(deleted())),
    ("force::a_release_of_what_was_taken_at_that_moment_is_no_success", || play(taken_at_the_release())),
    ("force::a_waiter_whose_key_is_deleted_waits_on", || play(waiter())),
    ("force::a_member_whose_key_is_deleted_is_told", || play(member())),
    ("force::a_group_of_which_one_key_is_deleted_is_there_or_gone_for_all", || play(half_a_group())),
    ("force::a_deleted_session_key_ends_the_session", || play(session())),
    ("force::a_release_after_the_lease_was_revoked_is_no_success", || play(revoked())),
    ("force::a_namesake_neither_frees_nor_inherits", || play(namesake())),
];

fn delete(server: &Server, prefix: &str) -> Result<()> {
    etcdctl(server, &["del", "--prefix", prefix]).map(drop)
}

async fn deleted() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    let (kept, taken) = (one.lock("kept")?.acquire().await?, one.lock("taken")?.acquire().await?);
    delete(&server, "/tooz/tooz/locks/taken/")?;
    let reason = tokio::time::timeout(Duration::from_secs(1), taken.loss().wait()).await?;
    ensure!(reason == LossReason::Broken, "told {reason:?}");
    ensure!(kept.is_held() && !taken.is_held(), "one was taken, one was not");
    Ok(())
}

/// The key goes so shortly before the release that the holder has heard nothing of it.
async fn taken_at_the_release() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let proxy = Proxy::start(server.address())?;
    let one = connect(&format!("{}?session_timeout=10s", proxy.url("etcd")), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.drop_to_client();
    delete(&server, "/tooz/tooz/locks/x/")?;
    let releasing = tokio::spawn(guard.release());
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.heal();
    let released = within("the release", releasing).await??;
    ensure!(released.is_err(), "it was another's in between, perhaps");
    drop(within("acquiring again", one.lock("x")?.acquire()).await??);
    Ok(())
}

async fn waiter() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let (one, two) = (connect(&server.url(), "one").await?, connect(&server.url(), "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let waiting = two.lock("x")?;
    let waiting = tokio::spawn(async move { waiting.acquire().await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mine = guard.fencing_token().0.to_string();
    for key in keys(&server)?.iter().filter(|key| key.contains("/locks/x/")) {
        if !etcdctl(&server, &["get", key, "-w", "fields"])?.contains(&format!("\"CreateRevision\" : {mine}")) {
            etcdctl(&server, &["del", key])?;
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    ensure!(!waiting.is_finished() && guard.is_held(), "the waiter has it though it is held");
    guard.release().await?;
    let next = within("the waiter's grant", waiting).await???;
    ensure!(next.is_held(), "the waiter waited for nothing");
    Ok(())
}

async fn member() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    let guard = one.lock("x")?.acquire().await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    delete(&server, "/tooz/tooz/members/g/one")?;
    tokio::time::timeout(Duration::from_secs(1), membership.loss().wait()).await?;
    ensure!(!membership.is_member() && guard.is_held(), "only the membership was taken");
    Ok(())
}

async fn half_a_group() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let url = format!("{}?session_timeout=20s", server.url());
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let (gone, kept) = (one.group("gone")?, one.group("kept")?);
    let (lost, stays) = (gone.join_or_create(&1).await?, kept.join_or_create(&1).await?);
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The key by which it exists: as if it had been deleted, with its members.
    etcdctl(&server, &["del", "/tooz/tooz/members/gone/"])?;
    tokio::time::timeout(Duration::from_secs(2), lost.loss().wait()).await.context("the member was not told")?;
    ensure!(!lost.is_member() && stays.is_member(), "one was deleted, one was not");
    let is_clear = async || Ok(!keys(&server)?.iter().any(|key| key.contains("/members/gone")));
    eventually("no entry is left", is_clear).await?;
    ensure!(two.group("gone")?.members().await.is_err(), "it has members");
    two.group("gone")?.delete().await?;
    ensure!(two.groups().await?.len() == 1, "it is listed still: {:?}", two.groups().await?);
    let again = two.group("gone")?.delete().await.err().map(|error| error.kind());
    ensure!(again == Some(ErrorKind::NotFound), "deleted twice: {again:?}");
    // The key by which it is listed.
    etcdctl(&server, &["del", "/tooz/tooz/groups/kept"])?;
    let created = kept.create().await.err().map(|error| error.kind());
    ensure!(created == Some(ErrorKind::AlreadyExists), "created twice: {created:?}");
    ensure!(one.groups().await?.len() == 1 && stays.is_member(), "it is not listed again");
    stays.leave().await?;
    kept.delete().await?;
    ensure!(keys(&server)?.iter().all(|key| key.contains("/sessions/")), "left over: {:?}", keys(&server)?);
    Ok(())
}

async fn session() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    delete(&server, "/tooz/tooz/sessions/")?;
    let reason = tokio::time::timeout(Duration::from_secs(2), guard.loss().wait()).await?;
    ensure!(reason == LossReason::SessionEnded, "told {reason:?}");
    drop(within("acquiring in the new session", one.lock("x")?.acquire()).await??);
    Ok(())
}

/// The lease is revoked, of which the holder hears nothing until its release was answered.
async fn revoked() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let proxy = Proxy::start(server.address())?;
    let url = format!("{}?session_timeout=10s", proxy.url("etcd"));
    let (one, two) = (connect(&url, "one").await?, connect(&server.url(), "two").await?);
    for round in 0..3 {
        let guard = within("acquiring", one.lock("x")?.acquire()).await??;
        let mut leases = Vec::new();
        for key in keys(&server)? {
            if let Some(lease) = key.strip_prefix("/tooz/tooz/sessions/")
                && etcdctl(&server, &["get", &key])?.contains("\"member\":\"one\"")
            {
                leases.push(lease.to_owned());
            }
        }
        ensure!(leases.len() == 1, "the leases of one: {leases:?}");
        proxy.drop_to_client();
        etcdctl(&server, &["lease", "revoke", &leases[0]])?;
        let next = within("the next grant", two.lock("x")?.acquire()).await??;
        let releasing = tokio::spawn(guard.release());
        // Time enough to be answered, so that the answer and the news arrive together.
        tokio::time::sleep(Duration::from_millis(200)).await;
        proxy.heal();
        let released = within("the release", releasing).await??;
        let kind = released.err().map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::Lost), "round {round}: answered {kind:?} while another holds it");
        ensure!(next.is_held(), "the late release took it from the next holder");
        within("releasing", next.release()).await??;
    }
    Ok(())
}

async fn namesake() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let (one, namesake) = (connect(&server.url(), "same").await?, connect(&server.url(), "same").await?);
    let guard = one.lock("x")?.acquire().await?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    ensure!(namesake.lock("x")?.try_acquire().await?.is_none(), "the namesake inherits the lock");
    ensure!(namesake.group("g")?.join(&2).await.is_err(), "the namesake is in as well");
    let other = namesake.lock("y")?.acquire().await?;
    other.release().await?;
    namesake.close().await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    ensure!(guard.is_held() && membership.is_member(), "the namesake's close took it");
    let third = connect(&server.url(), "third").await?;
    ensure!(third.lock("x")?.try_acquire().await?.is_none(), "the namesake's close freed it");
    ensure!(third.group("g")?.members().await?.len() == 1, "the namesake's close took the member out");
    Ok(())
}
