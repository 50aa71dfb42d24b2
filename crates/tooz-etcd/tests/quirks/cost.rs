//! What things cost the server, by its own counters.

use std::time::Duration;

use anyhow::{Result, ensure};
use tooz_testbed::{Kind, Server};

use crate::Quirk;
use crate::stage::{connect, etcdctl, eventually, keys, metric, play, received, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("cost::a_thousand_locks_have_one_heartbeat", || play(one_heartbeat())),
    ("cost::fifty_waiters_do_not_poll_and_a_release_wakes_one", || play(no_polling())),
    ("cost::a_lock_without_rivals_costs_two_writes", || play(two_writes())),
    ("cost::members_are_listed_by_one_request", || play(one_request())),
    ("cost::a_loop_leaves_no_key_and_no_lease", || play(no_leak())),
];

const ALL_ASKED: &[&str] = &["Range", "Txn", "Put", "DeleteRange"];

async fn one_heartbeat() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&format!("{}?session_timeout=3s", server.url()), "one").await?;
    let mut guards = Vec::new();
    for index in 0..1000 {
        guards.push(one.lock(format!("many-{index}"))?.acquire().await?);
    }
    // Watches of one's own keys are made a moment after the grant.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let count = |calls: &[&str]| received(server.address(), calls);
    let (kept, asked, watched) = (count(&["LeaseKeepAlive"])?, count(ALL_ASKED)?, count(&["Watch"])?);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (kept, asked, watched) =
        (count(&["LeaseKeepAlive"])? - kept, count(ALL_ASKED)? - asked, count(&["Watch"])? - watched);
    ensure!((4.0..=8.0).contains(&kept), "{kept} keep-alives in two timeouts");
    ensure!(asked <= 8.0, "{asked} questions beside them");
    ensure!(watched <= 8.0, "{watched} messages for the watches");
    ensure!(guards.iter().all(tooz_core::LockGuard::is_held), "something was lost");
    Ok(())
}

async fn no_polling() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let url = format!("{}?session_timeout=120s", server.url());
    let holder = connect(&url, "holder").await?;
    let guard = holder.lock("x")?.acquire().await?;
    let (granted, mut grants) = tokio::sync::mpsc::unbounded_channel();
    let mut all = Vec::new();
    for index in 0..50 {
        let one = connect(&url, &format!("m{index}")).await?;
        let (lock, granted) = (one.lock("x")?, granted.clone());
        tokio::spawn(async move { granted.send(lock.acquire().await) });
        all.push(one);
    }
    let waiting = async || Ok(keys(&server)?.iter().filter(|key| key.contains("/locks/x/")).count() == 51);
    eventually("all wait", waiting).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let count = |calls: &[&str]| received(server.address(), calls);
    let (asked, watched) = (count(ALL_ASKED)?, count(&["Watch"])?);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (polled, hinted) = (count(ALL_ASKED)? - asked, count(&["Watch"])? - watched);
    ensure!(polled <= 2.0, "{polled} questions of 51 members in 3 s (a beat comes every 40 s)");
    ensure!(hinted <= 2.0, "{hinted} messages for the watches");
    let (asked, watched) = (count(ALL_ASKED)?, count(&["Watch"])?);
    let told = || metric(server.address(), "etcd_debugging_mvcc_events_total", &[]);
    let events = told()?;
    guard.release().await?;
    let next = within("the next grant", grants.recv()).await?.expect("a waiter sends it")?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (asked, watched) = (count(ALL_ASKED)? - asked, count(&["Watch"])? - watched);
    ensure!(asked <= 4.0, "a release made {asked} questions");
    ensure!(watched <= 6.0, "a release made {watched} messages for the watches");
    ensure!(told()? - events <= 3.0, "a release was told {} times", told()? - events);
    ensure!(next.is_held() && grants.try_recv().is_err(), "more than one has it");
    Ok(())
}

async fn two_writes() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    let lock = one.lock("x")?;
    lock.acquire().await?.release().await?;
    let revision = || -> Result<f64> { metric(server.address(), "etcd_debugging_mvcc_current_revision", &[]) };
    let (before, asked) = (revision()?, received(server.address(), &["Txn", "Put", "DeleteRange"])?);
    for _ in 0..20 {
        lock.acquire().await?.release().await?;
    }
    let (after, now) = (revision()?, received(server.address(), &["Txn", "Put", "DeleteRange"])?);
    ensure!((after - before - 40.0).abs() < 0.5, "{} revisions for 20 pairs", after - before);
    ensure!((now - asked - 40.0).abs() < 0.5, "{} requests for 20 pairs", now - asked);
    Ok(())
}

async fn one_request() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let first = connect(&server.url(), "first").await?;
    first.group("g")?.create().await?;
    let joining: Vec<_> = (0..50)
        .map(|index| {
            let url = server.url();
            tokio::spawn(async move {
                let one = connect(&url, &format!("m{index}")).await?;
                let membership = one.group("g")?.join(&serde_json::json!({ "index": index })).await?;
                anyhow::Ok((one, membership))
            })
        })
        .collect();
    let mut all = Vec::new();
    for one in joining {
        all.push(one.await??);
    }
    let before = received(server.address(), &["Txn"])?;
    let members = first.group("g")?.members().await?;
    ensure!(members.len() == 50, "{} are listed", members.len());
    ensure!(members.iter().all(|entry| entry.capabilities.as_json().contains("index")), "without capabilities");
    let asked = received(server.address(), &["Txn"])? - before;
    ensure!((asked - 1.0).abs() < 0.5, "{asked} requests");
    Ok(())
}

async fn no_leak() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    for turn in 0..3 {
        let (one, two) = (connect(&server.url(), "one").await?, connect(&server.url(), "two").await?);
        let group = one.group("g")?;
        for index in 0..100 {
            let guard = one.lock(format!("x-{index}"))?.acquire().await?;
            ensure!(two.lock(format!("x-{index}"))?.try_acquire().await?.is_none(), "held by two");
            let waiter = tokio::spawn({
                let lock = two.lock(format!("x-{index}"))?;
                async move { lock.acquire_within(Duration::from_millis(5)).await }
            });
            // In so short a time the server may not have answered, which is an error.
            drop(waiter.await?);
            guard.release().await?;
            drop(two.lock(format!("x-{index}"))?.shared().acquire().await?);
            group.join_or_create(&index).await?.leave().await?;
        }
        group.delete().await?;
        one.close().await?;
        two.close().await?;
        let left = keys(&server)?;
        ensure!(left.is_empty(), "turn {turn} left {left:?}");
        let leases = etcdctl(&server, &["lease", "list"])?;
        ensure!(leases.contains("found 0 leases"), "turn {turn} left leases: {leases}");
    }
    Ok(())
}
