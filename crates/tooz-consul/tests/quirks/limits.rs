//! Limits of a server's: timeouts, connections, transactions, and what things cost it by its own counters.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tooz_core::{ConnectOptions, Coordinator, ErrorKind, GroupEvent, LockGuard};
use tooz_testbed::{Kind, Proxy, Server, Setup};

use crate::Quirk;
use crate::ask;
use crate::liar::Liar;
use crate::stage::{connect, eventually, keys, places, play, requests, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("limits::a_timeout_below_the_servers_least_names_the_setting", || play(timeout())),
    ("limits::a_timeout_above_a_day_is_refused", || play(too_long())),
    ("limits::too_many_connections_of_one_address_name_the_setting", || play(connections())),
    ("limits::a_thousand_locks_have_one_heartbeat", || play(one_heartbeat())),
    ("limits::a_lock_without_rivals_costs_two_transactions", || play(two_transactions())),
    ("limits::a_loop_leaves_no_key", || play(no_leak())),
    ("limits::releases_that_come_together_go_together_each_by_its_own_condition", || play(together())),
    ("limits::keys_that_were_taken_by_hand_are_asked_about_together", || play(taken_together())),
    ("limits::a_join_does_not_wait_behind_a_crowd_of_acquires", || play(join_in_a_crowd())),
    ("limits::a_thousand_releases_at_once_do_not_end_the_session", || play(many_releases())),
    ("limits::a_server_that_takes_no_more_connections_ends_no_session", || play(full_of_others())),
    ("limits::a_server_that_answers_early_is_not_asked_all_the_time", || play(answers_early())),
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
    let others = within("taking all the room", crowd(server.address(), 20)).await?;
    let options = ConnectOptions::new(&server.url())?.member("one")?.connect_timeout(Duration::from_secs(2));
    let error = within("connecting", options.connect()).await?.err().context("there is no room")?;
    ensure!(error.to_string().contains("http_max_conns_per_client") && error.is_retryable(), "{error}");
    drop(others);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let one = connect(&server.url(), "one").await?;
    drop(within("acquiring", one.lock("x")?.acquire()).await??);
    Ok(())
}

/// So many connections, all of which the server has taken: as long as it counts one of before, it refuses one of these.
async fn crowd(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut others: Vec<TcpStream> = Vec::new();
    loop {
        others.retain(is_open);
        if others.len() == count {
            return others;
        }
        let missing = others.len()..count;
        others.extend(missing.filter_map(|_| TcpStream::connect(address).ok()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A server that refuses a connection says so, and closes it.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).is_ok()
        && stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
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
    ensure!(guards.iter().all(LockGuard::is_held), "something was lost");
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

async fn held(one: &Coordinator, count: usize) -> Result<Vec<LockGuard>> {
    let asking = (0..count).map(|number| one.lock(format!("x-{number}")));
    let asking: Vec<_> = asking.map(|lock| tokio::spawn(async move { anyhow::Ok(lock?.acquire().await?) })).collect();
    let mut guards = Vec::new();
    for one in asking {
        guards.push(within("acquiring", one).await???);
    }
    Ok(guards)
}

async fn together() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&with(&server.url(), "session_timeout=120s"), "one").await?;
    let guards = held(&one, 400).await?;
    for number in [7, 8, 100] {
        let key = &places(&server, &format!("x-{number}"))[0];
        ask::http(server.address(), "DELETE", &format!("/v1/kv/{key}"), "");
    }
    let before = requests(&server)?;
    let releasing: Vec<_> = guards.into_iter().map(|guard| tokio::spawn(guard.release())).collect();
    let mut failed = Vec::new();
    for (number, one) in releasing.into_iter().enumerate() {
        if within("releasing", one).await??.is_err() {
            failed.push(number);
        }
    }
    let asked = requests(&server)? - before;
    ensure!(failed == [7, 8, 100], "those that were taken away are {failed:?}");
    ensure!(!keys(&server).iter().any(|(key, _)| key.contains("/locks/")), "left {:?}", keys(&server));
    ensure!(asked <= 200, "{asked} requests for 400 releases");
    Ok(())
}

async fn taken_together() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let liar = Liar::before(server.address())?;
    let one = connect(&with(&liar.url(), "session_timeout=120s"), "one").await?;
    let guards = held(&one, 120).await?;
    for number in (0..120).step_by(3) {
        let key = &places(&server, &format!("x-{number}"))[0];
        ask::http(server.address(), "DELETE", &format!("/v1/kv/{key}"), "");
    }
    let asked = || liar.heard().iter().filter(|line| line.contains("/session/info/")).count();
    let before = asked();
    let releasing: Vec<_> = guards.into_iter().map(|guard| tokio::spawn(guard.release())).collect();
    for (number, one) in releasing.into_iter().enumerate() {
        let released = within("releasing", one).await??;
        ensure!(released.is_err() == (number % 3 == 0), "x-{number}: {released:?}");
    }
    let asked = asked() - before;
    ensure!(asked <= 10, "{asked} questions about the session for 40 keys");
    Ok(())
}

async fn join_in_a_crowd() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let proxy = Proxy::start(server.address())?;
    let one = connect(&with(&proxy.url("consul"), "session_timeout=20s"), "one").await?;
    one.group("g")?.create().await?;
    proxy.delay(Duration::from_millis(30));
    let asking: Vec<_> = (0..500)
        .map(|number| {
            let lock = one.lock(format!("x-{number}"));
            tokio::spawn(async move { anyhow::Ok(lock?.acquire().await?) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let membership = within("joining", one.group("g")?.join(&1)).await??;
    ensure!(membership.is_member() && asking.iter().any(|one| !one.is_finished()), "it came after the crowd");
    Ok(())
}

async fn many_releases() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let proxy = Proxy::start(server.address())?;
    let one = connect(&with(&proxy.url("consul"), "session_timeout=6s"), "one").await?;
    let kept = one.lock("kept")?.acquire().await?;
    let guards = held(&one, 1000).await?;
    // As far as the other side of an ocean: one after the other they would take 60 s by two connections.
    proxy.delay(Duration::from_millis(60));
    drop(guards);
    let left = || keys(&server).iter().filter(|(key, _)| key.contains("/locks/x-")).count();
    eventually("all are given back", async || Ok(left() == 0)).await?;
    ensure!(kept.is_held(), "the session was ended");
    Ok(())
}

async fn full_of_others() -> Result<()> {
    const MOST: usize = 30;
    let limits = format!("limits{{http_max_conns_per_client={MOST}}}");
    let server = Setup::new(Kind::Consul).exact_argument("-hcl").exact_argument(&limits).start()?;
    let one = connect(&with(&server.url(), "session_timeout=6s"), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    let others: Vec<_> = (0..MOST).filter_map(|_| TcpStream::connect(server.address()).ok()).collect();
    tokio::time::sleep(Duration::from_secs(8)).await;
    ensure!(guard.is_held(), "the heartbeat had no connection");
    drop(others);
    Ok(())
}

async fn answers_early() -> Result<()> {
    let server = Setup::new(Kind::Consul).exact_argument("-hcl").exact_argument("max_query_time=\"50ms\"").start()?;
    let url = with(&server.url(), "session_timeout=10s");
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    let mut watch = two.group("g")?.watch().await?;
    let lock = two.lock("x")?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = requests(&server)?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let asked = requests(&server)? - before;
    ensure!(asked <= 120, "{asked} requests in 5 s, in which nothing happens");
    let checkup = within("the check-up", one.check_up()).await??;
    let told = checkup.findings.iter().any(|finding| finding.what.contains("max_query_time"));
    ensure!(told, "the doctor does not tell: {:?}", checkup.findings);
    guard.release().await?;
    within("the waiter's turn", waiting).await???.release().await?;
    membership.leave().await?;
    while let Some(event) = within("what is told of the group", watch.next()).await? {
        if matches!(event, GroupEvent::Left(_)) {
            return Ok(());
        }
    }
    anyhow::bail!("the watch ended")
}
