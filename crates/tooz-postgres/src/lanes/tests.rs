//! The lanes under all orders of events, and under threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::fake::{Fake, Net, turn};
use super::*;

#[derive(Default)]
struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn place(asked: Admission<Fake>) -> WirePlace<Fake> {
    let Admission::Place(place) = asked else { panic!("the wire is idle, or has ended") };
    place
}

#[test]
fn a_heartbeat_goes_before_all_that_waits_and_what_has_gone_is_passed_over() {
    let net = Net::new();
    let lanes = Lanes::new(net.wire());
    let first = turn(lanes.ask(Lane::InOrder));
    let mut waiting: Vec<_> = (0..3).map(|_| place(lanes.ask(Lane::InOrder))).collect();
    let mut beat = place(lanes.ask(Lane::First));
    drop(waiting.remove(0));
    first.finish();
    let beat = beat.try_recv().unwrap();
    assert!(waiting.iter_mut().all(|place| place.try_recv().is_err()));
    beat.finish();
    // Its asker goes with the turn in its hands: the next one has it.
    assert!(waiting[1].try_recv().is_err());
    drop(waiting.remove(0));
    waiting[0].try_recv().unwrap().finish();
    assert_eq!(lanes.done(), 3);
    drop(turn(lanes.ask(Lane::InOrder)));
    assert_eq!((lanes.done(), lanes.has_ended()), (3, false), "what was not used is not counted");
}

#[test]
fn those_that_have_gone_are_not_kept_while_the_wire_hangs() {
    let lanes = Lanes::new(Net::new().wire());
    let hangs = turn(lanes.ask(Lane::InOrder));
    let kept: Vec<_> = (0..100).map(|_| place(lanes.ask(Lane::InOrder))).collect();
    (0..10_000).for_each(|_| drop(lanes.ask(Lane::InOrder)));
    let places = lanes.state().in_order.places.len();
    assert!(places <= 2 * kept.len() + FEW, "{places} places");
    drop(hangs);
    assert!(kept.into_iter().all(|mut place| place.try_recv().map(WireTurn::finish).is_ok()));
}

#[test]
fn a_wire_that_is_dropped_in_use_is_the_end() {
    let net = Net::new();
    let lanes = Lanes::new(net.wire());
    let mut used = turn(lanes.ask(Lane::InOrder));
    let mut waits = place(lanes.ask(Lane::First));
    assert!(used.begin().is_some());
    drop(used);
    assert!(lanes.has_ended() && !net.is_open());
    assert_eq!(waits.try_recv().err(), Some(oneshot::error::TryRecvError::Closed));
}

#[test]
fn a_panic_of_a_wire_that_listens_is_the_end() {
    let net = Net::new();
    let lanes = Lanes::new(net.wire());
    let used = turn(lanes.ask(Lane::InOrder));
    let mut waits = place(lanes.ask(Lane::InOrder));
    net.panic();
    assert!(catch_unwind(AssertUnwindSafe(|| used.finish())).is_err());
    assert!(lanes.has_ended() && !net.is_open());
    assert_eq!(waits.try_recv().err(), Some(oneshot::error::TryRecvError::Closed));
}

/// What a test does to the lanes.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ask(Lane),
    /// One of those that wait goes.
    Go(usize),
    Use,
    Finish,
    Tell,
    /// The task that listens is polled: by a waker of that number.
    Listen(usize),
    Die,
    End,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Ask(Lane::InOrder)),
        3 => Just(Event::Ask(Lane::First)),
        3 => (0_usize..8).prop_map(Event::Go),
        4 => Just(Event::Use),
        8 => Just(Event::Finish),
        4 => Just(Event::Tell),
        3 => (0_usize..2).prop_map(Event::Listen),
        1 => Just(Event::Die),
        1 => Just(Event::End),
    ]
}

/// The lanes, and what must be so.
struct Model {
    net: Arc<Net>,
    lanes: Arc<Lanes<Fake>>,
    waiting: Vec<(Lane, WirePlace<Fake>)>,
    turn: Option<WireTurn<Fake>>,
    listener: Option<Waker>,
    wakers: [Waker; 2],
    told: u32,
}

impl Model {
    fn new() -> Self {
        let net = Net::new();
        let lanes = Lanes::new(net.wire());
        let wakers = [(); 2].map(|()| Waker::from(Arc::new(WakeFlag::default())));
        Model { net, lanes, waiting: Vec::new(), turn: None, listener: None, wakers, told: 0 }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Ask(lane) => match self.lanes.ask(lane) {
                Admission::Turn(turn) => assert!(self.turn.replace(turn).is_none(), "two have the wire"),
                Admission::Place(place) => self.waiting.push((lane, place)),
                Admission::Ended => assert!(self.lanes.has_ended()),
            },
            Event::Go(index) if index < self.waiting.len() => drop(self.waiting.remove(index)),
            Event::Use => {
                if let Some(turn) = &mut self.turn {
                    assert!(turn.begin().is_some());
                    self.net.wakes(Waker::noop());
                }
            }
            Event::Finish => {
                if let Some(turn) = self.turn.take() {
                    turn.finish();
                    self.take_turn();
                }
            }
            Event::Tell => {
                self.net.tell();
                self.told += 1;
            }
            Event::Listen(index) => {
                if self.lanes.poll_idle(&Context::from_waker(&self.wakers[index])).is_pending() {
                    self.listener = Some(self.wakers[index].clone());
                }
            }
            Event::Die => self.net.die(),
            Event::End => self.lanes.end(),
            Event::Go(_) => {}
        }
    }

    /// The one whose turn it is next takes it; no other has it.
    fn take_turn(&mut self) {
        let next = self.waiting.iter().position(|(lane, _)| *lane == Lane::First);
        let next = next.or((!self.waiting.is_empty()).then_some(0));
        for (index, (_, place)) in self.waiting.iter_mut().enumerate() {
            let has_turn = place.try_recv();
            assert_eq!(has_turn.is_ok(), Some(index) == next && !self.lanes.has_ended());
            self.turn = self.turn.take().or(has_turn.ok());
        }
        if self.turn.is_some()
            && let Some(index) = next
        {
            drop(self.waiting.remove(index));
        }
        // What came meanwhile is told before what comes next.
        assert!(self.lanes.has_ended() || self.net.told() == self.told);
    }

    fn is_right(&self) {
        if self.lanes.has_ended() {
            assert_eq!(self.net.is_open(), self.turn.is_some(), "a wire that is not used is closed in the end");
        } else if self.turn.is_none() {
            assert!(self.waiting.is_empty(), "the wire is idle while another waits");
            if let Some(listener) = &self.listener {
                assert!(self.net.would_wake(listener) || self.net.told() < self.told || self.net.has_died());
            }
        }
    }
}

proptest! {
    #[test]
    fn the_wire_is_where_it_must_be_after_each_event(events in prop::collection::vec(event(), 1..60)) {
        let mut model = Model::new();
        for event in events {
            model.happens(event);
            model.is_right();
        }
    }
}

#[test]
fn under_threads_every_turn_comes_and_nothing_that_is_told_is_missed() {
    const LIMIT: Duration = Duration::from_secs(20);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let net = Net::new();
    let lanes = Lanes::new(net.wire());
    let listening = Arc::clone(&lanes);
    runtime.spawn(std::future::poll_fn(move |context| listening.poll_idle(context)));
    let asking: Vec<_> = (0..4_u32)
        .map(|one| {
            let (net, lanes) = (Arc::clone(&net), Arc::clone(&lanes));
            runtime.spawn(async move {
                let mut used = 0;
                for round in 0..3000_u32 {
                    let lane = if one == 0 { Lane::First } else { Lane::InOrder };
                    let mut turn = match lanes.ask(lane) {
                        Admission::Turn(turn) => turn,
                        // Each third goes away.
                        Admission::Place(_) if round % 3 == one % 3 => continue,
                        Admission::Place(place) => tokio::time::timeout(LIMIT, place).await.unwrap().unwrap(),
                        Admission::Ended => panic!("nothing ends it"),
                    };
                    assert!(turn.begin().is_some());
                    net.wakes(Waker::noop());
                    if round % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                    turn.finish();
                    used += 1;
                }
                used
            })
        })
        .collect();
    for told in 1..=500 {
        net.tell();
        if told % 8 == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    let used: u64 = asking.into_iter().map(|one| runtime.block_on(one).unwrap()).sum();
    assert_eq!(lanes.done(), used);
    let until = Instant::now() + LIMIT;
    while net.told() < 500 {
        assert!(Instant::now() < until, "{} of 500 were told", net.told());
        std::thread::sleep(Duration::from_millis(1));
    }
    net.die();
    while !lanes.has_ended() {
        assert!(Instant::now() < until, "the end is not seen");
        std::thread::sleep(Duration::from_millis(1));
    }
}
