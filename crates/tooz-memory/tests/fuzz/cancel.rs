//! Random cancellation: every future of every operation is polled by hand and dropped somewhere, by several threads and coordinators.
//! Afterwards nothing is held, no future is stuck, and nothing is left at the backend.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tooz_core::{
    Coordinator, ErrorKind, GroupWatch, JoinOptions, LeaderWatch, Leadership, LockGuard, LockMode, Membership,
    Partitioner, SessionEvents,
};
use tooz_memory::Store;

use crate::claims::Claims;
use crate::hand::{dropped_somewhere, to_the_end};
use crate::rounds;

const THREADS: usize = 4;
const COORDINATORS: usize = 3;
const STEPS: usize = 250;
const LOCKS: [&str; 2] = ["x", "y"];
const GROUP: &str = "g";

#[test]
fn futures_that_are_dropped_anywhere_leave_nothing() {
    rounds::run("cancel", 1, round);
}

/// What all threads of a round share.
struct Ground {
    url: String,
    coordinators: Vec<Mutex<Coordinator>>,
    claims: Claims,
}

impl Ground {
    fn connect(&self, index: usize) -> Coordinator {
        to_the_end("connect()", tooz_core::connect(&self.url, format!("member-{index}"))).expect("memory is there")
    }

    fn coordinator(&self, random: &mut Rng) -> Coordinator {
        let index = random.usize(..self.coordinators.len());
        self.coordinators[index].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn round(seed: u64) {
    let name = format!("cancel-{seed}-{}", fastrand::u32(..));
    let store = Store::named(&name);
    let url = format!("memory://{name}?session_timeout=120s&operation_timeout=30s");
    let first = to_the_end("connect()", tooz_core::connect(&url, "first")).expect("memory is there");
    to_the_end("create()", first.group(GROUP).unwrap().create()).unwrap();
    let mut ground = Ground { url, coordinators: Vec::new(), claims: Claims::default() };
    for index in 0..COORDINATORS {
        ground.coordinators.push(Mutex::new(ground.connect(index)));
    }
    let ground = Arc::new(ground);
    let mut random = Rng::with_seed(seed);
    let actors: Vec<_> = (0..THREADS)
        .map(|_| {
            let (ground, random) = (Arc::clone(&ground), random.fork());
            thread::spawn(move || {
                let mut actor = Actor { ground, random, belongings: Belongings::default() };
                (0..STEPS).for_each(|_| actor.step());
            })
        })
        .collect();
    for actor in actors {
        if let Err(panic) = actor.join() {
            std::panic::resume_unwind(panic);
        }
    }
    nothing_is_held(&ground, &store, &first);
    for coordinator in &ground.coordinators {
        let coordinator = coordinator.lock().unwrap_or_else(PoisonError::into_inner).clone();
        to_the_end("close()", coordinator.close()).expect("closing works");
    }
    to_the_end("delete()", first.group(GROUP).unwrap().delete()).expect("it is empty");
    to_the_end("close()", first.close()).expect("closing works");
    eventually("the store is empty", || {
        let census = store.census();
        (census.sessions + census.held + census.waiting + census.groups + census.members + census.watching == 0)
            .then_some(())
            .ok_or(format!("{census:?}"))
    });
}

/// What was dropped is given back in the background: soon nothing is held, and all can have everything.
fn nothing_is_held(ground: &Ground, store: &Store, first: &Coordinator) {
    eventually("nothing is held", || {
        let census = store.census();
        (census.held + census.waiting + census.members == 0).then_some(()).ok_or(format!("{census:?}"))
    });
    for coordinator in &ground.coordinators {
        let coordinator = coordinator.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for lock in LOCKS.map(|name| coordinator.lock(name).unwrap()) {
            let guard = to_the_end("acquire() in the end", lock.acquire()).expect("it is free");
            assert!(
                to_the_end("a try in the end", first.lock(lock.name().clone()).unwrap().try_acquire())
                    .unwrap()
                    .is_none()
            );
            to_the_end("release() in the end", guard.release()).unwrap();
            to_the_end("a shared acquire() in the end", lock.shared().acquire()).expect("it is free").release_now();
        }
        let membership =
            to_the_end("join() in the end", coordinator.group(GROUP).unwrap().join(&1)).expect("it is empty");
        let leadership = to_the_end("campaign() in the end", membership.campaign()).expect("it is vacant");
        to_the_end("resign() in the end", leadership.resign()).unwrap();
        to_the_end("leave() in the end", membership.leave()).unwrap();
    }
}

trait ReleaseNow {
    fn release_now(self);
}

impl ReleaseNow for LockGuard {
    fn release_now(self) {
        to_the_end("release()", self.release()).expect("it was held");
    }
}

fn eventually(what: &str, mut ask: impl FnMut() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(why) = ask() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: not so: {why}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// One thread, and what it has.
struct Actor {
    ground: Arc<Ground>,
    random: Rng,
    belongings: Belongings,
}

#[derive(Default)]
struct Belongings {
    guards: Vec<LockGuard>,
    leaderships: Vec<Leadership>,
    memberships: Vec<Membership>,
    watches: Vec<GroupWatch>,
    leader_watches: Vec<LeaderWatch>,
    partitioners: Vec<Partitioner>,
    events: Vec<SessionEvents>,
}

impl Belongings {
    /// Whether others may have to wait for this one: then it may not wait for them.
    fn is_in_the_way(&self) -> bool {
        !self.guards.is_empty() || !self.leaderships.is_empty()
    }
}

/// Takes one out, if there is one.
fn pick<T>(random: &mut Rng, all: &mut Vec<T>) -> Option<T> {
    (!all.is_empty()).then(|| all.swap_remove(random.usize(..all.len())))
}

impl Actor {
    fn step(&mut self) {
        let coordinator = self.ground.coordinator(&mut self.random);
        match self.random.u8(0..100) {
            0..40 => self.get(&coordinator),
            40..60 => self.give_back(),
            60..68 => self.join(&coordinator),
            68..74 => self.campaign(),
            74..80 => self.update_or_leave(),
            80..86 => self.look(&coordinator),
            86..95 => self.follow(&coordinator),
            95..98 => self.break_one(&coordinator),
            98 => self.forget(),
            _ => self.close(),
        }
    }

    fn get(&mut self, coordinator: &Coordinator) {
        let name = self.random.choice(LOCKS).unwrap();
        let lock = coordinator.lock(name).unwrap();
        let mode = if self.random.bool() { LockMode::Exclusive } else { LockMode::Shared };
        let shared = lock.shared();
        let is_shared = mode == LockMode::Shared;
        let waits_to_the_end = !self.belongings.is_in_the_way() && self.random.u8(0..3) == 0;
        let brief = Duration::from_micros(self.random.u64(0..2000));
        let kind = self.random.u8(0..3);
        let getting = async {
            match (kind, is_shared) {
                (0, false) => lock.acquire().await.map(Some),
                (0, true) => shared.acquire().await.map(Some),
                (1, false) => lock.try_acquire().await,
                (1, true) => shared.try_acquire().await,
                (_, false) => lock.acquire_within(brief).await,
                (_, true) => shared.acquire_within(brief).await,
            }
        };
        let answer = if waits_to_the_end || (kind > 0 && self.random.bool()) {
            Some(to_the_end(["acquire()", "try_acquire()", "acquire_within()"][usize::from(kind)], getting))
        } else {
            dropped_somewhere(&mut self.random, getting)
        };
        match answer {
            Some(Ok(Some(guard))) => {
                assert_eq!(guard.mode(), mode);
                self.ground.claims.check_in(name, mode, guard.fencing_token(), guard.loss());
                self.belongings.guards.push(guard);
            }
            Some(Err(error)) => {
                let is_allowed = match kind {
                    // Broken on its way: a mere try is told.
                    1 => matches!(error.kind(), ErrorKind::Closed | ErrorKind::Lost | ErrorKind::Unavailable),
                    // Too short a wait for an answer: it is unknown whether another has it.
                    2 => matches!(error.kind(), ErrorKind::Closed | ErrorKind::TimedOut | ErrorKind::Unavailable),
                    _ => error.kind() == ErrorKind::Closed,
                };
                assert!(is_allowed, "of kind {kind}: {error:?}");
            }
            Some(Ok(None)) | None => {}
        }
    }

    fn give_back(&mut self) {
        let random = &mut self.random;
        if let Some(leadership) = pick(random, &mut self.belongings.leaderships) {
            match random.u8(0..3) {
                0 => drop(leadership),
                1 => drop(dropped_somewhere(random, leadership.resign())),
                _ => drop(to_the_end("resign()", leadership.resign())),
            }
        }
        if let Some(guard) = pick(random, &mut self.belongings.guards) {
            let loss = guard.loss();
            match random.u8(0..4) {
                0 => drop(guard),
                1 => drop(dropped_somewhere(random, guard.release())),
                2 => {
                    dropped_somewhere(random, guard.while_held(std::future::pending::<()>()));
                    drop(guard);
                }
                _ => drop(to_the_end("release()", guard.release())),
            }
            assert!(loss.is_lost(), "a guard that is gone is not held");
        }
    }

    fn join(&mut self, coordinator: &Coordinator) {
        let group = coordinator.group(GROUP).unwrap();
        let options = if self.random.u8(0..4) == 0 { JoinOptions::new().take_over() } else { JoinOptions::new() };
        let joining = group.join_with(options);
        let joined = if self.random.bool() {
            Some(to_the_end("join()", joining))
        } else {
            dropped_somewhere(&mut self.random, joining)
        };
        match joined {
            Some(Ok(membership)) => self.belongings.memberships.push(membership),
            Some(Err(error)) => {
                assert!(matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Closed), "{error:?}");
            }
            None => {}
        }
    }

    fn campaign(&mut self) {
        let in_the_way = self.belongings.is_in_the_way();
        let Some(membership) = pick(&mut self.random, &mut self.belongings.memberships) else { return };
        let elected = if !in_the_way && self.random.bool() {
            Some(to_the_end("campaign()", membership.campaign()))
        } else {
            dropped_somewhere(&mut self.random, membership.campaign())
        };
        match elected {
            Some(Ok(leadership)) => {
                self.ground.claims.check_in("election", LockMode::Exclusive, leadership.epoch(), leadership.loss());
                self.belongings.leaderships.push(leadership);
            }
            Some(Err(error)) => {
                assert!(matches!(error.kind(), ErrorKind::NotMember | ErrorKind::Closed), "{error:?}");
            }
            None => {}
        }
        self.belongings.memberships.push(membership);
    }

    fn update_or_leave(&mut self) {
        let Some(membership) = pick(&mut self.random, &mut self.belongings.memberships) else { return };
        let value = self.random.u32(..);
        let answer = match self.random.u8(0..6) {
            0 => Some(to_the_end("update()", membership.update(&value))),
            1 => dropped_somewhere(&mut self.random, membership.update(&value)),
            2 => return drop(membership),
            3 => dropped_somewhere(&mut self.random, membership.leave()).map(|_| Ok(())),
            4 => Some(to_the_end("leave()", membership.leave()).or(Ok(()))),
            _ => return self.belongings.memberships.push(membership),
        };
        if let Some(Err(error)) = answer {
            assert!(matches!(error.kind(), ErrorKind::NotMember | ErrorKind::Closed), "{error:?}");
        }
    }

    fn look(&mut self, coordinator: &Coordinator) {
        let group = coordinator.group(GROUP).unwrap();
        let lock = coordinator.lock("x").unwrap();
        let kind = self.random.u8(0..4);
        let looking = async {
            match kind {
                0 => lock.holders().await.map(drop),
                1 => group.members().await.map(drop),
                2 => group.leader().await.map(drop),
                _ => coordinator.groups().await.map(drop),
            }
        };
        let _ = (coordinator.state(), coordinator.terms(), coordinator.characteristics());
        let answer = if self.random.bool() {
            Some(to_the_end("a look", looking))
        } else {
            dropped_somewhere(&mut self.random, looking)
        };
        if let Some(Err(error)) = answer {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
        }
    }

    /// Begins to follow something, or follows what was begun for a few polls.
    fn follow(&mut self, coordinator: &Coordinator) {
        let (random, own) = (&mut self.random, &mut self.belongings);
        let group = coordinator.group(GROUP).unwrap();
        match random.u8(0..8) {
            0 => own.watches.extend(dropped_somewhere(random, group.watch()).and_then(Result::ok)),
            1 => own.leader_watches.extend(dropped_somewhere(random, group.watch_leader()).and_then(Result::ok)),
            2 => own.partitioners.extend(dropped_somewhere(random, group.partitioner()).and_then(Result::ok)),
            3 => own.events.push(coordinator.events()),
            4 => {
                if let Some(watch) = own.watches.last_mut() {
                    dropped_somewhere(random, watch.next());
                }
            }
            5 => {
                if let Some(watch) = own.leader_watches.last_mut() {
                    dropped_somewhere(random, watch.next());
                }
            }
            6 => {
                if let Some(partitioner) = own.partitioners.last_mut() {
                    let _ = partitioner.members_for("key", 2);
                    dropped_somewhere(random, partitioner.changed());
                }
            }
            _ => {
                if let Some(events) = own.events.last_mut() {
                    dropped_somewhere(random, events.next());
                }
                if let Some(guard) = own.guards.last() {
                    dropped_somewhere(random, guard.loss().wait());
                }
            }
        }
    }

    fn break_one(&mut self, coordinator: &Coordinator) {
        let lock = coordinator.lock(self.random.choice(LOCKS).unwrap()).unwrap();
        let Ok(holders) = to_the_end("holders()", lock.holders()) else { return };
        if let Some(holder) = self.random.choice(&holders) {
            dropped_somewhere(&mut self.random, lock.break_lock(holder));
        }
    }

    fn forget(&mut self) {
        let own = std::mem::take(&mut self.belongings);
        if self.random.bool() {
            // In another order than it was got in.
            drop((own.memberships, own.guards, own.events));
        }
    }

    /// Closes a coordinator under the hands of all, and puts a new one of the same name in its place.
    fn close(&mut self) {
        let index = self.random.usize(..COORDINATORS);
        let fresh = self.ground.connect(index);
        let old = {
            let mut place = self.ground.coordinators[index].lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *place, fresh)
        };
        match self.random.u8(0..3) {
            0 => drop(dropped_somewhere(&mut self.random, old.close())),
            1 => old.close_blocking().expect("closing works"),
            _ => to_the_end("close()", old.close()).expect("closing works"),
        }
    }
}
