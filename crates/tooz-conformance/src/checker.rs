//! The judge of histories: what must be true of everything that workers did and were told, whatever was broken meanwhile.
//!
//! - **L1, fencing**: tokens of a lock are unique, and a grant that was answered before a conflicting one was asked for has
//!   the smaller token.
//! - **L2, belief**: the spans in which holders believed that they held never overlap for conflicting modes.
//! - **L4, order**: there is an order of all operations, each somewhere between its call and its return, in
//!   which the lock behaves like a lock.
//!
//! An election is a lock of which the three are true as well; [`Law`] names what else there is. L3, the guarded resource, is no matter of
//! a history alone: the suite plays it with a [`FenceGate`](tooz_core::FenceGate).
//!
//! A conviction has a witness: a part of the history, as small as could be found, that is still convicted for the same.

mod attempt_line;
mod belief;
mod elections;
mod fencing;
mod groups;
mod holders;
mod law;
mod lists;
mod losses;
mod order;
mod partitions;
mod progress;
mod search;
#[cfg(test)]
mod simulation;
mod terms;
#[cfg(test)]
mod tests;
mod timeline;
mod violation;
mod watches;
mod witness;

use crate::history::{Attempt, History};

pub use law::Law;
pub use progress::progress;
pub use terms::Terms;
pub use violation::Violation;

/// Judges a history of locks by L1, L2 and L4.
pub fn check(attempts: &[Attempt]) -> Result<(), Violation> {
    fencing(attempts)?;
    belief(attempts)?;
    linearizability(attempts)
}

/// L1: tokens are unique, and grow from a grant to every later one that conflicts with it.
pub fn fencing(attempts: &[Attempt]) -> Result<(), Violation> {
    fencing::judge(attempts)
}

/// L2: no two workers believe at once to hold it in conflicting modes.
pub fn belief(attempts: &[Attempt]) -> Result<(), Violation> {
    belief::judge(attempts, &[])
}

/// L4: each lock's history has a legal order.
pub fn linearizability(attempts: &[Attempt]) -> Result<(), Violation> {
    order::judge(attempts, &Terms::strict())
}

/// Judges a whole history by all laws that the terms demand, and answers one conviction for each law that was broken.
pub fn judge(history: &History, terms: &Terms) -> Vec<Violation> {
    let demanded = Law::ALL.iter().filter(|law| terms.demands(**law));
    demanded.filter_map(|law| judge_by(*law, history, terms).err()).collect()
}

/// Judges a history by one law. The witness of a conviction is cut down.
pub fn judge_by(law: Law, history: &History, terms: &Terms) -> Result<(), Violation> {
    examine(law, history, terms).map_err(|violation| witness::cut_down(violation, history, terms))
}

fn examine(law: Law, history: &History, terms: &Terms) -> Result<(), Violation> {
    match law {
        Law::Fencing => fencing::judge(&history.attempts).and_then(|()| fencing::judge(&history.campaigns)),
        Law::Belief => {
            belief::judge(&history.attempts, &history.breaks).and_then(|()| belief::judge(&history.campaigns, &[]))
        }
        Law::Order => order::judge(&history.attempts, terms).and_then(|()| order::judge(&history.campaigns, terms)),
        Law::Holders => holders::judge(history, terms),
        Law::Losses => losses::judge(history, terms),
        Law::Leaders => elections::judge(history, terms),
        Law::Members => groups::judge(history, terms),
        Law::Watches => watches::judge(history, terms),
        Law::Partitions => partitions::judge(&history.shares),
        Law::Lists => lists::judge(history, terms),
    }
}
