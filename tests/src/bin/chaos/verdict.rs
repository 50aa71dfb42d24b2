//! What is to be said of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tooz_conformance::checker::{Law, Terms, Violation, judge};
use tooz_conformance::history::{History, Response};

use crate::backend::Backend;

/// How a run went.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) backend: String,
    pub(crate) seed: u64,
    /// From the first moment of the run to its last.
    pub(crate) window: (u64, u64),
    /// The laws that were demanded, and those that the backend gives up under these faults.
    pub(crate) demanded: Vec<Law>,
    pub(crate) given_up: Vec<Law>,
    pub(crate) violations: Vec<Violation>,
    /// What was broken of the laws that were given up: it is shown, and convicts none.
    pub(crate) conceded: Vec<Violation>,
    /// Workers that got nothing after the last fault, or did not end; and what was left at the backend.
    pub(crate) stuck: Vec<String>,
    pub(crate) left: Vec<String>,
    pub(crate) counts: BTreeMap<String, usize>,
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.violations.is_empty() && self.stuck.is_empty() && self.left.is_empty()
    }

    pub(crate) fn of(
        backend: &Backend,
        seed: u64,
        given_up: Vec<Law>,
        history: &History,
        window: (u64, u64),
    ) -> Verdict {
        let demanded = Law::ALL.iter().copied().filter(|law| !given_up.contains(law)).collect();
        let all = terms(backend, &given_up);
        let violations = judge(history, &all);
        let others = Law::ALL.iter().filter(|law| !given_up.contains(law)).copied();
        let conceded = terms(backend, &others.collect::<Vec<_>>());
        Verdict {
            backend: backend.name.to_owned(),
            seed,
            window,
            demanded,
            violations,
            conceded: if given_up.is_empty() { Vec::new() } else { judge(history, &conceded) },
            given_up,
            stuck: Vec::new(),
            left: Vec::new(),
            counts: counts(history),
            errors: BTreeMap::new(),
        }
    }
}

fn terms(backend: &Backend, given_up: &[Law]) -> Terms {
    let terms = Terms::strict()
        .withdrawal(backend.recovery())
        .lateness(backend.session_timeout + std::time::Duration::from_secs(2))
        .recovery(backend.recovery());
    let terms = if backend.reads_may_be_old { terms.reads_may_be_old() } else { terms };
    given_up.iter().fold(terms, |terms, law| terms.give_up(*law))
}

fn counts(history: &History) -> BTreeMap<String, usize> {
    let granted = |one: &&tooz_conformance::history::Attempt| matches!(one.answer, Response::Granted(_));
    let unknown = |one: &&tooz_conformance::history::Attempt| matches!(one.answer, Response::Unknown { .. });
    let lost = |one: &&tooz_conformance::history::Attempt| matches!(&one.answer, Response::Granted(grant) if grant.lost.is_some());
    let counts = [
        ("attempts at locks", history.attempts.len()),
        ("grants", history.attempts.iter().filter(granted).count()),
        ("unknown", history.attempts.iter().filter(unknown).count()),
        ("losses", history.attempts.iter().filter(lost).count()),
        ("holders broken", history.breaks.len()),
        ("campaigns", history.campaigns.len()),
        ("leaderships", history.campaigns.iter().filter(granted).count()),
        ("changes of members", history.stays.iter().map(|stay| stay.changes.len()).sum()),
        ("readings of members", history.readings.len()),
        ("looks at holders", history.sightings.len() + history.leaders.len()),
        ("events of watches", history.watches.iter().map(|watching| watching.told.len()).sum()),
        ("events of leaders", history.leader_watches.iter().map(|watching| watching.told.len()).sum()),
        ("shares", history.shares.len()),
        ("lists of locks and waiters", history.listings.len() + history.queues.len()),
        ("temptations of members", history.temptations.len()),
        ("faults", history.faults.len()),
    ];
    counts.into_iter().map(|(what, count)| (what.to_owned(), count)).collect()
}
