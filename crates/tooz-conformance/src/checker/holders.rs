//! Who is shown as a holder or a leader could be it, and none that was it for sure is left out.

use std::collections::{BTreeMap, HashMap};

use crate::checker::attempt_line::told;
use crate::checker::law::Law;
use crate::checker::order::{held_since, token_of};
use crate::checker::terms::Terms;
use crate::checker::violation::Violation;
use crate::history::{Attempt, Break, Grant, History, Mode, Response, Sighting};

pub(crate) fn judge(history: &History, terms: &Terms) -> Result<(), Violation> {
    judge_list(&history.attempts, &history.breaks, &history.sightings, terms)?;
    judge_list(&history.campaigns, &[], &history.leaders, terms)
}

fn judge_list(attempts: &[Attempt], breaks: &[Break], sightings: &[Sighting], terms: &Terms) -> Result<(), Violation> {
    let mut locks: BTreeMap<&str, Known<'_>> = BTreeMap::new();
    for attempt in attempts {
        locks.entry(&attempt.lock).or_default().add(attempt);
    }
    for one in breaks {
        let known = locks.entry(&one.lock).or_default();
        let first = known.broken.entry(one.token).or_insert(one.asked);
        *first = one.asked.min(*first);
    }
    for known in locks.values_mut() {
        known.settle(terms);
    }
    let none = Known::default();
    for sighting in sightings {
        locks.get(sighting.lock.as_str()).unwrap_or(&none).judge(sighting, terms)?;
    }
    Ok(())
}

/// What is known of one lock.
#[derive(Default)]
struct Known<'a> {
    granted: HashMap<u64, (&'a Attempt, &'a Grant)>,
    /// Of each of these one more token may be.
    unknown: Vec<&'a Attempt>,
    broken: HashMap<u64, u64>,
    attempts: Vec<&'a Attempt>,
    /// Since when a token may have been held.
    since: HashMap<u64, u64>,
    /// From when to when a token was held for sure, by their beginnings, and the longest end of each and all before it.
    sure: Vec<(u64, u64, u64)>,
    longest: Vec<u64>,
}

impl<'a> Known<'a> {
    fn add(&mut self, attempt: &'a Attempt) {
        self.attempts.push(attempt);
        match &attempt.answer {
            Response::Granted(grant) => drop(self.granted.insert(grant.token, (attempt, grant))),
            Response::Unknown { .. } | Response::NotHad { .. } => self.unknown.push(attempt),
        }
    }

    fn judge(&self, sighting: &Sighting, terms: &Terms) -> Result<(), Violation> {
        let alone = sighting.holders.iter().any(|(mode, _)| *mode == Mode::Exclusive);
        if alone && sighting.holders.len() > 1 {
            return Err(wrong(sighting, "two conflicting holders are shown at once", None));
        }
        for (_, token) in &sighting.holders {
            self.could_hold(*token, sighting, terms)?;
        }
        if terms.linearizable { self.none_is_left_out(sighting) } else { Ok(()) }
    }

    fn could_hold(&self, token: u64, sighting: &Sighting, terms: &Terms) -> Result<(), Violation> {
        let Some((attempt, grant)) = self.granted.get(&token) else {
            let could = |attempt: &&Attempt| attempt.asked <= sighting.at;
            if self.unknown.iter().any(could) {
                return Ok(());
            }
            return Err(wrong(sighting, &format!("a holder with token {token} is shown that none asked to be"), None));
        };
        let is_over = terms.linearizable && grant.released.is_some_and(|released| released < sighting.asked);
        if self.since[&token] > sighting.at || is_over {
            let what = format!("a holder with token {token} is shown that held at another time");
            return Err(wrong(sighting, &what, Some(attempt)));
        }
        Ok(())
    }

    fn none_is_left_out(&self, sighting: &Sighting) -> Result<(), Violation> {
        let is_shown = |token: u64| sighting.holders.iter().any(|(_, shown)| *shown == token);
        let begun = self.sure.partition_point(|(from, ..)| *from < sighting.asked);
        for index in (0..begun).rev().take_while(|index| self.longest[*index] > sighting.at) {
            let (_, until, token) = self.sure[index];
            if until > sighting.at && !is_shown(token) {
                let what = format!("the holder with token {token} is not shown");
                return Err(wrong(sighting, &what, Some(self.granted[&token].0)));
            }
        }
        Ok(())
    }

    /// Once all is added.
    fn settle(&mut self, terms: &Terms) {
        let since = held_since(&self.attempts, terms).into_iter();
        self.since = since.filter_map(|(attempt, since)| Some((token_of(attempt)?, since))).collect();
        self.sure = self.granted.values().map(|(_, grant)| self.surely_held(grant)).collect();
        self.sure.sort_unstable();
        let mut longest = 0;
        let so_far = |(_, until, _): &(u64, u64, u64)| {
            longest = longest.max(*until);
            longest
        };
        self.longest = self.sure.iter().map(so_far).collect();
    }

    fn surely_held(&self, grant: &Grant) -> (u64, u64, u64) {
        let until = grant.believed_until.unwrap_or(u64::MAX);
        let until = self.broken.get(&grant.token).map_or(until, |asked| until.min(*asked));
        (grant.at, until, grant.token)
    }
}

fn wrong(sighting: &Sighting, what: &str, attempt: Option<&Attempt>) -> Violation {
    let Sighting { worker, lock, asked, at, holders } = sighting;
    let attempt = attempt.map(|attempt| format!(":\n  {}", told(attempt, *asked))).unwrap_or_default();
    let what = format!(
        "holders: {what}, of {lock}, to {worker}, who saw {holders:?} within {} µs{attempt}",
        (at - asked) / 1000
    );
    Violation::new(Law::Holders, what, (*asked, *at))
}
