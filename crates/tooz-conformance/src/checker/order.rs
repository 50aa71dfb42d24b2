//! L4: there is an order of all operations, each somewhere between its call and its return, in which the lock behaves like one.

use std::collections::{BTreeMap, HashMap};

use crate::checker::attempt_line::told;
use crate::checker::law::Law;
use crate::checker::search::{Operation, OperationKind, Search, SearchEnd};
use crate::checker::terms::Terms;
use crate::checker::timeline::member_of;
use crate::checker::violation::Violation;
use crate::history::{Attempt, Grant, Response};

/// How long before the first wrong answer something is still worth telling, in nanoseconds.
const NEAR: u64 = 3_000_000;

pub(crate) fn judge(attempts: &[Attempt], terms: &Terms) -> Result<(), Violation> {
    let mut locks: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in attempts {
        locks.entry(&attempt.lock).or_default().push(attempt);
    }
    // Locks do not know of each other, so each may be judged alone (Herlihy and Wing's locality).
    locks.into_iter().try_for_each(|(lock, attempts)| judge_one(lock, &attempts, terms))
}

fn judge_one(lock: &str, attempts: &[&Attempt], terms: &Terms) -> Result<(), Violation> {
    let operations = operations(attempts, terms);
    let outcome = match Search::new(&operations).run() {
        // Refusals are what makes a search long: without them it is judged all the same who had the lock.
        SearchEnd::TooLong => Search::new(&without_refusals(&operations)).run(),
        found => found,
    };
    let SearchEnd::Stuck(moment) = outcome else { return Ok(()) };
    let what = first_wrong(attempts, &operations, moment);
    let count = operations.len();
    let what = format!("L4: the {count} operations on {lock} have no legal order{what}");
    Err(Violation::new(Law::Order, what, (moment.saturating_sub(NEAR), moment)))
}

fn without_refusals(operations: &[Operation]) -> Vec<Operation> {
    let is_no_refusal = |operation: &&Operation| !matches!(operation.kind, OperationKind::Refuse(..));
    operations.iter().filter(is_no_refusal).copied().collect()
}

pub(crate) fn grants(attempts: &[Attempt]) -> impl Iterator<Item = (&Attempt, &Grant)> {
    attempts.iter().filter_map(|attempt| match &attempt.answer {
        Response::Granted(grant) => Some((attempt, grant)),
        Response::NotHad { .. } | Response::Unknown { .. } => None,
    })
}

pub(crate) fn token_of(attempt: &Attempt) -> Option<u64> {
    match &attempt.answer {
        Response::Granted(grant) => Some(grant.token),
        Response::NotHad { .. } | Response::Unknown { .. } => None,
    }
}

/// What happened to the lock. An attempt whose outcome is not known may have had the lock or not: that explains a refusal and nothing
/// else, and refusals beside such an attempt are not judged, so that it need not be in the order.
fn operations(attempts: &[&Attempt], terms: &Terms) -> Vec<Operation> {
    let mut operations = Vec::new();
    let refusals = judged_refusals(attempts, terms);
    for (number, attempt) in attempts.iter().enumerate() {
        let mode = attempt.mode;
        match &attempt.answer {
            Response::Granted(grant) => {
                // The backend may have ended a grant that was lost at any time after it gave it, also while the answer was on its
                // way. The belief of its holder is L2's matter.
                let is_lost = grant.released.is_none();
                let take = OperationKind::Take { who: number, mode, is_lost };
                operations.push(Operation { kind: take, call: attempt.asked, reply: grant.at });
                if let Some(reply) = grant.released {
                    let call = grant.believed_until.unwrap_or(grant.at);
                    operations.push(Operation { kind: OperationKind::Give(number, mode), call, reply });
                }
            }
            Response::NotHad { at, .. } if refusals.contains(&number) => {
                let kind = OperationKind::Refuse(number, mode);
                operations.push(Operation { kind, call: attempt.asked, reply: *at });
            }
            Response::NotHad { .. } | Response::Unknown { .. } => {}
        }
    }
    operations
}

/// The refusals that need a holder as their reason. One that waited may have been the way's fault; and while another attempt is under way, it may have
/// been that one's turn.
fn judged_refusals(attempts: &[&Attempt], terms: &Terms) -> Vec<usize> {
    let mut by_call: Vec<usize> = (0..attempts.len()).collect();
    by_call.sort_by_key(|index| attempts[*index].asked);
    // For each attempt in that order: how long those before it, and itself, are under way at most.
    let mut longest = Vec::with_capacity(by_call.len());
    for index in &by_call {
        let until = under_way_until(attempts[*index], terms);
        longest.push(longest.last().copied().unwrap_or(0).max(until));
    }
    let mut judged = Vec::new();
    for (place, index) in by_call.iter().enumerate() {
        let Response::NotHad { at, waited: false } = attempts[*index].answer else { continue };
        let asked = attempts[*index].asked;
        let before = place.checked_sub(1).is_some_and(|before| longest[before] >= asked);
        let after = by_call.get(place + 1).is_some_and(|next| attempts[*next].asked <= at);
        if !before && !after {
            judged.push(*index);
        }
    }
    judged.sort_unstable();
    judged
}

pub(crate) fn under_way_until(attempt: &Attempt, terms: &Terms) -> u64 {
    match &attempt.answer {
        Response::Granted(grant) => grant.at,
        Response::NotHad { at, waited: false } => *at,
        Response::NotHad { at, waited: true } => at.saturating_add(terms.withdrawal),
        Response::Unknown { until } => until.unwrap_or(u64::MAX),
    }
}

/// Since when what an attempt was granted may have been held for its member: a grant that was asked for in vain before, by a wait whose time was over or
/// whose answer is not known, may pass to the next attempt of the same member. The attempts are those of one lock.
pub(crate) fn held_since<'a>(attempts: &[&'a Attempt], terms: &Terms) -> Vec<(&'a Attempt, u64)> {
    let mut by_call = attempts.to_vec();
    by_call.sort_by_key(|attempt| attempt.asked);
    // Of each member: since when it has been asking in vain, and until when that may go on.
    let mut in_vain: HashMap<&str, (u64, u64)> = HashMap::new();
    let mut since = Vec::with_capacity(by_call.len());
    for attempt in by_call {
        let asking = in_vain.entry(member_of(&attempt.worker)).or_insert((attempt.asked, 0));
        if asking.1 < attempt.asked {
            *asking = (attempt.asked, 0);
        }
        since.push((attempt, asking.0));
        if !matches!(attempt.answer, Response::Granted(_)) {
            asking.1 = asking.1.max(under_way_until(attempt, terms));
        }
    }
    since
}

/// Whose answer no order explains, and the attempts that were near it.
fn first_wrong(attempts: &[&Attempt], operations: &[Operation], moment: u64) -> String {
    let what = match operations.iter().find(|operation| operation.reply == moment).map(|operation| operation.kind) {
        Some(OperationKind::Take { who, .. }) => format!("{} was granted", attempts[who].worker),
        Some(OperationKind::Give(who, _)) => format!("{} had given back", attempts[who].worker),
        Some(OperationKind::Refuse(who, _)) => format!("{} was refused what seems free", attempts[who].worker),
        None => return String::new(),
    };
    let is_near = |attempt: &&&Attempt| attempt.asked <= moment && end_of(attempt).saturating_add(NEAR) >= moment;
    let mut near: Vec<_> = attempts.iter().filter(is_near).collect();
    near.sort_by_key(|attempt| attempt.asked);
    let near: Vec<_> = near.into_iter().map(|attempt| told(attempt, moment)).collect();
    format!(" once {what}. Near that, in microseconds from it:\n  {}", near.join("\n  "))
}

fn end_of(attempt: &Attempt) -> u64 {
    match &attempt.answer {
        Response::Granted(grant) => grant.released.or(grant.believed_until).unwrap_or(u64::MAX),
        Response::NotHad { at, .. } => *at,
        Response::Unknown { until } => until.unwrap_or(u64::MAX),
    }
}
