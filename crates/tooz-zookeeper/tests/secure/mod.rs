//! TLS: a session lives by it and survives its connections, and certificates that do not fit are told.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tokio::time::sleep;
use tooz_core::{ErrorKind, Result, SessionEvent};
use tooz_testbed::{Kind, Proxy, Server, Setup};

use crate::{connect, connect_for, namespace, quirk, soon};

/// The first handshake of a server of Java takes long on a busy machine.
pub(crate) const PATIENT: &str = "&connect_timeout=30s";

pub(crate) fn trials() -> Vec<Trial> {
    if cfg!(not(feature = "tls")) {
        return vec![quirk("without_the_feature_tls_is_refused", || Box::pin(without_the_feature_tls_is_refused()))];
    }
    vec![
        quirk("by_tls_everything_is_as_without", || Box::pin(by_tls_everything_is_as_without())),
        quirk("by_tls_a_session_outlives_its_connection", || Box::pin(by_tls_a_session_outlives_its_connection())),
        quirk("certificates_that_do_not_fit_are_told", || Box::pin(certificates_that_do_not_fit_are_told())),
        quirk("a_server_may_want_a_certificate_of_the_client", || {
            Box::pin(a_server_may_want_a_certificate_of_the_client())
        }),
    ]
}

fn start(setup: Setup) -> Server {
    setup.tls().start().expect("a server with TLS can be started")
}

fn ca(server: &Server) -> String {
    server.ca_file().expect("a server with TLS has an authority").display().to_string()
}

async fn without_the_feature_tls_is_refused() -> Result<()> {
    let error = connect("zookeeper+tls://127.0.0.1:1", "m", "x").await.expect_err("there is no TLS");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("feature `tls`"), "{error}");
    Ok(())
}

async fn by_tls_everything_is_as_without() -> Result<()> {
    let (server, space) = (start(Setup::new(Kind::ZooKeeper)), namespace());
    let url = format!("{}?ca={}{PATIENT}", server.url(), ca(&server));
    let one = connect_for(&url, "one", &space, Duration::from_secs(3)).await?;
    let two = connect_for(&url.replace("zookeeper+tls", "kazoo+tls"), "two", &space, Duration::from_secs(3)).await?;
    let guard = one.lock("l")?.acquire().await?;
    let waiting = tokio::spawn({
        let lock = two.lock("l")?;
        async move { lock.acquire().await }
    });
    let group = two.group("g")?;
    // Much at once, in both directions.
    let membership = one.group("g")?.join_or_create(&"x".repeat(900_000)).await?;
    assert_eq!(group.members().await?.len(), 1);
    sleep(Duration::from_secs(6)).await;
    assert!(guard.is_held() && membership.is_member() && !waiting.is_finished(), "the session was lost");
    let began = Instant::now();
    for _ in 0..50 {
        one.lock("other")?.acquire().await?.release().await?;
    }
    // A hundred writes; an answer that waits for a full packet would take 40 ms each time.
    assert!(began.elapsed() < Duration::from_secs(3), "the relay is slow: {:?}", began.elapsed());
    let checkup = one.check_up().await?;
    assert!(checkup.findings.iter().any(|finding| finding.what.contains("standalone")), "{checkup:?}");
    guard.release().await?;
    assert!(soon(waiting).await.expect("no panic")?.is_held());
    membership.leave().await?;
    one.close().await?;
    two.close().await
}

async fn by_tls_a_session_outlives_its_connection() -> Result<()> {
    let server = start(Setup::new(Kind::ZooKeeper));
    let proxy = Proxy::start(server.address()).expect("a proxy starts");
    let url = format!("{}?ca={}{PATIENT}", proxy.url("zookeeper+tls"), ca(&server));
    // Long enough for a server of Java to come back, and for its first handshake, on a busy machine.
    let lasting = Duration::from_secs(20);
    let coordinator = connect_for(&url, "m", &namespace(), lasting).await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    let mut events = coordinator.events();
    for _ in 0..3 {
        proxy.reset();
        // A request right then goes over the next connection.
        soon(coordinator.lock("other")?.acquire()).await?.release().await?;
    }
    server.restart().expect("it starts again");
    soon(coordinator.lock("other")?.acquire()).await?.release().await?;
    sleep(lasting).await;
    assert!(guard.is_held(), "the session was to live on: {:?}", guard.loss().reason());
    coordinator.close().await?;
    while let Some(event) = events.next().await {
        assert!(matches!(event, SessionEvent::Suspended(_) | SessionEvent::Resumed), "{event:?}");
    }
    Ok(())
}

async fn certificates_that_do_not_fit_are_told() -> Result<()> {
    let (server, other) = (start(Setup::new(Kind::ZooKeeper)), start(Setup::new(Kind::ZooKeeper)));
    let url = server.url();
    let error = async |url: String| connect(&url, "m", "x").await.expect_err("it does not fit");
    let strangers = error(format!("{url}?ca={}", ca(&other))).await;
    assert_eq!(strangers.kind(), ErrorKind::Config, "{strangers}");
    assert!(strangers.to_string().contains("certificate") && strangers.to_string().contains("ca="), "{strangers}");
    // The system's authorities do not vouch for it either.
    assert_eq!(error(url.clone()).await.kind(), ErrorKind::Config);
    // It is the server, and not the one that the URL means.
    let wrong_name = error(format!("{}?ca={}", url.replace("127.0.0.1", "127.0.0.2"), ca(&server))).await;
    assert!(wrong_name.to_string().contains("127.0.0.2"), "{wrong_name}");
    for (options, word) in [
        ("?ca=/nowhere.pem".to_owned(), "/nowhere.pem"),
        ("?ca=/dev/null".to_owned(), "no regular file"),
        (format!("?ca={0}&cert={0}", ca(&server)), "key=FILE"),
        (format!("?ca={0}&cert={0}&key={0}", ca(&server)), "key="),
    ] {
        let error = error(format!("{url}{options}")).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    let plain = error(format!("{}?ca={}", url.replace("+tls", ""), ca(&server))).await;
    assert!(plain.kind() == ErrorKind::Config && plain.to_string().contains("zookeeper+tls://"), "{plain}");
    // Either side speaks another language.
    let error = error(url.replace("+tls", "")).await;
    assert!(error.is_retryable() && error.to_string().contains("takes connections but not sessions"), "{error}");
    let plain = Server::start(Kind::ZooKeeper).expect("a server without TLS");
    let url = plain.url().replace("zookeeper", "zookeeper+tls") + "?ca=" + &ca(&server);
    let error = connect(&url, "m", "x").await.expect_err("no TLS is spoken there");
    assert!(error.to_string().contains("TLS"), "{error}");
    Ok(())
}

async fn a_server_may_want_a_certificate_of_the_client() -> Result<()> {
    let server = start(Setup::new(Kind::ZooKeeper).argument("ssl.clientAuth=need"));
    let url = format!("{}?ca={}{PATIENT}", server.url(), ca(&server));
    let error = connect(&url, "m", "x").await.expect_err("a client without one is not let in");
    assert!(error.to_string().contains("cert="), "{error}");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    // The same authority vouches for it.
    let own = |name: &str| server.folder().join(name).display().to_string();
    let url = format!("{url}&cert={}&key={}", own("server.pem"), own("server.key"));
    let coordinator = connect(&url, "m", &namespace()).await?;
    coordinator.lock("l")?.acquire().await?.release().await?;
    coordinator.close().await
}
