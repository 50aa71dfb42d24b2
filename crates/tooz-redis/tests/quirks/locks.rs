//! Locks, tokens, and what is left in the database.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz_core::{ErrorKind, LossReason};

use crate::bed::{cli, connect, keys, soon, start, trials, wait_in_background};
use crate::scale::Meter;

trials! {
    a_loop_of_everything_leaves_the_counters_alone
    tokens_grow_over_a_flush
    flushed_scripts_are_loaded_again
    a_namesake_frees_and_inherits_nothing
    a_deleted_lock_is_told_to_its_holder
    a_release_of_a_deleted_grant_says_that_it_is_lost
    hundreds_of_deleted_grants_are_told_soon
    a_reconnect_finds_the_one_that_is_missing_among_many
    a_deleted_queue_is_entered_again
    a_grant_that_no_waiter_heard_of_is_found_by_a_beat
    a_message_that_was_left_out_is_asked_for
    a_dead_session_leaves_nothing_behind
    who_dies_with_many_locks_does_not_stop_the_server
}

async fn a_loop_of_everything_leaves_the_counters_alone() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    for round in 0..200 {
        let (one, two) = (a.lock(format!("lock {round}")).unwrap(), b.lock(format!("lock {round}")).unwrap());
        let guard = soon(one.acquire()).await.unwrap();
        let waiting = tokio::spawn(async move { two.acquire().await });
        assert!(soon(b.lock("other").unwrap().try_acquire()).await.unwrap().is_some());
        guard.release().await.unwrap();
        soon(soon(waiting).await.unwrap().unwrap().release()).await.unwrap();
        let shared = soon(one_shared(&a, round)).await;
        shared.release().await.unwrap();
        let group = a.group(format!("group {round}")).unwrap();
        let membership = soon(group.join_or_create(&round)).await.unwrap();
        let leadership = soon(membership.campaign()).await.unwrap();
        soon(leadership.resign()).await.unwrap();
        soon(membership.leave()).await.unwrap();
        soon(group.delete()).await.unwrap();
    }
    soon(a.close()).await.unwrap();
    soon(b.close()).await.unwrap();
    assert_eq!(keys(&server), ["tooz:{tooz}:fence", "tooz:{tooz}:layout"]);
}

async fn one_shared(coordinator: &tooz_core::Coordinator, round: i32) -> tooz_core::LockGuard {
    coordinator.lock(format!("shared {round}")).unwrap().shared().acquire().await.unwrap()
}

async fn tokens_grow_over_a_flush() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    cli(&server, &["FLUSHALL"]);
    assert!(matches!(soon(guard.loss().wait()).await, LossReason::SessionEnded | LossReason::Expired));
    let again = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    assert!(again.fencing_token() > guard.fencing_token());
    soon(a.close()).await.unwrap();
}

async fn flushed_scripts_are_loaded_again() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&b, "x");
    sleep(Duration::from_millis(50)).await;
    cli(&server, &["SCRIPT", "FLUSH"]);
    soon(guard.release()).await.unwrap();
    cli(&server, &["SCRIPT", "FLUSH"]);
    let guard = soon(waiting).await.unwrap().unwrap();
    sleep(Duration::from_secs(3)).await;
    assert!(guard.is_held(), "the beats went on");
    soon(guard.release()).await.unwrap();
}

async fn a_namesake_frees_and_inherits_nothing() {
    let server = start();
    let (first, second) = (connect(&server.url(), "same").await, connect(&server.url(), "same").await);
    let guard = soon(first.lock("x").unwrap().acquire()).await.unwrap();
    let other = soon(second.lock("y").unwrap().acquire()).await.unwrap();
    assert!(soon(second.lock("x").unwrap().try_acquire()).await.unwrap().is_none());
    other.release().await.unwrap();
    soon(second.close()).await.unwrap();
    let third = connect(&server.url(), "same").await;
    assert!(soon(third.lock("x").unwrap().try_acquire()).await.unwrap().is_none());
    assert!(guard.is_held());
    soon(guard.release()).await.unwrap();
    assert!(soon(third.lock("x").unwrap().try_acquire()).await.unwrap().is_some());
}

async fn a_deleted_lock_is_told_to_its_holder() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let other = soon(a.lock("y").unwrap().acquire()).await.unwrap();
    cli(&server, &["DEL", "tooz:{tooz}:l:x"]);
    assert_eq!(soon(guard.loss().wait()).await, LossReason::Broken);
    assert!(other.is_held(), "the session lives on");
    assert_eq!(soon(guard.release()).await.unwrap_err().kind(), ErrorKind::Lost);
}

async fn a_release_of_a_deleted_grant_says_that_it_is_lost() {
    let server = start();
    // Not one beat within the trial.
    let a = connect(&format!("{}?session_timeout=60s", server.url()), "a").await;
    let b = connect(&server.url(), "b").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    cli(&server, &["DEL", "tooz:{tooz}:l:x"]);
    let taken = soon(b.lock("x").unwrap().acquire()).await.unwrap();
    assert_eq!(soon(guard.release()).await.unwrap_err().kind(), ErrorKind::Lost);
    soon(taken.release()).await.unwrap();
}

async fn hundreds_of_deleted_grants_are_told_soon() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let mut guards = Vec::new();
    for index in 0..600 {
        guards.push(soon(a.lock(format!("lock {index}")).unwrap().acquire()).await.unwrap());
    }
    let kept = guards.pop().unwrap();
    for index in 0..599 {
        cli(&server, &["DEL", &format!("tooz:{{tooz}}:l:lock%20{index}")]);
    }
    // A fifth of what it would take the grants that a beat looks after.
    sleep(Duration::from_secs(10)).await;
    assert_eq!(guards.iter().filter(|guard| guard.is_held()).count(), 0);
    assert!(kept.is_held());
}

async fn a_reconnect_finds_the_one_that_is_missing_among_many() {
    let server = start();
    // Not one beat within the trial.
    let a = connect(&format!("{}?session_timeout=60s", server.url()), "a").await;
    let mut guards = Vec::new();
    for index in 0..300 {
        guards.push(soon(a.lock(format!("lock {index}")).unwrap().acquire()).await.unwrap());
    }
    cli(&server, &["DEL", "tooz:{tooz}:l:lock%20150"]);
    cli(&server, &["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(soon(guards[150].loss().wait()).await, LossReason::Broken);
    assert_eq!(guards.iter().filter(|guard| guard.is_held()).count(), 299);
}

async fn a_deleted_queue_is_entered_again() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&b, "x");
    sleep(Duration::from_millis(100)).await;
    cli(&server, &["DEL", "tooz:{tooz}:q:l:x", "tooz:{tooz}:w:l:x"]);
    soon(guard.release()).await.unwrap();
    assert!(soon(waiting).await.unwrap().unwrap().is_held());
}

async fn a_grant_that_no_waiter_heard_of_is_found_by_a_beat() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&b, "x");
    sleep(Duration::from_millis(100)).await;
    // The next messages get numbers that the waiter takes for nothing new.
    let count_back = "for _, id in ipairs(redis.call('ZRANGE', 'tooz:{tooz}:sessions', 0, -1)) do \
        redis.call('HSET', 'tooz:{tooz}:s:' .. id, 'told', -100) end";
    cli(&server, &["EVAL", count_back, "0"]);
    soon(guard.release()).await.unwrap();
    soon(soon(waiting).await.unwrap().unwrap().release()).await.unwrap();
}

/// Its heartbeat, which would find out as well, is far away.
async fn a_message_that_was_left_out_is_asked_for() {
    let server = start();
    let a = connect(&format!("{}?session_timeout=10m", server.url()), "a").await;
    let b = connect(&server.url(), "b").await;
    let broken = soon(a.lock("broken").unwrap().acquire()).await.unwrap();
    let guard = soon(b.lock("x").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&a, "x");
    sleep(Duration::from_millis(100)).await;
    // The word is written down and numbered, and its push is lost.
    let break_silently = "local holders = 'tooz:{tooz}:l:broken' \
        local grant = redis.call('HGETALL', holders) \
        local session = 'tooz:{tooz}:s:' .. string.match(grant[2], '%x+$') \
        local number = redis.call('HINCRBY', session, 'told', 1) \
        redis.call('HSET', session, 'x' .. number, 'broken\\n' .. grant[1]) \
        redis.call('DEL', holders)";
    cli(&server, &["EVAL", break_silently, "0"]);
    assert!(broken.is_held(), "it has heard nothing");
    // The next one has a number too many.
    soon(guard.release()).await.unwrap();
    assert!(soon(waiting).await.unwrap().unwrap().is_held());
    assert_eq!(soon(broken.loss().wait()).await, LossReason::Broken);
}

async fn a_dead_session_leaves_nothing_behind() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let group = a.group("g").unwrap();
    let _membership = soon(group.join_or_create(&1)).await.unwrap();
    let mut held = Vec::new();
    for index in 0..300 {
        held.push(soon(a.lock(format!("lock {index}")).unwrap().acquire()).await.unwrap());
    }
    // Somebody else's beats are enough to clear up behind the dead.
    let b = connect(&server.url(), "b").await;
    let _guard = soon(b.lock("other").unwrap().acquire()).await.unwrap();
    let dead = cli(&server, &["EVAL", "return redis.call('ZRANGE', 'tooz:{tooz}:sessions', 0, 0)[1]", "0"]);
    cli(&server, &["DEL", &format!("tooz:{{tooz}}:s:{dead}")]);
    cli(&server, &["ZADD", "tooz:{tooz}:sessions", "1", &dead]);
    std::mem::forget(held);
    let begun = Instant::now();
    loop {
        let left = keys(&server).into_iter().filter(|key| key.contains(&dead) || key.contains(":l:lock")).count();
        if left == 0 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{left} keys are left");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn who_dies_with_many_locks_does_not_stop_the_server() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let mut held = Vec::new();
    // So many that freeing them a part at a time leaves most of the hash of what is owned empty.
    for index in 0..10_000 {
        held.push(soon(a.lock(format!("lock {index}")).unwrap().acquire()).await.unwrap());
    }
    let meter = Meter::start(&server);
    soon(a.close()).await.unwrap();
    assert!(soon(b.lock("lock 9999").unwrap().try_acquire()).await.unwrap().is_some());
    meter.no_script_is_long("burying");
}
