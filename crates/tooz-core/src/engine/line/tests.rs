//! The line against a model of it that keeps only the waiters in their order and the holders: random events, and after each what must
//! be so.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::error::ErrorKind;
use crate::base::id::{LockName, RequestId};
use crate::base::loss_reason::LossReason;
use crate::driver::lock::{LockKey, LockRequest};
use crate::engine::claim::ClaimSubject;
use crate::engine::fake::Fake;
use crate::engine::live_session::LiveSession;

/// What happens to a line. A number that is too high counts round.
#[derive(Clone, Debug)]
enum Event {
    Come(LockMode, WaitMode),
    /// A waiter gives up, whose answer may be on its way.
    GoAway(usize),
    /// The backend answers the request in flight.
    Granted,
    NotGranted,
    Failed,
    /// A holder gives its grant back; the backend has it later.
    Release(usize),
    /// The backend has taken back a grant that was released.
    Back(usize),
    /// A grant is broken, and its holder lets it go.
    Broken(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let mode = prop_oneof![2 => Just(LockMode::Exclusive), 1 => Just(LockMode::Shared)];
    let patience = prop_oneof![3 => Just(WaitMode::Wait), 1 => Just(WaitMode::Try)];
    prop_oneof![
        4 => (mode, patience).prop_map(|(mode, patience)| Event::Come(mode, patience)),
        2 => (0..8usize).prop_map(Event::GoAway),
        4 => Just(Event::Granted),
        1 => Just(Event::NotGranted),
        1 => Just(Event::Failed),
        3 => (0..8usize).prop_map(Event::Release),
        3 => (0..8usize).prop_map(Event::Back),
        1 => (0..8usize).prop_map(Event::Broken),
    ]
}

/// A line, and what a model knows of it.
struct Model {
    line: Line,
    live: Arc<LiveSession>,
    requests: u128,
    /// The waiters, by number, and the receivers of their answers.
    waiting: BTreeMap<u64, (LockMode, WaitMode, oneshot::Receiver<Answer>)>,
    in_flight: Option<BackendRequest>,
    /// The grants that are held, and those that are on their way back.
    held: Vec<Arc<Hold>>,
    released: Vec<Arc<Hold>>,
    /// The numbers of the waits that were granted, in order.
    served: Vec<u64>,
}

impl Model {
    fn new() -> Self {
        let (live, _clock) = Fake::live(Duration::from_secs(10));
        Model {
            line: Line::default(),
            live,
            requests: 0,
            waiting: BTreeMap::new(),
            in_flight: None,
            held: Vec::new(),
            released: Vec::new(),
            served: Vec::new(),
        }
    }

    fn head(&self) -> Option<(u64, LockMode, WaitMode)> {
        self.waiting.iter().next().map(|(number, (mode, patience, _))| (*number, *mode, *patience))
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Come(mode, patience) => self.come(mode, patience),
            Event::GoAway(index) => self.go_away(index),
            Event::Granted => self.answer(|model, mode| Ok(Some(model.grant(mode)))),
            Event::NotGranted => self.answer(|_, _| Ok(None)),
            Event::Failed => self.answer(|_, _| Err(Error::new(ErrorKind::Unavailable, "as intended"))),
            Event::Release(index) => {
                if let Some(hold) = pick(&mut self.held, index) {
                    hold.lost.set(LossReason::Released);
                    self.released.push(hold);
                }
            }
            Event::Back(index) => {
                if let Some(hold) = pick(&mut self.released, index) {
                    self.line.gone(&hold);
                }
            }
            Event::Broken(index) => {
                if let Some(hold) = pick(&mut self.held, index) {
                    hold.lost.set(LossReason::Broken);
                    self.line.gone(&hold);
                }
            }
        }
        self.go_on();
        self.compare();
    }

    fn come(&mut self, mode: LockMode, patience: WaitMode) {
        let (sender, answer) = oneshot::channel();
        let another_waits = self.waiting.values().any(|(_, patience, _)| *patience == WaitMode::Wait);
        let came = self.line.come(mode, patience, sender);
        assert_eq!(came.is_none(), patience == WaitMode::Try && another_waits, "only a try behind a wait is refused");
        if let Some((number, untold)) = came {
            drop(untold);
            self.waiting.insert(number, (mode, patience, answer));
        }
    }

    fn go_away(&mut self, index: usize) {
        let Some(number) = self.waiting.keys().nth(index % self.waiting.len().max(1)).copied() else { return };
        self.waiting.remove(&number);
        let (waiter, untold) = self.line.leave(number);
        assert!(waiter.is_some_and(|waiter| waiter.number == number), "it was in the line");
        drop(untold);
    }

    /// A grant of the backend. It never gives one that conflicts with what is held, here or on its way back.
    fn grant(&mut self, mode: LockMode) -> Grant {
        for hold in self.held.iter().chain(&self.released) {
            assert!(!hold.mode().conflicts_with(mode), "a {mode:?} request beside a grant that is in its way");
        }
        self.requests += 1;
        let key = LockKey::lock(&LockName::new("l").unwrap());
        let id = RequestId(self.requests);
        let hold = Hold::new(&self.live, id, ClaimSubject::Lock(LockRequest::new(key, mode, id)));
        Grant { hold, token: FencingToken(1) }
    }

    fn answer(&mut self, make: impl FnOnce(&mut Self, LockMode) -> Answer) {
        let Some(BackendRequest { number, mode, patience, wanted }) = self.in_flight.take() else { return };
        let mut answer = make(self, mode);
        let is_none = matches!(answer, Ok(None));
        let head = self.head();
        let (mut waiter, _garbage) = self.line.answered(number, mode, patience, &answer);
        let expected = match (&answer, patience) {
            (Ok(Some(_)), _) => head.filter(|(_, its, _)| *its == mode).map(|(number, ..)| number),
            (_, WaitMode::Try) => self.waiting.contains_key(&number).then_some(number),
            (Ok(None), WaitMode::Wait) => None,
            (Err(_), WaitMode::Wait) => {
                head.filter(|(_, its, patience)| *its == mode && *patience == WaitMode::Wait).map(|(number, ..)| number)
            }
        };
        assert_eq!(
            waiter.as_ref().map(|waiter| waiter.number),
            expected,
            "the waiter that is answered (none: {is_none})"
        );
        drop(wanted);
        // As the local queue hands it over, where a receiver may have gone.
        while let Some(next) = waiter {
            let number = next.number;
            let (_, patience, mut receiver) = self.waiting.remove(&number).expect("it waits");
            let grant = match &answer {
                Ok(Some(grant)) => Some(Arc::clone(&grant.hold)),
                _ => None,
            };
            match next.answer.send(answer) {
                Ok(()) => {
                    assert!(receiver.try_recv().is_ok());
                    if let Some(hold) = grant {
                        self.held.push(hold);
                        if patience == WaitMode::Wait {
                            self.served.push(number);
                        }
                    }
                    return;
                }
                Err(unsent) => answer = unsent,
            }
            let (next, untold) = self.line.next_in(mode);
            drop(untold);
            waiter = next;
        }
        // A grant without a taker goes back.
        if let Ok(Some(grant)) = answer {
            grant.hold.lost.set(LossReason::Released);
            self.released.push(grant.hold);
        }
    }

    /// As the pump does after each event.
    fn go_on(&mut self) {
        let next = self.line.next();
        for refused in next.refused {
            let (mode, patience, _) = self.waiting.remove(&refused.number).expect("it waits");
            assert_eq!(patience, WaitMode::Try, "a wait is never refused here");
            assert!(self.held.iter().any(|hold| hold.mode().conflicts_with(mode)), "refused without a holder");
        }
        if let Some(errand) = next.ask {
            assert!(self.in_flight.is_none(), "two requests in flight");
            let head = self.head();
            assert_eq!(head, Some((errand.number, errand.mode, errand.patience)), "the request is for the head");
            self.in_flight = Some(errand);
        }
    }

    fn compare(&self) {
        if let Some(errand) = &self.in_flight {
            let wanted = match errand.patience {
                WaitMode::Try => self.waiting.contains_key(&errand.number),
                WaitMode::Wait => {
                    self.head().is_some_and(|(_, mode, patience)| mode == errand.mode && patience == WaitMode::Wait)
                }
            };
            assert_eq!(errand.wanted.is_wanted(), wanted, "whether the request in flight is wanted");
        }
        assert!(self.served.is_sorted(), "first come, first served: {:?}", self.served);
        for (index, one) in self.held.iter().enumerate() {
            for other in &self.held[index + 1..] {
                assert!(!one.mode().conflicts_with(other.mode()), "two grants that exclude each other");
            }
        }
        // The first waiter is served: by a request, or by a grant that is in its way.
        if let Some((_, mode, _)) = self.head() {
            let mut ours = self.held.iter().chain(&self.released);
            let in_the_way = ours.any(|hold| hold.mode().conflicts_with(mode));
            assert!(self.in_flight.is_some() || in_the_way, "the line stands still");
        }
    }

    /// From here on everything works: each waiter must get its turn.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            if self.waiting.is_empty() && self.held.is_empty() && self.released.is_empty() && self.in_flight.is_none() {
                assert!(!self.line.moves(), "an empty line remembers a grant");
                return;
            }
            self.happen(&Event::Granted);
            self.happen(&Event::Release(0));
            self.happen(&Event::Back(0));
        }
        panic!("{} still wait, {} hold", self.waiting.len(), self.held.len());
    }
}

fn pick(holds: &mut Vec<Arc<Hold>>, index: usize) -> Option<Arc<Hold>> {
    (!holds.is_empty()).then(|| holds.remove(index % holds.len()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_interleaving_keeps_order_and_exclusion_and_forgets_no_waiter(
        events in prop::collection::vec(event(), 0..60)
    ) {
        let mut model = Model::new();
        for event in &events {
            model.happen(event);
        }
        model.drain();
    }
}

/// A receiver that has gone without a word is skipped, and the grant goes to the next.
#[test]
fn a_grant_passes_by_a_waiter_that_is_not_there_any_more() {
    let mut model = Model::new();
    model.happen(&Event::Come(LockMode::Exclusive, WaitMode::Wait));
    model.happen(&Event::Come(LockMode::Exclusive, WaitMode::Wait));
    let first = *model.waiting.keys().next().unwrap();
    model.waiting.get_mut(&first).unwrap().2.close();
    model.happen(&Event::Granted);
    assert_eq!(model.served, [first + 1]);
    assert!(model.released.is_empty(), "it was used");
    model.drain();
}

/// A waiter that has stood in a line that moved is kept up also where the backend refuses; one that has not is told.
#[test]
fn only_a_line_that_moved_has_been_stood_in() {
    let mut model = Model::new();
    model.happen(&Event::Come(LockMode::Exclusive, WaitMode::Wait));
    assert!(!model.line.head_has_stood(), "nothing has moved yet");
    model.in_flight.as_ref().unwrap().wanted.queued();
    assert!(model.line.head_has_stood(), "the backend has said that it stands in the queue");
    model.happen(&Event::Come(LockMode::Exclusive, WaitMode::Wait));
    model.happen(&Event::Granted);
    model.happen(&Event::Release(0));
    model.happen(&Event::Back(0));
    assert!(model.line.head_has_stood(), "it stood behind one that got the lock");
    model.drain();
}

#[test]
fn what_is_in_the_way_is_a_grant_of_ours_or_the_backends_word() {
    let mut model = Model::new();
    model.happen(&Event::Come(LockMode::Exclusive, WaitMode::Wait));
    assert!(matches!(
        model.line.in_the_way(LockMode::Exclusive).0,
        Blocker::Backend { is_queued: false, trouble: None }
    ));
    assert!(model.line.set_trouble(Some(Error::new(ErrorKind::Unavailable, "as intended"))).is_none());
    assert!(matches!(model.line.in_the_way(LockMode::Exclusive).0, Blocker::Backend { trouble: Some(_), .. }));
    model.happen(&Event::Granted);
    assert!(matches!(model.line.in_the_way(LockMode::Shared).0, Blocker::OurGrant));
    assert!(model.line.set_trouble(None).is_none(), "the trouble is over with its request");
    model.happen(&Event::Release(0));
    let way = model.line.in_the_way(LockMode::Exclusive).0;
    assert!(matches!(way, Blocker::Backend { .. }), "what is on its way back is in no hands");
    model.drain();
}

#[test]
fn a_membership_that_ends_takes_what_was_won_as_it_and_nothing_else() {
    let mut model = Model::new();
    let [one, other] = [1, 2].map(|id| Hold::new(&model.live, RequestId(id << 64), ClaimSubject::Membership));
    let [first, second, third] = [1, 2, 3].map(|_| model.grant(LockMode::Shared).hold);
    for (membership, grant) in [(&one, &first), (&other, &second), (&one, &third)] {
        model.line.enlist(membership, grant);
    }
    let ids = |grants: Vec<Arc<Hold>>| grants.iter().map(|grant| grant.id).collect::<Vec<_>>();
    assert_eq!(ids(model.line.discharge(&one)), [first.id, third.id]);
    assert!(model.line.discharge(&one).is_empty());
    assert_eq!(ids(model.line.discharge(&other)), [second.id]);
}
