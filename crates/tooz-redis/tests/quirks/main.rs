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

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};
use tooz_conformance::turn::{self, Beside};
use tooz_testbed::{Kind, Provided, for_tests};

/// They take the whole of a small machine.
const CROWDS: &[&str] = &[
    "ten_thousand_readers_are_handed_over_a_few_at_a_time",
    "a_reader_costs_the_same_however_many_there_are",
    "a_dead_crowd_of_readers_is_in_nobodys_way",
    "a_thousand_members_are_listed_in_short_scripts",
    "a_crowd_of_acquires_starves_no_heartbeat",
    "a_freed_lock_is_found_among_hundreds_of_waits",
    "a_crowd_of_releases_is_in_no_ones_way",
    "who_dies_with_many_locks_does_not_stop_the_server",
    "a_thousand_locks_have_one_heartbeat",
    "large_capabilities_take_nothing_from_those_that_read_them",
];

fn main() -> ExitCode {
    let why_not = match for_tests(Kind::Redis) {
        Provided::MayStart => None,
        // A server that is in use is not broken, filled or flushed.
        Provided::Own(_) => Some("needs servers of its own: cargo xtask itest redis without TOOZ_REDIS_URL".to_owned()),
        Provided::Missing(reason) => Some(reason),
    };
    let trials = [
        locks::TRIALS,
        faults::TRIALS,
        traffic::TRIALS,
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
    let trials = trials.into_iter().map(|(name, run)| match &why_not {
        None => Trial::test(name, move || {
            let _turn = turn::take(name, Beside::of(name, CROWDS));
            run();
            Ok(())
        }),
        Some(reason) => {
            let why = reason.clone();
            Trial::ignorable_test(name, move || Ok(Completion::ignored_with(why)))
                .with_kind(reason.clone())
                .with_ignored_flag(true)
        }
    });
    libtest_mimic::run(&Arguments::from_args(), turn::in_order(trials.collect(), CROWDS)).exit_code()
}
