//! The locks in use, the waiters for one, and since when it is held.

use std::time::{Duration, SystemTime};

use tooz_core::{Characteristic, Coordinator, ErrorKind, Lock, LockMode, Waiter};

use crate::cases::Requirement::{Has, HidesLocks, HidesWaiters, ListsLocks, ListsWaiters};
use crate::cases::cases;
use crate::stage::{CaseFailure, CaseResult, Stage, ensure, ensure_eq, refused};

cases! { "in_use";
    the_locks_in_use_are_listed [ListsLocks];
    other_namespaces_and_elections_are_not_listed [ListsLocks, Has(Characteristic::Groups)];
    hidden_locks_are_unsupported [HidesLocks];
    who_waits_is_told_in_order [ListsWaiters, Has(Characteristic::FairLocks)];
    who_waits_is_told [ListsWaiters];
    hidden_waiters_are_unsupported [HidesWaiters];
    what_is_told_of_times_is_true [];
}

async fn listed(stage: &Stage, coordinator: &Coordinator) -> CaseResult<Vec<String>> {
    let locks = stage.soon("the locks in use", coordinator.locks()).await??;
    Ok(locks.iter().map(ToString::to_string).collect())
}

async fn the_locks_in_use_are_listed(stage: Stage) -> CaseResult {
    let (a, b, lock_a, lock_b) = stage.two_locks().await?;
    let none: [&str; 0] = [];
    ensure_eq!(listed(&stage, &a).await?, none, "nothing was ever used");
    let held = stage.hold(&lock_a).await?;
    let nasty = "w/o: \"quotes\", %25 and ü";
    let shared = stage.soon("a shared lock", b.lock(nasty)?.shared().acquire()).await??;
    for coordinator in [&a, &b] {
        ensure_eq!(listed(&stage, coordinator).await?, ["the lock", nasty], "what is held");
    }
    let mut waiter = Box::pin(lock_b.acquire());
    stage.not_yet("the waiter's grant", &mut waiter).await?;
    ensure_eq!(listed(&stage, &a).await?, ["the lock", nasty], "a lock with a waiter is listed once");
    stage.give(held).await?;
    let held = stage.soon("the waiter's grant", waiter).await??;
    ensure_eq!(listed(&stage, &a).await?, ["the lock", nasty], "it was handed over");
    stage.give(held).await?;
    stage.soon("the release", shared.release()).await??;
    stage
        .eventually(stage.patience(), "nothing is in use any more", async || Ok(listed(&stage, &a).await?.is_empty()))
        .await
}

async fn other_namespaces_and_elections_are_not_listed(stage: Stage) -> CaseResult {
    let (a, group) = stage.with_group("a", "g").await?;
    let membership = stage.join(&group).await?;
    let leadership = stage.soon("the leadership", membership.campaign()).await??;
    let other = stage.connect_with(stage.options("b")?.namespace(&"another".parse()?)).await?;
    let theirs = stage.hold(&other.lock("theirs")?).await?;
    ensure_eq!(listed(&stage, &a).await?, [""; 0], "neither the election nor another namespace");
    ensure_eq!(listed(&stage, &other).await?, ["theirs"], "in the other namespace");
    stage.give(theirs).await?;
    stage.soon("the resignation", leadership.resign()).await??;
    Ok(())
}

async fn hidden_locks_are_unsupported(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let _held = stage.hold(&coordinator.lock("x")?).await?;
    let answer = stage.soon("the locks in use", coordinator.locks()).await?;
    refused("listing locks where their names are not known", answer, ErrorKind::Unsupported).map(drop)
}

/// The waiters there, as `member mode`.
async fn waiting(stage: &Stage, lock: &Lock) -> CaseResult<Vec<String>> {
    let waiters = stage.soon("the waiters", lock.waiters()).await??;
    Ok(waiters.iter().map(|waiter| format!("{} {}", waiter.member, waiter.mode.name())).collect())
}

async fn until_they_wait(stage: &Stage, lock: &Lock, wanted: &[&str]) -> CaseResult {
    let so = stage
        .eventually(stage.patience(), "all are told to wait", async || Ok(waiting(stage, lock).await? == wanted))
        .await;
    match so {
        Ok(()) => Ok(()),
        Err(why) => Err(CaseFailure::new(format_args!("{why}: {:?} and not {wanted:?}", waiting(stage, lock).await?))),
    }
}

async fn who_waits_is_told_in_order(stage: Stage) -> CaseResult {
    let all = stage.connect_all(4).await?;
    let locks = all.iter().map(|one| one.lock("x")).collect::<Result<Vec<_>, _>>()?;
    let held = stage.hold(&locks[0]).await?;
    ensure_eq!(waiting(&stage, &locks[1]).await?, [""; 0], "a holder does not wait");
    let mut queue = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (index, lock) in locks.iter().enumerate().skip(1) {
        // The one in the middle wants to read.
        let (lock, reads) = (lock.clone(), index == 2);
        let waiting = async move { if reads { lock.shared().acquire().await } else { lock.acquire().await } };
        queue.push(stage.begin(waiting).await?);
        let mode = if reads { LockMode::Shared } else { LockMode::Exclusive };
        names.push(format!("{} {}", all[index].member(), mode.name()));
        until_they_wait(&stage, &locks[0], &names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    }
    // A waiter that has given up is not listed any more.
    queue.remove(0).abort();
    until_they_wait(&stage, &locks[1], &[&names[1], &names[2]]).await?;
    stage.give(held).await?;
    let held = stage.soon("the second one's turn", queue.remove(0)).await???;
    until_they_wait(&stage, &locks[1], &[&names[2]]).await?;
    stage.give(held).await?;
    let held = stage.soon("the last one's turn", queue.remove(0)).await???;
    until_they_wait(&stage, &locks[1], &[]).await?;
    stage.give(held).await
}

async fn who_waits_is_told(stage: Stage) -> CaseResult {
    let (_a, b, lock_a, lock_b) = stage.two_locks().await?;
    let held = stage.hold(&lock_a).await?;
    let waiter = stage.begin(async move { lock_b.acquire().await }).await?;
    until_they_wait(&stage, &lock_a, &[&format!("{} exclusive", b.member())]).await?;
    stage.give(held).await?;
    stage.give(stage.soon("the waiter's turn", waiter).await???).await
}

async fn hidden_waiters_are_unsupported(stage: Stage) -> CaseResult {
    let lock = stage.connect("a").await?.lock("x")?;
    let answer = stage.soon("the waiters", lock.waiters()).await?;
    refused("listing waiters that the backend does not know", answer, ErrorKind::Unsupported).map(drop)
}

/// Servers of the suite run on this machine, so their clocks are ours.
async fn what_is_told_of_times_is_true(stage: Stage) -> CaseResult {
    const SKEW: Duration = Duration::from_secs(5);
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let begun = SystemTime::now() - SKEW;
    let held = stage.hold(&lock_a).await?;
    let waiter = stage.begin(async move { lock_b.acquire().await }).await?;
    let holders = stage.soon("the holders", lock_a.holders()).await??;
    let since = holders.iter().filter_map(|holder| holder.since);
    let waiters = stage.soon("the waiters", lock_a.waiters()).await?.unwrap_or_default();
    let waits = waiters.iter().filter_map(|waiter: &Waiter| waiter.since);
    for since in since.chain(waits) {
        ensure!(since >= begun && since <= SystemTime::now() + SKEW, "told to be since {since:?}, begun {begun:?}");
    }
    stage.give(held).await?;
    stage.give(stage.soon("the waiter's turn", waiter).await???).await
}
