//! Locks between two members: one excludes the other, hands over, shares, and is broken.

use std::time::{Duration, Instant};

use serde_json::Value;
use tooz::{FencingToken, LockGuard, LossReason};

use super::Pair;
use super::figures::{Samples, micros, millis};
use super::report::{TrialFailure, TrialSuccess};

/// How long a lock is asked for that can't be had: long enough to get into a server's queue and out again.
const A_WHILE: Duration = Duration::from_millis(50);

/// How often a lock is handed over.
const HAND_OVERS: usize = 10;

/// Holding excludes all others, and only for as long as it lasts.
pub(super) async fn exclusive(pair: &Pair<'_>) -> Result<TrialSuccess, TrialFailure> {
    let (mine, others) = (pair.first.lock(pair.scratch.lock())?, pair.second.lock(pair.scratch.lock())?);
    pair.doing.is("taking a lock");
    let guard = mine.acquire().await?;
    let token = guard.fencing_token();
    pair.doing.is("asking for a lock that is held");
    refused(others.try_acquire().await?.as_ref(), "although another member held it")?;
    refused(mine.try_acquire().await?.as_ref(), "although the same member held it")?;
    refused(others.acquire_within(A_WHILE).await?.as_ref(), "although another member held it")?;
    pair.doing.is("listing the holders of a lock");
    let holders = mine.holders().await?;
    if holders.len() != 1 || holders[0].token != token || holders[0].member != *pair.first.member() {
        return Err(TrialFailure::broken_promise(format!("a lock with one holder lists these: {holders:?}")));
    }
    pair.doing.is("releasing a lock");
    guard.release().await?;
    pair.doing.is("taking a lock that was released");
    let next = others.acquire().await?;
    let last = next.fencing_token();
    grown(token, last)?;
    next.release().await?;
    Ok(TrialSuccess::new(format!("excludes others; its tokens grow, the last is {last}")))
}

/// A waiter has it after a release; several times, since the first one is not like the others.
pub(super) async fn hand_over(pair: &Pair<'_>) -> Result<TrialSuccess, TrialFailure> {
    let (mine, others) = (pair.first.lock(pair.scratch.lock())?, pair.second.lock(pair.scratch.lock())?);
    let mut times = Vec::with_capacity(HAND_OVERS);
    for _ in 0..HAND_OVERS {
        pair.doing.is("taking a lock");
        let guard = mine.acquire().await?;
        let token = guard.fencing_token();
        pair.doing.is("waiting for a lock that was released");
        let release = async {
            // The other one is in the queue by then. If it is not, only the figure means less.
            tokio::time::sleep(A_WHILE).await;
            let begin = Instant::now();
            guard.release().await.map(|()| begin)
        };
        let wait = async { others.acquire().await.map(|guard| (guard, Instant::now())) };
        let (released, waited) = tokio::join!(release, wait);
        let (begin, (next, end)) = (released?, waited?);
        grown(token, next.fencing_token())?;
        next.release().await?;
        times.push(end.saturating_duration_since(begin));
    }
    let times = Samples::new(times);
    let what = format!("from the release to the next in the queue: {}", times.words());
    Ok(TrialSuccess::new(what).measured("hand_over", times.json()))
}

/// Shared holders stand beside each other and exclude an exclusive one.
pub(super) async fn shared(pair: &Pair<'_>) -> Result<TrialSuccess, TrialFailure> {
    let (mine, others) = (pair.first.lock(pair.scratch.lock())?, pair.second.lock(pair.scratch.lock())?);
    pair.doing.is("sharing a lock");
    let one = mine.shared().acquire().await?;
    let two = others.shared().acquire().await?;
    pair.doing.is("asking for a lock that is shared");
    refused(others.try_acquire().await?.as_ref(), "although others shared it")?;
    pair.doing.is("releasing a lock that is shared");
    let last = one.fencing_token().max(two.fencing_token());
    one.release().await?;
    two.release().await?;
    let exclusive = others.acquire().await?;
    grown(last, exclusive.fencing_token())?;
    exclusive.release().await?;
    Ok(TrialSuccess::new("shared by two, and not held exclusively meanwhile"))
}

/// A lock that is taken by force is lost for its holder, which hears of it.
pub(super) async fn broken(pair: &Pair<'_>) -> Result<TrialSuccess, TrialFailure> {
    let (mine, others) = (pair.first.lock(pair.scratch.lock())?, pair.second.lock(pair.scratch.lock())?);
    pair.doing.is("taking a lock");
    let guard = mine.acquire().await?;
    pair.doing.is("breaking a lock");
    let Some(holder) = others.holders().await?.into_iter().next() else {
        return Err(TrialFailure::broken_promise("a lock was held, but no holder of it was listed"));
    };
    let begin = Instant::now();
    others.break_lock(&holder).await?;
    let next = others.acquire().await?;
    pair.doing.is("telling the holder that its lock was broken");
    let reason = guard.loss().wait().await;
    let took = begin.elapsed();
    next.release().await?;
    if reason != LossReason::Broken {
        return Err(TrialFailure::broken_promise(format!("a lock was broken, and its holder was told that {reason}")));
    }
    let what = format!("free for others, and its holder was told after {}", millis(took));
    Ok(TrialSuccess::new(what).measured("break_told_us", Value::from(micros(took))))
}

fn refused(grant: Option<&LockGuard>, although: &str) -> Result<(), TrialFailure> {
    match grant {
        None => Ok(()),
        Some(_) => Err(TrialFailure::broken_promise(format!("a lock was granted {although}"))),
    }
}

/// The token of a later grant has to be the greater one.
pub(super) fn grown(earlier: FencingToken, later: FencingToken) -> Result<(), TrialFailure> {
    if later > earlier {
        return Ok(());
    }
    Err(TrialFailure::broken_promise(format!("fencing token {later} was given after {earlier}: it has to be greater")))
}
