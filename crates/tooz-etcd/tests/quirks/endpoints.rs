//! Several endpoints, of which some are dead or hang.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tooz_core::driver::Verdict;
use tooz_core::{ConnectOptions, ErrorKind};
use tooz_testbed::{Kind, Proxy, Server};

use crate::Quirk;
use crate::stage::{connect, keys, play, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("endpoints::a_dead_one_is_left_for_the_next", || play(dead())),
    ("endpoints::a_hung_one_is_left_for_the_next", || play(hung())),
    ("endpoints::two_hung_ones_beside_three_others_are_hardly_noticed", || play(two_hung())),
    ("endpoints::two_that_hang_later_lose_nothing", || play(two_hang_later())),
    ("endpoints::one_that_hangs_later_loses_nothing", || play(hangs_later())),
    ("endpoints::a_check_up_tells_of_a_dead_one_and_of_a_lone_member", || play(check_up())),
    ("endpoints::nothing_that_listens_is_an_error_that_says_so", || play(nothing())),
    ("endpoints::something_else_that_listens_is_an_error_that_says_so", || play(something_else())),
];

fn dead_port() -> Result<String> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string())
}

async fn dead() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    for _ in 0..4 {
        // Which endpoint comes first is by chance.
        let one = connect(&format!("etcd://{},{}", dead_port()?, server.address()), "one").await?;
        let guard = within("acquiring", one.lock("x")?.acquire()).await??;
        guard.release().await?;
        one.close().await?;
    }
    Ok(())
}

async fn hung() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let proxy = Proxy::start(server.address())?;
    proxy.stall();
    for _ in 0..4 {
        let one = connect(&format!("etcd://{},{}", proxy.address(), server.address()), "one").await?;
        let guard = within("acquiring", one.lock("x")?.acquire()).await??;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        ensure!(guard.is_held(), "the beat did not leave the hung one");
        guard.release().await?;
        one.close().await?;
    }
    Ok(())
}

fn five(server: &Server) -> Result<(Vec<Proxy>, String)> {
    let proxies = (0..5).map(|_| Proxy::start(server.address())).collect::<Result<Vec<_>>>()?;
    let addresses: Vec<_> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    let url = format!("etcd://{}", addresses.join(","));
    Ok((proxies, url))
}

async fn two_hung() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let (proxies, url) = five(&server)?;
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        // Wherever it begins, some time the next is hung too.
        proxies.iter().for_each(Proxy::heal);
        proxies[round % 5].stall();
        proxies[(round + 1) % 5].stall();
        let began = Instant::now();
        let one = connect(&url, "one").await?;
        slowest = slowest.max(began.elapsed());
        within("acquiring", one.lock("x")?.acquire()).await??.release().await?;
        one.close().await?;
    }
    ensure!(slowest < Duration::from_millis(1500), "the slowest of twenty took {slowest:?}");
    Ok(())
}

async fn two_hang_later() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let (proxies, url) = five(&server)?;
    let one = connect(&format!("{url}&session_timeout=4s").replacen('&', "?", 1), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    for round in 0..5 {
        proxies.iter().for_each(Proxy::heal);
        proxies[round].stall();
        proxies[(round + 1) % 5].stall();
        let began = Instant::now();
        within("acquiring", one.lock("y")?.acquire()).await??.release().await?;
        ensure!(began.elapsed() < Duration::from_secs(4), "round {round}: it took {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_secs(3)).await;
        ensure!(guard.is_held(), "round {round}: the session was lost");
    }
    Ok(())
}

async fn hangs_later() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let proxies = [Proxy::start(server.address())?, Proxy::start(server.address())?];
    let url = format!("etcd://{},{}?session_timeout=3s", proxies[0].address(), proxies[1].address());
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let next = two.lock("x")?;
    let waiting = tokio::spawn(async move { next.acquire().await });
    for round in 0..4 {
        let (hung, free) = (&proxies[round % 2], &proxies[(round + 1) % 2]);
        free.heal();
        hung.stall();
        tokio::time::sleep(Duration::from_secs(4)).await;
        ensure!(guard.is_held(), "round {round}: the session was lost");
    }
    within("releasing", guard.release()).await??;
    ensure!(within("the waiter", waiting).await???.is_held(), "the waiter has it");
    Ok(())
}

async fn check_up() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let dead = dead_port()?;
    let one = connect(&format!("etcd://{dead},{}", server.address()), "one").await?;
    let checkup = within("the check-up", one.check_up()).await??;
    ensure!(checkup.server.starts_with("etcd 3."), "the server is {:?}", checkup.server);
    for words in [dead.as_str(), "one member", "sees a leader", "no alarm", "quota"] {
        ensure!(
            checkup.findings.iter().any(|finding| finding.what.contains(words)),
            "nothing of {words:?}: {checkup:?}"
        );
    }
    ensure!(checkup.findings.iter().all(|finding| finding.verdict != Verdict::Wrong), "{checkup:?}");
    ensure!(keys(&server)?.is_empty(), "looking left something");
    Ok(())
}

async fn nothing() -> Result<()> {
    let url = format!("etcd://{}?connect_timeout=2s", dead_port()?);
    let result = ConnectOptions::new(&url)?.member("one")?.connect().await;
    let error = result.err().ok_or_else(|| anyhow::anyhow!("it connected to nothing"))?;
    ensure!(error.kind() == ErrorKind::Unavailable, "{error:?}");
    ensure!(error.to_string().to_lowercase().contains("refused"), "the message does not say why: {error}");
    ensure!(error.to_string().contains("127.0.0.1:"), "the message does not say where: {error}");
    ensure!(!error.to_string().contains("source:"), "that is for programmers: {error}");
    Ok(())
}

async fn something_else() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let url = format!("etcd://{address}?connect_timeout=2s");
    let error = ConnectOptions::new(&url)?.member("one")?.connect().await.err();
    let error = error.ok_or_else(|| anyhow::anyhow!("it connected to something else"))?;
    ensure!(error.to_string().contains("whether etcd runs there"), "the message is of no help: {error}");
    Ok(())
}
