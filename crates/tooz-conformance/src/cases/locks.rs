//! Exclusive locks: exclusion, waiting, letting go, losing, breaking, fencing.

// Long because each promise about locks is a case of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tooz_core::driver::Mutex;
use tooz_core::{Characteristic, ErrorKind, FencingToken, LockGuard, LockMode, LossReason};

use crate::cases::Requirement::{EndSession, Has, Lacks, Processes};
use crate::cases::cases;
use crate::process::{Command, Worker};
use crate::stage::{CaseFailure, CaseResult, Stage, ensure, ensure_eq, refused};

cases! { "locks";
    a_free_lock_is_granted [];
    two_coordinators_exclude_each_other [];
    two_tasks_of_one_coordinator_exclude_each_other [];
    two_processes_exclude_each_other [Processes];
    namesakes_exclude_each_other [];
    many_holders_never_overlap [];
    two_locks_of_one_coordinator_are_independent [];
    a_try_on_a_held_lock_is_none [];
    a_failed_try_leaves_the_holder_alone [];
    a_hundred_failed_tries_leak_nothing [];
    acquire_within_returns_on_time_on_a_contended_lock [];
    acquire_within_gets_a_lock_that_becomes_free [];
    a_try_right_after_a_wait_that_was_given_up_is_answered_at_once [];
    a_waiter_gets_the_lock_after_release [];
    a_local_waiter_gets_the_lock_after_release [];
    a_dropped_guard_frees_the_lock [];
    waiters_are_served_in_order [Has(Characteristic::FairLocks)];
    a_cancelled_waiter_is_skipped [];
    a_guard_may_travel [];
    cancelling_at_every_await_point_leaks_nothing [];
    cancelling_while_it_is_released_leaks_nothing [];
    a_cancelled_timeout_leaks_nothing [];
    holders_tell_who_and_how [];
    a_free_lock_has_no_holders [];
    tokens_strictly_grow [];
    tokens_grow_over_close_and_reopen [];
    while_held_returns_the_value [];
    while_held_stops_at_the_loss [EndSession];
    a_lost_lock_is_not_released_again [EndSession];
    a_release_that_finds_the_session_ended_is_no_success [EndSession];
    a_waiter_survives_the_loss_of_its_session [EndSession];
    a_broken_lock_can_be_had [Has(Characteristic::BreakableLocks)];
    the_ex_holder_is_told_promptly [Has(Characteristic::BreakableLocks)];
    releasing_a_broken_lock_touches_no_other_holder [Has(Characteristic::BreakableLocks)];
    breaking_a_stale_holder_is_not_found [Has(Characteristic::BreakableLocks)];
    breaking_passes_the_lock_to_a_waiter [Has(Characteristic::BreakableLocks)];
    what_cannot_be_broken_says_so [Lacks(Characteristic::BreakableLocks)];
}

async fn a_free_lock_is_granted(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let lock = coordinator.lock("x")?;
    for _ in 0..3 {
        let guard = stage.hold(&lock).await?;
        ensure!(guard.is_held(), "it was just granted");
        ensure_eq!(guard.mode(), LockMode::Exclusive, "the mode");
        stage.give(guard).await?;
        let guard = stage.attempt(&lock).await?.ok_or_else(|| CaseFailure::new("it is free"))?;
        stage.give(guard).await?;
        let within = stage.soon("acquiring", lock.acquire_within(Duration::from_secs(1))).await??;
        stage.give(within.ok_or_else(|| CaseFailure::new("it is free"))?).await?;
    }
    Ok(())
}

async fn two_coordinators_exclude_each_other(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    ensure!(stage.attempt(&lock_b).await?.is_none(), "two hold it");
    let mut waiter = Box::pin(lock_b.acquire());
    stage.not_yet("the second grant", &mut waiter).await?;
    // Longer than a moment as well: a driver that grants early may take its time.
    sleep(Duration::from_millis(100)).await;
    stage.not_yet("the second grant", &mut waiter).await?;
    ensure!(guard.is_held(), "it was not taken");
    stage.give(guard).await
}

async fn two_tasks_of_one_coordinator_exclude_each_other(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let guard = stage.hold(&coordinator.lock("x")?).await?;
    // Another object for the same lock, as another part of the program would make it.
    let second = coordinator.lock("x")?;
    ensure!(stage.attempt(&second).await?.is_none(), "two tasks hold it");
    let mut waiter = tokio::spawn(async move { second.acquire().await });
    stage.not_yet("the second task's grant", &mut waiter).await?;
    stage.give(guard).await?;
    drop(stage.soon("the second task", waiter).await???);
    Ok(())
}

async fn two_processes_exclude_each_other(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("here").await?;
    let lock = coordinator.lock("x")?;
    let mut worker = Worker::start(&stage, "there").await?;
    let theirs = worker.ask(&Command::Hold { lock: "x".into() }).await?;
    ensure!(stage.attempt(&lock).await?.is_none(), "two processes hold it");
    let holders = stage.soon("holders", lock.holders()).await??;
    ensure_eq!(holders.iter().map(|holder| holder.member.as_str()).collect::<Vec<_>>(), ["there"], "the holders");
    let mut waiter = Box::pin(lock.acquire());
    stage.not_yet("our grant", &mut waiter).await?;
    worker.ask(&Command::Release).await?;
    let ours = stage.soon("our grant", waiter).await??;
    ensure!(Some(ours.fencing_token().0) > theirs.token, "the token did not grow between processes");
    worker.end().await
}

async fn namesakes_exclude_each_other(stage: Stage) -> CaseResult {
    // The member's id is no proof of ownership: another process may use it by mistake.
    let (first, second) = (stage.connect("same").await?, stage.connect("same").await?);
    let guard = stage.hold(&first.lock("x")?).await?;
    let lock = second.lock("x")?;
    ensure!(stage.attempt(&lock).await?.is_none(), "a namesake got the lock too");
    stage.soon("closing the namesake", second.close()).await??;
    ensure!(guard.is_held(), "the namesake's close freed it");
    let third = stage.connect("c").await?;
    ensure!(stage.attempt(&third.lock("x")?).await?.is_none(), "the namesake's close freed it");
    stage.give(guard).await
}

async fn many_holders_never_overlap(stage: Stage) -> CaseResult {
    const ROUNDS: u64 = 5;
    let coordinators = stage.connect_all(4).await?;
    let inside = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for task in 0..12 {
        let lock = coordinators[task % coordinators.len()].lock("x")?;
        let (inside, count) = (Arc::clone(&inside), Arc::clone(&count));
        tasks.push(tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let guard = lock.acquire().await?;
                if inside.swap(true, Ordering::SeqCst) {
                    return Err(CaseFailure::new("two were inside"));
                }
                // Not atomic on purpose: the lock is what keeps it whole.
                let seen = count.load(Ordering::SeqCst);
                tokio::task::yield_now().await;
                count.store(seen + 1, Ordering::SeqCst);
                inside.store(false, Ordering::SeqCst);
                guard.release().await?;
            }
            Ok(())
        }));
    }
    let total = tasks.len() as u64 * ROUNDS;
    for task in tasks {
        stage.within(stage.patience() * 2, "a turn", task).await???;
    }
    ensure_eq!(count.load(Ordering::SeqCst), total, "updates were lost");
    Ok(())
}

async fn two_locks_of_one_coordinator_are_independent(stage: Stage) -> CaseResult {
    let (a, b, _, _) = stage.two_locks().await?;
    let (first, second) = (a.lock("one")?, a.lock("two")?);
    let one = stage.hold(&first).await?;
    let two = stage.hold(&second).await?;
    stage.give(one).await?;
    ensure!(two.is_held(), "releasing one released the other");
    ensure!(stage.attempt(&b.lock("two")?).await?.is_none(), "releasing one released the other");
    ensure!(stage.attempt(&b.lock("one")?).await?.is_some(), "the first is not free");
    stage.give(two).await
}

async fn a_try_on_a_held_lock_is_none(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    let begun = Instant::now();
    ensure!(stage.attempt(&lock_b).await?.is_none(), "it is held by another");
    ensure!(stage.attempt(&lock_a).await?.is_none(), "it is held by this coordinator");
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(5), "trying does not wait, but took {took:?}");
    stage.give(guard).await?;
    ensure!(stage.attempt(&lock_b).await?.is_some(), "it is free");
    Ok(())
}

async fn a_failed_try_leaves_the_holder_alone(stage: Stage) -> CaseResult {
    let (a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    for _ in 0..5 {
        ensure!(stage.attempt(&a.lock("the lock")?).await?.is_none(), "held by this coordinator");
        ensure!(stage.attempt(&lock_b).await?.is_none(), "held by another");
    }
    // Long enough that a lease whose renewal a failed try has broken would be over.
    sleep(stage.session_timeout() * 3 / 2).await;
    ensure!(guard.is_held(), "the holder lost it by another's failed try");
    ensure!(stage.attempt(&lock_b).await?.is_none(), "another's failed try freed it");
    stage.give(guard).await
}

async fn a_hundred_failed_tries_leak_nothing(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    for _ in 0..100 {
        ensure!(stage.attempt(&lock_b).await?.is_none(), "it is held");
    }
    stage.give(guard).await?;
    // A try that left something behind would hold it after a while.
    sleep(stage.moment()).await;
    let guard = stage.attempt(&lock_a).await?;
    ensure!(guard.is_some(), "a failed try was granted afterwards, without a taker");
    Ok(())
}

async fn acquire_within_returns_on_time_on_a_contended_lock(stage: Stage) -> CaseResult {
    let (a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    // Long enough for an answer of the backend: without one it would be an error, since whether another has the lock is not known.
    let limit = Duration::from_millis(700);
    for lock in [lock_b, a.lock("the lock")?] {
        let begun = Instant::now();
        let got = stage.soon("acquire_within", lock.acquire_within(limit)).await??;
        let took = begun.elapsed();
        ensure!(got.is_none(), "it is held");
        // A clock may tick a little early.
        ensure!(took >= limit.saturating_sub(Duration::from_millis(20)), "it gave up after {took:?}");
        ensure!(took <= limit + Duration::from_secs(2), "it took {took:?}");
    }
    stage.give(guard).await
}

async fn acquire_within_gets_a_lock_that_becomes_free(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    let patience = stage.patience();
    let waiter = tokio::spawn(async move { lock_b.acquire_within(patience).await });
    sleep(stage.moment()).await;
    stage.give(guard).await?;
    let got = stage.within(patience + Duration::from_secs(2), "the waiter", waiter).await???;
    ensure!(got.is_some(), "it became free in time");
    Ok(())
}

async fn a_try_right_after_a_wait_that_was_given_up_is_answered_at_once(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    for _ in 0..5 {
        let got = stage.soon("waiting", lock_b.acquire_within(Duration::from_millis(700))).await??;
        ensure!(got.is_none(), "it is held");
        // The wait is being withdrawn just now; the try must not become one that waits.
        ensure!(stage.attempt(&lock_b).await?.is_none(), "it is still held");
    }
    stage.give(guard).await?;
    let guard = stage.attempt(&lock_b).await?.ok_or_else(|| CaseFailure::new("it is free"))?;
    stage.give(guard).await
}

async fn a_waiter_gets_the_lock_after_release(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    let mut waiter = tokio::spawn(async move { lock_b.acquire().await });
    stage.not_yet("the waiter's grant", &mut waiter).await?;
    stage.give(guard).await?;
    let guard = stage.soon("the waiter's grant", waiter).await???;
    ensure!(guard.is_held(), "it was just granted");
    stage.give(guard).await
}

async fn a_local_waiter_gets_the_lock_after_release(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let lock = coordinator.lock("x")?;
    let mut guard = stage.hold(&lock).await?;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiters = Vec::new();
    for number in 0..5 {
        let (lock, order) = (lock.clone(), Arc::clone(&order));
        let acquiring = async move {
            let guard = lock.acquire().await;
            order.lock().push(number);
            guard
        };
        waiters.push(stage.begin(acquiring).await?);
    }
    for waiter in waiters {
        stage.give(guard).await?;
        guard = stage.soon("the next task's turn", waiter).await???;
    }
    ensure_eq!(*order.lock(), [0, 1, 2, 3, 4], "the local queue is first come, first served");
    stage.give(guard).await
}

async fn a_dropped_guard_frees_the_lock(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    drop(stage.hold(&lock_a).await?);
    let guard = stage.hold(&lock_b).await?;
    let waiter = tokio::spawn(async move { lock_a.acquire().await });
    sleep(stage.moment()).await;
    drop(guard);
    drop(stage.soon("the waiter's grant", waiter).await???);
    Ok(())
}

async fn waiters_are_served_in_order(stage: Stage) -> CaseResult {
    let coordinators = stage.connect_all(6).await?;
    let mut guard = stage.hold(&coordinators[0].lock("x")?).await?;
    let mut waiters = Vec::new();
    for coordinator in &coordinators[1..] {
        let lock = coordinator.lock("x")?;
        waiters.push(stage.begin(async move { lock.acquire().await }).await?);
        // Each is in the queue of the backend before the next one comes.
        sleep(stage.moment() * 2).await;
    }
    let mut waiters = waiters.into_iter();
    while let Some(next) = waiters.next() {
        stage.give(guard).await?;
        guard = stage.soon("the next coordinator's turn", next).await???;
        for later in waiters.as_slice() {
            ensure!(!later.is_finished(), "a waiter was served out of turn");
        }
    }
    stage.give(guard).await
}

async fn a_cancelled_waiter_is_skipped(stage: Stage) -> CaseResult {
    let coordinators = stage.connect_all(3).await?;
    let guard = stage.hold(&coordinators[0].lock("x")?).await?;
    let (second, third) = (coordinators[1].lock("x")?, coordinators[2].lock("x")?);
    let cancelled = stage.begin(async move { second.acquire().await.map(drop) }).await?;
    sleep(stage.moment()).await;
    let waiter = stage.begin(async move { third.acquire().await }).await?;
    sleep(stage.moment()).await;
    cancelled.abort();
    let _ = cancelled.await;
    // The withdrawal is through before the release; that both race is a case of its own.
    sleep(stage.moment()).await;
    stage.give(guard).await?;
    drop(stage.soon("the waiter behind a cancelled one", waiter).await???);
    // The cancelled waiter does not get it, now that no other is in the way.
    sleep(stage.moment()).await;
    let lock = coordinators[0].lock("x")?;
    stage
        .eventually(stage.patience(), "the lock is free in the end", async || Ok(stage.attempt(&lock).await?.is_some()))
        .await
}

async fn a_guard_may_travel(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    let held = tokio::task::spawn_blocking(move || {
        let held = guard.is_held();
        drop(guard);
        held
    });
    ensure!(stage.soon("another thread", held).await??, "it is held on every thread");
    drop(stage.hold(&lock_b).await?);
    Ok(())
}

/// Polls the future so many times, then drops it. Answers whether it was ready before.
async fn poll_and_drop<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    for _ in 0..times {
        if let std::task::Poll::Ready(value) =
            std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context))).await
        {
            return Some(value);
        }
        // Between two polls others get on, so that each poll may find another state.
        tokio::task::yield_now().await;
        sleep(Duration::from_micros(300)).await;
    }
    None
}

async fn cancelling_at_every_await_point_leaks_nothing(stage: Stage) -> CaseResult {
    let (_a, b, lock_a, lock_b) = stage.two_locks().await?;
    for times in 0..24 {
        // Once when the lock is free, once when it is held: those are different paths.
        drop(poll_and_drop(times, lock_b.acquire()).await);
        drop(poll_and_drop(times, lock_b.try_acquire()).await);
        drop(poll_and_drop(times, lock_b.acquire_within(Duration::from_mins(1))).await);
        let guard = stage.hold(&lock_a).await?;
        drop(poll_and_drop(times, lock_b.acquire()).await);
        drop(poll_and_drop(times, lock_b.try_acquire()).await);
        drop(poll_and_drop(times, lock_b.acquire_within(Duration::from_mins(1))).await);
        ensure!(guard.is_held(), "a cancelled wait took the lock from its holder");
        stage.give(guard).await?;
    }
    let guard = stage.hold(&lock_a).await?;
    stage.give(guard).await?;
    let own = stage.hold(&b.lock("the lock")?).await?;
    stage.give(own).await?;
    stage
        .eventually(stage.patience(), "no holder is left of cancelled acquires", async || {
            Ok(stage.soon("holders", lock_a.holders()).await??.is_empty())
        })
        .await
}

async fn cancelling_while_it_is_released_leaks_nothing(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    for round in 0..20_u64 {
        let guard = stage.hold(&lock_a).await?;
        let lock = lock_b.clone();
        let waiter = tokio::spawn(async move { lock.acquire().await.map(drop) });
        sleep(Duration::from_micros(200 * round)).await;
        // The grant and the cancellation race; whichever wins, it has no holder in the end.
        let (released, ()) = tokio::join!(guard.release(), async { waiter.abort() });
        released?;
        let _ = waiter.await;
    }
    let guard = stage.hold(&lock_a).await?;
    stage.give(guard).await?;
    stage
        .eventually(stage.patience(), "no holder is left", async || {
            Ok(stage.soon("holders", lock_a.holders()).await??.is_empty())
        })
        .await
}

async fn a_cancelled_timeout_leaks_nothing(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    for _ in 0..5 {
        let guard = stage.hold(&lock_a).await?;
        // A backend that has not answered in so short a time is an error; a grant would be wrong.
        let got = stage.soon("waiting", lock_b.acquire_within(Duration::from_millis(10))).await?;
        ensure!(!matches!(got, Ok(Some(_))), "it is held");
        stage.give(guard).await?;
    }
    stage
        .eventually(stage.patience(), "the lock is free again for a try", async || {
            Ok(stage.attempt(&lock_a).await?.is_some())
        })
        .await
}

async fn holders_tell_who_and_how(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    for lock in [&lock_a, &lock_b] {
        let holders = stage.soon("holders", lock.holders()).await??;
        ensure_eq!(holders.len(), 1, "the holders");
        ensure_eq!(holders[0].member.as_str(), "a", "the holder");
        ensure_eq!(holders[0].mode, LockMode::Exclusive, "how");
        ensure_eq!(holders[0].token, guard.fencing_token(), "the token");
    }
    // A waiter is no holder.
    let mut waiter = Box::pin(lock_b.acquire());
    stage.not_yet("the waiter's grant", &mut waiter).await?;
    let holders = stage.soon("holders", lock_b.holders()).await??;
    ensure_eq!(holders.len(), 1, "the holders beside a waiter");
    stage.give(guard).await
}

async fn a_free_lock_has_no_holders(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    ensure_eq!(stage.soon("holders", lock_b.holders()).await??, [], "it was never taken");
    stage.give(stage.hold(&lock_a).await?).await?;
    ensure_eq!(stage.soon("holders", lock_b.holders()).await??, [], "it was released");
    Ok(())
}

fn grows(last: &mut Option<FencingToken>, guard: &LockGuard) -> CaseResult {
    let token = guard.fencing_token();
    ensure!(Some(token) > *last, "token {token} after {last:?}");
    // Numbers must survive a trip through JSON.
    ensure!(token.0 < 1 << 53, "token {token} is not below 2^53");
    *last = Some(token);
    Ok(())
}

async fn tokens_strictly_grow(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let mut last = None;
    for _ in 0..10 {
        for lock in [&lock_a, &lock_b, &lock_b] {
            let guard = stage.hold(lock).await?;
            grows(&mut last, &guard)?;
            stage.give(guard).await?;
            if let Some(guard) = stage.attempt(lock).await? {
                grows(&mut last, &guard)?;
                stage.give(guard).await?;
            }
        }
    }
    Ok(())
}

async fn tokens_grow_over_close_and_reopen(stage: Stage) -> CaseResult {
    let mut last = None;
    for round in 0..4 {
        let coordinator = stage.connect(&format!("m{}", round % 2)).await?;
        let guard = stage.hold(&coordinator.lock("x")?).await?;
        grows(&mut last, &guard)?;
        if round % 2 == 0 {
            stage.give(guard).await?;
        }
        stage.soon("closing", coordinator.close()).await??;
    }
    Ok(())
}

async fn while_held_returns_the_value(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let guard = stage.hold(&coordinator.lock("x")?).await?;
    let value = stage.soon("the work", guard.while_held(async { 7 })).await?;
    ensure_eq!(value, Ok(7), "the work's value");
    stage.give(guard).await
}

async fn while_held_stops_at_the_loss(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let guard = stage.hold(&coordinator.lock("x")?).await?;
    let work = tokio::spawn(async move { guard.while_held(std::future::pending::<()>()).await });
    sleep(stage.moment()).await;
    stage.end_session("a").await?;
    let result = stage.within(stage.after_a_crash(), "the end of the work", work).await??;
    ensure!(
        matches!(result, Err(LossReason::SessionEnded | LossReason::Expired)),
        "the session has ended, but the reason is {result:?}"
    );
    Ok(())
}

async fn a_lost_lock_is_not_released_again(stage: Stage) -> CaseResult {
    let (_a, b, lock_a, lock_b) = stage.two_locks().await?;
    let former = stage.hold(&lock_a).await?;
    stage.end_session("a").await?;
    let new = stage.within(stage.after_a_crash(), "the next holder", lock_b.acquire()).await??;
    stage.within(stage.after_a_crash(), "the loss", former.loss().wait()).await?;
    ensure!(new.fencing_token() > former.fencing_token(), "the token did not grow");
    refused("releasing a lost lock", stage.soon("it", former.release()).await?, ErrorKind::Lost)?;
    sleep(stage.moment()).await;
    ensure!(new.is_held(), "the stale release took the lock from its new holder");
    ensure!(stage.attempt(&lock_a).await?.is_none(), "the stale release freed the lock");
    drop(b);
    stage.give(new).await
}

async fn a_release_that_finds_the_session_ended_is_no_success(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let lock = coordinator.lock("x")?;
    for _ in 0..3 {
        let guard = stage.within(stage.after_a_crash(), "the lock", lock.acquire()).await??;
        stage.end_session("a").await?;
        // The test did not wait until the loss was told, so it may be the release that finds out.
        refused("releasing after the end of the session", stage.soon("it", guard.release()).await?, ErrorKind::Lost)?;
    }
    Ok(())
}

async fn a_waiter_survives_the_loss_of_its_session(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    let mut waiter = tokio::spawn(async move { lock_b.acquire().await });
    stage.not_yet("the waiter's grant", &mut waiter).await?;
    stage.end_session("b").await?;
    sleep(stage.moment()).await;
    ensure!(!waiter.is_finished(), "acquire ended with the session of the waiter");
    stage.give(guard).await?;
    let guard = stage.within(stage.after_a_crash(), "the waiter's grant in its new session", waiter).await???;
    ensure!(guard.is_held(), "it was just granted");
    Ok(())
}

/// Lets `b` break what `a` holds.
async fn broken(stage: &Stage) -> CaseResult<(LockGuard, tooz_core::Lock, tooz_core::Lock)> {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    let holders = stage.soon("holders", lock_b.holders()).await??;
    let holder = holders.first().ok_or_else(|| CaseFailure::new("a held lock has a holder"))?;
    stage.soon("breaking", lock_b.break_lock(holder)).await??;
    Ok((guard, lock_a, lock_b))
}

async fn a_broken_lock_can_be_had(stage: Stage) -> CaseResult {
    let (former, _lock_a, lock_b) = broken(&stage).await?;
    let new = stage.hold(&lock_b).await?;
    ensure!(new.fencing_token() > former.fencing_token(), "the token did not grow");
    Ok(())
}

async fn the_ex_holder_is_told_promptly(stage: Stage) -> CaseResult {
    let (former, lock_a, _lock_b) = broken(&stage).await?;
    let limit = stage.session_timeout() + Duration::from_secs(2);
    stage.within(limit, "the ex-holder's loss", former.loss().wait()).await?;
    ensure!(!former.is_held(), "it was told of the loss");
    ensure_eq!(former.loss().reason(), Some(LossReason::Broken), "the reason");
    // Its session lives on: it may queue again.
    stage.give(stage.hold(&lock_a).await?).await
}

async fn releasing_a_broken_lock_touches_no_other_holder(stage: Stage) -> CaseResult {
    let (former, lock_a, lock_b) = broken(&stage).await?;
    let new = stage.hold(&lock_b).await?;
    // Whether the news has reached the ex-holder yet or not: its release must not matter.
    let _ = stage.soon("releasing the stale grant", former.release()).await?;
    sleep(stage.moment()).await;
    ensure!(new.is_held(), "the stale release took the lock from its new holder");
    ensure!(stage.attempt(&lock_a).await?.is_none(), "the stale release freed the lock");
    stage.give(new).await
}

async fn breaking_a_stale_holder_is_not_found(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let first = stage.hold(&lock_a).await?;
    let seen = stage.soon("holders", lock_b.holders()).await??;
    let seen = seen.first().ok_or_else(|| CaseFailure::new("a held lock has a holder"))?;
    stage.give(first).await?;
    let second = stage.hold(&lock_a).await?;
    let result = stage.soon("breaking", lock_b.break_lock(seen)).await?;
    refused("breaking a grant of the past", result, ErrorKind::NotFound)?;
    sleep(stage.moment()).await;
    ensure!(second.is_held(), "a later grant was broken");
    ensure!(stage.attempt(&lock_b).await?.is_none(), "a later grant was broken");
    stage.give(second).await?;
    let result = stage.soon("breaking", lock_b.break_lock(seen)).await?;
    refused("breaking a free lock", result, ErrorKind::NotFound)?;
    Ok(())
}

async fn breaking_passes_the_lock_to_a_waiter(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let _former = stage.hold(&lock_a).await?;
    let lock = lock_b.clone();
    let waiter = tokio::spawn(async move { lock.acquire().await });
    sleep(stage.moment()).await;
    for holder in stage.soon("holders", lock_b.holders()).await?? {
        stage.soon("breaking", lock_b.break_lock(&holder)).await??;
    }
    drop(stage.soon("the waiter's grant", waiter).await???);
    Ok(())
}

async fn what_cannot_be_broken_says_so(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    let holder = tooz_core::Holder::new("a".try_into()?, LockMode::Exclusive, guard.fencing_token());
    refused("breaking", stage.soon("it", lock_b.break_lock(&holder)).await?, ErrorKind::Unsupported)?;
    ensure!(guard.is_held(), "it was not broken");
    stage.give(guard).await
}
