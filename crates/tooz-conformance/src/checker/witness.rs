//! Cutting down: a small part of a history that is still convicted for the same.
//!
//! Not everything may be left out: without the holder that was the reason, a right refusal looks wrong. Left out is what can't make a
//! right history look wrong, so that what is convicted in the small is wrong in the large.

use std::collections::BTreeSet;

use crate::checker::examine;
use crate::checker::law::Law;
use crate::checker::order::token_of;
use crate::checker::terms::Terms;
use crate::checker::timeline::member_of;
use crate::checker::violation::Violation;
use crate::history::{Attempt, History, Mode, Response, Sighting};

/// So often a history is judged again while it is cut down.
const MOST: usize = 600;

/// The same conviction, by a part of the history.
pub(crate) fn cut_down(violation: Violation, history: &History, terms: &Terms) -> Violation {
    let law = violation.law();
    let mut cutter = Cutter { law, terms, left: MOST, small: relevant(law, history), last: violation.clone() };
    if !cutter.tries(cutter.small.clone()) {
        return violation.with(history.clone());
    }
    match law {
        Law::Fencing | Law::Belief | Law::Losses => cutter.cut_attempts(),
        Law::Order => cutter.cut_order(),
        Law::Holders => cutter.cut_sightings(),
        Law::Leaders => cutter.cut_leaders(),
        Law::Members => cutter.cut_readings(),
        Law::Watches => cutter.cut_watches(),
        Law::Partitions => cutter.cut(|history| &mut history.shares),
        Law::Lists => cutter.cut_lists(),
    }
    cutter.leave_out_strangers();
    cutter.last.with(cutter.small)
}

/// The parts that the law looks at.
fn relevant(law: Law, history: &History) -> History {
    let mut small = history.clone();
    if !matches!(law, Law::Fencing | Law::Belief | Law::Order | Law::Losses | Law::Holders | Law::Lists) {
        (small.attempts, small.breaks) = Default::default();
    }
    if matches!(law, Law::Members | Law::Watches | Law::Partitions | Law::Lists) {
        small.campaigns.clear();
    }
    if !matches!(law, Law::Losses | Law::Leaders | Law::Members | Law::Watches) {
        small.stays.clear();
    }
    if law != Law::Holders {
        (small.sightings, small.leaders) = Default::default();
    }
    if law != Law::Members {
        small.readings.clear();
    }
    if law != Law::Watches {
        small.watches.clear();
    }
    if law != Law::Leaders {
        small.leader_watches.clear();
    }
    if law != Law::Partitions {
        small.shares.clear();
    }
    if law != Law::Lists {
        (small.listings, small.queues, small.temptations) = Default::default();
    }
    if !matches!(law, Law::Losses | Law::Watches | Law::Lists) {
        small.faults.clear();
    }
    small
}

struct Cutter<'a> {
    law: Law,
    terms: &'a Terms,
    left: usize,
    small: History,
    last: Violation,
}

impl Cutter<'_> {
    /// Takes that in place of what there is, if it is still convicted.
    fn tries(&mut self, smaller: History) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        match examine(self.law, &smaller, self.terms) {
            Ok(()) => false,
            Err(violation) => {
                self.last = violation;
                self.small = smaller;
                true
            }
        }
    }

    /// Leaves out of a list what it can, in large pieces first.
    fn cut<T: Clone>(&mut self, list: fn(&mut History) -> &mut Vec<T>) {
        let mut piece = list(&mut self.small).len();
        while piece > 0 {
            let mut at = 0;
            while at < list(&mut self.small).len() && self.left > 0 {
                let mut smaller = self.small.clone();
                let end = (at + piece).min(list(&mut smaller).len());
                list(&mut smaller).drain(at..end);
                if !self.tries(smaller) {
                    at += piece;
                }
            }
            piece /= 2;
        }
    }

    /// Each attempt alone is right or wrong, or together with another.
    fn cut_attempts(&mut self) {
        self.cut(|history| &mut history.attempts);
        self.cut(|history| &mut history.campaigns);
        if self.law == Law::Losses {
            self.cut(|history| &mut history.stays);
        }
    }

    fn cut_order(&mut self) {
        let (_, moment) = self.last.window();
        let mut smaller = self.small.clone();
        for list in [&mut smaller.attempts, &mut smaller.campaigns] {
            list.retain(|attempt| attempt.asked <= moment);
        }
        self.tries(smaller);
        self.cut_refusals();
        self.cut_turns();
    }

    /// A refusal changes nothing, so that it may be left out.
    fn cut_refusals(&mut self) {
        let mut smaller = self.small.clone();
        for list in [&mut smaller.attempts, &mut smaller.campaigns] {
            list.retain(|attempt| matches!(attempt.answer, Response::Granted(_)));
        }
        if self.tries(smaller) {
            return;
        }
        // One refusal alone is wrong, then: the others are left out, and what could be the reason for it is kept.
        let (_, moment) = self.last.window();
        let is_it = |attempt: &Attempt| matches!(attempt.answer, Response::NotHad { at, .. } if at == moment);
        let mut smaller = self.small.clone();
        for list in [&mut smaller.attempts, &mut smaller.campaigns] {
            list.retain(|attempt| !matches!(attempt.answer, Response::NotHad { waited: false, .. }) || is_it(attempt));
        }
        self.tries(smaller);
    }

    /// A whole turn of a holder may be left out, unless it may be the reason for the refusal.
    fn cut_turns(&mut self) {
        let has_refusal = |list: &[Attempt]| list.iter().any(|one| matches!(one.answer, Response::NotHad { .. }));
        if has_refusal(&self.small.attempts) || has_refusal(&self.small.campaigns) {
            let (_, moment) = self.last.window();
            let mut smaller = self.small.clone();
            for list in [&mut smaller.attempts, &mut smaller.campaigns] {
                let asked = list.iter().filter(|one| !is_granted(one)).map(|one| one.asked).min().unwrap_or(moment);
                list.retain(|attempt| is_over(attempt).is_none_or(|over| over >= asked));
            }
            self.tries(smaller);
            return;
        }
        self.cut(|history| &mut history.attempts);
        self.cut(|history| &mut history.campaigns);
    }

    fn cut_sightings(&mut self) {
        self.cut(|history| &mut history.sightings);
        self.cut(|history| &mut history.leaders);
        let mut smaller = self.small.clone();
        let History { attempts, campaigns, sightings, leaders, .. } = &mut smaller;
        attempts.retain(|attempt| sightings.iter().any(|sighting| concerns(attempt, sighting)));
        campaigns.retain(|attempt| leaders.iter().any(|sighting| concerns(attempt, sighting)));
        self.tries(smaller);
    }

    fn cut_leaders(&mut self) {
        self.cut(|history| &mut history.leader_watches);
        let (_, moment) = self.last.window();
        let mut smaller = self.small.clone();
        for watching in &mut smaller.leader_watches {
            watching.told.retain(|told| told.at <= moment);
        }
        self.tries(smaller);
        if self.small.leader_watches.is_empty() {
            self.cut(|history| &mut history.campaigns);
        }
    }

    fn cut_readings(&mut self) {
        self.cut(|history| &mut history.readings);
        let until = self.small.readings.iter().map(|reading| reading.at).max().unwrap_or(u64::MAX);
        let group: BTreeSet<_> = self.small.readings.iter().map(|reading| reading.group.clone()).collect();
        self.cut_stays(&group, until);
    }

    /// What was over, or of a lock that is not shown, is no reason for what was shown.
    fn cut_lists(&mut self) {
        self.cut(|history| &mut history.listings);
        self.cut(|history| &mut history.queues);
        self.cut(|history| &mut history.temptations);
        let (from, to) = self.last.window();
        let mut smaller = self.small.clone();
        smaller.attempts.retain(|attempt| attempt.asked <= to && is_over(attempt).is_none_or(|over| over >= from));
        self.tries(smaller);
    }

    fn cut_watches(&mut self) {
        self.cut(|history| &mut history.watches);
        let (_, moment) = self.last.window();
        let mut smaller = self.small.clone();
        for watching in &mut smaller.watches {
            watching.told.retain(|told| told.at <= moment);
            watching.until = watching.until.min(moment);
        }
        self.tries(smaller);
        let group: BTreeSet<_> = self.small.watches.iter().map(|watching| watching.group.clone()).collect();
        self.cut_stays(&group, moment);
    }

    /// What members did afterwards, or in other groups, explains nothing.
    fn cut_stays(&mut self, groups: &BTreeSet<String>, until: u64) {
        let mut smaller = self.small.clone();
        smaller.stays.retain(|stay| groups.contains(&stay.group));
        for stay in &mut smaller.stays {
            stay.changes.retain(|change| change.asked <= until);
        }
        self.tries(smaller);
    }

    /// What has nothing to do with what is left.
    fn leave_out_strangers(&mut self) {
        let History { attempts, campaigns, breaks, stays, .. } = &mut self.small;
        let tokens: BTreeSet<u64> = attempts.iter().filter_map(token_of).collect();
        breaks.retain(|one| tokens.contains(&one.token));
        if matches!(self.law, Law::Leaders | Law::Losses) {
            let leads = |member: &str| campaigns.iter().any(|attempt| member_of(&attempt.worker) == member);
            stays.retain(|stay| campaigns.is_empty() || leads(&stay.member));
        }
        let (from, to) = self.last.window();
        self.small.faults.retain(|fault| fault.from <= to && fault.to >= from);
    }
}

fn is_granted(attempt: &Attempt) -> bool {
    matches!(attempt.answer, Response::Granted(_))
}

/// When it had been given back for sure.
fn is_over(attempt: &Attempt) -> Option<u64> {
    match &attempt.answer {
        Response::Granted(grant) => grant.released,
        Response::NotHad { .. } | Response::Unknown { .. } => None,
    }
}

/// Whether the attempt may be the reason for what was shown, or for what was not.
fn concerns(attempt: &Attempt, sighting: &Sighting) -> bool {
    let is_shown = |token: u64| sighting.holders.iter().any(|(_, shown): &(Mode, u64)| *shown == token);
    let was_on = attempt.asked <= sighting.at && is_over(attempt).is_none_or(|over| over >= sighting.asked);
    attempt.lock == sighting.lock && (was_on || token_of(attempt).is_some_and(is_shown))
}
