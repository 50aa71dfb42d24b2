//! The line of those who wait: first come, first served, and no crowd that asks all the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::sleep;
use tooz_core::{ErrorKind, LossReason};

use crate::bed::{Raw, connect, lock_key, soon, start, trials, wait_in_background};

trials! {
    forty_waiters_are_served_in_order
    long_waiters_ask_seldom
    a_break_is_told_within_a_second
    two_breaks_at_once_are_both_told
    a_break_that_comes_after_the_release_finds_nothing
    the_dead_in_the_line_are_stepped_over
    a_dead_writer_bars_no_reader
}

async fn forty_waiters_are_served_in_order() {
    let server = start();
    let holder = connect(&server.url(), "holder").await;
    let guard = soon(holder.lock("x").unwrap().acquire()).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (mut coordinators, mut tasks) = (Vec::new(), Vec::new());
    for number in 0..40 {
        coordinators.push(connect(&server.url(), &format!("w{number}")).await);
    }
    for (number, one) in coordinators.iter().enumerate() {
        let (lock, order) = (one.lock("x").unwrap(), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let guard = soon(lock.acquire()).await.unwrap();
            order.lock().await.push((number, guard.fencing_token()));
            sleep(Duration::from_millis(2)).await;
            soon(guard.release()).await.unwrap();
        }));
        while soon(holder.lock("x").unwrap().waiters()).await.unwrap().len() <= number {
            sleep(Duration::from_millis(5)).await;
        }
    }
    let begun = Instant::now();
    soon(guard.release()).await.unwrap();
    for task in tasks {
        soon(task).await.unwrap();
    }
    let took = begun.elapsed();
    let order = order.lock().await;
    assert!(order.iter().enumerate().all(|(place, (number, _))| place == *number), "{order:?}");
    assert!(order.windows(2).all(|pair| pair[0].1 < pair[1].1), "tokens grow");
    assert!(took < Duration::from_secs(8), "40 turns took {took:?}");
}

async fn long_waiters_ask_seldom() {
    let server = start();
    let holder = connect(&server.url(), "holder").await;
    let _guard = soon(holder.lock("x").unwrap().acquire()).await.unwrap();
    let mut waiters = Vec::new();
    for number in 0..100 {
        let one = connect(&server.url(), &format!("w{number}")).await;
        waiters.push((wait_in_background(&one, "x"), one));
    }
    sleep(Duration::from_secs(11)).await;
    let mut raw = Raw::to(&server);
    let before = raw.stat("cmd_get");
    sleep(Duration::from_secs(4)).await;
    let asked = (raw.stat("cmd_get") - before) / 4;
    // Ten looks a second for the first, a second between two looks for most, and three heartbeats in two seconds for each: each is a few commands.
    assert!(asked < 1500, "{asked} commands in a second for 100 waiters");
    for (task, _) in &waiters {
        task.abort();
    }
}

async fn a_break_is_told_within_a_second() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let lock = b.lock("x").unwrap();
    let holders = soon(lock.holders()).await.unwrap();
    soon(lock.break_lock(&holders[0])).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(1), guard.loss().wait()).await;
    assert_eq!(told.expect("it is told soon"), LossReason::Broken);
    let next = soon(lock.try_acquire()).await.unwrap().expect("it is free");
    // What is broken once is never broken for a later holder.
    let error = soon(lock.break_lock(&holders[0])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(soon(guard.release()).await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(next.is_held());
}

async fn two_breaks_at_once_are_both_told() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let mut losses = Vec::new();
    let mut guards = Vec::new();
    for round in 0..20 {
        let guard = soon(a.lock(format!("x{round}")).unwrap().acquire()).await.unwrap();
        losses.push(guard.loss());
        guards.push(guard);
    }
    let breaks = (0..20).map(|round| {
        let lock = b.lock(format!("x{round}")).unwrap();
        tokio::spawn(async move {
            let holders = soon(lock.holders()).await.unwrap();
            soon(lock.break_lock(&holders[0])).await.unwrap();
        })
    });
    for one in breaks.collect::<Vec<_>>() {
        soon(one).await.unwrap();
    }
    for loss in losses {
        assert_eq!(soon(loss.wait()).await, LossReason::Broken);
    }
    drop(guards);
}

async fn a_break_that_comes_after_the_release_finds_nothing() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let lock = b.lock("x").unwrap();
    for _ in 0..30 {
        let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
        let holders = soon(lock.holders()).await.unwrap();
        let (released, broken) = soon(async { tokio::join!(guard.release(), lock.break_lock(&holders[0])) }).await;
        match (released, broken) {
            (Ok(()), Err(error)) => assert_eq!(error.kind(), ErrorKind::NotFound),
            (Err(error), Ok(())) => assert_eq!(error.kind(), ErrorKind::Lost),
            other => panic!("{other:?}"),
        }
    }
}

async fn the_dead_in_the_line_are_stepped_over() {
    let server = start();
    let holder = connect(&server.url(), "holder").await;
    let guard = soon(holder.lock("x").unwrap().acquire()).await.unwrap();
    let (mut raw, mut dead) = (Raw::to(&server), Vec::new());
    for number in 0..5 {
        let one = connect(&server.url(), &format!("d{number}")).await;
        dead.push((wait_in_background(&one, "x"), one));
    }
    while soon(holder.lock("x").unwrap().waiters()).await.unwrap().len() < 5 {
        sleep(Duration::from_millis(5)).await;
    }
    let last = connect(&server.url(), "last").await;
    let waiting = wait_in_background(&last, "x");
    sleep(Duration::from_millis(200)).await;
    let text = raw.read("tooz:tooz:l:x").unwrap();
    // Their names stand last: ids may begin with any letter.
    for line in text.lines().filter(|line| line.rsplit('\t').next().is_some_and(|name| name.starts_with('d'))) {
        raw.ask(&format!("md tooz:tooz:s:{}", line.split('\t').nth(2).unwrap()));
    }
    soon(guard.release()).await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(2), waiting).await.expect("no living waiter is before it");
    assert!(next.unwrap().unwrap().is_held());
    for (task, _) in dead {
        task.abort();
    }
}

/// Also behind more readers than are looked for at once.
async fn a_dead_writer_bars_no_reader() {
    let server = start();
    let reader = connect(&server.url(), "reader").await;
    let mut raw = Raw::to(&server);
    for (lock, readers) in [("few", 1), ("many", 12)] {
        let mut holding = Vec::new();
        for number in 0..readers {
            let one = connect(&server.url(), &format!("{lock}{number}")).await;
            let guard = soon(one.lock(lock).unwrap().shared().acquire()).await.unwrap();
            holding.push((guard, one));
        }
        let mut die = |number: u32| {
            let entry = format!("A\t{number:032x}\t{number:016x}\tx\t1\tdead\n");
            assert_eq!(raw.write(&lock_key(lock), "MA", &entry), "HD");
        };
        let same = reader.lock(lock).unwrap();
        die(1);
        let tried = soon(same.shared().try_acquire()).await.unwrap();
        soon(tried.expect("only readers live").release()).await.unwrap();
        die(2);
        soon(soon(same.shared().acquire()).await.unwrap().release()).await.unwrap();
        die(3);
        assert!(soon(same.try_acquire()).await.unwrap().is_none(), "readers have it");
        assert!(holding.iter().all(|(guard, _)| guard.is_held()));
    }
}
