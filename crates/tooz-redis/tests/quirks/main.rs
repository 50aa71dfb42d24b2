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
use tooz_testbed::{Kind, Provided, for_tests};

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
