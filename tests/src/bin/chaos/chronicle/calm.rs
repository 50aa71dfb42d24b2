//! Until when what is not known stays so: what is broken then counts too.

use std::time::Duration;

use tooz_conformance::history::Fault;

/// How long what is not known stays so.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// How long after the end of a process the backend may keep its session.
    pub(crate) inherited: Duration,
    /// How long after an error, or after the fault that was its reason, a request may still be under way.
    pub(crate) settled: Duration,
}

/// The end of the faults that go on at that time, and of those that begin soon after it; that time where there are none.
pub(crate) fn calm_after(faults: &[Fault], at: u64) -> u64 {
    const SOON: u64 = 5_000_000_000;
    let going_on = |fault: &&Fault| fault.from <= at.saturating_add(SOON) && fault.to >= at;
    faults.iter().filter(going_on).map(|fault| fault.to).max().unwrap_or(at)
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
