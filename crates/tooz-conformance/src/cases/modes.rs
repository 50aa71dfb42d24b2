//! Shared locks beside exclusive ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{Characteristic, ErrorKind, FencingToken, Lock, LockGuard, LockMode};

use crate::cases::Requirement::{Has, Lacks};
use crate::cases::cases;
use crate::stage::{CaseFailure, CaseResult, Stage, ensure, ensure_eq, refused};

const SHARED: Characteristic = Characteristic::SharedLocks;

cases! { "modes";
    readers_share [Has(SHARED)];
    readers_of_one_coordinator_share [Has(SHARED)];
    every_order_of_modes_is_right [Has(SHARED)];
    a_writer_waits_for_every_reader [Has(SHARED)];
    readers_wait_for_a_writer [Has(SHARED)];
    one_reader_that_leaves_leaves_the_others [Has(SHARED)];
    a_waiting_writer_is_not_starved [Has(SHARED), Has(Characteristic::FairLocks)];
    a_reader_behind_a_waiting_writer_waits [Has(SHARED), Has(Characteristic::FairLocks)];
    a_waiting_writer_of_the_same_coordinator_is_not_starved [Has(SHARED)];
    holders_tell_every_reader [Has(SHARED)];
    tokens_grow_across_modes [Has(SHARED)];
    breaking_one_reader_leaves_the_others [Has(SHARED), Has(Characteristic::BreakableLocks)];
    cancelling_a_shared_acquire_leaks_nothing [Has(SHARED)];
    without_shared_locks_they_are_unsupported [Lacks(SHARED)];
}

async fn read(stage: &Stage, lock: &Lock) -> CaseResult<LockGuard> {
    Ok(stage.soon("acquiring shared", lock.shared().acquire()).await??)
}

async fn take(stage: &Stage, lock: &Lock, mode: LockMode) -> CaseResult<Option<LockGuard>> {
    match mode {
        LockMode::Exclusive => stage.attempt(lock).await,
        LockMode::Shared => Ok(stage.soon("trying shared", lock.shared().try_acquire()).await??),
    }
}

async fn readers_share(stage: Stage) -> CaseResult {
    let mut guards = Vec::new();
    for coordinator in stage.connect_all(4).await? {
        let guard = read(&stage, &coordinator.lock("x")?).await?;
        ensure_eq!(guard.mode(), LockMode::Shared, "the mode");
        guards.push(guard);
    }
    for guard in &guards {
        ensure!(guard.is_held(), "all hold it together");
    }
    for guard in guards {
        stage.give(guard).await?;
    }
    Ok(())
}

async fn readers_of_one_coordinator_share(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let one = read(&stage, &lock_a).await?;
    let two = read(&stage, &lock_a).await?;
    ensure!(one.fencing_token() != two.fencing_token(), "two grants have one token");
    stage.give(one).await?;
    ensure!(two.is_held(), "the second grant is its own");
    ensure!(stage.attempt(&lock_b).await?.is_none(), "one of the readers still holds it");
    stage.give(two).await?;
    ensure!(stage.attempt(&lock_b).await?.is_some(), "all readers have left");
    Ok(())
}

async fn every_order_of_modes_is_right(stage: Stage) -> CaseResult {
    let (a, b, _, _) = stage.two_locks().await?;
    for same in [true, false] {
        for first in [LockMode::Exclusive, LockMode::Shared] {
            for second in [LockMode::Exclusive, LockMode::Shared] {
                let lock_a = a.lock("x")?;
                let lock_b = if same { a.lock("x")? } else { b.lock("x")? };
                let guard = take(&stage, &lock_a, first).await?;
                let guard = guard.ok_or_else(|| CaseFailure::new(format!("{first:?} on a free lock")))?;
                let other = take(&stage, &lock_b, second).await?;
                let which = if same { "the same" } else { "another" };
                ensure_eq!(
                    other.is_some(),
                    !first.conflicts_with(second),
                    "{second:?} by {which} coordinator beside {first:?} is granted"
                );
                if let Some(other) = other {
                    stage.give(other).await?;
                }
                stage.give(guard).await?;
            }
        }
    }
    Ok(())
}

async fn a_writer_waits_for_every_reader(stage: Stage) -> CaseResult {
    let coordinators = stage.connect_all(3).await?;
    let first = read(&stage, &coordinators[0].lock("x")?).await?;
    let second = read(&stage, &coordinators[1].lock("x")?).await?;
    let lock = coordinators[2].lock("x")?;
    let mut writer = tokio::spawn(async move { lock.acquire().await });
    stage.not_yet("the writer's grant", &mut writer).await?;
    stage.give(first).await?;
    stage.not_yet("the writer's grant beside one reader", &mut writer).await?;
    stage.give(second).await?;
    drop(stage.soon("the writer's grant", writer).await???);
    Ok(())
}

async fn readers_wait_for_a_writer(stage: Stage) -> CaseResult {
    let coordinators = stage.connect_all(4).await?;
    let writer = stage.hold(&coordinators[0].lock("x")?).await?;
    let mut readers = Vec::new();
    for coordinator in &coordinators[1..] {
        let lock = coordinator.lock("x")?;
        readers.push(tokio::spawn(async move { lock.shared().acquire().await }));
    }
    for reader in &mut readers {
        stage.not_yet("a reader's grant", reader).await?;
    }
    stage.give(writer).await?;
    // All of them at once: none releases before the last has it.
    let mut guards = Vec::new();
    for reader in readers {
        guards.push(stage.soon("a reader's grant", reader).await???);
    }
    Ok(())
}

async fn one_reader_that_leaves_leaves_the_others(stage: Stage) -> CaseResult {
    let coordinators = stage.connect_all(3).await?;
    let first = read(&stage, &coordinators[0].lock("x")?).await?;
    let second = read(&stage, &coordinators[1].lock("x")?).await?;
    stage.give(first).await?;
    sleep(stage.moment()).await;
    ensure!(second.is_held(), "another reader's release took it");
    ensure!(stage.attempt(&coordinators[2].lock("x")?).await?.is_none(), "another reader's release freed it");
    stage.give(second).await
}

/// Two readers that always overlap, until `stop` is set.
fn endless_readers(locks: [Lock; 2], stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<tooz_core::Result<()>>> {
    let hold = Duration::from_millis(20);
    locks
        .into_iter()
        .enumerate()
        .map(|(index, lock)| {
            let stop = Arc::clone(stop);
            tokio::spawn(async move {
                // Out of step with each other, so that the lock is never free between two of their turns.
                sleep(hold / 2 * u32::try_from(index).unwrap_or(0)).await;
                while !stop.load(Ordering::Relaxed) {
                    let guard = lock.shared().acquire().await?;
                    sleep(hold).await;
                    guard.release().await?;
                }
                Ok(())
            })
        })
        .collect()
}

async fn starve(stage: &Stage, readers: [Lock; 2], writer: Lock) -> CaseResult {
    let stop = Arc::new(AtomicBool::new(false));
    let readers = endless_readers(readers, &stop);
    sleep(stage.moment()).await;
    let written = stage.soon("the writer among endless readers", writer.acquire()).await;
    stop.store(true, Ordering::Relaxed);
    drop(written?);
    for reader in readers {
        stage.soon("the end of a reader", reader).await???;
    }
    Ok(())
}

async fn a_waiting_writer_is_not_starved(stage: Stage) -> CaseResult {
    let coordinators = stage.connect_all(3).await?;
    let readers = [coordinators[0].lock("x")?, coordinators[1].lock("x")?];
    starve(&stage, readers, coordinators[2].lock("x")?).await
}

/// Endless readers leave gaps where the machine is slow. This leaves none.
async fn a_reader_behind_a_waiting_writer_waits(stage: Stage) -> CaseResult {
    let coordinators = stage.connect_all(3).await?;
    let first = read(&stage, &coordinators[0].lock("x")?).await?;
    let lock = coordinators[1].lock("x")?;
    let mut writer = tokio::spawn(async move { lock.acquire().await });
    stage.not_yet("the writer's grant", &mut writer).await?;
    let lock = coordinators[2].lock("x")?.shared();
    let mut reader = tokio::spawn(async move { lock.acquire().await });
    stage.not_yet("the grant of a reader behind a waiting writer", &mut reader).await?;
    stage.give(first).await?;
    let written = stage.soon("the writer's grant", writer).await???;
    stage.not_yet("the reader's grant beside the writer", &mut reader).await?;
    stage.give(written).await?;
    drop(stage.soon("the reader's grant", reader).await???);
    Ok(())
}

async fn a_waiting_writer_of_the_same_coordinator_is_not_starved(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let lock = coordinator.lock("x")?;
    starve(&stage, [lock.clone(), lock.clone()], lock).await
}

async fn holders_tell_every_reader(stage: Stage) -> CaseResult {
    let coordinators = stage.connect_all(3).await?;
    let mut guards = Vec::new();
    for coordinator in &coordinators {
        guards.push(read(&stage, &coordinator.lock("x")?).await?);
    }
    let mut holders = stage.soon("holders", coordinators[0].lock("x")?.holders()).await??;
    holders.sort_by(|one, other| one.member.cmp(&other.member));
    ensure_eq!(holders.len(), 3, "the holders");
    for (index, (holder, guard)) in holders.iter().zip(&guards).enumerate() {
        ensure_eq!(holder.member.as_str(), format!("m{index}"), "the holder");
        ensure_eq!(holder.mode, LockMode::Shared, "how");
        ensure_eq!(holder.token, guard.fencing_token(), "the token of m{index}");
    }
    Ok(())
}

async fn tokens_grow_across_modes(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let mut highest: Option<FencingToken> = None;
    for round in 0..6 {
        let writer = stage.hold(if round % 2 == 0 { &lock_a } else { &lock_b }).await?;
        ensure!(Some(writer.fencing_token()) > highest, "a writer's {} after {highest:?}", writer.fencing_token());
        let written = writer.fencing_token();
        stage.give(writer).await?;
        let (one, two) = (read(&stage, &lock_b).await?, read(&stage, &lock_a).await?);
        for reader in [&one, &two] {
            ensure!(reader.fencing_token() > written, "a reader's {} after {written}", reader.fencing_token());
        }
        ensure!(one.fencing_token() != two.fencing_token(), "two grants have one token");
        highest = Some(one.fencing_token().max(two.fencing_token()));
        stage.give(one).await?;
        stage.give(two).await?;
    }
    Ok(())
}

async fn breaking_one_reader_leaves_the_others(stage: Stage) -> CaseResult {
    let coordinators = stage.connect_all(3).await?;
    let first = read(&stage, &coordinators[0].lock("x")?).await?;
    let second = read(&stage, &coordinators[1].lock("x")?).await?;
    let lock = coordinators[2].lock("x")?;
    let holders = stage.soon("holders", lock.holders()).await??;
    let holder = holders.iter().find(|holder| holder.token == first.fencing_token());
    let holder = holder.ok_or_else(|| CaseFailure::new("the first reader is not listed"))?;
    stage.soon("breaking", lock.break_lock(holder)).await??;
    let limit = stage.session_timeout() + Duration::from_secs(2);
    stage.within(limit, "the broken reader's loss", first.loss().wait()).await?;
    ensure!(second.is_held(), "the other reader's grant was broken too");
    ensure!(stage.attempt(&lock).await?.is_none(), "the other reader still holds it");
    stage.give(second).await
}

async fn cancelling_a_shared_acquire_leaks_nothing(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    for round in 0..15_u64 {
        let guard = stage.hold(&lock_a).await?;
        let lock = lock_b.shared();
        let waiter = tokio::spawn(async move { lock.acquire().await.map(drop) });
        sleep(Duration::from_micros(300 * round)).await;
        waiter.abort();
        let _ = waiter.await;
        stage.give(guard).await?;
    }
    stage.give(stage.hold(&lock_a).await?).await?;
    stage
        .eventually(stage.patience(), "no holder is left", async || {
            Ok(stage.soon("holders", lock_a.holders()).await??.is_empty())
        })
        .await
}

async fn without_shared_locks_they_are_unsupported(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let lock = coordinator.lock("x")?.shared();
    let unsupported = ErrorKind::Unsupported;
    refused("a shared try", stage.soon("it", lock.try_acquire()).await?, unsupported)?;
    refused("a shared acquire", stage.soon("it", lock.acquire()).await?, unsupported)?;
    let within = stage.soon("it", lock.acquire_within(Duration::from_secs(1))).await?;
    refused("a shared acquire_within", within, unsupported)?;
    // The refused request left nothing behind.
    ensure!(stage.attempt(&coordinator.lock("x")?).await?.is_some(), "the lock is free");
    Ok(())
}
