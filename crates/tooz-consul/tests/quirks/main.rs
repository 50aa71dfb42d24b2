//! What only Consul can show, on servers of its own: lost and late replies, costs by Consul's own counters, agents and nodes, tokens, backups.

mod access;
mod agents;
#[path = "../ask/mod.rs"]
mod ask;
mod backups;
mod cut;
mod force;
mod groups;
mod liar;
mod lies;
mod limits;
mod nodes;
mod replies;
mod setbacks;
mod stage;
mod waits;

use std::process::ExitCode;

use libtest_mimic::Failed;
use tooz_conformance::own::Own;
use tooz_testbed::{Kind, for_tests};

// The registry finds a driver only in a program that names its crate.
use tooz_consul as _;

/// One quirk: a sentence that must be true.
type Quirk = (&'static str, fn() -> anyhow::Result<()>);

/// They take the whole of a small machine.
const CROWDS: &[&str] =
    &["limits::a_thousand_locks_have_one_heartbeat", "setbacks::one_in_a_crowd_of_acquires_is_noticed"];

fn main() -> ExitCode {
    let own = Own::new(for_tests(Kind::Consul).why_none_to_break(Kind::Consul), CROWDS);
    let quirks = [
        access::QUIRKS,
        agents::QUIRKS,
        backups::QUIRKS,
        cut::QUIRKS,
        force::QUIRKS,
        groups::QUIRKS,
        lies::QUIRKS,
        limits::QUIRKS,
        nodes::QUIRKS,
        replies::QUIRKS,
        setbacks::QUIRKS,
        waits::QUIRKS,
    ];
    let trials = quirks
        .into_iter()
        .flatten()
        .map(|&(name, quirk)| own.trial(name, move || quirk().map_err(|why| Failed::from(format!("{why:#}")))));
    own.main(trials.collect())
}
