//! Many at once: heartbeats go first, and whatever can grow is bounded.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tooz_core::ErrorKind;
use tooz_testbed::{Kind, Server};

use crate::Quirk;
use crate::stage::{connect, etcdctl, eventually, metric, play, received, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("crowd::thousands_of_acquires_at_once_starve_no_heartbeat_and_no_release", || play(at_once())),
    ("crowd::a_large_roster_is_read_in_pages", || play(large_roster())),
    ("crowd::locks_and_waiters_are_listed_in_pages", || play(listing())),
    ("crowd::a_queue_that_is_too_long_is_refused_to_writers", || play(too_long())),
    ("crowd::what_is_too_large_for_etcd_is_refused_at_once", || play(too_large())),
    ("crowd::a_long_queue_is_not_sorted_for_each_look", || play(long_queue())),
];

async fn at_once() -> Result<()> {
    // One session may have 20,000.
    const MANY: usize = 19_000;
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&format!("{}?session_timeout=10s&operation_timeout=60s", server.url()), "one").await?;
    let (kept, freed) = (one.lock("kept")?.acquire().await?, one.lock("freed")?.acquire().await?);
    let (mut all, all_began) = (Vec::new(), Instant::now());
    for index in 0..MANY {
        let lock = one.lock(format!("many-{index}"))?;
        all.push(tokio::spawn(async move { lock.acquire().await }));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    freed.release().await?;
    let took = began.elapsed();
    let mut guards = Vec::new();
    for one in all {
        guards.push(one.await??);
        ensure!(kept.is_held(), "lost after {} grants", guards.len());
    }
    let in_all = all_began.elapsed();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let lost = guards.iter().filter(|guard| !guard.is_held()).count();
    ensure!(lost == 0 && kept.is_held(), "{lost} grants were lost");
    ensure!(took < in_all / 3, "a release stood {took:?} behind acquires that took {in_all:?}");
    // All of them end in bounded steps.
    let began = Instant::now();
    one.close().await?;
    eventually("all is free", async || {
        let left = etcdctl(&server, &["get", "--prefix", "/tooz/tooz/locks/", "--count-only", "-w", "fields"])?;
        Ok(left.contains("\"Count\" : 0"))
    })
    .await?;
    ensure!(began.elapsed() < Duration::from_secs(15), "the end took {:?}", began.elapsed());
    Ok(())
}

/// Writes many keys of the namespace, a hundred in each transaction.
fn put_all(server: &Server, pairs: impl Iterator<Item = (String, String)>) -> Result<()> {
    for chunk in pairs.collect::<Vec<_>>().chunks(100) {
        let put = |(key, value): &(String, String)| format!("put /tooz/tooz/{key} {value:?}");
        let puts = chunk.iter().map(put).collect::<Vec<_>>().join("\n");
        let mut tool = server.tool("etcdctl")?;
        let mut child =
            tool.arg("txn").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn()?;
        std::io::Write::write_all(child.stdin.as_mut().expect("piped"), format!("\n{puts}\n\n\n").as_bytes())?;
        drop(child.stdin.take());
        ensure!(child.wait()?.success(), "etcdctl txn");
    }
    Ok(())
}

async fn large_roster() -> Result<()> {
    const MEMBERS: usize = 2300;
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    let group = one.group("g")?;
    group.create().await?;
    let entry = |name: &str| {
        format!("{{\"member\":\"{name}\",\"request\":\"{:032x}\",\"session\":\"0\",\"capabilities\":1}}", name.len())
    };
    // As other drivers would have written them.
    let name = |index: usize| format!("m{index:05}");
    put_all(&server, (0..MEMBERS).map(|index| (format!("members/g/{}", name(index)), entry(&name(index)))))?;
    let before = received(server.address(), &["Txn", "Range"])?;
    let members = group.members().await?;
    let asked = received(server.address(), &["Txn", "Range"])? - before;
    ensure!(members.len() == MEMBERS, "{} of {MEMBERS} are listed", members.len());
    ensure!((asked - 3.0).abs() < 1.5, "{asked} requests for three pages");
    Ok(())
}

async fn listing() -> Result<()> {
    const WAITERS: usize = 2300;
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    let record = |index: usize| format!("{{\"member\":\"m{index}\",\"mode\":\"\",\"request\":\"\",\"session\":\"\"}}");
    // The names are in the opposite order.
    put_all(&server, (0..WAITERS).map(|index| (format!("locks/long/x/{:032x}", WAITERS - index), record(index))))?;
    put_all(&server, (0..3).map(|index| (format!("locks/z{index}/s/{index:032x}"), record(index))))?;
    put_all(&server, [("locks/%zz/x/1".to_owned(), record(0)), ("locks/stray".to_owned(), record(0))].into_iter())?;
    let before = received(server.address(), &["Txn", "Range"])?;
    let locks: Vec<_> = one.locks().await?.iter().map(ToString::to_string).collect();
    let asked = received(server.address(), &["Txn", "Range"])? - before;
    ensure!(locks == ["long", "z0", "z1", "z2"], "listed: {locks:?}");
    ensure!(asked <= 3.0, "{asked} requests, though most of the keys are of one lock");
    let before = received(server.address(), &["Txn", "Range"])?;
    let waiters = one.lock("long")?.waiters().await?;
    let asked = received(server.address(), &["Txn", "Range"])? - before;
    ensure!((asked - 3.0).abs() < 1.5, "{asked} requests for three pages");
    ensure!(waiters.len() == WAITERS - 1, "{} wait", waiters.len());
    // Each piece of a hundred has one revision.
    let pieces = waiters.iter().map(|waiter| waiter.member.as_str()[1..].parse::<usize>().expect("a number") / 100);
    ensure!(pieces.is_sorted(), "not in the order in which they came");
    Ok(())
}

async fn too_long() -> Result<()> {
    const MOST: usize = 20_000;
    let server = Server::start(Kind::Etcd)?;
    let url = format!("{}?session_timeout=10s", server.url());
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let (lock, wanted) = (one.lock("x")?, two.lock("x")?);
    put_all(&server, (0..MOST).map(|index| (format!("locks/x/s/{index:032x}"), "garbage".to_owned())))?;
    // A reader is in the way of none of them.
    let reader = within("reading", lock.shared().acquire()).await??;
    let refused = within("acquiring", wanted.acquire()).await?.err().map(|error| (error.kind(), error.to_string()));
    ensure!(
        refused.as_ref().is_some_and(|(kind, words)| *kind == ErrorKind::Config && words.contains("20000")),
        "a writer is answered {refused:?}"
    );
    ensure!(within("trying", wanted.try_acquire()).await??.is_none(), "it has the lock");
    let waiting = lock.waiters().await?;
    ensure!(waiting.is_empty() && reader.is_held(), "{} wait though they were refused", waiting.len());
    ensure!(lock.holders().await?.len() == MOST + 1, "not all readers are listed");
    Ok(())
}

async fn too_large() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    let group = one.group("g")?;
    let membership = group.join_or_create(&1).await?;
    // Above etcd's own limit, and above that of the transport below it.
    for size in [1_700_000, 3_000_000] {
        let error = within("updating", membership.update(&"x".repeat(size))).await?.err();
        let words = error.map(|error| (error.kind(), error.to_string()));
        ensure!(
            words.as_ref().is_some_and(|(kind, words)| *kind == ErrorKind::Config && words.contains("1.5 MB")),
            "{size} bytes: {words:?}"
        );
    }
    ensure!(membership.is_member() && group.members().await?.len() == 1, "the membership was lost");
    Ok(())
}

async fn long_queue() -> Result<()> {
    const WAITERS: usize = 60;
    let server = Server::start(Kind::Etcd)?;
    let url = format!("{}?session_timeout=6s", server.url());
    let first = connect(&url, "first").await?;
    let mut turn = first.lock("x")?.acquire().await?;
    let (granted, mut grants) = tokio::sync::mpsc::unbounded_channel();
    let mut all = Vec::new();
    for index in 0..WAITERS {
        let one = connect(&url, &format!("m{index}")).await?;
        let (lock, granted) = (one.lock("x")?, granted.clone());
        tokio::spawn(async move { granted.send(lock.acquire().await) });
        all.push(one);
    }
    let queued = async || {
        let listed = etcdctl(&server, &["get", "--prefix", "/tooz/tooz/locks/x/", "--keys-only"])?;
        Ok(listed.lines().filter(|line| !line.is_empty()).count() == WAITERS + 1)
    };
    eventually("all wait", queued).await?;
    // Once in a timeout each looks whether it still waits for the right one.
    let read = || metric(server.address(), "etcd_mvcc_range_total", &[]);
    let before = read()?;
    tokio::time::sleep(Duration::from_secs(12)).await;
    ensure!(read()? - before < 1000.0, "{} readings in two timeouts", read()? - before);
    // The turns are taken in the order of the queue, the near ones and the far ones alike.
    for index in 0..WAITERS {
        let before = turn.fencing_token();
        turn.release().await?;
        turn = within("the next turn", grants.recv()).await?.expect("a waiter sends it")?;
        ensure!(turn.fencing_token() > before, "turn {index}: the token did not grow");
    }
    Ok(())
}
