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
use tooz_testbed::{Kind, Provided, for_tests};

// The registry finds a driver only in a program that names its crate.
use tooz_etcd as _;

/// One quirk: a sentence that must be true.
type Quirk = (&'static str, fn() -> anyhow::Result<()>);

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
        None => Trial::test(name, move || quirk().map_err(|why| Failed::from(format!("{why:#}")))),
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
