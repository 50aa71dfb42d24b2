//! What is refused before anything is owned.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use tooz_core::{Characteristic, ErrorKind};
use tooz_testbed::Server;

use crate::bed::{Raw, connect, options, refusal, soon, start, start_as, trials};

trials! {
    what_can_not_be_right_is_refused
    a_server_that_keeps_values_on_a_disk_is_refused
    a_server_without_versions_is_refused
    a_proxy_is_refused
    a_server_that_wants_a_log_in_says_so_at_once
    a_server_that_takes_no_more_connections_says_so
    only_a_server_that_never_evicts_promises_one_view
}

async fn what_can_not_be_right_is_refused() {
    for (url, said) in [
        ("memcached://one,two", "name one"),
        ("memcached://host/0", "no databases"),
        ("memcached://user:word@host", "no log-in"),
        ("memcached://host?ca=file.pem", "memcached+tls"),
        ("memcached+unix://host/socket", "three slashes"),
        ("memcached+unix://", "path of the socket"),
        ("memcached://127.0.0.1:1?session_timeout=25h", "at most 24 hours"),
    ] {
        let (kind, text) = refusal(url).await;
        assert_eq!(kind, ErrorKind::Config, "{url}: {text}");
        assert!(text.contains(said), "{url}: {text}");
    }
}

async fn a_server_that_keeps_values_on_a_disk_is_refused() {
    let folder = std::env::temp_dir().join(format!("tooz-memcached-{}", std::process::id()));
    let server = start_as(&format!("-o ext_path={}:128m", folder.display()));
    let (kind, text) = refusal(&server.url()).await;
    drop(server);
    let _ = std::fs::remove_file(folder);
    assert_eq!(kind, ErrorKind::Config, "{text}");
    assert!(text.contains("ext_path"), "{text}");
}

async fn a_server_without_versions_is_refused() {
    let server = start_as("-C");
    let (kind, text) = refusal(&server.url()).await;
    assert_eq!(kind, ErrorKind::Config, "{text}");
    assert!(text.contains("-C"), "{text}");
}

/// Answers `mn` as a server does, and `stats` as a proxy does that stands before several.
async fn a_proxy_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut answers = stream.try_clone().unwrap();
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let answer: &[u8] = if line == "mn" { b"MN\r\n" } else { b"STAT version 1.6.21\r\nEND\r\n" };
                if answers.write_all(answer).is_err() {
                    break;
                }
            }
        }
    });
    let (kind, text) = refusal(&format!("memcached://{address}")).await;
    assert_eq!(kind, ErrorKind::Config, "{text}");
    assert!(text.contains("proxy"), "{text}");
}

async fn a_server_that_wants_a_log_in_says_so_at_once() {
    let file = std::env::temp_dir().join(format!("tooz-memcached-users-{}", std::process::id()));
    std::fs::write(&file, "user:word\n").unwrap();
    let server = start_as(&format!("-Y {}", file.display()));
    let begun = Instant::now();
    let (kind, text) = refusal(&server.url()).await;
    drop(server);
    let _ = std::fs::remove_file(file);
    assert_eq!(kind, ErrorKind::Unauthorized, "{text}");
    assert!(text.contains("-Y"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(4), "it has waited for {:?}", begun.elapsed());
}

async fn a_server_that_takes_no_more_connections_says_so() {
    let server = start_as("-c 60");
    // Those that the server has besides count, too.
    let mut all: Vec<_> = (0..60).map(|_| Raw::to(&server)).collect();
    all.retain_mut(|raw| raw.try_ask("mn").is_some_and(|answer| answer == "MN"));
    assert!((2..60).contains(&all.len()), "{} connections", all.len());
    let (kind, text) = refusal(&server.url()).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("-c of memcached"), "{text}");
    // With one connection left it can be looked at, and a session is not begun.
    all.pop();
    let a = loop {
        // The server hears of the end of a connection by and by.
        match soon(options(&server.url(), "a").unwrap().connect()).await {
            Ok(a) => break a,
            Err(error) => assert!(error.to_string().contains("-c of memcached"), "{error}"),
        }
    };
    let error = soon(a.lock("x").unwrap().acquire_within(Duration::from_secs(1))).await.expect_err("it needs two");
    assert!(error.to_string().contains("-c of memcached"), "{error}");
    all.pop();
    drop(soon(a.lock("x").unwrap().acquire()).await.expect("there are two"));
}

async fn only_a_server_that_never_evicts_promises_one_view() {
    let promises = async |server: &Server| {
        let a = connect(&server.url(), "a").await;
        let found = a.characteristics();
        let checkup = soon(a.check_up()).await.unwrap();
        soon(a.close()).await.unwrap();
        (found.has(Characteristic::Linearizable), format!("{checkup:?}"))
    };
    let (linearizable, checkup) = promises(&start()).await;
    assert!(linearizable && checkup.contains("evictions are off"), "{checkup}");
    let (linearizable, checkup) = promises(&start_as("-m 64")).await;
    assert!(!linearizable && checkup.contains("evicts when it is full"), "{checkup}");
    let timeout = Duration::from_hours(24);
    let server = start();
    soon(soon(options(&server.url(), "a").unwrap().session_timeout(timeout).connect()).await.unwrap().close())
        .await
        .unwrap();
}
