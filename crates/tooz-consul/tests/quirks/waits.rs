//! Waiting: by few connections, woken one at a time, and never deaf.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tooz_core::LeaderEvent;
use tooz_testbed::{Kind, Proxy, Server};

use crate::Quirk;
use crate::ask;
use crate::stage::{connect, eventually, moment, places, play, requests, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("waits::two_hundred_waits_of_one_coordinator_use_twenty_connections", || play(few_connections())),
    ("waits::a_release_wakes_one_of_two_hundred", || play(one_wake())),
    ("waits::a_withdrawal_leaves_no_question_longer_than_its_wait", || play(no_question())),
    ("waits::a_waiter_goes_on_after_its_server_was_wiped", || play(wiped())),
    ("waits::who_watches_a_vacancy_asks_seldom_whatever_goes_on_beside_it", || play(vacancy())),
    ("waits::what_was_given_up_in_an_outage_hinders_nothing_after_it", || play(after_an_outage())),
    ("waits::a_try_beside_a_try_that_fails_finds_the_lock_free_in_the_end", || play(tries())),
];

/// The open connections to that port, as the kernel lists them.
fn connections_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let remote = format!(":{port:04X}");
    let is_meant = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|to| to.ends_with(&remote)) && fields.next() == Some("01")
    };
    table.lines().filter(is_meant).count()
}

async fn few_connections() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let proxy = Proxy::start(server.address())?;
    let url = |base: &str| with(base, "session_timeout=20s");
    let (holder, many) =
        (connect(&url(&server.url()), "holder").await?, connect(&url(&proxy.url("consul")), "many").await?);
    let mut guards = Vec::new();
    for index in 0..200 {
        guards.push(holder.lock(format!("x-{index}"))?.acquire().await?);
    }
    let most = Arc::new(AtomicUsize::new(0));
    let mut waiting = Vec::new();
    for index in 0..200 {
        let lock = many.lock(format!("x-{index}"))?;
        waiting.push(tokio::spawn(async move { lock.acquire().await }));
    }
    for _ in 0..30 {
        most.fetch_max(connections_to(proxy.address().port()), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let most = most.load(Ordering::Relaxed);
    ensure!((1..=20).contains(&most), "{most} connections");
    let before = requests(&server)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = requests(&server)? - before;
    ensure!(asked <= 30, "{asked} requests of 200 waiters in 2 s");
    let began = Instant::now();
    for guard in guards {
        guard.release().await?;
    }
    for one in waiting {
        drop(within("a waiter's turn", one).await???);
    }
    ensure!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    Ok(())
}

async fn one_wake() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let url = with(&server.url(), "session_timeout=120s");
    let holder = connect(&url, "holder").await?;
    let guard = holder.lock("x")?.acquire().await?;
    let (granted, mut grants) = tokio::sync::mpsc::unbounded_channel();
    let mut all = Vec::new();
    for index in 0..200 {
        let one = connect(&url, &format!("m{index}")).await?;
        let (lock, granted) = (one.lock("x")?, granted.clone());
        tokio::spawn(async move { granted.send(lock.acquire().await) });
        all.push(one);
    }
    eventually("all wait", async || Ok(places(&server, "x").len() == 201)).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = requests(&server)?;
    guard.release().await?;
    let next = within("the next grant", grants.recv()).await?.expect("a waiter sends it")?;
    moment().await;
    let asked = requests(&server)? - before;
    // The release, the answered question, the look; and questions of others whose wait of 10 s has just ended: twenty in a second.
    ensure!(asked <= 60, "a release made {asked} requests");
    ensure!(next.is_held() && grants.try_recv().is_err(), "more than one has it");
    Ok(())
}

async fn no_question() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let (one, two) = (connect(&server.url(), "one").await?, connect(&server.url(), "two").await?);
    let _guard = one.lock("x")?.acquire().await?;
    let routines = || {
        let metrics = ask::http(server.address(), "GET", "/v1/agent/metrics?format=prometheus", "");
        let line = metrics.lines().find(|line| line.starts_with("consul_runtime_num_goroutines ")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = routines();
    for _ in 0..60 {
        let answer = two.lock("x")?.acquire_within(Duration::from_millis(50)).await;
        // In so short a time the server may not have answered, which is an error.
        ensure!(!matches!(answer, Ok(Some(_))), "held by two");
    }
    // The wait is no longer than the session timeout, and Consul says how many it serves every ten seconds.
    eventually("the questions are gone", async || Ok(routines() <= before + 12.0)).await
}

/// Another server at the same address, whose index is lower than that which the waiter asks about.
async fn wiped() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    for index in 0..50 {
        ask::http(server.address(), "PUT", &format!("/v1/kv/filler/{index}"), "x");
    }
    let (one, two) = (connect(&server.url(), "one").await?, connect(&server.url(), "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let lock = two.lock("x")?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    eventually("two are there", async || Ok(places(&server, "x").len() == 2)).await?;
    server.kill()?;
    for entry in std::fs::read_dir(server.folder().join("data"))? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    server.restart()?;
    within("the loss", guard.loss().wait()).await?;
    let next = within("the waiter's turn", waiting).await???;
    ensure!(next.is_held() && !guard.is_held(), "the waiter waited for nothing");
    Ok(())
}

/// A try stands in the queue for a moment: another that overlaps may find it there, but when all have gone nothing is left.
async fn tries() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let holder = connect(&server.url(), "holder").await?;
    let mut all = Vec::new();
    for index in 0..4 {
        all.push(connect(&server.url(), &format!("m{index}")).await?);
    }
    for round in 0..20 {
        let guard = holder.lock("x")?.acquire().await?;
        let trying: Vec<_> = all
            .iter()
            .map(|one| one.lock("x"))
            .map(|lock| tokio::spawn(async move { anyhow::Ok(lock?.try_acquire().await?.is_some()) }))
            .collect();
        for one in trying {
            ensure!(!one.await??, "round {round}: held by two");
        }
        ensure!(places(&server, "x").len() == 1, "round {round}: left {:?}", places(&server, "x"));
        guard.release().await?;
        // One after the other: none overlaps.
        let guard = all[round % 4].lock("x")?.try_acquire().await?;
        ensure!(guard.is_some(), "round {round}: a place that no request stands for is in the way");
    }
    Ok(())
}

/// A question about what is not there is answered at each change of anything near it.
async fn vacancy() -> Result<()> {
    const CHANGES: u64 = 400;
    let server = Server::start(Kind::Consul)?;
    let one = connect(&server.url(), "one").await?;
    let group = one.group("g")?;
    group.create().await?;
    let mut watch = within("watching", group.watch_leader()).await??;
    ensure!(matches!(watch.next().await, Some(LeaderEvent::Vacant)), "no member leads");
    moment().await;
    let before = requests(&server)?;
    for number in 0..CHANGES {
        ask::http(server.address(), "PUT", &format!("/v1/kv/tooz/tooz/elections/other/x-{number}"), "");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let asked = (requests(&server)? - before).saturating_sub(CHANGES);
    ensure!(asked <= 60, "{asked} questions about a vacancy beside {CHANGES} changes of other things");
    let membership = group.join(&1).await?;
    let leadership = within("standing", membership.campaign()).await??;
    let told = within("the election", watch.next()).await?;
    ensure!(matches!(told, Some(LeaderEvent::Elected(_))), "{told:?}");
    leadership.resign().await?;
    membership.leave().await?;
    Ok(())
}

/// Each withdrawal refuses what is under way: hundreds of them after an outage must not come one by one.
async fn after_an_outage() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&with(&server.url(), "session_timeout=30s&operation_timeout=3s"), "one").await?;
    within("the first", one.lock("first")?.acquire()).await??.release().await?;
    server.pause()?;
    let mut given_up = Vec::new();
    for number in 0..500 {
        let lock = one.lock(format!("given-up-{number}"))?;
        given_up.push(tokio::spawn(async move { lock.try_acquire().await }));
    }
    for one in given_up {
        ensure!(within("an answer", one).await??.is_err(), "it is granted by a server that stands still");
    }
    server.resume()?;
    let mut fresh = Vec::new();
    for number in 0..100 {
        let lock = one.lock(format!("fresh-{number}"))?;
        fresh.push(tokio::spawn(async move { lock.try_acquire().await }));
    }
    let mut failed = Vec::new();
    for one in fresh {
        match within("an answer", one).await?? {
            Ok(Some(guard)) => guard.release().await?,
            Ok(None) => failed.push("held by somebody".to_owned()),
            Err(error) => failed.push(error.to_string()),
        }
    }
    ensure!(failed.is_empty(), "{} of a hundred tries fail after the outage: {}", failed.len(), failed[0]);
    Ok(())
}
