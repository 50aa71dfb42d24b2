//! Uncontended pairs, and the way from a release to the waiter.

use std::time::Duration;

use anyhow::Result;
use tooz::Characteristic;
use tooz_conformance::history::now;

use crate::backend::{Backend, Unit};
use crate::bare::Bare;
use crate::memory_floor::{MemoryPair, Semaphore};
use crate::party::{Order, Party};
use crate::progress::Progress;
use crate::report::Report;
use crate::stats::{SILENCE, Sample, with_warm_up};
use crate::target::{self, Measure, Target};

pub(crate) async fn measure(backend: &Backend, report: &mut Report, progress: &Progress) -> Result<()> {
    progress.step("acquire and release, alone");
    pairs(backend, report).await?;
    progress.step("from the release to the waiter");
    wake_ups(backend, report).await
}

async fn pairs(backend: &Backend, report: &mut Report) -> Result<()> {
    let coordinator = backend.connect("locks", "pairs").await?;
    let lock = coordinator.lock("pair")?;
    let rounds = report.rounds(if backend.has_server() { 3000 } else { 50_000 });
    let mut bare = Bare::connect(backend).await?;
    // Between processes of one host: what core costs, and what the kernel's own semaphores do.
    let beside = if backend.unit == Unit::Memory { Some((MemoryPair::new().await?, Semaphore::new()?)) } else { None };
    let [mut exclusive, mut shared, mut unit, mut statements, mut semaphores] =
        std::array::from_fn(|_| Sample::after_warm_up(rounds));
    for _ in 0..with_warm_up(rounds) {
        // The disk and the neighbours of this machine are not the same from minute to minute: what is compared is measured in turn.
        if let Some(probe) = backend.probe() {
            unit.time(coordinator.probe(probe)).await?;
        }
        if let Some((memory, semaphore)) = &beside {
            unit.time(memory.pair()).await?;
            semaphores.time(async { (0..4).try_for_each(|_| semaphore.pair()) }).await?;
        }
        if let Some(bare) = &mut bare {
            statements.time(bare.pair()).await?;
        }
        exclusive.time(async { lock.acquire().await?.release().await }).await?;
        if coordinator.characteristics().has(Characteristic::SharedLocks) {
            let lock = lock.shared();
            shared.time(async { lock.acquire().await?.release().await }).await?;
        }
    }
    let target = target::of(backend.name, Measure::Pair);
    let unit = unit.summary();
    report.times_beside(&unit, Measure::Pair, "acquire + release", exclusive.summary(), target);
    if shared.summary().count > 0 {
        report.times_beside(&unit, Measure::SharedPair, "the same, shared", shared.summary(), target);
    }
    let (ours, statements, semaphores) = (exclusive.summary(), statements.summary(), semaphores.summary());
    if statements.count > 0 {
        report.times_beside(&unit, Measure::OverBare, "the bare statements of the client (sqlx)", statements, None);
        let over = ratio(ours.p50, statements.p50);
        report.figure(Measure::OverBare, "  acquire + release, over them", over, "×", target::over_bare(backend.name));
    }
    if semaphores.count > 0 {
        report.times_beside(&unit, Measure::OverBare, "four pairs of semop", semaphores, None);
        let over = ratio(ours.p50, unit.p50 + semaphores.p50);
        report.figure(Measure::OverBare, "  acquire + release, over memory's and these", over, "×", Some(1.0));
    }
    coordinator.close().await?;
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn ratio(ours: u64, theirs: u64) -> f64 {
    ours as f64 / theirs.max(1) as f64
}

/// Long enough to be in the queue, whatever the backend. Within one process that takes no time, and a processor that was asleep
/// would be what is measured.
async fn waiter_is_queued(backend: &Backend) {
    if backend.across_processes {
        return tokio::time::sleep(SILENCE).await;
    }
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_micros(500) {
        tokio::task::yield_now().await;
    }
}

async fn wake_ups(backend: &Backend, report: &mut Report) -> Result<()> {
    let coordinator = backend.connect("locks", "holder").await?;
    let lock = coordinator.lock("wake")?;
    let mut waiter = Party::start(backend, "locks", "waiter").await?;
    let mut sample = Sample::new();
    for _ in 0..report.rounds(500) {
        let guard = lock.acquire().await?;
        waiter.tell(Order::Acquire { lock: "wake".into() }).await?;
        waiter_is_queued(backend).await;
        let released = now();
        guard.release().await?;
        let granted = waiter.hear_when().await?;
        sample.add(Duration::from_nanos(granted.saturating_sub(released)));
        waiter.ask(Order::Release).await?;
    }
    waiter.end().await?;
    coordinator.close().await?;
    let target = match report.memory_floor {
        Some(floor) => Some(Target::Within(floor.wake_up + Duration::from_micros(60))),
        None => target::of(backend.name, Measure::WakeUp),
    };
    report.rare_times(Measure::WakeUp, "release → the waiter owns it", sample.summary(), target);
    Ok(())
}
