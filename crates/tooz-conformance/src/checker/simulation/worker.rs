//! A simulated worker: it does one thing after another, and writes down what it was told.

use crate::history::{
    Attempt, Break, Change, ChangeKind, Grant, History, Listed, Mode, Reading, Response, Share, Sighting, Stay,
};

use super::backend::ELECTION;

#[derive(Clone, Debug)]
pub(super) enum Request {
    Take { lock: String, mode: Mode, waits: bool },
    Give { lock: String, token: u64 },
    Break,
    Look { lock: String },
    Say(u64),
    Leave,
    Read,
    Share,
    Nothing,
}

#[derive(Clone, Debug)]
pub(super) enum Answer {
    Granted(u64),
    Refused,
    /// Whether there was something to be done.
    Done(bool),
    Broken(String, u64),
    Holders(String, Vec<(Mode, u64)>),
    Members(Vec<Listed>),
    Owners(Vec<String>),
}

pub(super) struct Worker {
    number: usize,
    pub(super) request: Request,
    pub(super) answer: Option<Answer>,
    asked: u64,
    /// Granted and not given back: its attempt.
    held: Option<Attempt>,
    leads: Option<Attempt>,
    stay: Stay,
    word: u64,
    is_member: bool,
    /// When it found that its session is over.
    lost: Option<u64>,
}

impl Worker {
    pub(super) fn new(number: usize) -> Self {
        let stay = Stay { member: format!("w{number}"), group: ELECTION.to_owned(), changes: Vec::new() };
        let word = number as u64 * 1_000_000;
        let request = Request::Nothing;
        Worker {
            number,
            request,
            answer: None,
            asked: 0,
            held: None,
            leads: None,
            stay,
            word,
            is_member: false,
            lost: None,
        }
    }

    fn name(&self) -> String {
        format!("w{}/all", self.number)
    }

    /// Chooses the next request.
    pub(super) fn think(&mut self, now: u64, random: &mut fastrand::Rng) {
        self.asked = now;
        let token = |attempt: &Attempt| match &attempt.answer {
            Response::Granted(grant) => grant.token,
            _ => 0,
        };
        let lock = format!("x{}", random.u8(..2));
        self.request = match (random.u8(..12), &self.held, &self.leads) {
            (0..=3, Some(held), _) => {
                let (lock, token) = (held.lock.clone(), token(held));
                Request::Give { lock, token }
            }
            (0..=3, None, _) => {
                let mode = if random.bool() { Mode::Exclusive } else { Mode::Shared };
                // Who holds something of one kind does not wait for the other, so that no two wait for each other.
                Request::Take { lock, mode, waits: random.bool() && self.leads.is_none() }
            }
            (4, _, Some(leads)) => Request::Give { lock: ELECTION.to_owned(), token: token(leads) },
            (4, _, None) if self.is_member => {
                Request::Take { lock: ELECTION.to_owned(), mode: Mode::Exclusive, waits: self.held.is_none() }
            }
            (5 | 6, ..) => {
                self.word += 1;
                Request::Say(self.word)
            }
            (7, ..) if self.is_member => Request::Leave,
            (8, ..) => Request::Read,
            (9, ..) => Request::Look { lock: if random.bool() { lock } else { ELECTION.to_owned() } },
            (10, ..) => Request::Share,
            (11, ..) => Request::Break,
            _ => Request::Nothing,
        };
    }

    /// Writes down what became of the request.
    pub(super) fn hear(&mut self, now: u64, history: &mut History) {
        let Some(answer) = self.answer.take() else { return };
        let (worker, asked) = (self.name(), self.asked);
        match (self.request.clone(), answer) {
            (Request::Take { lock, mode, .. }, Answer::Granted(token)) => {
                let grant = Grant { at: now, token, believed_until: None, released: None, lost: None };
                let answer = Response::Granted(grant);
                *self.place(&lock) = Some(Attempt { worker, lock: lock.clone(), mode, asked, answer });
            }
            (Request::Take { lock, mode, .. }, _) => {
                let answer = Response::NotHad { at: now, waited: false };
                let list = if lock == ELECTION { &mut history.campaigns } else { &mut history.attempts };
                list.push(Attempt { worker, lock, mode, asked, answer });
            }
            (Request::Give { lock, .. }, Answer::Done(held)) => self.given(&lock, asked, now, held, history),
            (Request::Break, Answer::Broken(lock, token)) => {
                history.breaks.push(Break { worker, lock, token, asked, done: Some(now) });
            }
            (Request::Look { .. }, Answer::Holders(lock, holders)) => {
                let list = if lock == ELECTION { &mut history.leaders } else { &mut history.sightings };
                list.push(Sighting { worker, lock, asked, at: now, holders });
            }
            (Request::Say(word), _) => {
                self.is_member = true;
                self.changed(ChangeKind::Says(word), asked, now);
            }
            (Request::Leave, answer) => {
                self.is_member = false;
                self.changed(ChangeKind::Left, asked, now);
                self.led_until_it_left(asked, now, matches!(answer, Answer::Done(false)), history);
            }
            (Request::Read, Answer::Members(members)) => {
                history.readings.push(Reading { worker, group: ELECTION.to_owned(), asked, at: now, members });
            }
            (Request::Share, Answer::Owners(owners)) => {
                history.shares.push(Share { worker, group: ELECTION.to_owned(), at: now, owners });
            }
            _ => {}
        }
        self.request = Request::Nothing;
    }

    fn place(&mut self, lock: &str) -> &mut Option<Attempt> {
        if lock == ELECTION { &mut self.leads } else { &mut self.held }
    }

    fn changed(&mut self, kind: ChangeKind, asked: u64, done: u64) {
        self.stay.changes.push(Change { kind, asked, done: Some(done) });
    }

    /// What it gave back; where there was nothing to give, it had lost it, to one that broke it.
    fn given(&mut self, lock: &str, asked: u64, now: u64, held: bool, history: &mut History) {
        let released = held.then_some(now);
        self.close(lock, asked, released, (!held).then_some(now), history);
    }

    fn close(&mut self, lock: &str, believed: u64, released: Option<u64>, lost: Option<u64>, history: &mut History) {
        let Some(mut attempt) = self.place(lock).take() else { return };
        if let Response::Granted(grant) = &mut attempt.answer {
            (grant.believed_until, grant.released, grant.lost) = (Some(believed.max(grant.at)), released, lost);
        }
        let attempts = if lock == ELECTION { &mut history.campaigns } else { &mut history.attempts };
        attempts.push(attempt);
    }

    /// A leadership ends with the membership, unless the backend says that it goes on.
    fn led_until_it_left(&mut self, asked: u64, now: u64, goes_on: bool, history: &mut History) {
        let believed = if goes_on { now + 5_000 } else { asked };
        self.close(ELECTION, believed, None, Some(believed), history);
    }

    /// It finds that its session is over.
    pub(super) fn lose(&mut self, now: u64, history: &mut History) {
        self.lost = Some(now);
        if let Some(lock) = self.held.as_ref().map(|held| held.lock.clone()) {
            self.close(&lock, now, None, Some(now), history);
        }
        self.close(ELECTION, now, None, Some(now), history);
    }

    /// The backend has ended its session.
    pub(super) fn ended(&mut self, now: u64, _history: &mut History) {
        let Some(lost) = self.lost.take() else { return };
        if std::mem::take(&mut self.is_member) {
            self.changed(ChangeKind::Lost, lost, now);
        }
    }

    /// What is still under way is not known.
    pub(super) fn finish(&mut self, now: u64, history: &mut History) {
        let (worker, asked) = (self.name(), self.asked);
        match self.request.clone() {
            Request::Say(word) => {
                self.stay.changes.push(Change { kind: ChangeKind::Says(word), asked, done: None });
            }
            Request::Leave => {
                self.stay.changes.push(Change { kind: ChangeKind::Left, asked, done: None });
                // The leadership may have ended with it.
                self.close(ELECTION, asked, None, None, history);
            }
            Request::Take { lock, mode, .. } => {
                let list = if lock == ELECTION { &mut history.campaigns } else { &mut history.attempts };
                list.push(Attempt { worker, lock, mode, asked, answer: Response::Unknown { until: None } });
            }
            Request::Give { lock, .. } => self.close(&lock, asked, None, None, history),
            Request::Break => {
                if let Some(Answer::Broken(lock, token)) = self.answer.take() {
                    history.breaks.push(Break { worker, lock, token, asked, done: None });
                }
            }
            _ => {}
        }
        for lock in ["x", ELECTION] {
            self.close(lock, now, None, None, history);
        }
        history.stays.push(self.stay.clone());
    }
}
