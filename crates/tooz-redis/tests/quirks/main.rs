//! What is Redis' own: its settings, its traffic, its Sentinels. Each trial has a server of its own.

mod bed;
mod faults;
mod foreign;
mod full;
mod layout;
mod locks;
mod login;
mod replicas;
mod scale;
mod sentinel;
mod server;
mod switch;
mod traffic;
mod wire;

use std::process::ExitCode;

use tooz_conformance::own::Own;
use tooz_testbed::{Kind, for_tests};

/// They take the whole of a small machine.
const CROWDS: &[&str] = &[
    "ten_thousand_readers_are_handed_over_a_few_at_a_time",
    "a_reader_costs_the_same_however_many_there_are",
    "a_dead_crowd_of_readers_blocks_no_request",
    "a_thousand_members_are_listed_in_short_scripts",
    "a_crowd_of_acquires_starves_no_heartbeat",
    "a_freed_lock_is_found_among_hundreds_of_waits",
    "a_crowd_of_releases_is_in_no_ones_way",
    "who_dies_with_many_locks_does_not_stop_the_server",
    "a_thousand_locks_have_one_heartbeat",
    "large_capabilities_take_nothing_from_those_that_read_them",
];

fn main() -> ExitCode {
    let own = Own::new(for_tests(Kind::Redis).why_none_to_break(Kind::Redis), CROWDS);
    let trials = [
        locks::TRIALS,
        faults::TRIALS,
        traffic::TRIALS,
        wire::TRIALS,
        server::TRIALS,
        full::TRIALS,
        foreign::TRIALS,
        login::TRIALS,
        layout::TRIALS,
        switch::TRIALS,
        scale::TRIALS,
        sentinel::TRIALS,
        replicas::TRIALS,
    ]
    .concat();
    let trials = trials.into_iter().map(|(name, run)| {
        own.trial(name, move || {
            run();
            Ok(())
        })
    });
    own.main(trials.collect())
}
