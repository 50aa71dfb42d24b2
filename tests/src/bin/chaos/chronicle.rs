//! From the records of the workers to one history.

pub(crate) mod calm;
mod member;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tooz_conformance::checker::progress;
use tooz_conformance::history::{Attempt, Break, Fault, Grant, History, LeaderWatching, Response, Stay, Watching, now};

use crate::chronicle::calm::{Bounds, calm_after, nanos};
use crate::chronicle::member::{Key, MemberRecord};
use crate::record::{Contest, GROUP, Record};

/// The history so far, and what is still open in it.
#[derive(Default)]
pub(crate) struct Chronicle {
    history: History,
    errors: BTreeMap<String, u64>,
    attempts: HashMap<Key, OpenAttempt>,
    /// Attempts that failed, by their place in the list, with the time of the error.
    failed: Vec<(Contest, usize, u64)>,
    breaks: HashMap<Key, usize>,
    stays: BTreeMap<String, MemberRecord>,
    watches: HashMap<Key, Watching>,
    leader_watches: HashMap<Key, LeaderWatching>,
    last_said: HashMap<usize, u64>,
}

struct OpenAttempt {
    of: Contest,
    attempt: Attempt,
    held: u64,
}

impl Chronicle {
    pub(crate) fn operations(&self) -> usize {
        let history = &self.history;
        let reads = history.readings.len() + history.sightings.len() + history.leaders.len() + history.shares.len();
        let lists = history.listings.len() + history.queues.len() + history.temptations.len();
        let changes: usize = self.stays.values().map(MemberRecord::count).sum();
        history.attempts.len() + history.campaigns.len() + reads + lists + changes
    }

    /// Those of these members that got no lock since then.
    pub(crate) fn waiting_since(&self, members: &[String], since: u64) -> Vec<String> {
        progress(&self.history, members, (since, u64::MAX))
    }

    /// How long something was broken, or stood still, of what began since then.
    pub(crate) fn disturbed_since(&self, since: u64) -> Duration {
        let mut spans: Vec<_> = self.history.faults.iter().map(|fault| (fault.from, fault.to)).collect();
        spans.retain(|(from, _)| *from >= since);
        spans.sort_unstable();
        let mut until = since;
        let mut sum = 0;
        for (from, to) in spans {
            sum += to.saturating_sub(from.max(until));
            until = until.max(to);
        }
        Duration::from_nanos(sum)
    }

    pub(crate) fn fault(&mut self, name: String, from: u64, to: u64) {
        self.history.faults.push(Fault { name, from, to });
    }

    /// What the process of that number, which acts for that member, has said.
    pub(crate) fn hear(&mut self, process: usize, member: &str, record: Record) {
        let key = |number: u64| (process, number);
        self.last_said.insert(process, now());
        match record {
            Record::Ready => {}
            Record::Asked { number, worker, of, lock, mode, at } => {
                let attempt = Attempt { worker, lock, mode, asked: at, answer: Response::Unknown { until: None } };
                self.attempts.insert(key(number), OpenAttempt { of, attempt, held: at });
            }
            Record::Granted { number, at, token } => self.granted(key(number), at, token),
            Record::NotHad { number, at, waited } => self.close(key(number), Response::NotHad { at, waited }),
            Record::Failed { number, at, error } => self.failed(key(number), at, error),
            Record::Held { number, at } => {
                if let Some(open) = self.attempts.get_mut(&key(number)) {
                    open.held = at;
                }
            }
            Record::Ended { number, believed_until, released, lost } => {
                self.ended(key(number), believed_until, released, lost);
            }
            Record::Breaking { number, worker, lock, token, at } => {
                self.breaks.insert(key(number), self.history.breaks.len());
                self.history.breaks.push(Break { worker, lock, token, asked: at, done: None });
            }
            Record::Broken { number, at } => {
                if let Some(place) = self.breaks.remove(&key(number)) {
                    self.history.breaks[place].done = Some(at);
                }
            }
            Record::Changing { number, kind, joins, at } => {
                self.member(member).changing(key(number), kind, joins, at);
            }
            Record::Changed { number, at } => self.member(member).changed(key(number), at),
            Record::NotChanged { number } => self.member(member).not_changed(key(number)),
            Record::Stands { at } => self.member(member).stands(at),
            Record::LostMembership { stood } => self.member(member).lost(stood),
            Record::Rejoined { word, at } => self.member(member).rejoined(word, at),
            Record::Watching { number, worker, at } => {
                let group = GROUP.to_owned();
                let watching = Watching { worker, group, asked: at, told: Vec::new(), until: at };
                self.watches.insert(key(number), watching);
            }
            Record::Told { number, told } => {
                if let Some(watching) = self.watches.get_mut(&key(number)) {
                    watching.until = told.at;
                    watching.told.push(told);
                }
            }
            Record::WatchingLeader { number, worker, at } => {
                let group = GROUP.to_owned();
                let watching = LeaderWatching { worker, group, asked: at, told: Vec::new(), until: at };
                self.leader_watches.insert(key(number), watching);
            }
            Record::ToldLeader { number, told } => {
                if let Some(watching) = self.leader_watches.get_mut(&key(number)) {
                    watching.until = told.at;
                    watching.told.push(told);
                }
            }
            Record::Unwatched { number, at } => self.unwatched(key(number), at),
            Record::Read(reading) => self.history.readings.push(reading),
            Record::Saw { of: Contest::Lock, sighting } => self.history.sightings.push(sighting),
            Record::Saw { of: Contest::Leadership, sighting } => self.history.leaders.push(sighting),
            Record::Shared(share) => self.history.shares.push(share),
            Record::Listed(listing) => self.history.listings.push(listing),
            Record::Queued(queue) => self.history.queues.push(queue),
            Record::Tempted(temptation) => self.history.temptations.push(temptation),
            Record::Stalled { from, to } => self.fault(format!("{member} was not let run"), from, to),
        }
    }

    fn member(&mut self, member: &str) -> &mut MemberRecord {
        self.stays.entry(member.to_owned()).or_default()
    }

    fn granted(&mut self, key: Key, at: u64, token: u64) {
        if let Some(open) = self.attempts.get_mut(&key) {
            let grant = Grant { at, token, believed_until: Some(at), released: None, lost: None };
            open.attempt.answer = Response::Granted(grant);
            open.held = at;
        }
    }

    fn ended(&mut self, key: Key, believed: u64, released: Option<u64>, lost: Option<u64>) {
        if let Some(Response::Granted(grant)) = self.attempts.get_mut(&key).map(|open| &mut open.attempt.answer) {
            let grant = Grant { believed_until: Some(believed), released, lost, ..grant.clone() };
            self.close(key, Response::Granted(grant));
        }
    }

    fn close(&mut self, key: Key, answer: Response) {
        if let Some(OpenAttempt { of, mut attempt, .. }) = self.attempts.remove(&key) {
            attempt.answer = answer;
            self.list(of).push(attempt);
        }
    }

    fn list(&mut self, of: Contest) -> &mut Vec<Attempt> {
        match of {
            Contest::Lock => &mut self.history.attempts,
            Contest::Leadership => &mut self.history.campaigns,
        }
    }

    fn failed(&mut self, key: Key, at: u64, error: String) {
        *self.errors.entry(error).or_default() += 1;
        let Some(of) = self.attempts.get(&key).map(|open| open.of) else { return };
        self.close(key, Response::Unknown { until: None });
        let place = self.list(of).len() - 1;
        self.failed.push((of, place, at));
    }

    fn unwatched(&mut self, key: Key, at: u64) {
        if let Some(mut watching) = self.watches.remove(&key) {
            watching.until = at;
            self.history.watches.push(watching);
        }
        if let Some(mut watching) = self.leader_watches.remove(&key) {
            watching.until = at;
            self.history.leader_watches.push(watching);
        }
    }

    /// The process has ended: killed at that time, or by its own will.
    pub(crate) fn gone(&mut self, process: usize, member: &str, killed: Option<u64>) {
        let at = killed.unwrap_or_else(now);
        let open: Vec<Key> = self.attempts.keys().filter(|key| key.0 == process).copied().collect();
        for key in open {
            let open = &self.attempts[&key];
            let (of, held) = (open.of, open.held);
            let answer = match &open.attempt.answer {
                Response::Granted(grant) => Response::Granted(Grant { believed_until: Some(held), ..grant.clone() }),
                other => other.clone(),
            };
            let is_unknown = matches!(answer, Response::Unknown { .. });
            self.close(key, answer);
            if is_unknown {
                let place = self.list(of).len() - 1;
                self.failed.push((of, place, at));
            }
        }
        let watches = self.watches.keys().chain(self.leader_watches.keys());
        for key in watches.filter(|key| key.0 == process).copied().collect::<Vec<_>>() {
            let until = self.watches.get(&key).map(|watching| watching.until);
            let until = until.or_else(|| self.leader_watches.get(&key).map(|watching| watching.until));
            self.unwatched(key, until.unwrap_or(at));
        }
        if killed.is_some() {
            self.member(member).killed(at);
        }
    }

    /// The whole history, and the errors that were told, with how often each was.
    pub(crate) fn end(mut self, bounds: Bounds) -> (History, BTreeMap<String, u64>) {
        let faults = self.history.faults.clone();
        for (of, place, at) in std::mem::take(&mut self.failed) {
            let until = calm_after(&faults, at).saturating_add(nanos(bounds.settled));
            self.list(of)[place].answer = Response::Unknown { until: Some(until) };
        }
        for (member, record) in std::mem::take(&mut self.stays) {
            let changes = record.end(&faults, bounds);
            self.history.stays.push(Stay { member, group: GROUP.to_owned(), changes });
        }
        (self.history, self.errors)
    }
}
