//! What a backend promises, and what it may take its time for.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::checker::law::Law;

/// By what a history is judged.
#[derive(Clone, Debug)]
pub struct Terms {
    given_up: BTreeSet<Law>,
    pub(crate) withdrawal: u64,
    pub(crate) lateness: u64,
    pub(crate) recovery: u64,
    pub(crate) linearizable: bool,
}

impl Terms {
    /// All laws, for a run in which nothing was broken: a wait whose time is over withdraws within a second, and nothing is
    /// late by more than that.
    pub fn strict() -> Self {
        let second = nanos(Duration::from_secs(1));
        Terms { given_up: BTreeSet::new(), withdrawal: second, lateness: second, recovery: 0, linearizable: true }
    }

    /// Does not demand that law.
    pub fn give_up(mut self, law: Law) -> Self {
        self.given_up.insert(law);
        self
    }

    /// How long after its answer a wait that was in vain may still be under way: until the backend has heard that it is not
    /// wanted any more.
    pub fn withdrawal(mut self, time: Duration) -> Self {
        self.withdrawal = nanos(time);
        self
    }

    /// How late a watch may tell something while nothing is broken, the death of a member included.
    pub fn lateness(mut self, time: Duration) -> Self {
        self.lateness = nanos(time);
        self
    }

    /// For how long after a fault was mended losses and late news may still be because of it.
    pub fn recovery(mut self, time: Duration) -> Self {
        self.recovery = nanos(time);
        self
    }

    /// What is read may be old, as long as no reader goes back: the backend has followers that answer.
    pub fn reads_may_be_old(mut self) -> Self {
        self.linearizable = false;
        self
    }

    /// Whether that law is demanded.
    pub fn demands(&self, law: Law) -> bool {
        !self.given_up.contains(&law)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
