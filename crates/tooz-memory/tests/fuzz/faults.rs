//! Scripted faults: sessions that end, beats that fail, partitions, lost replies, refusals for a while, a moved clock, and locks broken by
//! force. At no time do two believe to hold what excludes the other; after the last fault everything that was kept up is right again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tooz_core::{Coordinator, Error, ErrorKind, LockMode, MemberId, Membership};
use tooz_memory::{Effect, Fault, Operation, Store};

use crate::claims::Claims;
use crate::follow::Follower;
use crate::rounds;

const MEMBERS: usize = 3;
const STEPS: usize = 40;
const LOCKS: [&str; 2] = ["x", "y"];
const GROUP: &str = "g";
/// After the last fault: one back-off, a heartbeat, and a machine that has much else to do.
const RIGHT_AGAIN: Duration = Duration::from_secs(6);
/// How much longer than it may take a call takes on such a machine.
const SLACK: Duration = Duration::from_secs(5);
/// As what a backend refuses something for a while.
const REFUSALS: [ErrorKind; 5] =
    [ErrorKind::Backend, ErrorKind::Unavailable, ErrorKind::Unauthorized, ErrorKind::Config, ErrorKind::TimedOut];

#[test]
fn after_the_last_fault_everything_is_right_again() {
    // Most of its time a round waits.
    rounds::run("faults", 4, |seed| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        runtime.block_on(round(seed));
        runtime.shutdown_background();
    });
}

async fn round(seed: u64) {
    let mut random = Rng::with_seed(seed);
    let name = format!("faults-{seed}-{}", fastrand::u32(..));
    let store = Store::named(&name);
    let url = format!("memory://{name}?session_timeout=2s&operation_timeout=400ms&connect_timeout=400ms");
    let truth = tooz_core::connect(&format!("memory://{name}"), "truth").await.unwrap();
    let names: Vec<MemberId> = (0..MEMBERS).map(|index| format!("member-{index}").parse().unwrap()).collect();
    let mut followers = Vec::new();
    for name in &names {
        let coordinator = tooz_core::connect(&url, name.clone()).await.unwrap();
        // On a machine that has much else to do, even this may take too long once.
        let follower = loop {
            match Follower::start(coordinator.clone(), GROUP).await {
                Ok(follower) => break follower,
                Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}"),
            }
        };
        followers.push(follower);
    }
    let (claims, over) = (Arc::new(Claims::default()), Arc::new(AtomicBool::new(false)));
    let mut workers = JoinSet::new();
    for follower in &followers {
        for _ in 0..2 {
            let worker = Worker { claims: Arc::clone(&claims), over: Arc::clone(&over), random: random.fork() };
            workers.spawn(worker.locks(follower.coordinator.clone()));
        }
        let worker = Worker { claims: Arc::clone(&claims), over: Arc::clone(&over), random: random.fork() };
        workers.spawn(worker.leads(Arc::clone(&follower.membership)));
        let worker = Worker { claims: Arc::clone(&claims), over: Arc::clone(&over), random: random.fork() };
        workers.spawn(worker.updates(Arc::clone(&follower.membership)));
    }
    let mut script = Vec::new();
    for _ in 0..STEPS {
        script.push(fault(&mut random, &store, &names, &truth).await);
        sleep(Duration::from_millis(random.u64(0..40))).await;
    }
    for name in &names {
        store.heal(name);
    }
    store.clear_script();
    let told = || format!("seed {seed}, after {script:#?}");
    // The members go on updating meanwhile. On a machine that has much else to do a watch may lag behind by one update all the time: what counts is
    // judged once more when the updates are over.
    let lagging = are_right(&mut followers, &truth, None).await.err();
    over.store(true, Ordering::Relaxed);
    let ended = timeout(RIGHT_AGAIN, async {
        while let Some(worker) = workers.join_next().await {
            worker.unwrap_or_else(|panic| panic!("{panic}: {}", told()));
        }
    });
    ended.await.unwrap_or_else(|_| panic!("{} workers are stuck: {}", workers.len(), told()));
    if let Some(before) = lagging {
        let right = are_right(&mut followers, &truth, None).await;
        right.unwrap_or_else(|why| panic!("{why}; before that, {before}: {}", told()));
    }
    for follower in &followers {
        let updated = timeout(SLACK, follower.membership.update(&"last")).await;
        let updated = updated.unwrap_or_else(|_| panic!("the last update is stuck: {}", told()));
        updated.unwrap_or_else(|error| panic!("the last update: {error:?}: {}", told()));
    }
    are_right(&mut followers, &truth, Some("\"last\"")).await.unwrap_or_else(|why| panic!("{why}: {}", told()));
    for follower in &followers {
        for lock in LOCKS.map(|name| follower.coordinator.lock(name).unwrap()) {
            let got = timeout(SLACK, lock.acquire()).await;
            let guard = got.unwrap_or_else(|_| panic!("{lock:?} is not to be had: {}", told())).unwrap();
            guard.release().await.unwrap();
        }
    }
    for follower in followers {
        timeout(SLACK, follower.coordinator.close()).await.expect("close() is stuck").unwrap();
    }
    truth.group(GROUP).unwrap().delete().await.unwrap_or_else(|error| panic!("{error:?}: {}", told()));
    truth.close().await.unwrap();
    let begun = Instant::now();
    loop {
        let census = store.census();
        if census.sessions + census.held + census.waiting + census.members + census.groups + census.watching == 0 {
            return;
        }
        assert!(begun.elapsed() < SLACK, "left: {census:?}: {}", told());
        sleep(Duration::from_millis(5)).await;
    }
}

/// One thing that goes wrong, or is mended; answers which.
async fn fault(random: &mut Rng, store: &Store, names: &[MemberId], truth: &Coordinator) -> String {
    let whose = random.choice(names).expect("there are some").clone();
    let operation = *random.choice(Operation::ALL).expect("there are some");
    let kind = random.choice(REFUSALS).expect("there are some");
    match random.u8(0..16) {
        0..3 => {
            store.expire(&whose);
            format!("{whose:?} expires")
        }
        3..5 => {
            store.partition(&whose);
            format!("{whose:?} is cut off")
        }
        5..7 => {
            store.heal(&whose);
            format!("{whose:?} is healed")
        }
        7 => {
            store.script(Fault::new(operation, Effect::Fail(kind)).of(whose.clone()).each());
            format!("{operation:?} of {whose:?} fails as {kind} from now on")
        }
        8 => {
            store.clear_script();
            "nothing else fails".to_owned()
        }
        9 => {
            let by = Duration::from_millis(random.u64(1..3000));
            store.advance(by);
            format!("{by:?} pass")
        }
        10..12 => {
            store.script(Fault::new(operation, Effect::Fail(kind)).of(whose.clone()));
            format!("{operation:?} of {whose:?} fails as {kind}")
        }
        12..15 => {
            let effect = if random.bool() {
                Effect::LoseReply
            } else {
                Effect::Delay(Duration::from_millis(random.u64(1..300)))
            };
            store.script(Fault::new(operation, effect).of(whose.clone()));
            format!("{operation:?} of {whose:?}: {effect:?}")
        }
        _ => {
            let lock = truth.lock(random.choice(LOCKS).expect("there are some")).unwrap();
            let holders = lock.holders().await.unwrap();
            if let Some(holder) = random.choice(&holders) {
                let _gone_by_now = lock.break_lock(holder).await;
            }
            format!("{lock:?} is broken")
        }
    }
}

async fn are_right(followers: &mut [Follower], truth: &Coordinator, capabilities: Option<&str>) -> Result<(), String> {
    let end = Instant::now() + RIGHT_AGAIN;
    for follower in followers {
        // Others come, go and lead meanwhile: it is enough to have been right once.
        while let Err(why) = follower.differs(truth, capabilities).await {
            if Instant::now() >= end {
                return Err(format!("not right again after {RIGHT_AGAIN:?}: {why}"));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

struct Worker {
    claims: Arc<Claims>,
    over: Arc<AtomicBool>,
    random: Rng,
}

impl Worker {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    async fn pause(&mut self, most: u64) {
        sleep(Duration::from_micros(self.random.u64(0..most * 1000))).await;
    }

    async fn locks(mut self, coordinator: Coordinator) {
        while self.goes_on() {
            let name = self.random.choice(LOCKS).expect("there are some");
            let lock = coordinator.lock(name).unwrap();
            let mode = if self.random.bool() { LockMode::Exclusive } else { LockMode::Shared };
            let brief = Duration::from_millis(self.random.u64(0..100));
            let kind = self.random.u8(0..3);
            let shared = lock.shared();
            let got = match (kind, mode) {
                (0, LockMode::Exclusive) => lock.acquire().await.map(Some),
                (0, LockMode::Shared) => shared.acquire().await.map(Some),
                (1, LockMode::Exclusive) => soon("try_acquire()", lock.try_acquire()).await,
                (1, LockMode::Shared) => soon("try_acquire()", shared.try_acquire()).await,
                (_, LockMode::Exclusive) => soon("acquire_within()", lock.acquire_within(brief)).await,
                (_, LockMode::Shared) => soon("acquire_within()", shared.acquire_within(brief)).await,
            };
            match got {
                Ok(Some(guard)) => {
                    self.claims.check_in(name, mode, guard.fencing_token(), guard.loss());
                    self.pause(20).await;
                    if self.random.bool() {
                        drop(guard);
                    } else {
                        let _may_be_lost = soon("release()", guard.release()).await;
                    }
                }
                Ok(None) => {}
                Err(error) => may_be(&error, kind == 0),
            }
            self.pause(10).await;
        }
    }
}

/// Only refusals may end a wait, and only one that has never stood; anything that went wrong may be the answer to a try.
fn may_be(error: &Error, waited: bool) {
    let refusals: &[ErrorKind] = &[ErrorKind::Unauthorized, ErrorKind::Config];
    let troubles: &[ErrorKind] = &[ErrorKind::Backend, ErrorKind::Unavailable, ErrorKind::TimedOut, ErrorKind::Lost];
    let allowed = refusals.contains(&error.kind()) || (!waited && troubles.contains(&error.kind()));
    assert!(allowed, "this may not be the answer: {error:?}");
}

impl Worker {
    async fn leads(mut self, membership: Arc<Membership>) {
        while self.goes_on() {
            match membership.campaign().await {
                Ok(leadership) => {
                    self.claims.check_in("election", LockMode::Exclusive, leadership.epoch(), leadership.loss());
                    self.pause(30).await;
                    if self.random.bool() {
                        let _may_be_lost = soon("resign()", leadership.resign()).await;
                    }
                }
                Err(error) => may_be(&error, true),
            }
            self.pause(20).await;
        }
    }

    async fn updates(mut self, membership: Arc<Membership>) {
        while self.goes_on() {
            // Waits for the re-join, however long that is impossible.
            if let Err(error) = membership.update(&self.random.u32(..)).await {
                may_be(&error, false);
            }
            self.pause(100).await;
        }
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SLACK, future).await.unwrap_or_else(|_| panic!("{what} is stuck"))
}
