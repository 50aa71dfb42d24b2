//! Contending for locks: in both modes, trying, waiting, and waiting for a limited time; and now and then a holder is broken.

use std::time::Duration;

use tooz::{Characteristic, Holder, Lock, LockGuard};
use tooz_conformance::history::{Mode, Sighting, now};

use crate::record::{Contest, Record};
use crate::worker::Desk;
use crate::worker::grants::{hold, mode_of};
use crate::worker::own::keep_house;

/// Contends until the end.
pub(crate) async fn contend(desk: Desk, task: usize) {
    let worker = format!("{}/lock-{task}", desk.role.member);
    let mut random = desk.random(task as u64 + 1);
    let mut seen = None;
    while !desk.is_ending() {
        let name = format!("lock-{}", random.usize(..desk.role.locks));
        let Ok(lock) = desk.coordinator.lock(name.as_str()) else { return };
        match random.u16(..1000) {
            0..20 => {
                let holders = look_at_holders(&desk, &worker, &lock).await;
                seen = holders.into_iter().next().map(|holder| (lock, holder));
            }
            20..32 => {
                let holders = look_at_holders(&desk, &worker, &lock).await;
                break_one(&desk, &worker, &lock, holders.first()).await;
            }
            // One that has mostly gone by now: what is broken must never be a later holder.
            32..50 => {
                if let Some((lock, holder)) = seen.take() {
                    break_one(&desk, &worker, &lock, Some(&holder)).await;
                }
            }
            50..60 => keep_house(&desk, &worker).await,
            _ => take_turn(&desk, &worker, &lock, &mut random).await,
        }
        let pause = desk.pause(&mut random);
        desk.rest(pause).await;
    }
}

async fn take_turn(desk: &Desk, worker: &str, lock: &Lock, random: &mut fastrand::Rng) {
    let shares = desk.coordinator.characteristics().has(Characteristic::SharedLocks);
    let mode = if shares && random.bool() { Mode::Shared } else { Mode::Exclusive };
    let patience = match random.u8(..4) {
        0 => Some(Duration::ZERO),
        1 => Some(Duration::from_millis(random.u64(1..60))),
        _ => None,
    };
    let number = desk.number();
    let (worker, name) = (worker.to_owned(), lock.name().as_str().to_owned());
    desk.say(&Record::Asked { number, worker, of: Contest::Lock, lock: name, mode, at: now() });
    let asked = tokio::select! {
        answer = ask(lock, mode, patience) => answer,
        // Dropping it withdraws.
        () = desk.end() => Ok(None),
    };
    match asked {
        Ok(Some(guard)) => hold(desk, number, guard, how_long(desk, random)).await,
        Ok(None) => {
            let waited = patience != Some(Duration::ZERO) || desk.is_ending();
            desk.say(&Record::NotHad { number, at: now(), waited });
        }
        Err(error) => {
            desk.say(&Record::Failed { number, at: now(), error: error.to_string() });
            // An error that repeats at once would fill the history with nothing.
            desk.rest(Duration::from_millis(50)).await;
        }
    }
}

/// Mostly short, now and then long enough that faults come meanwhile.
fn how_long(desk: &Desk, random: &mut fastrand::Rng) -> Duration {
    match random.u16(..1000) {
        0..30 => Duration::from_millis(random.u64(50..300)),
        30..33 => desk.role.session_timeout.mul_f64(0.5 + random.f64()),
        _ => Duration::from_micros(random.u64(..2000)),
    }
}

async fn ask(lock: &Lock, mode: Mode, patience: Option<Duration>) -> tooz::Result<Option<LockGuard>> {
    let shared = lock.shared();
    match (patience, mode) {
        (Some(Duration::ZERO), Mode::Exclusive) => lock.try_acquire().await,
        (Some(Duration::ZERO), Mode::Shared) => shared.try_acquire().await,
        (Some(limit), Mode::Exclusive) => lock.acquire_within(limit).await,
        (Some(limit), Mode::Shared) => shared.acquire_within(limit).await,
        (None, Mode::Exclusive) => lock.acquire().await.map(Some),
        (None, Mode::Shared) => shared.acquire().await.map(Some),
    }
}

async fn look_at_holders(desk: &Desk, worker: &str, lock: &Lock) -> Vec<Holder> {
    let asked = now();
    let Ok(holders) = lock.holders().await else { return Vec::new() };
    let sighting = Sighting {
        worker: worker.to_owned(),
        lock: lock.name().as_str().to_owned(),
        asked,
        at: now(),
        holders: holders.iter().map(|holder| (mode_of(holder.mode), holder.token.0)).collect(),
    };
    desk.say(&Record::Saw { of: Contest::Lock, sighting });
    holders
}

async fn break_one(desk: &Desk, worker: &str, lock: &Lock, holder: Option<&Holder>) {
    let can = desk.coordinator.characteristics().has(Characteristic::BreakableLocks);
    let Some(holder) = holder.filter(|_| can) else { return };
    let number = desk.number();
    let (worker, name, token) = (worker.to_owned(), lock.name().as_str().to_owned(), holder.token.0);
    desk.say(&Record::Breaking { number, worker, lock: name, token, at: now() });
    if lock.break_lock(holder).await.is_ok() {
        desk.say(&Record::Broken { number, at: now() });
    }
}
