//! The holder is killed: how long until the next one owns the lock.

use std::time::Duration;

use anyhow::Result;
use tooz_conformance::history::now;

use crate::backend::Backend;
use crate::party::{Order, Party};
use crate::progress::Progress;
use crate::report::Report;
use crate::stats::Sample;
use crate::target::{self, Measure};

pub(crate) async fn measure(backend: &Backend, report: &mut Report, progress: &Progress) -> Result<()> {
    progress.step("the holder is killed");
    let rounds = if backend.times_out { report.rounds(20).max(3) } else { report.rounds(100) };
    let coordinator = backend.connect("crash", "next").await?;
    let lock = coordinator.lock("crash")?;
    let mut sample = Sample::new();
    for round in 0..rounds {
        let mut holder = Party::start(backend, "crash", &format!("holder-{round}")).await?;
        holder.ask(Order::Acquire { lock: "crash".into() }).await?;
        let waiting = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await.map(|guard| (now(), guard)) }
        });
        // Not always at the same point between two heartbeats.
        let pause = if backend.times_out { 100 + 97 * (round as u64 % 7) } else { 20 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let killed = now();
        holder.die().await?;
        let (granted, guard) = waiting.await??;
        sample.add(Duration::from_nanos(granted.saturating_sub(killed)));
        guard.release().await?;
    }
    coordinator.close().await?;
    let what = if backend.across_processes {
        "kill -9 of the holder → next owns it"
    } else {
        "holder dropped → next owns it"
    };
    report.times(Measure::Crash, what, sample.summary(), target::of(backend.name, Measure::Crash));
    Ok(())
}
