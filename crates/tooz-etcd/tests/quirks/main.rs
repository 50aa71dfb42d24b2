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

use libtest_mimic::{Arguments, Failed, Trial};
use tooz_conformance::turn::{self, Beside};
use tooz_testbed::{Kind, Provided, for_tests};

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
    let missing = match for_tests(Kind::Etcd) {
        Provided::MayStart => None,
        Provided::Own(_) => Some("breaks servers, which the testbed starts: cargo xtask itest etcd".to_owned()),
        Provided::Missing(reason) => Some(reason),
    };
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
    let trials = quirks.into_iter().flatten().map(|&(name, quirk)| match &missing {
        Some(reason) => Trial::test(name, || Ok(())).with_kind(reason.clone()).with_ignored_flag(true),
        None => Trial::test(name, move || {
            let _turn = turn::take(name, Beside::of(name, CROWDS));
            quirk().map_err(|why| Failed::from(format!("{why:#}")))
        }),
    });
    libtest_mimic::run(&Arguments::from_args(), turn::in_order(trials.collect(), CROWDS)).exit_code()
}
