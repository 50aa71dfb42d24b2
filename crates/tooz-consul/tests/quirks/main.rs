//! What only Consul can show, on servers of its own: lost and late replies, costs by Consul's own counters, agents and nodes, tokens, backups.

mod access;
mod agents;
#[path = "../ask/mod.rs"]
mod ask;
mod backups;
mod force;
mod groups;
mod liar;
mod lies;
mod limits;
mod nodes;
mod replies;
mod stage;
mod waits;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use tooz_conformance::turn::{self, Beside};
use tooz_testbed::{Kind, Provided, for_tests};

// The registry finds a driver only in a program that names its crate.
use tooz_consul as _;

/// One quirk: a sentence that must be true.
type Quirk = (&'static str, fn() -> anyhow::Result<()>);

/// They take the whole of a small machine.
const CROWDS: &[&str] = &["limits::a_thousand_locks_have_one_heartbeat"];

fn main() -> ExitCode {
    let missing = match for_tests(Kind::Consul) {
        Provided::MayStart => None,
        Provided::Own(_) => Some("breaks servers, which the testbed starts: cargo xtask itest consul".to_owned()),
        Provided::Missing(reason) => Some(reason),
    };
    let quirks = [
        access::QUIRKS,
        agents::QUIRKS,
        backups::QUIRKS,
        force::QUIRKS,
        groups::QUIRKS,
        lies::QUIRKS,
        limits::QUIRKS,
        nodes::QUIRKS,
        replies::QUIRKS,
        waits::QUIRKS,
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
