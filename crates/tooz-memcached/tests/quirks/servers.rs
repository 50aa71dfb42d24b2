//! Servers of all sorts: encrypted, behind a socket, of another version, and such that close what is idle.

use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{Characteristic, ErrorKind};
use tooz_testbed::{Kind, Server, Setup};

use crate::bed::{connect, options, soon, start_as, trials, wait_in_background};

trials! {
    it_is_reached_by_a_unix_socket
    it_is_reached_by_tls
    a_newer_version_is_as_good
    a_server_that_closes_idle_connections_loses_nothing
    other_namespaces_are_other_locks
}

/// Everything once.
async fn serves(url: &str) {
    let (a, b) = (connect(url, "a").await, connect(url, "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&b, "x");
    sleep(Duration::from_millis(100)).await;
    soon(guard.release()).await.unwrap();
    let next = soon(waiting).await.unwrap().unwrap();
    sleep(Duration::from_secs(3)).await;
    assert!(next.is_held(), "{:?}", next.loss().reason());
    soon(next.release()).await.unwrap();
    let membership = soon(a.group("g").unwrap().join_or_create(&"here")).await.unwrap();
    assert_eq!(soon(b.group("g").unwrap().members()).await.unwrap().len(), 1);
    soon(membership.leave()).await.unwrap();
    // More than a connection takes at once.
    let many = "x".repeat(60_000);
    let membership = soon(a.group("g").unwrap().join(&many)).await.unwrap();
    let members = soon(b.group("g").unwrap().members()).await.unwrap();
    assert_eq!(members[0].capabilities.get::<String>().unwrap(), many);
    soon(membership.leave()).await.unwrap();
    soon(a.close()).await.unwrap();
    soon(b.close()).await.unwrap();
}

async fn it_is_reached_by_a_unix_socket() {
    let server = Setup::new(Kind::Memcached).unix_socket().start().unwrap();
    serves(&server.url()).await;
}

#[cfg(feature = "tls")]
async fn it_is_reached_by_tls() {
    let server = Setup::new(Kind::Memcached).tls().start().unwrap();
    serves(&format!("{}?ca={}", server.url(), server.ca_file().unwrap().display())).await;
    let error = soon(options(&server.url(), "a").unwrap().connect()).await.expect_err("no authority vouches for it");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Config), "{error:?}");
}

#[cfg(not(feature = "tls"))]
async fn it_is_reached_by_tls() {
    let error =
        soon(options("memcached+tls://127.0.0.1", "a").unwrap().connect()).await.expect_err("it is not built in");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("tls"), "{error}");
}

async fn a_newer_version_is_as_good() {
    let server = Setup::new(Kind::Memcached).version("1.6.38").start().unwrap();
    serves(&server.url()).await;
}

async fn a_server_that_closes_idle_connections_loses_nothing() {
    let server = start_as("-o idle_timeout=1");
    let a = connect(&server.url(), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let slow =
        soon(options(&server.url(), "slow").unwrap().session_timeout(Duration::from_secs(30)).connect()).await.unwrap();
    let held = soon(slow.lock("y").unwrap().acquire()).await.unwrap();
    sleep(Duration::from_secs(7)).await;
    assert!(guard.is_held() && held.is_held());
    soon(guard.release()).await.unwrap();
    soon(held.release()).await.unwrap();
}

async fn other_namespaces_are_other_locks() {
    let server = Server::start(Kind::Memcached).unwrap();
    let (a, b) = (connect(&server.url(), "a").await, connect(&format!("{}?namespace=other", server.url()), "b").await);
    assert!(a.characteristics().has(Characteristic::FairLocks));
    let _one = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    assert!(soon(b.lock("x").unwrap().try_acquire()).await.unwrap().is_some());
}
