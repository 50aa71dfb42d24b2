//! The simulated backend: each request takes effect at once.

use std::collections::BTreeMap;

use tooz_core::HashRing;

use super::flaw::Flaw;
use super::worker::{Answer, Request};
use crate::history::{History, LeaderWatching, Listed, Mode, Telling, Told, ToldLeader, Watching};

/// So many keys are divided.
const KEYS: usize = 24;
/// The name of the election among the locks.
pub(super) const ELECTION: &str = "g";

/// Who holds a lock: the worker, the mode and the token.
type Holder = (usize, Mode, u64);

pub(super) struct Backend {
    pub(super) flaw: Option<Flaw>,
    pub(super) now: u64,
    /// Waiters whose turn it has become.
    pub(super) ready: Vec<(usize, Answer)>,
    holders: BTreeMap<String, Vec<Holder>>,
    former: BTreeMap<String, Vec<Holder>>,
    queues: BTreeMap<String, Vec<(usize, Mode)>>,
    count: u64,
    members: BTreeMap<usize, u64>,
    /// The members as they were before the last changes.
    earlier: Vec<BTreeMap<usize, u64>>,
    told: Vec<Told>,
    told_leaders: Vec<ToldLeader>,
}

impl Backend {
    pub(super) fn new(flaw: Option<Flaw>) -> Self {
        Backend {
            flaw,
            now: 0,
            ready: Vec::new(),
            holders: BTreeMap::new(),
            former: BTreeMap::new(),
            queues: BTreeMap::new(),
            count: 1_000_000,
            members: BTreeMap::new(),
            earlier: vec![BTreeMap::new()],
            told: vec![Told { at: 1, what: Telling::Snapshot(Vec::new()) }],
            told_leaders: vec![ToldLeader { at: 1, epoch: None }],
        }
    }

    /// Whether the flaw shows just now.
    fn has(&self, flaw: Flaw, random: &mut fastrand::Rng) -> bool {
        self.flaw == Some(flaw) && random.u8(..4) == 0
    }

    /// `None`: it waits.
    pub(super) fn ask(&mut self, who: usize, request: &Request, random: &mut fastrand::Rng) -> Option<Answer> {
        Some(match request {
            Request::Take { lock, mode, waits } => return self.take(who, lock, *mode, *waits, random),
            Request::Give { lock, token } => {
                let held = self.remove(lock, *token);
                self.grant_next(lock, random);
                Answer::Done(held)
            }
            Request::Break => self.break_one(random),
            Request::Look { lock } => Answer::Holders(lock.clone(), self.shown(lock, random)),
            Request::Say(word) => {
                self.change(who, Some(*word), random);
                Answer::Done(true)
            }
            Request::Leave => {
                self.leave(who, random);
                Answer::Done(self.flaw != Some(Flaw::ElectsForEver))
            }
            Request::Read => Answer::Members(self.read(random)),
            Request::Share => Answer::Owners(self.owners(who)),
            Request::Nothing => Answer::Done(true),
        })
    }

    fn take(&mut self, who: usize, lock: &str, mode: Mode, waits: bool, random: &mut fastrand::Rng) -> Option<Answer> {
        if self.has(Flaw::RefusesWhatIsFree, random) && !waits {
            return Some(Answer::Refused);
        }
        let held = self.holders.entry(lock.to_owned()).or_default();
        let mut free = held.iter().all(|(_, other, _)| !other.conflicts_with(mode));
        let is_election = lock == ELECTION;
        free |= !is_election && self.has(Flaw::GrantsWhatIsHeld, random);
        free |= is_election && self.has(Flaw::ElectsTwo, random);
        free |= mode == Mode::Shared && self.has(Flaw::GrantsReadersBesideAWriter, random);
        if free {
            return Some(Answer::Granted(self.grant(who, lock, mode, random)));
        }
        if waits {
            self.queues.entry(lock.to_owned()).or_default().push((who, mode));
            return None;
        }
        Some(Answer::Refused)
    }

    fn grant(&mut self, who: usize, lock: &str, mode: Mode, random: &mut fastrand::Rng) -> u64 {
        self.count += 1;
        let token = match self.flaw {
            Some(Flaw::RepeatsATicket) if random.u8(..4) == 0 => self.count - 1,
            Some(Flaw::CountsBackwards) if random.u8(..4) == 0 => 2_000_000 - self.count,
            _ => self.count,
        };
        self.holders.entry(lock.to_owned()).or_default().push((who, mode, token));
        if lock == ELECTION {
            self.tell_leader(Some(token));
        }
        token
    }

    fn remove(&mut self, lock: &str, token: u64) -> bool {
        let held = self.holders.entry(lock.to_owned()).or_default();
        let Some(place) = held.iter().position(|(_, _, its)| *its == token) else { return false };
        let holder = held.remove(place);
        self.former.entry(lock.to_owned()).or_default().push(holder);
        if lock == ELECTION && self.flaw != Some(Flaw::HidesAVacancy) {
            self.tell_leader(None);
        }
        true
    }

    fn grant_next(&mut self, lock: &str, random: &mut fastrand::Rng) {
        while let Some((who, mode)) = self.queues.get(lock).and_then(|queue| queue.first().copied()) {
            let held = self.holders.entry(lock.to_owned()).or_default();
            if held.iter().any(|(_, other, _)| other.conflicts_with(mode)) {
                return;
            }
            self.queues.entry(lock.to_owned()).or_default().remove(0);
            let token = self.grant(who, lock, mode, random);
            self.ready.push((who, Answer::Granted(token)));
        }
    }

    /// Breaks a holder of a lock that is no election.
    fn break_one(&mut self, random: &mut fastrand::Rng) -> Answer {
        let held = self.holders.iter().find(|(lock, held)| *lock != ELECTION && !held.is_empty());
        let Some((lock, held)) = held else { return Answer::Done(false) };
        let (lock, (_, _, token)) = (lock.clone(), held[0]);
        match self.flaw {
            Some(Flaw::LosesAHolder) => {
                self.remove(&lock, token);
                self.grant_next(&lock, random);
                Answer::Done(false)
            }
            Some(Flaw::BreaksAnother) => {
                let former = self.former.get(&lock).and_then(|former| former.last()).map_or(1, |(_, _, token)| *token);
                self.remove(&lock, token);
                self.grant_next(&lock, random);
                Answer::Broken(lock, former)
            }
            Some(_) => Answer::Done(false),
            None => {
                self.remove(&lock, token);
                self.grant_next(&lock, random);
                Answer::Broken(lock, token)
            }
        }
    }

    fn shown(&self, lock: &str, random: &mut fastrand::Rng) -> Vec<(Mode, u64)> {
        let mut held = self.holders.get(lock).cloned().unwrap_or_default();
        if self.has(Flaw::HidesAHolder, random) {
            held.pop();
        }
        if self.has(Flaw::ShowsAFormerHolder, random)
            && let Some(former) = self.former.get(lock).and_then(|former| former.first())
        {
            held = vec![*former];
        }
        held.into_iter().map(|(_, mode, token)| (mode, token)).collect()
    }

    /// Leaving ends the leadership first.
    fn leave(&mut self, who: usize, random: &mut fastrand::Rng) {
        if self.flaw != Some(Flaw::ElectsForEver) {
            self.end_leadership(who, random);
        }
        if !self.has(Flaw::KeepsWhoLeft, random) {
            self.change(who, None, random);
        }
    }

    fn end_leadership(&mut self, who: usize, random: &mut fastrand::Rng) {
        let leads = self.holders.get(ELECTION).into_iter().flatten().find(|(leader, ..)| *leader == who);
        if let Some((_, _, token)) = leads.copied() {
            self.remove(ELECTION, token);
            self.grant_next(ELECTION, random);
        }
    }

    /// The end of a session.
    pub(super) fn end(&mut self, who: usize, random: &mut fastrand::Rng) {
        for queue in self.queues.values_mut() {
            queue.retain(|(waiter, _)| *waiter != who);
        }
        for lock in self.holders.keys().cloned().collect::<Vec<_>>() {
            for (_, _, token) in self.holders[&lock].clone().into_iter().filter(|(holder, ..)| *holder == who) {
                self.remove(&lock, token);
            }
            self.grant_next(&lock, random);
        }
        self.change(who, None, random);
    }

    fn change(&mut self, who: usize, word: Option<u64>, random: &mut fastrand::Rng) {
        let before = self.members.get(&who).copied();
        self.earlier.push(self.members.clone());
        let member = format!("w{who}");
        let what = match (before, word) {
            (None, Some(word)) => Telling::Joined(Listed { member, word }),
            (Some(_), Some(word)) => Telling::Updated(Listed { member, word }),
            (Some(_), None) => Telling::Left(member),
            (None, None) => return,
        };
        match word {
            Some(word) => drop(self.members.insert(who, word)),
            None => drop(self.members.remove(&who)),
        }
        self.tell(what, random);
    }

    fn tell(&mut self, what: Telling, random: &mut fastrand::Rng) {
        if self.has(Flaw::SkipsAnEvent, random) {
            return;
        }
        let late = if self.has(Flaw::TellsLate, random) { 800_000 } else { random.u64(..3_000) };
        let at = self.told.last().map_or(0, |last| last.at).max(self.now + late);
        if self.has(Flaw::TellsTwice, random) {
            self.told.push(Told { at, what: what.clone() });
        }
        self.told.push(Told { at, what });
    }

    fn tell_leader(&mut self, epoch: Option<u64>) {
        self.told_leaders.push(ToldLeader { at: self.now, epoch });
    }

    fn read(&self, random: &mut fastrand::Rng) -> Vec<Listed> {
        let mut members = self.members.clone();
        if self.has(Flaw::HidesAMember, random) {
            members.pop_first();
        }
        let earlier = &self.earlier[self.earlier.len().saturating_sub(6)];
        if self.has(Flaw::ShowsAnOldWord, random) {
            members.clone_from(earlier);
        }
        if self.has(Flaw::ReadsInTwoSteps, random) {
            let first = earlier.iter().filter(|(who, _)| **who < 2);
            members.retain(|who, _| *who >= 2);
            members.extend(first);
        }
        let listed = members.into_iter();
        listed.map(|(who, word)| Listed { member: format!("w{who}"), word }).collect()
    }

    fn owners(&self, who: usize) -> Vec<String> {
        let names: Vec<String> = self.members.keys().map(|who| format!("w{who}")).collect();
        let ring: HashRing = names.iter().map(|name| (name.as_str(), 1)).collect();
        let differs = self.flaw == Some(Flaw::HasItsOwnRing) && who == 0;
        let key = |number: usize| if differs { format!("other-{number}") } else { format!("key-{number}") };
        (0..KEYS).filter_map(|number| ring.node_for(key(number)).map(str::to_owned)).collect()
    }

    pub(super) fn watchers_tell(&mut self, until: u64, history: &mut History) {
        let (worker, group) = ("w9/watch".to_owned(), ELECTION.to_owned());
        let told = std::mem::take(&mut self.told);
        history.watches.push(Watching { worker: worker.clone(), group: group.clone(), asked: 0, told, until });
        let told = std::mem::take(&mut self.told_leaders);
        history.leader_watches.push(LeaderWatching { worker, group, asked: 0, told, until });
    }
}
