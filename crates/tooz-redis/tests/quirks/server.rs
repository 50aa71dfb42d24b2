//! Servers of all sorts: which are refused and in what words, and how one logs in.

use std::time::{Duration, Instant};

use tooz_core::driver::Verdict;
use tooz_core::{Characteristic, ErrorKind};
use tooz_testbed::{Kind, Setup};

use crate::bed::{cli, connect, hang_up, soon, start, trials, try_connect, wait_in_background};

trials! {
    a_server_that_evicts_is_refused
    a_server_without_persistence_promises_less
    a_replica_is_refused
    a_cluster_is_refused
    an_old_server_is_refused
    the_newest_server_will_do
    a_user_logs_in_and_a_wrong_password_is_refused
    a_password_alone_logs_in
    databases_are_apart
    a_socket_is_a_way_in
    tls_trusts_whom_it_is_told_to
    tls_shows_a_certificate_to_a_server_that_wants_one
    wrong_urls_say_what_would_be_right
    a_missing_server_is_said_in_time
    a_checkup_finds_what_is_wrong
    a_full_server_keeps_what_is_held
}

async fn a_server_that_evicts_is_refused() {
    let server = Setup::new(Kind::Redis).argument("--maxmemory 50mb --maxmemory-policy allkeys-lru").start().unwrap();
    let error = try_connect(&server.url(), "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("noeviction") && error.to_string().contains("allow_eviction"), "{error}");
    let a = connect(&format!("{}?allow_eviction=true", server.url()), "a").await;
    assert!(soon(a.lock("x").unwrap().try_acquire()).await.unwrap().is_some());
    cli(&server, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    connect(&server.url(), "b").await;
}

async fn a_server_without_persistence_promises_less() {
    let server = Setup::new(Kind::Redis).argument("--appendonly no").start().unwrap();
    let a = connect(&server.url(), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    assert!(!a.characteristics().has(Characteristic::HoldsAcrossRestart));
    assert!(a.characteristics().has(Characteristic::DurableFencing));
    server.restart().unwrap();
    soon(guard.loss().wait()).await;
    let again = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    assert!(again.fencing_token() > guard.fencing_token());
}

async fn a_replica_is_refused() {
    let primary = start();
    let replica = format!("--replicaof 127.0.0.1 {}", primary.address().port());
    let replica = Setup::new(Kind::Redis).argument(&replica).start().unwrap();
    let error = try_connect(&replica.url(), "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(&primary.address().port().to_string()), "{error}");
}

async fn a_cluster_is_refused() {
    // It wants a second port, 10,000 above its own, which may be some connection's for the moment: then another one is tried.
    let start = || Setup::new(Kind::Redis).argument("--cluster-enabled yes").start();
    let server = (0..4).find_map(|_| start().ok()).map_or_else(start, Ok).unwrap();
    let error = try_connect(&server.url(), "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("Cluster"), "{error}");
}

async fn an_old_server_is_refused() {
    let server = Setup::new(Kind::Redis).version("6.0").start().unwrap();
    let error = try_connect(&server.url(), "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("6.2") && error.to_string().contains("6.0"), "{error}");
}

async fn the_newest_server_will_do() {
    let server = Setup::new(Kind::Redis).version("8.0").start().unwrap();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let membership = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let mut watch = soon(b.group("g").unwrap().watch()).await.unwrap();
    soon(watch.next()).await.unwrap();
    let waiting = wait_in_background(&b, "x");
    tokio::time::sleep(Duration::from_millis(200)).await;
    // What depends on how a server treats scripts when it is full.
    cli(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    hang_up(&server);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(guard.is_held() && membership.is_member());
    soon(membership.leave()).await.unwrap();
    soon(guard.release()).await.unwrap();
    assert!(soon(waiting).await.unwrap().unwrap().is_held());
    assert!(soon(a.group("g").unwrap().members()).await.unwrap().is_empty());
    assert_eq!(soon(a.groups()).await.unwrap().len(), 1);
}

async fn a_user_logs_in_and_a_wrong_password_is_refused() {
    let server = start();
    let rule = "ACL SETUSER app on >hunter:2 ~tooz:* &tooz:* +@all -@admin -@dangerous +info";
    cli(&server, &rule.split(' ').collect::<Vec<_>>());
    cli(&server, &["ACL", "SETUSER", "default", "off"]);
    let at = server.address();
    let a = connect(&format!("redis://app:hunter%3A2@{at}"), "a").await;
    let membership = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let mut watch = soon(a.group("g").unwrap().watch()).await.unwrap();
    assert!(soon(watch.next()).await.is_some());
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    soon(guard.release()).await.unwrap();
    soon(membership.leave()).await.unwrap();
    for url in [format!("redis://app:wrong@{at}"), format!("redis://{at}")] {
        let error = try_connect(&url, "b").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        assert!(!format!("{error} {error:?}").contains("wrong@"), "{error}");
    }
}

async fn a_password_alone_logs_in() {
    let server = Setup::new(Kind::Redis).argument("--requirepass sesame").start().unwrap();
    let a = connect(&format!("redis://:sesame@{}", server.address()), "a").await;
    assert!(soon(a.lock("x").unwrap().try_acquire()).await.unwrap().is_some());
    let error = try_connect(&format!("redis://:open@{}", server.address()), "b").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
}

async fn databases_are_apart() {
    let server = start();
    let (a, b) =
        (connect(&format!("{}/1", server.url()), "a").await, connect(&format!("{}/2", server.url()), "b").await);
    let _guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    assert!(soon(b.lock("x").unwrap().try_acquire()).await.unwrap().is_some());
    soon(a.group("g").unwrap().create()).await.unwrap();
    soon(b.group("g").unwrap().create()).await.unwrap();
    let mut watch = soon(b.group("g").unwrap().watch()).await.unwrap();
    soon(watch.next()).await.unwrap();
    let _other = soon(a.group("g").unwrap().join(&1)).await.unwrap();
    let next = tokio::time::timeout(Duration::from_millis(300), watch.next()).await;
    assert!(next.is_err(), "channels know no database numbers, and still: {next:?}");
    let error = try_connect(&format!("{}/99", server.url()), "c").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

async fn a_socket_is_a_way_in() {
    let server = Setup::new(Kind::Redis).unix_socket().start().unwrap();
    assert!(server.url().starts_with("redis+unix:///"), "{}", server.url());
    let a = connect(&format!("{}?db=3", server.url()), "a").await;
    let b = connect(&format!("{}?db=3", server.url()), "b").await;
    let c = connect(&server.url(), "c").await;
    let _other = soon(c.lock("x").unwrap().acquire()).await.unwrap();
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    assert!(soon(b.lock("x").unwrap().try_acquire()).await.unwrap().is_none());
    soon(guard.release()).await.unwrap();
}

#[cfg(feature = "tls")]
async fn tls_trusts_whom_it_is_told_to() {
    let server = Setup::new(Kind::Redis).tls().start().unwrap();
    let authority = server.ca_file().unwrap().display().to_string();
    let url = format!("{}?ca={authority}", server.url());
    assert!(url.starts_with("rediss://"), "{url}");
    let (a, b) = (connect(&url, "a").await, connect(&url, "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&b, "x");
    tokio::time::sleep(Duration::from_millis(50)).await;
    soon(guard.release()).await.unwrap();
    assert!(soon(waiting).await.unwrap().unwrap().is_held());
    let error = try_connect(&server.url(), "c").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("ca="), "{error}");
    let error = try_connect(&format!("{}?ca=/dev/null", server.url()), "c").await.unwrap_err();
    assert!(error.to_string().contains("no regular file"), "{error}");
    let nothing = server.folder().join("nothing.pem");
    std::fs::write(&nothing, "").unwrap();
    let error = try_connect(&format!("{}?ca={}", server.url(), nothing.display()), "c").await.unwrap_err();
    assert!(error.to_string().contains("no certificate"), "{error}");
    let error = try_connect(&format!("{url}&cert={authority}"), "c").await.unwrap_err();
    assert!(error.to_string().contains("both options"), "{error}");
}

#[cfg(feature = "tls")]
async fn tls_shows_a_certificate_to_a_server_that_wants_one() {
    let server = Setup::new(Kind::Redis).tls().argument("--tls-auth-clients yes").start().unwrap();
    let folder = server.folder().display().to_string();
    let url = format!("{}?ca={folder}/ca.pem", server.url());
    let error = try_connect(&url, "a").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Config | ErrorKind::Unavailable), "{error}");
    let a = connect(&format!("{url}&cert={folder}/server.pem&key={folder}/server.key"), "a").await;
    soon(soon(a.lock("x").unwrap().acquire()).await.unwrap().release()).await.unwrap();
}

#[cfg(not(feature = "tls"))]
async fn tls_shows_a_certificate_to_a_server_that_wants_one() {}

#[cfg(not(feature = "tls"))]
async fn tls_trusts_whom_it_is_told_to() {
    let error = try_connect("rediss://localhost", "a").await.unwrap_err();
    assert!(error.to_string().contains("feature \"tls\""), "{error}");
}

async fn wrong_urls_say_what_would_be_right() {
    for (url, words) in [
        ("redis://a,b", "sentinel=NAME"),
        ("redis://a/x", "database number"),
        ("redis://a/1?db=2", "two databases"),
        ("redis+unix://a/b", "three slashes"),
        ("redis+unix:", "path of the socket"),
        ("redis://a?ca=x", "rediss"),
        ("redis://a?sentinel_user=x", "sentinel=NAME"),
        ("redis://user@a", "password"),
        ("redis://a?wait=most", "wait"),
    ] {
        let error = try_connect(url, "a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
        assert!(error.to_string().contains(words), "{url}: {error}");
    }
}

async fn a_missing_server_is_said_in_time() {
    let server = start();
    let url = format!("{}?connect_timeout=1s", server.url());
    server.pause().unwrap();
    let begun = Instant::now();
    let error = try_connect(&url, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    server.kill().unwrap();
    let error = try_connect(&url, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

async fn a_checkup_finds_what_is_wrong() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let found = soon(a.check_up()).await.unwrap();
    assert!(["Redis 7", "Redis 8", "Valkey 8"].iter().any(|name| found.server.contains(name)), "{}", found.server);
    assert!(found.findings.iter().all(|finding| finding.verdict == Verdict::Good), "{found:?}");
    cli(&server, &["CONFIG", "SET", "appendonly", "no"]);
    cli(&server, &["CONFIG", "SET", "maxmemory", "100mb"]);
    cli(&server, &["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    let found = soon(a.check_up()).await.unwrap();
    let said = |verdict, words: &str| {
        found.findings.iter().any(|finding| finding.verdict == verdict && finding.what.contains(words))
    };
    assert!(said(Verdict::Warning, "appendonly"), "{found:?}");
    assert!(said(Verdict::Wrong, "maxmemory-policy"), "{found:?}");
}

async fn a_full_server_keeps_what_is_held() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&b, "x");
    tokio::time::sleep(Duration::from_millis(100)).await;
    cli(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    let error = soon(a.lock("new").unwrap().try_acquire()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(guard.is_held());
    let _ = soon(guard.release()).await;
    cli(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    assert!(soon(waiting).await.unwrap().unwrap().is_held(), "the place in the queue was kept");
}
