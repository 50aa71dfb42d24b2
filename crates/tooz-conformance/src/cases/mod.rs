//! The list of cases, and what each needs of a driver. A case is a sentence that must be true.

pub(crate) mod election;
pub(crate) mod groups;
pub(crate) mod histories;
pub(crate) mod in_use;
pub(crate) mod lifecycle;
pub(crate) mod liveness;
pub(crate) mod locks;
pub(crate) mod modes;
pub(crate) mod names;
pub(crate) mod partition;
pub(crate) mod watches;

use std::pin::Pin;

use tooz_core::Characteristic;

use crate::process;
use crate::rig::Rig;
use crate::stage::{CaseResult, Stage};

/// One case.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// `module::sentence`.
    pub(crate) name: &'static str,
    /// What a driver or its rig must have for it.
    pub(crate) needs: &'static [Requirement],
    /// The case itself.
    pub(crate) run: fn(Stage) -> Pin<Box<dyn Future<Output = CaseResult>>>,
}

/// What a case needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Requirement {
    /// The card has it.
    Has(Characteristic),
    /// The card does not have it: the case shows what happens without.
    Lacks(Characteristic),
    /// Sessions end by a timeout: `NonTimeoutBased` is not declared.
    HasTimeout,
    /// Another process reaches the store.
    Processes,
    /// The test binary can be started again as a worker.
    Workers,
    /// The system has SIGSTOP.
    Signals,
    /// The rig can end a session.
    EndSession,
    /// The rig can cut a member off, and heal that.
    Cut,
    /// The rig can restart the server.
    Restart,
    /// The backend knows the names of the locks that are in use.
    ListsLocks,
    /// It does not.
    HidesLocks,
    /// The backend knows the waiters for a lock.
    ListsWaiters,
    /// It does not.
    HidesWaiters,
    /// The rig can move the clock.
    AdvanceClock,
    /// Nothing beside it: it takes the whole of a small machine, on which other cases would be late.
    Quiet,
}

impl Case {
    /// Whether it runs alone.
    pub(crate) fn needs_quiet(&self) -> bool {
        self.needs.iter().any(|need| matches!(need, Requirement::Quiet))
    }

    /// Why this case does not apply, if it does not.
    pub(crate) fn unclaimed(&self, rig: &Rig) -> Option<String> {
        self.needs.iter().find_map(|need| need.missing(rig))
    }
}

impl Requirement {
    fn missing(self, rig: &Rig) -> Option<String> {
        let has = rig.characteristics();
        let (met, why) = match self {
            Requirement::Has(one) => (has.has(one), format!("the driver does not declare {one}")),
            Requirement::Lacks(one) => (!has.has(one), format!("the driver declares {one}")),
            Requirement::HasTimeout => (
                !has.has(Characteristic::NonTimeoutBased),
                "the driver's sessions end with the process, not by a timeout".to_owned(),
            ),
            Requirement::Processes => {
                (rig.across_processes && process::AVAILABLE, "the rig's URL is of one process".to_owned())
            }
            Requirement::Workers => (process::AVAILABLE, "this system can't start the test again".to_owned()),
            Requirement::Signals => (cfg!(unix), "this system has no SIGSTOP".to_owned()),
            Requirement::EndSession => (rig.end_session.is_some(), "the rig can't end a session".to_owned()),
            Requirement::Cut => (rig.cut.is_some() && rig.heal.is_some(), "the rig can't cut a member off".to_owned()),
            Requirement::Restart => (rig.restart.is_some(), "the rig can't restart a server".to_owned()),
            Requirement::ListsLocks => (!rig.hides_locks, "the rig says that the names of locks are hidden".to_owned()),
            Requirement::HidesLocks => {
                (rig.hides_locks, "the rig does not say that the names of locks are hidden".to_owned())
            }
            Requirement::ListsWaiters => (!rig.hides_waiters, "the rig says that waiters are hidden".to_owned()),
            Requirement::HidesWaiters => (rig.hides_waiters, "the rig does not say that waiters are hidden".to_owned()),
            Requirement::Quiet => (true, String::new()),
            Requirement::AdvanceClock => (rig.advance_clock.is_some(), "the rig can't move a clock".to_owned()),
        };
        (!met).then_some(why)
    }
}

/// All cases, in the order of the product's own description.
pub(crate) fn all() -> impl Iterator<Item = Case> {
    [
        lifecycle::CASES,
        names::CASES,
        locks::CASES,
        modes::CASES,
        in_use::CASES,
        groups::CASES,
        watches::CASES,
        liveness::CASES,
        election::CASES,
        partition::CASES,
        histories::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// Makes a module's list: the name of each function is the name of its case.
macro_rules! cases {
    ($module:literal; $($name:ident [$($need:expr),*];)*) => {
        pub(crate) const CASES: &[$crate::cases::Case] = &[$(
            $crate::cases::Case {
                name: concat!($module, "::", stringify!($name)),
                needs: &[$($need),*],
                run: |stage| Box::pin($name(stage)),
            },
        )*];
    };
}
pub(crate) use cases;
