//! What is lost was broken by a worker, or something was broken meanwhile.

use std::collections::HashMap;

use crate::checker::law::Law;
use crate::checker::order::{grants, told};
use crate::checker::terms::Terms;
use crate::checker::timeline::{is_disturbed, member_of};
use crate::checker::violation::Violation;
use crate::history::{Attempt, ChangeKind, Grant, History};

pub(crate) fn judge(history: &History, terms: &Terms) -> Result<(), Violation> {
    let mut broken = HashMap::new();
    for one in &history.breaks {
        let first = broken.entry((one.lock.as_str(), one.token)).or_insert(one.asked);
        *first = one.asked.min(*first);
    }
    for (attempt, grant, lost) in lost(&history.attempts) {
        let is_broken = broken.get(&(attempt.lock.as_str(), grant.token)).is_some_and(|asked| *asked <= lost);
        if !is_broken && !is_disturbed(history, terms, (grant.at, lost)) {
            return Err(wrong(attempt, grant, lost));
        }
    }
    for (attempt, grant, lost) in lost(&history.campaigns) {
        if !membership_ended(history, attempt, lost) && !is_disturbed(history, terms, (grant.at, lost)) {
            return Err(wrong(attempt, grant, lost));
        }
    }
    judge_memberships(history, terms)
}

fn judge_memberships(history: &History, terms: &Terms) -> Result<(), Violation> {
    for stay in &history.stays {
        for pair in stay.changes.windows(2) {
            let [before, change] = pair else { continue };
            let until = change.done.unwrap_or(change.asked);
            if change.kind == ChangeKind::Lost && !is_disturbed(history, terms, (before.asked, until)) {
                let what = format!("losses: {} lost its membership of {} for no reason", stay.member, stay.group);
                return Err(Violation::new(Law::Losses, what, (before.asked, until)));
            }
        }
    }
    Ok(())
}

fn lost(attempts: &[Attempt]) -> impl Iterator<Item = (&Attempt, &Grant, u64)> {
    grants(attempts).filter_map(|(attempt, grant)| Some((attempt, grant, grant.lost?)))
}

/// A leadership ends with the membership, and so by the leader's own hand.
fn membership_ended(history: &History, attempt: &Attempt, lost: u64) -> bool {
    let member = member_of(&attempt.worker);
    let of_it = history.stays.iter().filter(|stay| stay.member == member && stay.group == attempt.lock);
    let mut changes = of_it.flat_map(|stay| &stay.changes);
    changes.any(|change| change.kind.listed().is_none() && change.asked >= attempt.asked && change.asked <= lost)
}

fn wrong(attempt: &Attempt, grant: &Grant, lost: u64) -> Violation {
    let what = format!("losses: {} was lost for no reason:\n  {}", attempt.lock, told(attempt, grant.at));
    Violation::new(Law::Losses, what, (grant.at, lost))
}
