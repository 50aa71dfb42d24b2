//! What only etcd can show, on servers of its own: lost replies, costs by etcd's own metrics, endpoints, users, clusters, backups.

mod access;
mod alarms;
mod cost;
mod crowd;
mod endpoints;
mod force;
mod foreign;
mod layout;
mod quorum;
mod replies;
mod rotation;
mod set_back;
mod stage;
mod watches;

use std::process::ExitCode;

use libtest_mimic::Failed;
use tooz_conformance::own::Own;
use tooz_testbed::{Kind, for_tests};

// The registry finds a driver only in a program that names its crate.
use tooz_etcd as _;

/// One quirk: a sentence that must be true.
type Quirk = (&'static str, fn() -> anyhow::Result<()>);

/// They take the whole of a small machine.
const CROWDS: &[&str] = &[
    "cost::a_thousand_locks_have_one_heartbeat",
    "crowd::thousands_of_acquires_at_once_starve_no_heartbeat_and_no_release",
    "crowd::a_large_roster_is_read_in_pages",
    "crowd::locks_and_waiters_are_listed_in_pages",
    "crowd::a_queue_that_is_too_long_is_refused_to_writers",
    "crowd::a_long_queue_is_not_sorted_for_each_look",
];

fn main() -> ExitCode {
    let own = Own::new(for_tests(Kind::Etcd).why_none_to_break(Kind::Etcd), CROWDS);
    let quirks = [
        access::QUIRKS,
        alarms::QUIRKS,
        cost::QUIRKS,
        crowd::QUIRKS,
        endpoints::QUIRKS,
        force::QUIRKS,
        foreign::QUIRKS,
        layout::QUIRKS,
        quorum::QUIRKS,
        replies::QUIRKS,
        rotation::QUIRKS,
        set_back::QUIRKS,
        watches::QUIRKS,
    ];
    let trials = quirks
        .into_iter()
        .flatten()
        .map(|&(name, quirk)| own.trial(name, move || quirk().map_err(|why| Failed::from(format!("{why:#}")))));
    own.main(trials.collect())
}
