//! Breaking what the plan says, and telling of it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tooz_conformance::history::now;

use crate::crew::{Crew, Shared, lock};
use crate::fault::FaultKind;
use crate::ground::Ground;
use crate::plan::{Plan, PlannedFault};

/// Carries out the whole plan; all is mended when it returns.
pub(crate) async fn carry_out(plan: &Plan, ground: &Ground, crew: &mut Crew, chronicle: &Shared) -> Result<()> {
    let begun = std::time::Instant::now();
    for (index, fault) in plan.faults.iter().enumerate() {
        tokio::time::sleep(fault.pause).await;
        let from = now();
        let done = carry_out_one(fault, ground, crew).await;
        done.with_context(|| format!("{} at {:.1?}", fault.kind.name(), begun.elapsed()))?;
        lock(chronicle).fault(name_of(fault), from, now());
        let operations = lock(chronicle).operations();
        let (at, of) = (index + 1, plan.faults.len());
        eprintln!("{:>6.1?}  {operations:>7} operations  {at}/{of} {}", begun.elapsed(), told(fault));
    }
    Ok(())
}

async fn carry_out_one(fault: &PlannedFault, ground: &Ground, crew: &mut Crew) -> Result<()> {
    match fault.kind {
        FaultKind::ClientKill => {
            crew.kill(fault.victim).await?;
            tokio::time::sleep(fault.lasts).await;
            crew.begin(fault.victim)
        }
        FaultKind::ClientPause | FaultKind::ClientHang => {
            crew.stop(fault.victim)?;
            tokio::time::sleep(fault.lasts).await;
            crew.resume(fault.victim)
        }
        _ => ground.break_and_mend(fault).await,
    }
}

fn name_of(fault: &PlannedFault) -> String {
    if fault.kind.has_victim() {
        format!("{} w{}", fault.kind.name(), fault.victim)
    } else {
        fault.kind.name().to_owned()
    }
}

fn told(fault: &PlannedFault) -> String {
    let lasts = Duration::from_millis(u64::try_from(fault.lasts.as_millis()).unwrap_or(u64::MAX));
    format!("{} for {lasts:?}", name_of(fault))
}
