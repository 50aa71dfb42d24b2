#![doc = include_str!("../README.md")]

mod cases;
pub mod checker;
pub mod history;
pub mod mutant;
pub mod own;
mod perform;
mod process;
mod rig;
mod stage;
pub mod turn;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use cases::Case;
pub use process::serve_worker;
pub use rig::Rig;

/// Makes the `main` of a test with `harness = false`: every case is a trial of its own.
///
/// ```no_run
/// # use tooz_conformance::Rig;
/// tooz_conformance::suite!(Rig::new("chalk", |tag| format!("chalk://{tag}")));
/// ```
///
/// What the driver does not claim is listed as ignored, of kind `not claimed: …`; nothing is silently absent.
#[macro_export]
macro_rules! suite {
    ($rig:expr) => {
        fn main() -> ::std::process::ExitCode {
            $crate::main(|| $rig)
        }
    };
}

/// What [`suite!`] expands to. The rig is not made in the processes that the suite starts of itself.
#[doc(hidden)]
pub fn main(rig: impl FnOnce() -> Rig) -> ExitCode {
    serve_worker();
    let arguments = Arguments::from_args();
    let rig = rig();
    let trials: Vec<_> = cases::all()
        .map(|case| {
            if let Some(reason) = case.unclaimed(&rig) {
                let kind = format!("not claimed: {reason}");
                return Trial::ignorable_test(case.name, move || Ok(Completion::ignored_with(reason)))
                    .with_kind(kind)
                    .with_ignored_flag(true);
            }
            let rig = rig.clone();
            Trial::ignorable_test(case.name, move || match perform::in_turn(&rig, case) {
                perform::CaseEnd::Passed => Ok(Completion::Completed),
                perform::CaseEnd::NotClaimed(reason) => Ok(Completion::ignored_with(reason)),
                perform::CaseEnd::Failed(why) => Err(Failed::from(why)),
            })
        })
        .collect();
    let quiet: Vec<_> = cases::all().filter(Case::needs_quiet).map(|case| case.name).collect();
    libtest_mimic::run(&arguments, turn::in_order(trials, &quiet)).exit_code()
}

/// Lists every case as ignored for that reason, in place of a suite that has no server to run on.
pub fn ignore_all(reason: &str) -> ExitCode {
    let ignored = |name| {
        let answer = reason.to_owned();
        Trial::ignorable_test(name, move || Ok(Completion::ignored_with(answer)))
            .with_kind(reason)
            .with_ignored_flag(true)
    };
    libtest_mimic::run(&Arguments::from_args(), case_names().into_iter().map(ignored).collect()).exit_code()
}

/// The names of all cases, `module::sentence`.
pub fn case_names() -> Vec<&'static str> {
    cases::all().map(|case| case.name).collect()
}

/// Runs one case by its name, outside of a suite: this is how a test shows that a mutant is caught.
///
/// The error says what went wrong, or that there is no such case, or that the driver does not claim what it needs.
/// Cases with processes need [`serve_worker`] at the beginning of `main`. Do not call this from inside a tokio runtime.
pub fn run_case(rig: &Rig, name: &str) -> Result<(), String> {
    let case = cases::all()
        .find(|case| case.name == name)
        .ok_or_else(|| format!("there is no case {name:?}; see case_names()"))?;
    if let Some(reason) = case.unclaimed(rig) {
        return Err(format!("not claimed: {reason}"));
    }
    match perform::perform(rig, case) {
        perform::CaseEnd::Passed => Ok(()),
        perform::CaseEnd::NotClaimed(reason) => Err(format!("not claimed: {reason}")),
        perform::CaseEnd::Failed(why) => Err(why),
    }
}
