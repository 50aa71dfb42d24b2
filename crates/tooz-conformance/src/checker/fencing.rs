//! L1: tokens of a lock are unique, and grow from a grant to every later one that conflicts with it.

use std::collections::{BTreeMap, HashMap};

use crate::checker::law::Law;
use crate::checker::order::grants;
use crate::checker::violation::Violation;
use crate::history::{Attempt, Grant, Mode};

pub(crate) fn judge(attempts: &[Attempt]) -> Result<(), Violation> {
    let mut locks: BTreeMap<&str, Vec<(&Attempt, &Grant)>> = BTreeMap::new();
    for (attempt, grant) in grants(attempts) {
        locks.entry(&attempt.lock).or_default().push((attempt, grant));
    }
    for granted in locks.values() {
        unique(granted)?;
        growing(granted)?;
    }
    Ok(())
}

fn unique(granted: &[(&Attempt, &Grant)]) -> Result<(), Violation> {
    let mut seen = HashMap::new();
    for (attempt, grant) in granted {
        if let Some(other) = seen.insert(grant.token, attempt) {
            return Err(Violation::of_two(Law::Fencing, "L1: two grants have one token", other, attempt));
        }
    }
    Ok(())
}

/// Goes through the grants by the time at which they were asked for, and keeps the greatest token of those that were answered before.
fn growing(granted: &[(&Attempt, &Grant)]) -> Result<(), Violation> {
    let mut answered = granted.to_vec();
    answered.sort_by_key(|(_, grant)| grant.at);
    let mut asked = granted.to_vec();
    asked.sort_by_key(|(attempt, _)| attempt.asked);
    let mut before = answered.into_iter().peekable();
    let mut greatest: [Option<(&Attempt, u64)>; 2] = [None, None];
    for (attempt, grant) in asked {
        while let Some((earlier, its)) = before.next_if(|(_, its)| its.at < attempt.asked) {
            let place = &mut greatest[usize::from(earlier.mode == Mode::Shared)];
            if place.is_none_or(|(_, token)| token < its.token) {
                *place = Some((earlier, its.token));
            }
        }
        for (earlier, token) in greatest.iter().flatten() {
            if earlier.mode.conflicts_with(attempt.mode) && *token > grant.token {
                let what = "L1: the later grant has the smaller token";
                return Err(Violation::of_two(Law::Fencing, what, earlier, attempt));
            }
        }
    }
    Ok(())
}
