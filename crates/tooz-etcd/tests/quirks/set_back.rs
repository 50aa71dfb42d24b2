//! A backup that is restored: the cluster goes on from an earlier revision, with the same addresses and names.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tooz_core::GroupEvent;
use tooz_testbed::{Kind, Proxy, Server};

use crate::Quirk;
use crate::stage::{connect, etcdctl, eventually, play, received, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("set_back::watches_are_told_at_once_though_the_revision_is_lower", || play(watches())),
    ("set_back::who_holds_what_is_not_in_the_backup_is_told_and_the_rest_is_kept", || play(holders())),
    ("set_back::a_session_that_withdrew_since_goes_on_without_a_loop", || play(versions())),
];

const URL_END: &str = "?session_timeout=30s";

fn back_up(server: &Server) -> Result<String> {
    let file = server.folder().join("backup").display().to_string();
    etcdctl(server, &["snapshot", "save", &file])?;
    Ok(file)
}

/// Puts the backup in the place of the data, while the server is down.
fn restore(server: &Server, backup: &str) -> Result<()> {
    let members = etcdctl(server, &["member", "list"])?;
    let peers = members.split(", ").nth(3).context("a member has an address for its peers")?.to_owned();
    server.kill()?;
    let data = server.folder().join("data");
    std::fs::remove_dir_all(&data)?;
    let (cluster, data) = (format!("node={peers}"), data.display().to_string());
    let restoring =
        ["snapshot", "restore", backup, "--data-dir", &data, "--name", "node", "--initial-cluster", &cluster];
    etcdctl(server, &[&restoring[..], &["--initial-advertise-peer-urls", &peers]].concat())?;
    server.restart()
}

fn grow(server: &Server, by: usize) -> Result<()> {
    (0..by).try_for_each(|index| etcdctl(server, &["put", "elsewhere", &index.to_string()]).map(drop))
}

async fn watches() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let url = format!("{}{URL_END}", server.url());
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let group = one.group("g")?;
    group.create().await?;
    let mut watch = group.watch().await?;
    within("the snapshot", watch.next()).await?;
    let mut leaders = group.watch_leader().await?;
    within("no leader", leaders.next()).await?;
    let guard = two.lock("x")?.acquire().await?;
    let next = one.lock("x")?;
    let waiting = tokio::spawn(async move { next.acquire().await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let backup = back_up(&server)?;
    grow(&server, 60)?;
    // So far the watches have come with the revision.
    let member = connect(&url, "member").await?;
    let seen = member.group("g")?.join(&1).await?;
    within("the news", watch.next()).await?;
    restore(&server, &backup)?;
    drop(seen);
    let third = connect(&url, "third").await?;
    let joined = within("joining", third.group("g")?.join(&3)).await??;
    let told = async {
        loop {
            match watch.next().await.context("the watch has ended")? {
                GroupEvent::Joined(entry) if entry.member.as_str() == "third" => return anyhow::Ok(()),
                GroupEvent::Reset(members) if members.iter().any(|entry| entry.member.as_str() == "third") => {
                    return Ok(());
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(6), told).await.context("the watch of the group is deaf")??;
    let _leadership = within("leading", joined.campaign()).await??;
    tokio::time::timeout(Duration::from_secs(6), leaders.next()).await.context("the watch of the leader is deaf")?;
    within("releasing", guard.release()).await??;
    let next = tokio::time::timeout(Duration::from_secs(6), waiting).await.context("the waiter is deaf")???;
    ensure!(next.is_held(), "the waiter has it");
    Ok(())
}

async fn holders() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let url = format!("{}{URL_END}", server.url());
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let (kept, freed) = (one.lock("kept")?.acquire().await?, one.lock("freed")?.acquire().await?);
    let membership = one.group("g")?.join_or_create(&1).await?;
    let backup = back_up(&server)?;
    freed.release().await?;
    let forgotten = one.lock("forgotten")?.acquire().await?;
    grow(&server, 30)?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    restore(&server, &backup)?;
    tokio::time::timeout(Duration::from_secs(6), forgotten.loss().wait()).await.context("the loss was not told")?;
    ensure!(kept.is_held() && membership.is_member(), "what is in the backup was lost");
    ensure!(two.lock("kept")?.try_acquire().await?.is_none(), "it is held by two");
    // What was given back since stands there again, and is given back again.
    within("taking what was freed", two.lock("freed")?.acquire()).await??.release().await?;
    within("taking what was forgotten", two.lock("forgotten")?.acquire()).await??.release().await?;
    within("releasing", kept.release()).await??;
    Ok(())
}

async fn versions() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let proxy = Proxy::start(server.address())?;
    let one = connect(&format!("{}{URL_END}", proxy.url("etcd")), "one").await?;
    let kept = one.lock("kept")?.acquire().await?;
    one.group("g")?.create().await?;
    let backup = back_up(&server)?;
    for _ in 0..3 {
        let swallow = proxy.swallow_reply(b"/locks/x/");
        let answer = within("trying", one.lock("x")?.try_acquire()).await?;
        ensure!(swallow.wait(Duration::ZERO) && answer.is_err(), "the reply was not swallowed: {answer:?}");
    }
    eventually("all is withdrawn", async || Ok(one.lock("x")?.holders().await.is_ok_and(|holders| holders.is_empty())))
        .await?;
    restore(&server, &backup)?;
    let before = received(server.address(), &["Txn"])?;
    within("acquiring", one.lock("y")?.acquire()).await??.release().await?;
    let membership = within("joining", one.group("g")?.join(&1)).await??;
    let asked = received(server.address(), &["Txn"])? - before;
    ensure!(asked < 40.0, "{asked} transactions for a lock and a membership");
    ensure!(kept.is_held() && membership.is_member(), "something was lost");
    Ok(())
}
