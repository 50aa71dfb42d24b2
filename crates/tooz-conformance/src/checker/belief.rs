//! L2: the spans in which holders believed that they held never overlap for conflicting modes.

use std::collections::{BTreeMap, HashMap};

use crate::checker::law::Law;
use crate::checker::order::grants;
use crate::checker::violation::Violation;
use crate::history::{Attempt, Break, Mode};

/// A holder that is broken by force can't know it before it is told, so its belief counts until the breaking was asked for.
pub(crate) fn judge(attempts: &[Attempt], breaks: &[Break]) -> Result<(), Violation> {
    let mut broken = HashMap::new();
    for one in breaks {
        let first = broken.entry((one.lock.as_str(), one.token)).or_insert(one.asked);
        *first = one.asked.min(*first);
    }
    let mut locks: BTreeMap<&str, Vec<Span<'_>>> = BTreeMap::new();
    for (attempt, grant) in grants(attempts) {
        let until = grant.believed_until.unwrap_or(u64::MAX);
        let until = broken.get(&(attempt.lock.as_str(), grant.token)).map_or(until, |asked| until.min(*asked));
        // A span is empty where the holder found the grant lost at the first look: it was stopped while that was on its way.
        if grant.at < until {
            locks.entry(&attempt.lock).or_default().push(Span { attempt, from: grant.at, until });
        }
    }
    locks.into_values().try_for_each(apart)
}

#[derive(Clone, Copy)]
struct Span<'a> {
    attempt: &'a Attempt,
    from: u64,
    until: u64,
}

/// Of the spans that began before, the one that ends last is the one that a later one meets, if any does.
fn apart(mut spans: Vec<Span<'_>>) -> Result<(), Violation> {
    spans.sort_by_key(|span| span.from);
    let mut last: [Option<Span<'_>>; 2] = [None, None];
    for span in spans {
        let met = last
            .iter()
            .flatten()
            .find(|before| before.until > span.from && before.attempt.mode.conflicts_with(span.attempt.mode));
        if let Some(before) = met {
            let what = "L2: two believed to hold at once";
            return Err(Violation::of_two(Law::Belief, what, before.attempt, span.attempt));
        }
        let place = &mut last[usize::from(span.attempt.mode == Mode::Shared)];
        if place.is_none_or(|before| before.until < span.until) {
            *place = Some(span);
        }
    }
    Ok(())
}
