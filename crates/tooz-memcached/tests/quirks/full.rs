//! A server that is full, and records that are.

use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{ErrorKind, LossReason};

use crate::bed::{Raw, connect, connect_with, lock_key, soon, start, start_as, trials};

trials! {
    a_full_server_refuses_and_keeps_what_is_held
    who_holds_nothing_deletes_no_lock_of_others
    a_lock_is_kept_where_others_have_had_all_pages
    tokens_grow_on_a_server_that_is_half_full
    tokens_grow_over_a_release_that_finds_no_room
    a_journal_stays_short_on_a_server_that_is_half_full
    a_server_that_evicts_keeps_what_is_looked_after
    a_record_of_a_megabyte_is_written_anew
    a_record_that_is_gone_is_told_to_its_holder
    a_full_lock_is_given_back
    capabilities_longer_than_a_value_delete_no_group
    a_full_list_of_groups_says_so_and_is_cured_by_deleting
}

/// Fills it until nothing goes in any more, not even the least.
fn fill(raw: &mut Raw) {
    fill_with(
        raw,
        vec![1, 5, 10, 20, 30, 40, 60, 80, 110, 150, 200, 260, 340, 420, 500, 800, 1500, 4000, 20_000, 200_000],
    );
}

/// Fills it until no value of one of these sizes goes in any more.
fn fill_with(raw: &mut Raw, mut sizes: Vec<usize>) {
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
    // A new client has looked when it connected.
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

/// A client that holds nothing looks how full the server is too, and so does one with a long session timeout.
async fn who_holds_nothing_deletes_no_lock_of_others() {
    let server = start_as("-m 8 -M");
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let hour = connect_with(&server.url(), "hour", Duration::from_hours(1)).await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    for other in [&b, &hour] {
        soon(soon(other.lock("warm").unwrap().acquire()).await.unwrap().release()).await.unwrap();
    }
    // A looker has no session.
    let looker = connect(&server.url(), "looker").await;
    let mut raw = Raw::to(&server);
    fill(&mut raw);
    sleep(Duration::from_secs(13)).await;
    fill(&mut raw);
    for other in [&b, &hour, &looker] {
        let tried = soon(other.lock("x").unwrap().acquire_within(Duration::from_millis(500))).await;
        assert!(!matches!(tried, Ok(Some(_))), "the lock is held");
        let text = raw.read(&lock_key("x"));
        assert!(text.is_some_and(|text| text.contains("\ta\n")), "the record of a held lock is gone");
    }
    assert!(guard.is_held());
}

/// Memory that was given out to values of one size stays theirs when they are gone: little of it is in use, and there is none for an entry.
async fn a_lock_is_kept_where_others_have_had_all_pages() {
    let server = start_as("-m 16 -M -o no_slab_reassign");
    let mut raw = Raw::to(&server);
    // All but the last pages, and none is refused.
    for number in 0..210 {
        assert_eq!(raw.write(&format!("h{number}"), "", &"x".repeat(60_000)), "HD");
    }
    for number in 0..210 {
        assert_eq!(raw.ask(&format!("md h{number}")), "HD");
    }
    assert!(raw.stat("bytes") < raw.stat("limit_maxbytes") / 4);
    // So long a session timeout that none looks at the server again meanwhile.
    let hour = Duration::from_hours(1);
    let (a, b) = (connect_with(&server.url(), "a", hour).await, connect_with(&server.url(), "b", hour).await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    soon(soon(b.lock("warm").unwrap().acquire()).await.unwrap().release()).await.unwrap();
    // Of the size of an entry, and of those next to it.
    fill_with(&mut raw, vec![40, 60, 80, 110, 150, 200]);
    let tried = soon(b.lock("x").unwrap().acquire_within(Duration::from_millis(200))).await;
    assert!(!matches!(tried, Ok(Some(_))), "the lock is held");
    let text = raw.read(&lock_key("x"));
    assert!(text.is_some_and(|text| text.contains("\ta\n")), "the record of a held lock is gone");
    assert!(guard.is_held());
}

/// More than half of its memory is in use, and there is room.
fn fill_half(raw: &mut Raw) {
    for number in 0..160 {
        assert_eq!(raw.write(&format!("h{number}"), "", &"x".repeat(60_000)), "HD");
    }
    assert!(raw.stat("bytes") > raw.stat("limit_maxbytes") / 2);
}

/// Each reckons the server's time for itself, by up to a second otherwise than the next one.
async fn tokens_grow_on_a_server_that_is_half_full() {
    let server = start_as("-m 16 -M");
    let mut raw = Raw::to(&server);
    fill_half(&mut raw);
    let mut all = Vec::new();
    for number in 0..4 {
        all.push(connect(&server.url(), &format!("m{number}")).await);
        sleep(Duration::from_millis(330)).await;
    }
    let mut last = None;
    for round in 0..40 {
        let guard = soon(all[round * 3 % 4].lock("x").unwrap().acquire()).await.unwrap();
        assert!(Some(guard.fencing_token()) > last, "{:?} after {last:?}", guard.fencing_token());
        last = Some(guard.fencing_token());
        soon(guard.release()).await.unwrap();
        assert!(raw.read(&lock_key("x")).is_some_and(|text| text.starts_with("F\t")), "the last token is not kept");
    }
}

/// Such a lock is deleted, but only when each that may come begins with a later token.
async fn tokens_grow_over_a_release_that_finds_no_room() {
    let server = start_as("-m 4 -M");
    let a = connect(&server.url(), "a").await;
    soon(soon(a.lock("warm").unwrap().acquire()).await.unwrap().release()).await.unwrap();
    let membership = soon(a.group("g").unwrap().join_or_create(&())).await.unwrap();
    let mut raw = Raw::to(&server);
    fill(&mut raw);
    // A client that holds something looks at the server a third of the session timeout later at most.
    sleep(Duration::from_secs(1)).await;
    for number in 0..100 {
        raw.ask(&format!("md f{number:06}"));
    }
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    fill(&mut raw);
    let token = guard.fencing_token().0;
    soon(guard.release()).await.expect("to give back needs no room");
    assert!(raw.read(&lock_key("x")).is_none());
    let time = raw.stat("time") * 1_000_000;
    assert!(time >= token, "deleted at {time} with token {token}: the next holder may have an earlier one");
    assert!(membership.is_member());
}

/// Where others always wait, a lock is seldom given back by a holder without waiters behind it.
async fn a_journal_stays_short_on_a_server_that_is_half_full() {
    let server = start_as("-m 16 -M");
    let mut raw = Raw::to(&server);
    fill_half(&mut raw);
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let mut guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    for round in 0..60 {
        let next = crate::bed::wait_in_background(if round % 2 == 0 { &b } else { &a }, "x");
        while soon(a.lock("x").unwrap().waiters()).await.unwrap().is_empty() {
            sleep(Duration::from_millis(2)).await;
        }
        soon(guard.release()).await.unwrap();
        guard = soon(next).await.unwrap().unwrap();
    }
    let length = raw.read(&lock_key("x")).unwrap().len();
    assert!(length < 4096, "{length} bytes for one holder");
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
    let written_anew = async {
        while raw.read(&lock_key("x")).unwrap().len() > 1000 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon(written_anew).await;
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
}

/// Appends such entries, and in the end a shorter one, until there is not one byte left. The argument of the entry is how long its name is.
fn fill_record(raw: &mut Raw, key: &str, entry: impl Fn(u32, usize) -> String) {
    let (mut number, mut length) = (0, 200);
    while length > 0 {
        number += 1;
        if raw.write(key, "MA", &entry(number, length)) != "HD" {
            length -= 1;
        }
    }
}

/// A crowd in which one more has no room must be able to end.
async fn a_full_lock_is_given_back() {
    let server = start();
    // So long that a busy machine, which reads a megabyte again and again, ends no session.
    let long = Duration::from_secs(30);
    let (a, b) = (connect_with(&server.url(), "a", long).await, connect_with(&server.url(), "b", long).await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let mut raw = Raw::to(&server);
    fill_record(&mut raw, &lock_key("x"), |number, length| {
        format!("A\t{number:032x}\t{number:016x}\tx\t1234567890123456\t{}\n", "m".repeat(length))
    });
    let full = raw.read(&lock_key("x"));
    let refused = soon(b.lock("x").unwrap().acquire_within(Duration::from_secs(3))).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut), "{refused}");
    assert!(guard.is_held() && raw.read(&lock_key("x")) == full, "what is too long deletes the record");
    soon(guard.release()).await.expect("what ends something makes the record shorter");
    let text = raw.read(&lock_key("x")).unwrap();
    assert!(!text.contains("\ta\n"), "it is not given back");
}

async fn capabilities_longer_than_a_value_delete_no_group() {
    let server = start_as("-I 32k -o slab_chunk_max=16384");
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let membership = soon(a.group("g").unwrap().join_or_create(&())).await.unwrap();
    let refused = soon(b.group("g").unwrap().join(&"x".repeat(40_000))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(soon(a.group("g").unwrap().members()).await.is_ok_and(|members| members.len() == 1));
    assert!(membership.is_member());
}

async fn a_full_list_of_groups_says_so_and_is_cured_by_deleting() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let group = a.group("g".repeat(90).as_str()).unwrap();
    soon(group.create()).await.unwrap();
    let mut raw = Raw::to(&server);
    fill_record(&mut raw, "tooz:tooz:groups", |number, length| format!("+\t{number}\t{}\n", "n".repeat(length)));
    let more = a.group("more").unwrap();
    let full = raw.read("tooz:tooz:groups");
    let refused = soon(more.create()).await.unwrap_err();
    assert!(refused.to_string().contains("too many groups are in this namespace"), "{refused}");
    assert!(raw.read("tooz:tooz:groups") == full, "what is too long deletes the list");
    soon(group.delete()).await.unwrap();
    soon(more.create()).await.expect("there is room in the list");
    soon(soon(more.join(&())).await.unwrap().leave()).await.unwrap();
}
