//! Faults on real servers: killed, paused and cut-off servers, lost replies, killed and stopped holders, clusters.
//!
//! One list of cases, written once and run for every backend: trial `redis::holders::…` and `etcd::holders::…` are the same
//! case. Each case has a server or a cluster of its own, that it may break. Without one (no `TOOZ_TESTBED=1`, as
//! `cargo xtask itest <backend>` sets it) all are listed as ignored. `TOOZ_FAULTS_NOTES=1` shows on stderr how long what
//! was measured took.

mod backend;
mod backends;
mod churn;
mod connections;
mod consensus;
mod consul;
mod cut;
mod dead;
mod ensemble;
mod groups;
mod histories;
mod holders;
mod memcached;
mod mysql;
mod namesakes;
mod otherwise;
mod postgres;
#[path = "../../../crates/tooz-zookeeper/tests/raw/mod.rs"]
mod raw;
mod register;
mod replies;
mod sentinel;
mod servers;
mod stage;
mod tool;
mod turns;
mod worker;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};
use tooz_conformance::turn;
use tooz_testbed::{Kind, Provided, for_tests};

use crate::backend::{Backend, Otherwise, Sessions};
use crate::backends::BACKENDS;
use crate::stage::Case;

fn main() -> ExitCode {
    worker::serve();
    let arguments = Arguments::from_args();
    BACKENDS.iter().for_each(has_what_it_names);
    let trials = BACKENDS.iter().flat_map(|backend| cases(backend).map(move |case| trial(backend, case)));
    let alone = BACKENDS
        .iter()
        .flat_map(|backend| cases(backend).filter(|case| case.alone).map(|case| full_name(backend, case)));
    let alone: Vec<_> = alone.collect();
    let alone: Vec<_> = alone.iter().map(String::as_str).collect();
    libtest_mimic::run(&arguments, turn::in_order(trials.collect(), &alone)).exit_code()
}

/// The cases of all backends, those of its family, and then those of this one alone.
fn cases(backend: &Backend) -> impl Iterator<Item = Case> + use<> {
    let own: &[&[Case]] = match backend.kind {
        Kind::Redis => &[sentinel::CASES],
        Kind::Etcd | Kind::Consul => &[consensus::CASES],
        Kind::ZooKeeper => &[consensus::CASES, ensemble::CASES],
        Kind::Postgres => &[postgres::CASES],
        Kind::Memcached => &[memcached::CASES],
        Kind::MySql => &[mysql::CASES],
        _ => &[],
    };
    let shared = match backend.sessions {
        Sessions::Timed | Sessions::Doubled => &[],
        Sessions::Connections => connections::CASES,
    };
    [
        servers::CASES,
        cut::CASES,
        replies::CASES,
        holders::CASES,
        namesakes::CASES,
        groups::CASES,
        dead::CASES,
        churn::CASES,
        histories::CASES,
        turns::CASES,
        shared,
    ]
    .into_iter()
    .chain(own.iter().copied())
    .flatten()
    .copied()
}

/// What stands in place of a case must be there, and so must the case: no exception outlives its reason.
fn has_what_it_names(backend: &Backend) {
    let named = |otherwise: &Otherwise| [Some(otherwise.case), otherwise.instead];
    for name in backend.otherwise.iter().flat_map(named).flatten() {
        assert!(cases(backend).any(|case| case.name == name), "there is no case {name} for {}", backend.kind);
    }
}

fn full_name(backend: &Backend, case: Case) -> String {
    format!("{}::{}", backend.kind, case.name)
}

fn trial(backend: &'static Backend, case: Case) -> Trial {
    let name = full_name(backend, case);
    if let Some(otherwise) = backend.otherwise.iter().find(|otherwise| otherwise.case == case.name) {
        let instead = otherwise.instead.map(|case| format!("; instead {case}")).unwrap_or_default();
        let reason = format!("not claimed: {}{instead}", otherwise.why);
        return ignored(name, reason);
    }
    let why_not = match for_tests(backend.kind) {
        Provided::MayStart => None,
        Provided::Own(_) => Some(format!("{} names a server that is not ours to kill", backend.kind.env_var())),
        Provided::Missing(reason) => Some(reason),
    };
    match why_not {
        None => Trial::test(name.clone(), move || stage::perform(backend, case, &name)),
        Some(reason) => ignored(name, reason),
    }
}

/// Listed with its reason, in place of run.
fn ignored(name: String, reason: String) -> Trial {
    let kind = reason.clone();
    Trial::ignorable_test(name, move || Ok(Completion::ignored_with(reason))).with_kind(kind).with_ignored_flag(true)
}
