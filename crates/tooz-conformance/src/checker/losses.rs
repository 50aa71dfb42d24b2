//! What is lost was broken by a worker, or something was broken meanwhile.

use std::collections::HashMap;

use crate::checker::attempt_line::told;
use crate::checker::law::Law;
use crate::checker::order::grants;
use crate::checker::terms::Terms;
use crate::checker::timeline::{is_disturbed, member_of};
use crate::checker::violation::Violation;
use crate::history::{Attempt, Change, ChangeKind, Grant, History};

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
    broken_is_lost(history, terms)?;
    judge_memberships(history, terms)
}

/// A holder that was broken hears of it.
fn broken_is_lost(history: &History, terms: &Terms) -> Result<(), Violation> {
    let mut done = HashMap::new();
    for one in &history.breaks {
        if let Some(at) = one.done {
            done.insert((one.lock.as_str(), one.token), at);
        }
    }
    for (attempt, grant) in grants(&history.attempts) {
        let Some(at) = done.get(&(attempt.lock.as_str(), grant.token)) else { continue };
        let until = grant.believed_until.unwrap_or(grant.at);
        if until > at.saturating_add(terms.lateness) && !is_disturbed(history, terms, (*at, until)) {
            let what =
                format!("losses: {} was broken and is still believed in:\n  {}", attempt.lock, told(attempt, *at));
            return Err(Violation::new(Law::Losses, what, (*at, until)));
        }
    }
    Ok(())
}

fn judge_memberships(history: &History, terms: &Terms) -> Result<(), Violation> {
    for stay in &history.stays {
        for (index, change) in stay.changes.iter().enumerate().filter(|(_, change)| change.kind == ChangeKind::Lost) {
            let before = stay.changes[..index].last().map_or(change.asked, |before| before.asked);
            let window = (before.min(change.asked), seen_by(change, &stay.changes[index + 1..]));
            if !is_disturbed(history, terms, window) {
                let what = format!("losses: {} lost its membership of {} for no reason", stay.member, stay.group);
                return Err(Violation::new(Law::Losses, what, window));
            }
        }
    }
    Ok(())
}

/// When a loss was over for sure. It may have come at any time before.
fn seen_by(change: &Change, later: &[Change]) -> u64 {
    change.done.or_else(|| later.iter().find_map(|next| next.done)).unwrap_or(u64::MAX)
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
