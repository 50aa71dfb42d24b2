//! Records: versions that say nothing on another connection, entries that come late, and what is written anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::ErrorKind;
use tooz_testbed::{Kind, Proxy, Setup};

use crate::bed::{Raw, connect, connect_with, lock_key, soon, start, trials};

trials! {
    a_version_from_before_a_restart_overwrites_no_strangers_record
    an_entry_that_comes_late_makes_no_ghost
    the_first_use_of_a_name_by_two_is_one_after_the_other
    a_lock_that_was_free_is_kept_while_it_is_held
    a_journal_in_use_stays_short_and_its_tokens_grow
    tokens_grow_over_the_end_of_a_free_record
    a_pair_is_two_requests
    a_request_in_doubt_makes_no_pair_dearer
}

async fn a_version_from_before_a_restart_overwrites_no_strangers_record() {
    let server = start();
    let a = connect_with(&server.url(), "a", Duration::from_secs(9)).await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let cas = Raw::to(&server).number(&lock_key("x"), 'c').unwrap();
    server.restart().unwrap();
    let mut raw = Raw::to(&server);
    // The server counts from the beginning, until the next version has the number that the holder remembers.
    while raw.write("counting", "c", "x") != format!("HD c{}", cas - 1) {}
    let strangers = format!("A\t{:032x}\t{:016x}\tx\t1\tstranger\n", 5, 5);
    assert_eq!(raw.write(&lock_key("x"), "c", &strangers), format!("HD c{cas}"));
    let released = soon(guard.release()).await;
    assert_eq!(released.unwrap_err().kind(), ErrorKind::Lost);
    let text = raw.read(&lock_key("x")).unwrap_or_default();
    assert!(text.starts_with(&strangers), "a stranger's record was overwritten: {text:?}");
}

async fn an_entry_that_comes_late_makes_no_ghost() {
    let server = start();
    let proxy = Proxy::start(server.address()).unwrap();
    let (a, b) =
        (connect_with(&proxy.url("memcached"), "a", Duration::from_secs(9)).await, connect(&server.url(), "b").await);
    soon(soon(a.lock("warm").unwrap().acquire()).await.unwrap().release()).await.unwrap();
    let swallow = proxy.swallow_reply(b"l:x");
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let happened = tokio::task::spawn_blocking(move || swallow.wait(Duration::from_secs(10))).await.unwrap();
    assert!(happened);
    let mut raw = Raw::to(&server);
    let text = raw.read(&lock_key("x")).unwrap();
    let asked = text.lines().find(|line| line.starts_with('A')).unwrap().to_owned();
    soon(guard.release()).await.unwrap();
    // The journal is written anew, and what was asked once is delivered once more.
    for _ in 0..3 {
        soon(soon(b.lock("x").unwrap().acquire()).await.unwrap().release()).await.unwrap();
        assert_eq!(raw.write(&lock_key("x"), "MA", &format!("{asked}\n")), "HD");
        assert!(soon(b.lock("x").unwrap().holders()).await.unwrap().is_empty(), "a ghost has the lock");
    }
    assert!(soon(b.lock("x").unwrap().try_acquire()).await.unwrap().is_some());
}

async fn the_first_use_of_a_name_by_two_is_one_after_the_other() {
    for version in ["1.6.18", "1.6.38"] {
        let server = Setup::new(Kind::Memcached).version(version).start().unwrap();
        let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
        let inside = Arc::new(AtomicU64::new(0));
        for round in 0..60 {
            let turn = |lock: tooz_core::Lock| {
                let inside = Arc::clone(&inside);
                async move {
                    let guard = soon(lock.acquire()).await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two have it");
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    let token = guard.fencing_token();
                    soon(guard.release()).await.unwrap();
                    token
                }
            };
            let name = format!("first{round}");
            let (one, other) = (turn(a.lock(name.as_str()).unwrap()), turn(b.lock(name.as_str()).unwrap()));
            let (one, other) = (tokio::spawn(one), tokio::spawn(other));
            assert_ne!(soon(one).await.unwrap(), soon(other).await.unwrap());
        }
        soon(a.close()).await.unwrap();
    }
}

async fn a_lock_that_was_free_is_kept_while_it_is_held() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let lock = a.lock("x").unwrap();
    soon(soon(lock.acquire()).await.unwrap().release()).await.unwrap();
    let mut raw = Raw::to(&server);
    let left = raw.number(&lock_key("x"), 't').unwrap();
    assert!((3590..=3600).contains(&left), "a free lock is kept for {left} s");
    let guard = soon(lock.acquire()).await.unwrap();
    let left = raw.number(&lock_key("x"), 't').unwrap();
    assert!(left > 24 * 3600, "a lock that is held is kept for {left} s");
    drop(guard);
}

async fn a_journal_in_use_stays_short_and_its_tokens_grow() {
    let server = start();
    let last = Arc::new(AtomicU64::new(0));
    let mut turns = Vec::new();
    for number in 0..4 {
        // So long that a busy machine ends no session.
        let one = connect_with(&server.url(), &format!("m{number}"), Duration::from_secs(30)).await;
        let last = Arc::clone(&last);
        turns.push(tokio::spawn(async move {
            for _ in 0..40 {
                let guard = soon(one.lock("x").unwrap().acquire()).await.unwrap();
                let token = guard.fencing_token().0;
                assert!(last.swap(token, Ordering::SeqCst) < token, "tokens grow");
                soon(guard.release()).await.unwrap();
            }
        }));
    }
    for one in turns {
        tokio::time::timeout(Duration::from_mins(1), one).await.unwrap().unwrap();
    }
    let length = Raw::to(&server).read(&lock_key("x")).unwrap().len();
    assert!(length < 4096, "{length} bytes for a lock that is free");
}

async fn tokens_grow_over_the_end_of_a_free_record() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let lock = a.lock("x").unwrap();
    let mut last = None;
    for _ in 0..4 {
        let guard = soon(lock.acquire()).await.unwrap();
        assert!(Some(guard.fencing_token()) > last, "{:?} after {last:?}", guard.fencing_token());
        last = Some(guard.fencing_token());
        soon(guard.release()).await.unwrap();
        sleep(Duration::from_millis(1100)).await;
        assert_eq!(Raw::to(&server).ask(&format!("md {}", lock_key("x"))), "HD");
    }
}

async fn a_pair_is_two_requests() {
    let server = start();
    let proxy = Proxy::start(server.address()).unwrap();
    let a = connect_with(&proxy.url("memcached"), "a", Duration::from_secs(30)).await;
    let lock = a.lock("x").unwrap();
    soon(soon(lock.acquire()).await.unwrap().release()).await.unwrap();
    let mut raw = Raw::to(&server);
    let before = (raw.stat("cmd_get"), raw.stat("cmd_set"));
    for _ in 0..50 {
        soon(soon(lock.acquire()).await.unwrap().release()).await.unwrap();
    }
    let (read, written) = (raw.stat("cmd_get") - before.0, raw.stat("cmd_set") - before.1);
    // Append, read and look at the session; replace, and look at the session.
    assert!(written <= 101 && read <= 200, "{written} writes and {read} reads for 50 pairs");
}

async fn a_request_in_doubt_makes_no_pair_dearer() {
    let server = start();
    let proxy = Proxy::start(server.address()).unwrap();
    let timeout = Duration::from_secs(30);
    let (a, b) =
        (connect_with(&proxy.url("memcached"), "a", timeout).await, connect_with(&server.url(), "b", timeout).await);
    soon(soon(a.lock("warm").unwrap().acquire()).await.unwrap().release()).await.unwrap();
    let swallow = proxy.swallow_reply(b"l:x");
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let happened = tokio::task::spawn_blocking(move || swallow.wait(Duration::from_secs(10))).await.unwrap();
    assert!(happened);
    soon(guard.release()).await.unwrap();
    let mut raw = Raw::to(&server);
    assert!(raw.read(&lock_key("x")).unwrap().contains("W\t"), "it is remembered");
    let lock = b.lock("x").unwrap();
    let before = raw.stat("cmd_set");
    for _ in 0..100 {
        soon(soon(lock.acquire()).await.unwrap().release()).await.unwrap();
    }
    let written = raw.stat("cmd_set") - before;
    // Some look whether it still has to be.
    assert!(written < 300, "{written} writes for 100 pairs");
    assert!(raw.read(&lock_key("x")).unwrap().contains("W\t"), "it is remembered as long as its session lives");
    soon(a.close()).await.unwrap();
    while raw.read(&lock_key("x")).unwrap().contains("W\t") {
        soon(soon(lock.acquire()).await.unwrap().release()).await.unwrap();
    }
}
