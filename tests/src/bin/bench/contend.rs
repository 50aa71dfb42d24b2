//! Eight processes on one lock: how much gets through, how fairly, and how long the unluckiest waits.

use std::time::Duration;

use anyhow::{Result, bail};
use tooz::Characteristic;
use tooz_conformance::history::now;

use crate::backend::Backend;
use crate::party::{Order, Party, Turn, Word};
use crate::progress::Progress;
use crate::report::Report;
use crate::stats::Sample;
use crate::target::Measure;

const PROCESSES: usize = 8;
/// What is done once, such as opening a connection to wait on, is no part of the figures.
const WARM_UP: Duration = Duration::from_millis(500);

pub(crate) async fn measure(backend: &Backend, report: &mut Report, progress: &Progress) -> Result<()> {
    let looker = backend.connect("contend", "looker").await?;
    let is_fair = looker.characteristics().has(Characteristic::FairLocks);
    looker.close().await?;
    let seconds = if report.quick { 3 } else { 10 };
    for (name, section) in [("an empty section", Duration::ZERO), ("a section of 2 ms", Duration::from_millis(2))] {
        progress.step(format!("{PROCESSES} contend with {name}, {seconds} s"));
        let turns = contend(backend, section, Duration::from_secs(seconds)).await?;
        judge(report, name, seconds, &turns, is_fair);
    }
    Ok(())
}

async fn contend(backend: &Backend, section: Duration, time: Duration) -> Result<Vec<Vec<Turn>>> {
    let lock = format!("contended-{}", section.as_millis());
    let mut parties = Vec::new();
    for index in 0..PROCESSES {
        parties.push(Party::start(backend, "contend", &format!("c{index}")).await?);
    }
    let from = now() + u64::try_from(WARM_UP.as_nanos())?;
    let until = from + u64::try_from(time.as_nanos())?;
    for party in &mut parties {
        party.tell(Order::Contend { lock: lock.clone(), until, section }).await?;
    }
    let mut all = Vec::new();
    for party in &mut parties {
        match party.hear().await? {
            Word::Turns(turns) => all.push(turns.into_iter().filter(|turn| turn.asked >= from).collect()),
            other => bail!("an unexpected answer: {other:?}"),
        }
    }
    for party in parties {
        party.end().await?;
    }
    Ok(all)
}

#[allow(clippy::cast_precision_loss)]
fn judge(report: &mut Report, name: &str, seconds: u64, all: &[Vec<Turn>], is_fair: bool) {
    // Where locks are not promised to be fair, the figures stand without a target.
    let target = |limit: f64| is_fair.then_some(limit);
    let total: usize = all.iter().map(Vec::len).sum();
    let (least, most) = (all.iter().map(Vec::len).min(), all.iter().map(Vec::len).max());
    let mut order: Vec<(u64, usize)> = Vec::new();
    let mut waits = Sample::new();
    for (owner, turns) in all.iter().enumerate() {
        for turn in turns {
            order.push((turn.granted, owner));
            waits.add(Duration::from_nanos(turn.granted.saturating_sub(turn.asked)));
        }
    }
    order.sort_unstable();
    let changes = order.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
    let fairness = most.unwrap_or(0) as f64 / least.unwrap_or(0).max(1) as f64;
    report.figure(
        Measure::Contended,
        format!("{PROCESSES} processes, {name}"),
        total as f64 / seconds as f64,
        "turns/s",
        None,
    );
    report.figure(Measure::Contended, "  owner changes", 100.0 * changes as f64 / total.max(1) as f64, "%", None);
    report.figure(Measure::Contended, "  most turns / fewest turns", fairness, "", target(1.5));
    report.times(Measure::Contended, "  waits", waits.summary(), None);
    let worst = worst_in_turns(all, &order);
    report.figure(Measure::WorstWait, "  worst wait, in turns of the queue", worst, "", target(3.0));
}

/// How often the lock changed hands while the unluckiest waited, over the number of those who wait.
#[allow(clippy::cast_precision_loss)]
fn worst_in_turns(all: &[Vec<Turn>], order: &[(u64, usize)]) -> f64 {
    let grants_before = |moment: u64| order.partition_point(|(granted, _)| *granted < moment);
    let worst = all
        .iter()
        .flatten()
        .map(|turn| grants_before(turn.granted).saturating_sub(grants_before(turn.asked)))
        .max()
        .unwrap_or(0);
    worst as f64 / PROCESSES as f64
}
