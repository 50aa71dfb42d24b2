//! What is memcached's own: its clock, its versions of values, what it forgets, and what it does when it is full. Each trial has a server of its own.

mod bed;
mod between;
mod clock;
mod config;
mod full;
mod groups;
mod line;
mod records;
mod servers;
mod several;

use std::process::ExitCode;

use tooz_conformance::own::Own;
use tooz_testbed::{Kind, for_tests};

fn main() -> ExitCode {
    let own = Own::new(for_tests(Kind::Memcached).why_none_to_break(Kind::Memcached), &[]);
    let trials = [
        between::TRIALS,
        clock::TRIALS,
        config::TRIALS,
        full::TRIALS,
        groups::TRIALS,
        line::TRIALS,
        records::TRIALS,
        servers::TRIALS,
        several::TRIALS,
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
