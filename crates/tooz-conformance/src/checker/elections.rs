//! Only members lead; a watch tells each vacancy, and epochs that grow. What an election has in common with a lock is judged as such.

use std::collections::{BTreeMap, HashMap};

use crate::checker::attempt_line::told;
use crate::checker::law::Law;
use crate::checker::order::{grants, held_since, token_of};
use crate::checker::terms::Terms;
use crate::checker::timeline::member_of;
use crate::checker::violation::Violation;
use crate::history::{Attempt, Change, ChangeKind, Grant, History, LeaderWatching};

pub(crate) fn judge(history: &History, terms: &Terms) -> Result<(), Violation> {
    for (attempt, grant) in grants(&history.campaigns) {
        is_member(history, attempt, grant)?;
    }
    let elected = epochs(history, terms);
    history.leader_watches.iter().try_for_each(|watching| judge_watch(watching, &elected))
}

/// From the election to the end of its belief, the leader's membership has not ended for sure.
fn is_member(history: &History, attempt: &Attempt, grant: &Grant) -> Result<(), Violation> {
    let member = member_of(&attempt.worker);
    let stay = history.stays.iter().find(|stay| stay.member == member && stay.group == attempt.lock);
    let Some(stay) = stay else {
        return Err(wrong(attempt, grant, "a leader that never was a member"));
    };
    let until = grant.believed_until.unwrap_or(grant.at);
    let left = stay
        .changes
        .iter()
        .enumerate()
        .find(|(index, change)| is_out(change, &stay.changes[index + 1..], grant.at, until));
    match left {
        Some(_) => Err(wrong(attempt, grant, "it believed to lead when it was no member any more")),
        None => Ok(()),
    }
}

/// Whether the member had left for sure at a moment between these, and was not back. (A loss is found when it is looked for, which may be later.)
fn is_out(change: &Change, later: &[Change], from: u64, until: u64) -> bool {
    let Some(done) = change.done.filter(|_| change.kind == ChangeKind::Left) else { return false };
    let back = later.first().map_or(u64::MAX, |next| next.asked);
    done.max(from) < until.min(back)
}

/// Since when an epoch may have been; per group.
type Epochs<'a> = HashMap<(&'a str, u64), u64>;

fn epochs<'a>(history: &'a History, terms: &Terms) -> Epochs<'a> {
    let mut groups: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in &history.campaigns {
        groups.entry(&attempt.lock).or_default().push(attempt);
    }
    let since = groups.values().flat_map(|attempts| held_since(attempts, terms));
    since.filter_map(|(attempt, since)| Some(((attempt.lock.as_str(), token_of(attempt)?), since))).collect()
}

fn judge_watch(watching: &LeaderWatching, elected: &Epochs<'_>) -> Result<(), Violation> {
    let mut last: Option<Option<u64>> = None;
    let mut greatest = 0;
    for told in &watching.told {
        let error = match (last, told.epoch) {
            (Some(None), None) => Some("a vacancy is told twice"),
            (Some(Some(_)), Some(_)) => Some("between two leaders no vacancy is told"),
            (_, Some(epoch)) if epoch <= greatest => Some("the epochs that are told don't grow"),
            (_, Some(epoch)) if is_early(elected, &watching.group, epoch, told.at) => {
                Some("a leader is told before it stood for election")
            }
            _ => None,
        };
        if let Some(error) = error {
            let what = format!("leaders: {error}: {:?}; told to {} of {}", told.epoch, watching.worker, watching.group);
            return Err(Violation::new(Law::Leaders, what, (watching.asked, told.at)));
        }
        greatest = told.epoch.map_or(greatest, |epoch| greatest.max(epoch));
        last = Some(told.epoch);
    }
    Ok(())
}

fn is_early(elected: &Epochs<'_>, group: &str, epoch: u64, at: u64) -> bool {
    elected.get(&(group, epoch)).is_some_and(|asked| *asked > at)
}

fn wrong(attempt: &Attempt, grant: &Grant, what: &str) -> Violation {
    let until = grant.believed_until.unwrap_or(grant.at);
    Violation::new(
        Law::Leaders,
        format!("leaders: {what}, of {}:\n  {}", attempt.lock, told(attempt, grant.at)),
        (grant.at, until),
    )
}
