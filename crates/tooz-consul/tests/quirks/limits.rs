//! Limits of a server's: timeouts, connections, transactions, and what things cost it by its own counters.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tooz_core::{ConnectOptions, ErrorKind};
use tooz_testbed::{Kind, Server, Setup};

use crate::Quirk;
use crate::stage::{connect, keys, play, requests, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("limits::a_timeout_below_the_servers_least_names_the_setting", || play(timeout())),
    ("limits::a_timeout_above_a_day_is_refused", || play(too_long())),
    ("limits::too_many_connections_of_one_address_name_the_setting", || play(connections())),
    ("limits::a_thousand_locks_have_one_heartbeat", || play(one_heartbeat())),
    ("limits::a_lock_without_rivals_costs_two_transactions", || play(two_transactions())),
    ("limits::a_loop_leaves_no_key", || play(no_leak())),
];

async fn timeout() -> Result<()> {
    let server = Setup::new(Kind::Consul).exact_argument("-hcl").exact_argument("session_ttl_min=\"10s\"").start()?;
    let one = connect(&server.url(), "one").await?;
    let error = within("acquiring", one.lock("x")?.acquire()).await?.err().context("it is too short")?;
    ensure!(error.kind() == ErrorKind::Config && error.to_string().contains("session_ttl_min"), "{error}");
    Ok(())
}

async fn too_long() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let options = ConnectOptions::new(&with(&server.url(), "session_timeout=25h"))?.member("one")?;
    let error = options.connect().await.err().context("it is too long")?;
    ensure!(error.kind() == ErrorKind::Config && error.to_string().contains("24 hours"), "{error}");
    Ok(())
}

async fn connections() -> Result<()> {
    let limits = "limits{http_max_conns_per_client=20}";
    let server = Setup::new(Kind::Consul).exact_argument("-hcl").exact_argument(limits).start()?;
    let others: Vec<_> = (0..20).filter_map(|_| TcpStream::connect(server.address()).ok()).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let options = ConnectOptions::new(&server.url())?.member("one")?.connect_timeout(Duration::from_secs(2));
    let error = within("connecting", options.connect()).await?.err().context("there is no room")?;
    ensure!(error.to_string().contains("http_max_conns_per_client") && error.is_retryable(), "{error}");
    drop(others);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let one = connect(&server.url(), "one").await?;
    drop(within("acquiring", one.lock("x")?.acquire()).await??);
    Ok(())
}

async fn one_heartbeat() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&with(&server.url(), "session_timeout=3s"), "one").await?;
    let mut guards = Vec::new();
    for index in 0..1000 {
        guards.push(one.lock(format!("many-{index}"))?.acquire().await?);
    }
    let before = requests(&server)?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let asked = requests(&server)? - before;
    // Six heartbeats, six looks at 63 keys, two or three questions of the mailbox.
    ensure!(asked <= 20, "{asked} requests in two timeouts");
    ensure!(guards.iter().all(tooz_core::LockGuard::is_held), "something was lost");
    Ok(())
}

async fn two_transactions() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&with(&server.url(), "session_timeout=60s"), "one").await?;
    let lock = one.lock("x")?;
    lock.acquire().await?.release().await?;
    let before = requests(&server)?;
    for _ in 0..20 {
        lock.acquire().await?.release().await?;
    }
    let asked = requests(&server)? - before;
    ensure!((40..=42).contains(&asked), "{asked} requests for 20 pairs");
    Ok(())
}

async fn no_leak() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    for turn in 0..2 {
        let (one, two) = (connect(&server.url(), "one").await?, connect(&server.url(), "two").await?);
        let group = one.group("g")?;
        for index in 0..50 {
            let guard = one.lock(format!("x-{index}"))?.acquire().await?;
            ensure!(two.lock(format!("x-{index}"))?.try_acquire().await?.is_none(), "held by two");
            let lock = two.lock(format!("x-{index}"))?;
            // In so short a time the server may not have answered, which is an error.
            drop(lock.acquire_within(Duration::from_millis(5)).await);
            guard.release().await?;
            drop(lock.shared().acquire().await?);
            group.join_or_create(&index).await?.leave().await?;
        }
        group.delete().await?;
        one.close().await?;
        two.close().await?;
        ensure!(keys(&server).is_empty(), "turn {turn} left {:?}", keys(&server));
    }
    Ok(())
}
