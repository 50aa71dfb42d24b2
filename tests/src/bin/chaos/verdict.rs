//! What is to be said of a run.

use std::collections::BTreeMap;

use serde::Serialize;
use tooz_conformance::checker::{Law, Terms, Violation, judge};
use tooz_conformance::history::{History, Response};

use crate::backend::Backend;
use crate::concessions::given_up;
use crate::plan::Plan;

/// How a run went.
#[derive(Debug, Serialize)]
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
    pub(crate) counts: BTreeMap<&'static str, usize>,
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.violations.is_empty() && self.stuck.is_empty() && self.left.is_empty()
    }

    pub(crate) fn of(backend: &Backend, seed: u64, plan: &Plan, history: &History, window: (u64, u64)) -> Verdict {
        let given_up = given_up(backend, &plan.kinds());
        let demanded = Law::ALL.iter().copied().filter(|law| !given_up.contains(law)).collect();
        let all = terms(backend, &given_up);
        let violations = judge(history, &all);
        let conceded = Law::ALL
            .iter()
            .filter(|law| !given_up.contains(law))
            .fold(terms(backend, &[]), |terms, law| terms.give_up(*law));
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

fn counts(history: &History) -> BTreeMap<&'static str, usize> {
    let granted = |one: &&tooz_conformance::history::Attempt| matches!(one.answer, Response::Granted(_));
    let unknown = |one: &&tooz_conformance::history::Attempt| matches!(one.answer, Response::Unknown { .. });
    let lost = |one: &&tooz_conformance::history::Attempt| matches!(&one.answer, Response::Granted(grant) if grant.lost.is_some());
    BTreeMap::from([
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
        ("faults", history.faults.len()),
    ])
}
