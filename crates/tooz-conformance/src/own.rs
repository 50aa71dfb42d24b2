//! The trials that a driver has of its own beside the suite: what is its backend's alone, on servers that it may break.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::turn::{self, Beside};

/// The test program of a driver's own trials.
///
/// ```no_run
/// use std::process::ExitCode;
/// use tooz_conformance::own::Own;
///
/// fn main() -> ExitCode {
///     let own = Own::new(None, &["a_thousand_chalks"]);
///     own.main(vec![own.trial("a_thousand_chalks", || Ok(())), own.trial("a_broken_chalk", || Ok(()))])
/// }
/// ```
pub struct Own {
    missing: Option<String>,
    crowds: &'static [&'static str],
}

impl Own {
    /// `missing` says why none of them can run here: then all are listed as ignored, of that kind. `crowds` names the trials that run alone, behind the
    /// others.
    pub fn new(missing: Option<String>, crowds: &'static [&'static str]) -> Self {
        Own { missing, crowds }
    }

    /// A trial of that name, which takes its turn before it begins.
    pub fn trial(&self, name: &str, run: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
        if let Some(reason) = self.missing.clone() {
            let kind = reason.clone();
            let ignored = Trial::ignorable_test(name, move || Ok(Completion::ignored_with(reason)));
            return ignored.with_kind(kind).with_ignored_flag(true);
        }
        let (its_name, beside) = (name.to_owned(), Beside::of(name, self.crowds));
        Trial::test(name, move || {
            let _turn = turn::take(&its_name, beside);
            run()
        })
    }

    /// Runs them, as the command line says.
    ///
    /// # Panics
    /// When one of those that run alone is not among them.
    pub fn main(&self, trials: Vec<Trial>) -> ExitCode {
        libtest_mimic::run(&Arguments::from_args(), turn::in_order(trials, self.crowds)).exit_code()
    }
}
