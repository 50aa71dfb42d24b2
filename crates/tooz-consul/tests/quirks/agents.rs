//! Several agents, of which some are dead or hang, and what the doctor says of them.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tooz_core::{Checkup, ConnectOptions, ErrorKind};
use tooz_testbed::{Kind, Proxy, Server, Setup};

use crate::Quirk;
use crate::stage::{connect, moment, play, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("agents::a_dead_one_is_left_for_the_next", || play(dead())),
    ("agents::one_that_hangs_later_loses_nothing_and_keeps_no_request_waiting", || play(hangs_later())),
    ("agents::nothing_that_listens_is_an_error_that_says_so", || play(nothing())),
    ("agents::something_else_that_listens_is_an_error_that_says_so", || play(something_else())),
    ("agents::a_datacenter_that_is_not_there_is_named", || play(no_datacenter())),
    ("agents::a_check_up_tells_of_a_dead_one_and_of_a_lone_server", || play(check_up())),
    ("agents::a_check_up_tells_of_settings_that_cost_locks", || play(settings())),
];

fn dead_port() -> Result<String> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string())
}

async fn dead() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&format!("consul://{},{}", dead_port()?, server.address()), "one").await?;
    let guard = within("acquiring", one.lock("x")?.acquire()).await??;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    ensure!(guard.is_held(), "the heartbeat did not leave the dead one");
    guard.release().await?;
    Ok(())
}

async fn hangs_later() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let proxy = Proxy::start(server.address())?;
    let url = format!("consul://{},{}?session_timeout=10s", proxy.address(), server.address());
    let (one, two) = (connect(&url, "one").await?, connect(&server.url(), "two").await?);
    let kept = one.lock("kept")?.acquire().await?;
    let guard = two.lock("x")?.acquire().await?;
    let lock = one.lock("x")?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    moment().await;
    proxy.stall();
    guard.release().await?;
    let began = Instant::now();
    let next = within("the waiter's turn", waiting).await???;
    ensure!(began.elapsed() < Duration::from_secs(9), "it waited for {:?}", began.elapsed());
    ensure!(next.is_held() && kept.is_held(), "the session was lost");
    Ok(())
}

async fn nothing() -> Result<()> {
    let options = ConnectOptions::new(&format!("consul://{}", dead_port()?))?.member("one")?;
    let error = within("connecting", options.connect()).await?.err().context("no agent listens")?;
    ensure!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("agent"), "{error}");
    Ok(())
}

async fn something_else() -> Result<()> {
    let server = Server::start(Kind::Redis)?;
    let options = ConnectOptions::new(&format!("consul://{}", server.address()))?.member("one")?;
    let error = within("connecting", options.connect()).await?.err().context("that is no Consul")?;
    ensure!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Config), "{error}");
    let tls = Setup::new(Kind::Consul).tls().start()?;
    let options = ConnectOptions::new(&format!("consul://{}", tls.address()))?.member("one")?;
    let error = within("connecting", options.connect()).await?.err().context("that is TLS")?;
    ensure!(!error.to_string().is_empty(), "{error}");
    Ok(())
}

async fn no_datacenter() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let options = ConnectOptions::new(&with(&server.url(), "datacenter=nowhere"))?.member("one")?;
    let error = within("connecting", options.connect()).await?.err().context("there is none")?;
    ensure!(error.kind() == ErrorKind::Config && error.to_string().contains("option datacenter"), "{error}");
    Ok(())
}

fn says(checkup: &Checkup, words: &str) -> Result<()> {
    let told: Vec<_> =
        checkup.findings.iter().map(|finding| format!("{:?} {}", finding.verdict, finding.what)).collect();
    ensure!(told.iter().any(|told| told.contains(words)), "{words} is not among {told:#?}");
    Ok(())
}

async fn check_up() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&format!("consul://{},{}", dead_port()?, server.address()), "one").await?;
    let checkup = within("the check-up", one.check_up()).await??;
    ensure!(checkup.server.contains("Consul 1."), "{}", checkup.server);
    for words in ["Warning 127.0.0.1", "Good 127.0.0.1", "Warning there is one server", "Good the namespace"] {
        says(&checkup, words)?;
    }
    Ok(())
}

async fn settings() -> Result<()> {
    let settings = "performance{raft_multiplier=5} session_ttl_min=\"10s\" limits{http_max_conns_per_client=50}";
    let server = Setup::new(Kind::Consul).exact_argument("-hcl").exact_argument(settings).start()?;
    let one = connect(&with(&server.url(), "token=anything"), "one").await?;
    let checkup = within("the check-up", one.check_up()).await??;
    for words in [
        "Wrong the servers take no session_timeout below 10s",
        "Warning a change of leaders takes about 15s (raft_multiplier 5)",
        "Warning the agent takes 50 connections",
        "Warning a token is given, but these agents have no ACLs",
        "Good the node \"tooz-sessions\"",
    ] {
        says(&checkup, words)?;
    }
    Ok(())
}
