//! What the tests with the toy driver share: a toy by its name, an observer that looks at its store from outside, and everything that a
//! coordinator can have at once.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tooz_core::{
    ConnectOptions, Coordinator, GroupEvent, GroupWatch, LeaderEvent, LeaderWatch, Leadership, LockGuard, Loss,
    LossReason, MemberId, Membership, Partitioner, Result, RosterEntry, SessionEvent, SessionEvents,
};
use tooz_memory::Store;

use crate::driver::{Script, TOY};

/// How long one request may take.
pub(crate) const OPERATION: Duration = Duration::from_millis(800);
/// After this a session ends of which no heartbeat comes.
pub(crate) const SESSION: Duration = Duration::from_secs(3);
/// How long to wait for what should come soon, on a machine that has much else to do.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Runs the test on a thread and a runtime of its own, so that what blocks its thread for ever fails the test and not the run.
#[track_caller]
pub(crate) fn trial(test: impl AsyncFnOnce() + Send + 'static) {
    trial_within(Duration::from_mins(1), test);
}

#[track_caller]
pub(crate) fn trial_within(limit: Duration, test: impl AsyncFnOnce() + Send + 'static) {
    ends_within(limit, "the test", move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(test())));
        // A task that hangs must not hang the other tests.
        runtime.shutdown_background();
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    });
}

/// Runs what blocks on a thread of its own, and fails when it has not ended within the limit.
#[track_caller]
pub(crate) fn ends_within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    deed: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(catch_unwind(AssertUnwindSafe(deed)));
    });
    match receiver.recv_timeout(limit) {
        Ok(Ok(value)) => {
            let _ = thread.join();
            value
        }
        Ok(Err(panic)) => resume_unwind(panic),
        Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => {
            panic!("{what} has not ended within {limit:?}")
        }
    }
}

/// Fails when the future has not ended soon.
#[track_caller]
pub(crate) fn soon<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    within(SOON, what, future)
}

#[track_caller]
pub(crate) fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let ended = tokio::time::timeout(limit, future).await.ok();
        ended.unwrap_or_else(|| panic!("{what} took longer than {limit:?} ({place})"))
    }
}

/// Asks again until the answer is `Ok`; fails with the last `Err`.
#[track_caller]
pub(crate) fn comes_true(
    limit: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<(), String>,
) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let end = Instant::now() + limit;
        loop {
            match ask().await {
                Ok(()) => return,
                Err(why) if Instant::now() >= end => panic!("{what}: not after {limit:?}: {why} ({place})"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// Polls the future by hand for a while and then drops it; answers what it ended with, if it did.
pub(crate) async fn given_up_after<T>(pause: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    if let Poll::Ready(value) = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
        return Some(value);
    }
    tokio::time::timeout(pause, future).await.ok()
}

/// One toy: its script, and the store behind it.
#[derive(Clone)]
pub(crate) struct Toy {
    pub(crate) name: String,
    pub(crate) script: Arc<Script>,
    pub(crate) store: Store,
}

impl Toy {
    pub(crate) fn named(name: &str) -> Self {
        static TAKEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        // Hosts of URLs are told in small letters by some.
        let name = name.to_ascii_lowercase();
        let is_new = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        assert!(is_new, "two tests share the toy {name}");
        Toy { script: Script::named(&name), store: Store::named(&name), name }
    }

    pub(crate) fn options(&self, scheme: &str, member: &str) -> ConnectOptions {
        let options = ConnectOptions::new(&format!("{scheme}://{}", self.name)).expect("the URL is one");
        let options = options.member(member).expect("the name is one").session_timeout(SESSION);
        options.connect_timeout(OPERATION).operation_timeout(OPERATION)
    }

    pub(crate) async fn try_connect(&self, member: &str) -> Result<Coordinator> {
        self.options("toy", member).driver(&TOY).connect().await
    }

    pub(crate) async fn connect(&self, member: &str) -> Coordinator {
        soon("connecting", self.try_connect(member)).await.expect("connecting")
    }

    /// An observer at the same store with a driver that does what it should.
    pub(crate) async fn observer(&self, member: &str) -> Coordinator {
        soon("connecting", self.options("memory", member).driver(&tooz_memory::DRIVER).connect())
            .await
            .expect("observing")
    }

    /// The session of that member ends at the backend.
    pub(crate) fn expire(&self, member: &str) {
        self.store.expire(&name(member));
    }
}

pub(crate) fn name(member: &str) -> MemberId {
    member.parse().expect("the name is one")
}

/// Everything that one coordinator can have at once, beside a rival with a good driver that holds what is waited for.
pub(crate) struct Everything {
    pub(crate) coordinator: Coordinator,
    pub(crate) guard: LockGuard,
    pub(crate) membership: Membership,
    pub(crate) leadership: Leadership,
    pub(crate) watch: GroupWatch,
    pub(crate) leaders: LeaderWatch,
    pub(crate) partitioner: Partitioner,
    pub(crate) events: SessionEvents,
    /// Waits for what the rival holds.
    pub(crate) waiting: JoinHandle<Result<LockGuard>>,
    pub(crate) rival: Coordinator,
    pub(crate) rivals: LockGuard,
    pub(crate) rival_member: Membership,
    members: BTreeMap<MemberId, RosterEntry>,
    leader: Option<LeaderEvent>,
}

impl Everything {
    /// The toy must do what it should until this has ended.
    pub(crate) async fn stand(toy: &Toy) -> Self {
        let rival = toy.observer("rival").await;
        let rivals = rival.lock("waited for").expect("a name").acquire().await.expect("it is free");
        let rival_member = rival.group("g").expect("a name").join_or_create(&2).await.expect("the name is free");
        let coordinator = toy.connect("one").await;
        let events = coordinator.events();
        let group = coordinator.group("g").expect("a name");
        let guard = soon("a lock", coordinator.lock("held").expect("a name").acquire()).await.expect("it is free");
        let membership = soon("a join", group.join(&1)).await.expect("the name is free");
        let leadership = soon("a campaign", membership.campaign()).await.expect("no other stands");
        let watch = soon("a watch", group.watch()).await.expect("the group is there");
        let leaders = soon("a watch", group.watch_leader()).await.expect("the group is there");
        let partitioner = soon("a partitioner", membership.partitioner()).await.expect("the group is there");
        let wanted = coordinator.lock("waited for").expect("a name");
        let waiting = tokio::spawn(async move { wanted.acquire().await });
        let calls = toy.script.clone();
        comes_true(SOON, "it stands in the queue", async || {
            match calls.calls(crate::driver::Method::Lock) {
                // One for the lock, one for the leadership, one that waits.
                0..=2 => Err("not asked yet".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
        Everything {
            coordinator,
            guard,
            membership,
            leadership,
            watch,
            leaders,
            partitioner,
            events,
            waiting,
            rival,
            rivals,
            rival_member,
            members: BTreeMap::new(),
            leader: None,
        }
    }

    /// Everything that is kept up is as the store has it, at the latest after `limit`.
    #[track_caller]
    pub(crate) fn is_right(&mut self, limit: Duration) -> impl Future<Output = ()> {
        comes_true(limit, "what stood before is right again", async || self.differs().await)
    }

    async fn differs(&mut self) -> Result<(), String> {
        let truth = self.rival.group("g").expect("a name");
        let members = truth.members().await.map_err(|error| error.to_string())?;
        if !self.membership.is_member() {
            return Err(format!("is_member() is false, its loss says {:?}", self.membership.loss().reason()));
        }
        let own = members.iter().find(|entry| entry.member == name("one"));
        if own.is_none_or(|entry| entry.capabilities.as_json() != "1") {
            return Err(format!("the backend has {own:?} as the own entry"));
        }
        self.fold().await?;
        if !self.members.values().eq(members.iter()) {
            return Err(format!("the watch believes in {:?}, the backend has {members:?}", self.members.values()));
        }
        let owners = self.partitioner.members_for("key", 10).len();
        if owners != members.len() {
            return Err(format!("the partitioner knows {owners} members, the backend has {}", members.len()));
        }
        if !(0..100).any(|key: u8| self.partitioner.belongs_to_self([key])) {
            return Err("no key is one's own".to_owned());
        }
        let leader = truth.leader().await.map_err(|error| error.to_string())?;
        let told = match &self.leader {
            Some(LeaderEvent::Elected(leader)) => Some(leader),
            _ => None,
        };
        if self.leader.is_none() || told != leader.as_ref() {
            return Err(format!("the leader watch says {:?}, the backend {leader:?}", self.leader));
        }
        let own = self.coordinator.group("g").expect("a name").members().await;
        own.map(drop).map_err(|error| format!("asking fails: {error}"))
    }

    /// Takes in what the watches have told meanwhile.
    async fn fold(&mut self) -> Result<(), String> {
        loop {
            match given_up_after(Duration::ZERO, self.watch.next()).await {
                None => break,
                Some(None) => return Err("the watch has ended".to_owned()),
                Some(Some(event)) => fold(&mut self.members, event),
            }
        }
        loop {
            match given_up_after(Duration::ZERO, self.leaders.next()).await {
                None => return Ok(()),
                Some(None) => return Err("the leader watch has ended".to_owned()),
                Some(Some(event)) => self.leader = Some(event),
            }
        }
    }

    /// Whatever the driver does: closing ends in time, and ends everything that waits for something.
    pub(crate) async fn ends_with_close(self) {
        let losses = [self.guard.loss(), self.membership.loss(), self.leadership.loss()];
        let begun = Instant::now();
        let _how_it_went = within(OPERATION + SOON, "close()", self.coordinator.close()).await;
        let took = begun.elapsed();
        assert!(took < OPERATION + Duration::from_secs(2), "close() has the operation timeout, and took {took:?}");
        self.has_ended(losses).await;
    }

    /// Everything that waits for something has ended, since the coordinator has.
    pub(crate) async fn has_ended(mut self, losses: [Loss; 3]) {
        for loss in losses {
            let reason = soon("loss().wait()", loss.wait()).await;
            assert!(loss.is_lost(), "it is told as {reason:?}, and not lost");
        }
        assert!(!self.guard.is_held() && !self.membership.is_member() && !self.leadership.is_leader());
        soon("the events", async { while self.events.next().await.is_some() {} }).await;
        soon("the watch", async { while self.watch.next().await.is_some() {} }).await;
        soon("the leader watch", async { while self.leaders.next().await.is_some() {} }).await;
        soon("the partitioner", async { while self.partitioner.changed().await {} }).await;
        let waited = soon("acquire()", self.waiting).await.expect("acquire() does not panic its caller");
        let error = waited.expect_err("the rival holds it");
        assert_eq!(error.kind(), tooz_core::ErrorKind::Closed, "{error:?}");
        let late = soon("a late call", self.coordinator.lock("late").expect("a name").try_acquire()).await;
        assert_eq!(late.expect_err("it is closed").kind(), tooz_core::ErrorKind::Closed);
        soon("a second close()", self.coordinator.close()).await.ok();
    }

    /// The reasons of all losses of sessions so far, and whether a new one came after the last.
    pub(crate) async fn told(&mut self) -> (Vec<LossReason>, bool) {
        let (mut lost, mut reopened) = (Vec::new(), false);
        while let Some(Some(event)) = given_up_after(Duration::ZERO, self.events.next()).await {
            match event {
                SessionEvent::Lost(reason) => {
                    lost.push(reason);
                    reopened = false;
                }
                SessionEvent::Reopened => reopened = true,
                _ => {}
            }
        }
        (lost, reopened)
    }
}

/// The members after that event.
pub(crate) fn fold(members: &mut BTreeMap<MemberId, RosterEntry>, event: GroupEvent) {
    match event {
        GroupEvent::Snapshot(all) | GroupEvent::Reset(all) => {
            *members = all.into_iter().map(|entry| (entry.member.clone(), entry)).collect();
        }
        GroupEvent::Joined(entry) | GroupEvent::Updated(entry) => drop(members.insert(entry.member.clone(), entry)),
        GroupEvent::Left(member) => drop(members.remove(&member)),
        GroupEvent::Deleted => members.clear(),
        other => panic!("this test does not know {other:?}"),
    }
}

/// That lock has no holder in the store, at the latest after `limit`.
#[track_caller]
pub(crate) fn comes_free(observer: &Coordinator, lock: &str, limit: Duration) -> impl Future<Output = ()> {
    let lock = observer.lock(lock).expect("a name");
    comes_true(limit, "nothing is left at the backend", async move || {
        let holders = lock.holders().await.map_err(|error| error.to_string())?;
        if holders.is_empty() { Ok(()) } else { Err(format!("held by {holders:?}")) }
    })
}
