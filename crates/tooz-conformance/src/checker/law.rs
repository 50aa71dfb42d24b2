//! What must be true, by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One thing that must be true of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Law {
    /// L1: tokens and epochs are unique and grow.
    Fencing,
    /// L2: no two believe at once to hold, or to lead.
    Belief,
    /// L4: all answers have an order in which a lock, or an election, behaves like one.
    Order,
    /// Who is shown as a holder or a leader could be it, and none that was it for sure is left out.
    Holders,
    /// What is lost was broken by a worker, or something was broken meanwhile.
    Losses,
    /// Only members lead; a watch tells each vacancy, and epochs that grow.
    Leaders,
    /// A member is listed from the answer of its join to its end, with its latest word, and none else is.
    Members,
    /// A watch tells what was so, in order, nothing twice, and without a gap.
    Watches,
    /// All who see the same members agree on owners, and no key moves between two that stayed.
    Partitions,
    /// What is listed as in use or as waiting is so, and a group with members is neither made again nor deleted.
    Lists,
}

impl Law {
    /// All of them.
    pub const ALL: &[Law] = &[
        Law::Fencing,
        Law::Belief,
        Law::Order,
        Law::Holders,
        Law::Losses,
        Law::Leaders,
        Law::Members,
        Law::Watches,
        Law::Partitions,
        Law::Lists,
    ];

    /// Its name in a report.
    pub const fn name(self) -> &'static str {
        match self {
            Law::Fencing => "fencing",
            Law::Belief => "belief",
            Law::Order => "order",
            Law::Holders => "holders",
            Law::Losses => "losses",
            Law::Leaders => "leaders",
            Law::Members => "members",
            Law::Watches => "watches",
            Law::Partitions => "partitions",
            Law::Lists => "lists",
        }
    }

    /// What it says, in a sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Law::Fencing => {
                "Tokens and epochs are unique, and grow from a grant to each later one that conflicts with it."
            }
            Law::Belief => "No two believe at once to hold a lock in conflicting modes, or to lead.",
            Law::Order => "All answers have an order in which each lock and each election behaves like one.",
            Law::Holders => "Each holder and leader that is shown could be it, and none that surely was is left out.",
            Law::Losses => "Nothing is lost unless a worker broke it or something was broken at the time.",
            Law::Leaders => "Only members lead; a watch tells each vacancy between two leaders.",
            Law::Members => "A member is listed from its join to its end with its latest word, and none else is.",
            Law::Watches => "A watch tells what was so, in order, nothing twice, and without a gap.",
            Law::Partitions => "Those who see the same members agree on owners; no key moves between two that stayed.",
            Law::Lists => {
                "Locks that are listed are in use, none waits unasked, and a group with a member is not made again or deleted."
            }
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Law {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Law::ALL.iter().copied().find(|law| law.name() == name);
        let names = || Law::ALL.iter().map(|law| law.name()).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| format!("there is no law `{name}`; there are: {}", names()))
    }
}
