//! A server that is full, and records that are.

use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{ErrorKind, LossReason};

use crate::bed::{Raw, connect, lock_key, soon, start, start_as, trials};

trials! {
    a_full_server_refuses_and_keeps_what_is_held
    a_server_that_evicts_keeps_what_is_looked_after
    a_record_of_a_megabyte_is_written_anew
    a_record_that_is_gone_is_told_to_its_holder
}

/// Fills it until nothing goes in any more, not even the least.
fn fill(raw: &mut Raw) {
    let mut sizes =
        vec![1, 5, 10, 20, 30, 40, 60, 80, 110, 150, 200, 260, 340, 420, 500, 800, 1500, 4000, 20_000, 200_000];
    let mut number = 0;
    while !sizes.is_empty() {
        sizes.retain(|size| {
            number += 1;
            raw.write(&format!("f{number:06}"), "", &"x".repeat(*size)).starts_with("HD")
        });
    }
}

/// To append to a record without room deletes it: that must happen to no lock that is held.
async fn a_full_server_refuses_and_keeps_what_is_held() {
    let server = start_as("-m 4 -M");
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    soon(soon(b.lock("warm").unwrap().acquire()).await.unwrap().release()).await.unwrap();
    let membership = soon(a.group("g").unwrap().join_or_create(&())).await.unwrap();
    let mut raw = Raw::to(&server);
    fill(&mut raw);
    // It looks at the server a third of the session timeout later at most.
    let holding = soon(b.lock("other").unwrap().acquire_within(Duration::from_secs(1))).await;
    drop(holding);
    sleep(Duration::from_secs(1)).await;
    fill(&mut raw);
    // Whoever comes new has looked when it connected.
    let c = connect(&server.url(), "c").await;
    for other in [&b, &c] {
        let tried = soon(other.lock("x").unwrap().acquire_within(Duration::from_millis(300))).await;
        if let Err(error) = &tried {
            assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut), "{error:?}");
        }
        assert!(!matches!(tried, Ok(Some(_))), "the lock is held");
    }
    assert!(raw.read(&lock_key("x")).is_some_and(|text| text.contains("\ta\n")), "the record of a held lock is gone");
    sleep(Duration::from_secs(3)).await;
    assert!(guard.is_held() && membership.is_member(), "{:?}", guard.loss().reason());
    soon(guard.release()).await.expect("to give back needs no room");
    // There is room again.
    for number in 0..200_000 {
        if raw.ask(&format!("md f{number:06}")) == "NF" && number > 1000 {
            break;
        }
    }
    assert!(soon(c.lock("x").unwrap().acquire()).await.is_ok());
}

/// What is written once and read often is not what a server drops first; what is dropped is told.
async fn a_server_that_evicts_keeps_what_is_looked_after() {
    let server = start_as("-m 8");
    let a = connect(&server.url(), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let mut raw = Raw::to(&server);
    for number in 0..60_000 {
        raw.write(&format!("f{number}"), "", &"x".repeat(120));
    }
    assert!(raw.stat("evictions") > 0, "nothing was evicted");
    sleep(Duration::from_secs(2)).await;
    let is_there = raw.read(&lock_key("x")).is_some();
    assert_eq!(guard.is_held(), is_there, "a lock is held exactly as long as its record is there");
    soon(a.close()).await.unwrap();
}

async fn a_record_of_a_megabyte_is_written_anew() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let mut raw = Raw::to(&server);
    let over = format!("R\t{:032x}\n", 1).repeat(1000);
    while raw.write(&lock_key("x"), "MA", &over) == "HD" {}
    let last = format!("R\t{:032x}\n", 1);
    while raw.write(&lock_key("x"), "MA", &last) == "HD" {}
    let b = connect(&server.url(), "b").await;
    assert!(soon(b.lock("x").unwrap().try_acquire()).await.unwrap().is_none());
    let waiting = crate::bed::wait_in_background(&b, "x");
    sleep(Duration::from_millis(500)).await;
    assert!(raw.read(&lock_key("x")).unwrap().len() < 1000, "it was not written anew");
    soon(guard.release()).await.unwrap();
    drop(soon(waiting).await.unwrap().unwrap());
}

async fn a_record_that_is_gone_is_told_to_its_holder() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let membership = soon(a.group("g").unwrap().join_or_create(&())).await.unwrap();
    let mut raw = Raw::to(&server);
    assert_eq!(raw.ask(&format!("md {}", lock_key("x"))), "HD");
    let told = tokio::time::timeout(Duration::from_secs(3), guard.loss().wait()).await;
    assert_eq!(told.expect("it is looked after"), LossReason::Broken);
    assert!(membership.is_member(), "the session lives on");
    assert_eq!(raw.ask("md tooz:tooz:g:g"), "HD");
    let loss = membership.loss();
    tokio::time::timeout(Duration::from_secs(3), loss.wait()).await.expect("it is looked after");
}
