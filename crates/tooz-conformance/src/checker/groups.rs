//! A member is listed from the answer of its join to its end, with its latest word, and none else is.
//!
//! One member changes one thing after another, and each of its words is new: so what is read of it has a place in the order of its
//! changes. A reading is right if there is a moment between its call and its return at which all members were as it lists them. Of two
//! readings, the later never goes back.

use std::collections::BTreeMap;

use crate::checker::law::Law;
use crate::checker::terms::Terms;
use crate::checker::timeline::{Timeline, Timelines, member_of, timelines};
use crate::checker::violation::Violation;
use crate::history::{History, Listed, Reading};

pub(crate) fn judge(history: &History, terms: &Terms) -> Result<(), Violation> {
    let groups = timelines(history, terms);
    for reading in &history.readings {
        judge_reading(reading, &groups, terms)?;
    }
    never_back(history, &groups, terms)
}

fn judge_reading(reading: &Reading, groups: &Timelines<'_>, terms: &Terms) -> Result<(), Violation> {
    let none = BTreeMap::new();
    let members = groups.get(reading.group.as_str()).unwrap_or(&none);
    // Where old answers are allowed, it may have been so at any time before.
    let from = if terms.linearizable { reading.asked } else { 0 };
    could_be_so(&reading.members, members, (from, reading.at)).map_err(|what| wrong(reading, &what))
}

/// Whether all members can have been as listed at one moment of that window; else what is wrong.
pub(crate) fn could_be_so(
    listed: &[Listed],
    members: &BTreeMap<&str, Timeline>,
    window: (u64, u64),
) -> Result<(), String> {
    if let Some(one) = listed.iter().find(|one| !members.contains_key(one.member.as_str())) {
        return Err(format!("{} is listed, which never joined", one.member));
    }
    let mut moments = vec![window];
    for (member, timeline) in members {
        let word = word_of(listed, member);
        let its = timeline.windows(word, window);
        if its.is_empty() {
            let how = word.map_or("not listed".to_owned(), |word| format!("listed with the word {word}"));
            return Err(format!("{member} is {how}, which it was not at any time then"));
        }
        moments = common(&moments, &its);
        if moments.is_empty() {
            return Err(format!("at no moment {member} and those before it in the alphabet were as listed"));
        }
    }
    Ok(())
}

pub(crate) fn word_of(listed: &[Listed], member: &str) -> Option<u64> {
    listed.iter().find(|one| one.member == member).map(|one| one.word)
}

fn common(some: &[(u64, u64)], others: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let pairs = some.iter().flat_map(|one| others.iter().map(move |other| (one.0.max(other.0), one.1.min(other.1))));
    pairs.filter(|(from, until)| from <= until).collect()
}

/// Readings one after another: of each member the later one shows the same or something later.
fn never_back(history: &History, groups: &Timelines<'_>, terms: &Terms) -> Result<(), Violation> {
    for (group, members) in groups {
        let of_group = history.readings.iter().filter(|reading| reading.group == *group);
        let mut lanes: BTreeMap<&str, Vec<&Reading>> = BTreeMap::new();
        for reading in of_group {
            // Where old answers are allowed, each reader has an order of its own.
            let lane = if terms.linearizable { "" } else { member_of(&reading.worker) };
            lanes.entry(lane).or_default().push(reading);
        }
        for readings in lanes.into_values() {
            for (member, timeline) in members {
                member_never_back(&readings, member, timeline, terms)?;
            }
        }
    }
    Ok(())
}

fn member_never_back(readings: &[&Reading], member: &str, timeline: &Timeline, terms: &Terms) -> Result<(), Violation> {
    let mut by_call = readings.to_vec();
    by_call.sort_by_key(|reading| reading.asked);
    // Answered readings and the least place of each, until a later reading was asked for after them.
    let mut pending: Vec<(u64, usize)> = Vec::new();
    let mut least = 0;
    for reading in by_call {
        pending.retain(|(at, place)| {
            let is_before = *at < reading.asked;
            least = if is_before { least.max(*place) } else { least };
            !is_before
        });
        let from = if terms.linearizable { reading.asked } else { 0 };
        let word = word_of(&reading.members, member);
        let Some(place) = timeline.place(word, least, (from, reading.at)) else {
            return Err(wrong(reading, &format!("of {member} an earlier reading has shown something later")));
        };
        pending.push((reading.at, place));
    }
    Ok(())
}

fn wrong(reading: &Reading, what: &str) -> Violation {
    let Reading { worker, group, asked, at, members } = reading;
    let shown: Vec<_> = members.iter().map(|one| format!("{} {}", one.member, one.word)).collect();
    let shown = shown.join(", ");
    let what = format!("members: {what}; {worker} read of {group} within {} µs: [{shown}]", (at - asked) / 1000);
    Violation::new(Law::Members, what, (*asked, *at))
}
