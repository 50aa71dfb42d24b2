//! A conviction: which law was broken, when, and by what.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::checker::attempt_line::told;
use crate::checker::law::Law;
use crate::history::{Attempt, History};

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    law: Law,
    what: String,
    from: u64,
    to: u64,
    witness: Box<History>,
}

impl Violation {
    /// What was found between these two moments.
    pub(crate) fn new(law: Law, what: impl Into<String>, (from, to): (u64, u64)) -> Self {
        Violation { law, what: what.into(), from, to, witness: Box::default() }
    }

    /// Two attempts that do not go together.
    pub(crate) fn of_two(law: Law, what: &str, one: &Attempt, other: &Attempt) -> Self {
        let window = (one.asked.min(other.asked), end_of(one).max(end_of(other)));
        let start = window.0;
        let what = format!("{what}:\n  {}\n  {}", told(one, start), told(other, start));
        Violation::new(law, what, window)
    }

    pub(crate) fn with(mut self, witness: History) -> Self {
        *self.witness = witness;
        self
    }

    /// The law that was broken.
    pub const fn law(&self) -> Law {
        self.law
    }

    /// Between which two moments.
    pub const fn window(&self) -> (u64, u64) {
        (self.from, self.to)
    }

    /// A small part of the history that is convicted for the same.
    pub fn witness(&self) -> &History {
        &self.witness
    }
}

/// The last moment that is known of an attempt.
fn end_of(attempt: &Attempt) -> u64 {
    use crate::history::Response::{Granted, NotHad, Unknown};
    match &attempt.answer {
        Granted(grant) => grant.released.or(grant.believed_until).unwrap_or(grant.at),
        NotHad { at, .. } => *at,
        Unknown { .. } => attempt.asked,
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)
    }
}

impl std::error::Error for Violation {}
