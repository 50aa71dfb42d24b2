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

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};
use tooz_conformance::turn::{self, Beside};
use tooz_testbed::{Kind, Provided, for_tests};

fn main() -> ExitCode {
    let why_not = match for_tests(Kind::Memcached) {
        Provided::MayStart => None,
        // A server that is in use is not stopped, filled or flushed.
        Provided::Own(_) => {
            Some("needs servers of its own: cargo xtask itest memcached without TOOZ_MEMCACHED_URL".to_owned())
        }
        Provided::Missing(reason) => Some(reason),
    };
    let trials = [
        between::TRIALS,
        clock::TRIALS,
        config::TRIALS,
        full::TRIALS,
        groups::TRIALS,
        line::TRIALS,
        records::TRIALS,
        servers::TRIALS,
    ]
    .concat();
    let trials = trials.into_iter().map(|(name, run)| match &why_not {
        None => Trial::test(name, move || {
            let _turn = turn::take(name, Beside::Others);
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
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
