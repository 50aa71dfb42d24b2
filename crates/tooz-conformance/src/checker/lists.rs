//! A lock that is listed is in use, one that surely is in use is listed, none waits that has not asked, and a group with a member is not made
//! again, not deleted, and has that member once.

use std::collections::{BTreeMap, BTreeSet};

use crate::checker::attempt_line::told;
use crate::checker::law::Law;
use crate::checker::order::under_way_until;
use crate::checker::terms::Terms;
use crate::checker::timeline::{is_disturbed, member_of};
use crate::checker::violation::Violation;
use crate::history::{Attempt, History, Listing, Mode, Queue, Response, Temptation};

pub(crate) fn judge(history: &History, terms: &Terms) -> Result<(), Violation> {
    let mut locks: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in &history.attempts {
        locks.entry(&attempt.lock).or_default().push(attempt);
    }
    for attempts in locks.values_mut() {
        attempts.sort_by_key(|attempt| attempt.asked);
    }
    let known = Known { history, terms, locks };
    history.listings.iter().try_for_each(|listing| known.judge_listing(listing))?;
    history.queues.iter().try_for_each(|queue| known.judge_queue(queue))?;
    history.temptations.iter().try_for_each(judge_temptation)
}

struct Known<'a> {
    history: &'a History,
    terms: &'a Terms,
    /// The attempts at each lock, in the order in which they were asked.
    locks: BTreeMap<&'a str, Vec<&'a Attempt>>,
}

impl Known<'_> {
    /// Those that had been asked by then.
    fn begun(&self, lock: &str, by: u64) -> &[&Attempt] {
        let attempts = self.locks.get(lock).map_or(&[][..], Vec::as_slice);
        &attempts[..attempts.partition_point(|attempt| attempt.asked <= by)]
    }

    fn judge_listing(&self, listing: &Listing) -> Result<(), Violation> {
        let shown: BTreeSet<&str> = listing.locks.iter().map(String::as_str).collect();
        // Where old answers are allowed, it may have been so at any time before.
        let from = if self.terms.linearizable { listing.asked } else { 0 };
        for lock in &shown {
            if !self.begun(lock, listing.at).iter().any(|attempt| self.in_use_until(attempt) >= from) {
                return Err(wrong_listing(listing, &format!("{lock} is listed, which is free")));
            }
        }
        if !self.terms.linearizable {
            return Ok(());
        }
        let unlisted = self.locks.keys().filter(|lock| !shown.contains(**lock));
        for lock in unlisted {
            if let Some(held) = self.begun(lock, listing.asked).iter().find(|attempt| self.is_held(attempt, listing)) {
                let what = format!("{lock} is not listed, which is held:\n  {}", told(held, listing.asked));
                return Err(wrong_listing(listing, &what));
            }
        }
        Ok(())
    }

    fn in_use_until(&self, attempt: &Attempt) -> u64 {
        match &attempt.answer {
            Response::Granted(grant) => grant.released.unwrap_or(u64::MAX),
            Response::NotHad { .. } | Response::Unknown { .. } => self.withdrawn(attempt),
        }
    }

    /// When what was not had is gone for sure: a try may be taken back behind its answer too.
    fn withdrawn(&self, attempt: &Attempt) -> u64 {
        match &attempt.answer {
            Response::NotHad { at, .. } => at.saturating_add(self.terms.withdrawal),
            _ => under_way_until(attempt, self.terms),
        }
    }

    /// Whether it was held for sure all the time in which the list was read.
    fn is_held(&self, attempt: &Attempt, listing: &Listing) -> bool {
        let Response::Granted(grant) = &attempt.answer else { return false };
        let is_believed = grant.at <= listing.asked && grant.believed_until.is_none_or(|until| until >= listing.at);
        let is_broken = || self.history.breaks.iter().any(|one| one.token == grant.token);
        is_believed && !is_broken() && !is_disturbed(self.history, self.terms, (grant.at, listing.at))
    }

    /// Of each member, no more wait in a mode than may have been waiting.
    fn judge_queue(&self, queue: &Queue) -> Result<(), Violation> {
        let from = if self.terms.linearizable { queue.asked } else { 0 };
        let begun = self.begun(&queue.lock, queue.at);
        let may_wait = |attempt: &&&Attempt, member: &str, mode: Mode| {
            member_of(&attempt.worker) == member && attempt.mode == mode && self.waits_until(attempt) >= from
        };
        let mut shown: BTreeMap<(&str, bool), usize> = BTreeMap::new();
        for (member, mode) in &queue.waiters {
            let count = shown.entry((member, *mode == Mode::Exclusive)).or_default();
            *count += 1;
            if begun.iter().filter(|attempt| may_wait(attempt, member, *mode)).count() < *count {
                return Err(wrong_queue(queue, member));
            }
        }
        Ok(())
    }

    fn waits_until(&self, attempt: &Attempt) -> u64 {
        match &attempt.answer {
            // What was lost is asked for again by no driver.
            Response::Granted(grant) => grant.at,
            Response::NotHad { .. } | Response::Unknown { .. } => self.withdrawn(attempt),
        }
    }
}

fn wrong_listing(listing: &Listing, what: &str) -> Violation {
    let Listing { worker, asked, at, locks } = listing;
    let what = format!("lists: {what}; shown to {worker} within {} µs: {locks:?}", (at - asked) / 1000);
    Violation::new(Law::Lists, what, (*asked, *at))
}

fn wrong_queue(queue: &Queue, member: &str) -> Violation {
    let Queue { worker, lock, asked, at, waiters } = queue;
    let what = format!(
        "lists: {member} is shown to wait for {lock} more often than it can; shown to {worker} within {} µs: {waiters:?}",
        (at - asked) / 1000
    );
    Violation::new(Law::Lists, what, (*asked, *at))
}

/// What must be refused as long as its worker is a member.
fn judge_temptation(temptation: &Temptation) -> Result<(), Violation> {
    let Temptation { worker, group, kind, asked, at, done } = temptation;
    if !done {
        return Ok(());
    }
    let what = format!("lists: {kind:?} of {group} was done by {worker}, who was a member of it all the time");
    Err(Violation::new(Law::Lists, what, (*asked, *at)))
}
