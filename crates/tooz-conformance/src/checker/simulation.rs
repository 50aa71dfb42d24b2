//! A simulated backend and its workers, under random delays: a correct one, and ones with a known flaw each.
//!
//! Every request takes effect at one moment between its call and its return. A correct backend's histories must be acquitted, whatever the delays;
//! one with a flaw must be convicted of the law that it breaks.

mod backend;
mod flaw;
mod worker;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use crate::checker::{Law, Terms, examine, judge, judge_by};
use crate::history::{Fault, History};

use backend::Backend;
use flaw::Flaw;
use worker::Worker;

/// What is due, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The worker thinks of something.
    Next(usize),
    /// The worker's request has reached the backend.
    Effect(usize),
    /// The answer has reached the worker.
    Answer(usize),
    /// The worker's session ends: it knows before the backend does.
    Told(usize),
    Ended(usize),
}

/// The world: its clock, its backend and its workers.
struct Simulation {
    now: u64,
    random: fastrand::Rng,
    due: BinaryHeap<Reverse<(u64, usize, Event)>>,
    number: usize,
    backend: Backend,
    workers: Vec<Worker>,
    history: History,
}

impl Simulation {
    /// So many events of so many workers.
    fn run(seed: u64, flaw: Option<Flaw>, events: usize) -> History {
        let random = fastrand::Rng::with_seed(seed);
        let workers = (0..4).map(Worker::new).collect();
        let mut world = Simulation {
            now: 1_000,
            random,
            due: BinaryHeap::new(),
            number: 0,
            backend: Backend::new(flaw),
            workers,
            history: History::default(),
        };
        (0..world.workers.len()).for_each(|who| world.after(1_000, Event::Next(who)));
        for _ in 0..events {
            let Some(Reverse((now, _, event))) = world.due.pop() else { break };
            world.now = now;
            world.happen(event);
        }
        world.finish()
    }

    fn after(&mut self, most: u64, event: Event) {
        let at = self.now + self.random.u64(1..=most);
        self.number += 1;
        self.due.push(Reverse((at, self.number, event)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Next(who) => self.next(who),
            Event::Effect(who) => self.effect(who),
            Event::Answer(who) => self.answer(who),
            Event::Told(who) => self.told(who),
            Event::Ended(who) => self.ended(who),
        }
    }

    fn next(&mut self, who: usize) {
        // The flaws that need no fault must be found without one.
        if self.backend.flaw.is_none() && self.random.u8(..40) == 0 {
            return self.happen(Event::Told(who));
        }
        self.workers[who].think(self.now, &mut self.random);
        self.after(3_000, Event::Effect(who));
    }

    fn effect(&mut self, who: usize) {
        self.backend.now = self.now;
        let request = self.workers[who].request.clone();
        if let Some(answer) = self.backend.ask(who, &request, &mut self.random) {
            self.workers[who].answer = Some(answer);
            self.after(3_000, Event::Answer(who));
        }
        self.deliver();
    }

    /// Those whose turn it has become.
    fn deliver(&mut self) {
        for (who, answer) in std::mem::take(&mut self.backend.ready) {
            self.workers[who].answer = Some(answer);
            self.after(3_000, Event::Answer(who));
        }
    }

    fn answer(&mut self, who: usize) {
        let now = self.now;
        self.workers[who].hear(now, &mut self.history);
        self.after(4_000, Event::Next(who));
    }

    /// The worker finds that its session is over, and only then the backend.
    fn told(&mut self, who: usize) {
        let name = format!("the session of w{who} ends");
        self.history.faults.push(Fault { name, from: self.now, to: self.now + 10_000 });
        self.workers[who].lose(self.now, &mut self.history);
        self.after(3_000, Event::Ended(who));
    }

    fn ended(&mut self, who: usize) {
        self.backend.now = self.now;
        self.backend.end(who, &mut self.random);
        self.workers[who].ended(self.now, &mut self.history);
        self.deliver();
        self.after(4_000, Event::Next(who));
    }

    fn finish(mut self) -> History {
        for worker in &mut self.workers {
            worker.finish(self.now, &mut self.history);
        }
        let end = self.now + 3_000_000;
        self.backend.watchers_tell(end, &mut self.history);
        self.history
    }
}

fn terms() -> Terms {
    use std::time::Duration;
    Terms::strict().lateness(Duration::from_micros(300)).recovery(Duration::from_micros(100))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_correct_backend_is_acquitted(seed in any::<u64>(), events in 100_usize..1500) {
        let history = Simulation::run(seed, None, events);
        let violations = judge(&history, &terms());
        prop_assert!(violations.is_empty(), "{violations:#?}");
    }

    #[test]
    fn what_is_cut_down_is_still_convicted(seed in any::<u64>(), number in 0..Flaw::ALL.len()) {
        let flaw = Flaw::ALL[number];
        let history = Simulation::run(seed, Some(flaw), 1500);
        if let Err(violation) = judge_by(flaw.breaks(), &history, &terms()) {
            let witness = violation.witness();
            prop_assert!(judge_by(flaw.breaks(), witness, &terms()).is_err(), "{flaw:?}: {witness:#?}");
        }
    }
}

#[test]
fn every_flaw_is_convicted() {
    for flaw in Flaw::ALL {
        let convicted = (0..8).filter(|seed| {
            let history = Simulation::run(*seed, Some(*flaw), 3000);
            examine(flaw.breaks(), &history, &terms()).is_err()
        });
        let convicted = convicted.count();
        assert!(convicted >= 3, "{flaw:?} is convicted in {convicted} of 8 runs only");
    }
}

#[test]
fn a_witness_is_small() {
    for (flaw, most) in [(Flaw::GrantsWhatIsHeld, 4), (Flaw::RefusesWhatIsFree, 8), (Flaw::RepeatsATicket, 2)] {
        let history = Simulation::run(3, Some(flaw), 3000);
        let violation = judge_by(flaw.breaks(), &history, &terms()).expect_err("it has a flaw");
        let witness = violation.witness();
        let size = witness.attempts.len() + witness.campaigns.len();
        assert!(history.attempts.len() > 100 && size <= most, "{flaw:?} has a witness of {size}: {witness:#?}");
    }
}

#[test]
fn every_law_is_broken_by_a_flaw() {
    // The simulation lists no locks: what is wrong with lists is shown in tests of their own.
    for law in Law::ALL.iter().filter(|law| **law != Law::Lists) {
        assert!(Flaw::ALL.iter().any(|flaw| flaw.breaks() == *law), "no flaw breaks {law}");
    }
}
