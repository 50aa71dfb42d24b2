//! What is broken, when and for how long: drawn from the seed before anything begins, so that the same seed draws the same.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::backend::Backend;
use crate::fault::{CARDS, FaultKind};

/// One fault to come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedFault {
    /// How long nothing is broken before it.
    pub(crate) pause: Duration,
    pub(crate) kind: FaultKind,
    /// Which worker.
    pub(crate) victim: usize,
    pub(crate) lasts: Duration,
}

/// All faults of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) faults: Vec<PlannedFault>,
}

impl Plan {
    /// Draws faults of these kinds, or of all that fit, for so long.
    pub(crate) fn draw(
        seed: u64,
        backend: &Backend,
        wanted: &[FaultKind],
        time: Duration,
        workers: usize,
    ) -> Result<Plan> {
        let kinds = kinds(backend, wanted)?;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut faults = Vec::new();
        let mut bag = Vec::new();
        let mut left = time;
        let mut fitted = true;
        loop {
            // Each kind comes once before one comes again, if it can.
            if bag.is_empty() && std::mem::replace(&mut fitted, false) {
                bag.clone_from(&kinds);
                bag.retain(|kind| !kind.is_final() || faults.iter().all(|fault: &PlannedFault| fault.kind != *kind));
                random.shuffle(&mut bag);
            }
            let Some(kind) = bag.pop() else { break };
            let (least, most) = kind.lasts(backend);
            let lasts = between(&mut random, least, most);
            let pause = pause(&mut random, backend, time);
            let victim = random.usize(..workers);
            // For a shorter one there may be time all the same.
            let Some(rest) = left.checked_sub(pause + lasts) else { continue };
            (left, fitted) = (rest, true);
            faults.push(PlannedFault { pause, kind, victim, lasts });
        }
        Ok(Plan { faults })
    }

    /// The kinds that come in it.
    pub(crate) fn kinds(&self) -> Vec<FaultKind> {
        let mut kinds: Vec<_> = self.faults.iter().map(|fault| fault.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

fn kinds(backend: &Backend, wanted: &[FaultKind]) -> Result<Vec<FaultKind>> {
    let fitting: Vec<_> = CARDS.iter().map(|card| card.kind).filter(|kind| kind.fits(backend)).collect();
    if let Some(unfit) = wanted.iter().find(|kind| !fitting.contains(kind)) {
        let names: Vec<_> = fitting.iter().map(|kind| kind.name()).collect();
        bail!("`{}` can't be done to {}; there are: {}", unfit.name(), backend.name, names.join(", "));
    }
    Ok(if wanted.is_empty() { fitting } else { wanted.to_vec() })
}

/// In a long run every third pause is long enough that what is lost in it has no fault as its reason.
fn pause(random: &mut fastrand::Rng, backend: &Backend, time: Duration) -> Duration {
    let whole = backend.recovery();
    if time > whole * 6 && random.u8(..3) == 0 {
        return whole + between(random, Duration::from_secs(1), Duration::from_secs(3));
    }
    between(random, Duration::from_millis(200), Duration::from_millis(1200))
}

fn between(random: &mut fastrand::Rng, least: Duration, most: Duration) -> Duration {
    least + most.saturating_sub(least).mul_f64(random.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_faults() {
        let backend = Backend::named("redis").unwrap();
        let draw = |seed| Plan::draw(seed, backend, &[], Duration::from_mins(2), 4).unwrap();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).kinds().len() > 10, "{:?}", draw(7).kinds());
    }

    #[test]
    fn a_fault_that_does_not_fit_is_an_error_that_lists_those_that_do() {
        let backend = Backend::named("file").unwrap();
        let error = Plan::draw(1, backend, &[FaultKind::ServerKill], Duration::from_secs(9), 4).unwrap_err();
        assert!(error.to_string().contains("client-kill, client-pause"), "{error}");
    }
}
