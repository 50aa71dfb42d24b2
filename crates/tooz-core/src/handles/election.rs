//! Leader election: a lock whose holder can be read, for members only.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::base::backoff::Backoff;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::event_queue::{Delivery, Feeder, Reader, event_queue};
use crate::base::id::{GroupId, MemberId};
use crate::base::loss_reason::LossReason;
use crate::driver::lock::{FencingToken, LockKey, LockMode};
use crate::driver::push::Pushed;
use crate::driver::session::Session;
use crate::engine::hold::Hold;
use crate::engine::inner::Inner;
use crate::engine::line::WaitMode;
use crate::engine::standing::Standing;
use crate::engine::worry::Worry;
use crate::handles::handle::Handle;
use crate::handles::lock::answer;
use crate::handles::lock_guard::LockGuard;
use crate::handles::loss::Loss;
use crate::handles::watching::{next_of, reading_period, started_within, wait_for_ready};

/// A member that leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Leader {
    /// The member.
    pub member: MemberId,
    /// The fencing token of this leadership, greater than that of every earlier one of the group.
    pub epoch: FencingToken,
}

/// Being the leader of a group. It ends with the session and with the membership, and is never silently taken again.
///
/// Dropping it resigns in the background.
///
/// ```no_run
/// # async fn example(membership: tooz_core::Membership) -> tooz_core::Result<()> {
/// # async fn lead(_epoch: tooz_core::FencingToken) {}
/// while membership.over().is_none() {
///     let leadership = membership.campaign().await?;
///     match leadership.while_held(lead(leadership.epoch())).await {
///         Ok(()) => return leadership.resign().await,
///         Err(reason) => eprintln!("another leads now, or soon: {reason}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "the leadership is resigned when this is dropped"]
pub struct Leadership {
    guard: LockGuard,
    membership: Arc<Hold>,
}

impl Leadership {
    pub(crate) async fn campaign(
        handle: Arc<Handle>,
        group: GroupId,
        mut standing: watch::Receiver<Standing>,
    ) -> Result<Self> {
        let key = LockKey::election(&group);
        let wait = handle.inner.telemetry.wait(&key, LockMode::Exclusive);
        let answer = Self::win(Arc::clone(&handle), group, &key, &mut standing).await;
        wait.over(answer.as_ref().map(|leadership| Some(leadership.epoch())));
        answer
    }

    async fn win(
        handle: Arc<Handle>,
        group: GroupId,
        key: &LockKey,
        standing: &mut watch::Receiver<Standing>,
    ) -> Result<Self> {
        let queue = handle.queues.of(key);
        let over = |reason: LossReason| {
            let kind = if reason == LossReason::Closed { ErrorKind::Closed } else { ErrorKind::NotMember };
            Error::new(kind, format!("campaign in group {group:?}: only members stand, and {reason}"))
                .in_driver(handle.inner.driver.name())
        };
        loop {
            let present = standing.borrow_and_update().clone();
            let membership = match &present {
                Standing::In(hold) if hold.check().is_none() => Some(Arc::clone(hold)),
                Standing::Over(hold) => return Err(over(hold.check().unwrap_or(LossReason::NotMember))),
                _ => None,
            };
            let Some(membership) = membership else {
                // The membership is being re-established.
                if standing.changed().await.is_err() && !matches!(&*standing.borrow(), Standing::Over(_)) {
                    return Err(over(LossReason::Closed));
                }
                continue;
            };
            let Some(mut place) = queue.enqueue(LockMode::Exclusive, WaitMode::Wait)? else {
                return Err(Error::new(ErrorKind::Backend, "a candidate was refused a place in the local queue"));
            };
            let ended = Loss::of(&membership);
            let grant = tokio::select! {
                grant = answer(&mut place) => grant?,
                _ = ended.wait() => continue,
            };
            let Some(grant) = grant else {
                return Err(Error::new(ErrorKind::Backend, "the driver gave up a candidature that is still wanted"));
            };
            // A member that is elected in another session than that of its membership does not lead.
            let is_of_one_session = Arc::ptr_eq(&grant.hold.live, &membership.live);
            let guard = LockGuard::new(Arc::clone(&handle), Arc::clone(&queue), grant);
            queue.enlist(&membership, guard.hold());
            // Judged after the enlisting: a membership that ends from here on ends this leadership too.
            if !is_of_one_session || membership.check().is_some() {
                let _ = guard.release().await;
                continue;
            }
            return Ok(Leadership { guard, membership });
        }
    }

    /// The fencing token of this leadership.
    pub fn epoch(&self) -> FencingToken {
        self.guard.fencing_token()
    }

    /// Whether it still leads, judged by the clock at this call.
    pub fn is_leader(&self) -> bool {
        !self.loss().is_lost()
    }

    /// How long it leads for sure without another heartbeat; zero when lost; `None`: the kernel is the judge.
    pub fn remaining(&self) -> Option<Duration> {
        if self.is_leader() { self.guard.remaining() } else { Some(Duration::ZERO) }
    }

    /// How long until the backend may let another lead; zero where it may already.
    pub fn expires_in(&self) -> Option<Duration> {
        self.guard.expires_in()
    }

    /// The loss of this leadership, to wait for.
    pub fn loss(&self) -> Loss {
        Loss { hold: Arc::clone(self.guard.hold()), under: Some(Arc::clone(&self.membership)) }
    }

    /// Runs `future` only as long as it leads; on loss it is dropped and the reason returned.
    ///
    /// # Errors
    /// The reason of the loss; then `future` was dropped before its end.
    ///
    /// # Cancel safety
    /// Dropping it drops `future`.
    pub async fn while_held<F: Future>(&self, future: F) -> Result<F::Output, LossReason> {
        self.loss().guard(future).await
    }

    /// Hands over to the next in the queue, and stays a member.
    ///
    /// # Errors
    /// [`Lost`](crate::ErrorKind::Lost): it led no more when this was called, and a new leader was not touched. [`Closed`](crate::ErrorKind::Closed): it had
    /// ended with the coordinator. After any other error the hand-over goes on in the background until the session ends.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn resign(self) -> Result<()> {
        self.guard.release().await
    }

    /// As [`resign`](Self::resign), where others may still have this in hand: for them it is lost.
    pub(crate) async fn resign_for_all(&self) -> Result<()> {
        self.guard.release_for_all().await
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Leadership")
            .field("epoch", &self.epoch())
            .field("is_leader", &self.is_leader())
            .finish()
    }
}

/// The leader of the group; also says `NotFound` where there is no such group.
pub(crate) async fn leader(session: &dyn Session, group: &GroupId) -> Result<Option<Leader>> {
    let holders = session.holders(&LockKey::election(group)).await?;
    let leader = holders.into_iter().find(|holder| holder.mode == LockMode::Exclusive);
    if leader.is_none() {
        // A vacancy and a group that does not exist look alike from the election's side.
        session.members(group).await?;
    }
    Ok(leader.map(|holder| Leader { member: holder.member, epoch: holder.token }))
}

/// A change of the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaderEvent {
    /// A member leads.
    Elected(Leader),
    /// No member leads. Told between any two leaderships, however short it was.
    Vacant,
}

/// The stream of a group's [`LeaderEvent`]s: the present state first. It ends when the group is deleted or the coordinator
/// closed. A reader that is too slow finds the present state in place of what it missed.
///
/// ```
/// use tooz_core::LeaderEvent;
/// # use tooz_memory as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tooz_core::Result<()> {
/// # let coordinator = tooz_core::connect("memory://leader-watch", "worker-1").await?;
/// # let group = coordinator.group("workers")?;
/// let membership = group.join_or_create("ready").await?;
/// let leadership = membership.campaign().await?;
/// let mut watch = group.watch_leader().await?;
/// if let Some(LeaderEvent::Elected(leader)) = watch.next().await {
///     println!("{} leads, with token {}", leader.member, leader.epoch);
/// }
/// leadership.resign().await?;
/// assert_eq!(watch.next().await, Some(LeaderEvent::Vacant));
/// # coordinator.close().await
/// # }
/// ```
pub struct LeaderWatch {
    reader: Reader<LeaderEvent>,
    now: watch::Receiver<Option<Leader>>,
    /// What was told last, so that a vacancy stands between any two leaders.
    told: KnownLeader,
    next: VecDeque<LeaderEvent>,
    _handle: Arc<Handle>,
}

/// What a reader of a [`LeaderWatch`] knows.
enum KnownLeader {
    Nothing,
    Vacant,
    Elected(Leader),
}

impl LeaderWatch {
    pub(crate) async fn start(handle: Arc<Handle>, group: GroupId) -> Result<Self> {
        let (feeder, reader) = event_queue();
        let (now, seen) = watch::channel(None);
        let (started, start) = oneshot::channel();
        let inner = Arc::clone(&handle.inner);
        let doing = format!("watch the leader of group {group:?}");
        let worry = Worry::new(&inner, &*doing);
        let watcher = LeaderWatcher { inner, group, feeder, now, started: Some(started), worry };
        handle.inner.heart().spawn(watcher.run());
        started_within(&handle.inner, start, || doing).await?;
        Ok(LeaderWatch { reader, now: seen, told: KnownLeader::Nothing, next: VecDeque::new(), _handle: handle })
    }

    /// The next change; `None` after the end.
    ///
    /// # Cancel safety
    /// Dropping it loses no change.
    pub async fn next(&mut self) -> Option<LeaderEvent> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Why no further leader will be told: the group was deleted (`NotFound`), or the coordinator closed (`Closed`). `None` as long as there is
    /// something to come.
    pub fn end(&self) -> Option<Error> {
        if self.next.is_empty() { self.reader.end() } else { None }
    }

    fn tell(&mut self, leader: Option<Leader>) {
        match (&self.told, &leader) {
            (KnownLeader::Vacant, None) => return,
            (KnownLeader::Elected(old), Some(new)) if old == new => return,
            (_, None) | (KnownLeader::Elected(_), Some(_)) => self.next.push_back(LeaderEvent::Vacant),
            (KnownLeader::Nothing | KnownLeader::Vacant, Some(_)) => {}
        }
        if let Some(leader) = &leader {
            self.next.push_back(LeaderEvent::Elected(leader.clone()));
        }
        self.told = leader.map_or(KnownLeader::Vacant, KnownLeader::Elected);
    }
}

impl Stream for LeaderWatch {
    type Item = LeaderEvent;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<LeaderEvent>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.next.pop_front() {
                return Poll::Ready(Some(event));
            }
            match ready!(this.reader.poll_next(context)) {
                Some(Delivery::Item(LeaderEvent::Elected(leader))) => this.tell(Some(leader)),
                Some(Delivery::Item(LeaderEvent::Vacant)) => this.tell(None),
                Some(Delivery::Lagged) => {
                    // The present state is at least as new as all that waits.
                    let _ = this.reader.clear();
                    let now = this.now.borrow().clone();
                    this.tell(now);
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

struct LeaderWatcher {
    inner: Arc<Inner>,
    group: GroupId,
    feeder: Feeder<LeaderEvent>,
    now: watch::Sender<Option<Leader>>,
    started: Option<oneshot::Sender<Result<()>>>,
    worry: Worry,
}

/// The watch is not read any more.
struct NoReader;

impl LeaderWatcher {
    async fn run(mut self) {
        let mut pauses = Backoff::for_reconnects();
        loop {
            let error = match self.in_one_session(&mut pauses).await {
                Ok(NoReader) => return,
                Err(error) => error,
            };
            let error = error.in_driver(self.inner.driver.name());
            let word = format!("watch the leader of group {:?}", self.group);
            if let Some(started) = self.started.take() {
                let _ = started.send(Err(error.context(word)));
                return;
            }
            // A group that is gone has no leader to wait for.
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Closed) {
                return self.feeder.end(error.context(word));
            }
            // Any error may be mended, and the watch has stood.
            self.worry.about(&error);
            tokio::select! {
                () = pauses.pause() => {}
                () = self.feeder.closed() => return,
            }
        }
    }

    async fn in_one_session(&mut self, pauses: &mut Backoff) -> Result<NoReader> {
        let session = self.worry.session_for_watch(self.started.is_some());
        let live = tokio::select! {
            live = session => live?,
            () = self.feeder.closed() => return Ok(NoReader),
        };
        let key = LockKey::election(&self.group);
        let limit = self.inner.settings.operation_timeout;
        let doing = || format!("watch the {key}");
        let watched = key.clone();
        let asked = live.call_within(limit, doing, |session| async move { session.watch_lock(&watched).await });
        let mut stream = asked.await?;
        if let Some(pushes) = &mut stream {
            wait_for_ready(pushes, limit).await?;
        }
        let period = reading_period(&self.inner, stream.is_some());
        let mut reconnects = live.reconnects.subscribe();
        loop {
            let (group, doing) = (self.group.clone(), || format!("read the leader of group {:?}", self.group));
            let asked = live.call_within(limit, doing, |session| async move { leader(&*session, &group).await });
            match asked.await {
                Ok(leader) => {
                    pauses.reset();
                    self.worry.is_over();
                    if self.now.send_replace(leader.clone()) != leader && self.started.is_none() {
                        self.inner.telemetry.leader_changed(&key.name);
                    }
                    self.feeder.push(leader.map_or(LeaderEvent::Vacant, LeaderEvent::Elected));
                    if let Some(started) = self.started.take() {
                        let _ = started.send(Ok(()));
                    }
                }
                // Read again soon: no hint need come for what was missed now.
                Err(error) if error.is_retryable() && self.started.is_none() => {
                    self.worry.about(&error);
                    tokio::select! {
                        () = pauses.pause() => {}
                        () = self.feeder.closed() => return Ok(NoReader),
                        _ = live.lost() => {}
                    }
                    if live.check().is_none() {
                        continue;
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = self.feeder.closed() => return Ok(NoReader),
                _ = live.lost() => return Err(Error::new(ErrorKind::Lost, "the session was lost")),
                pushed = next_of(&mut stream) => match pushed? {
                    None => return Err(Error::new(ErrorKind::Unavailable, "the backend ended the watch")),
                    Some(Pushed::Gone | Pushed::Gap | Pushed::Dirty | Pushed::Ready | Pushed::Delta { .. }) => {}
                },
                Ok(()) = reconnects.changed() => {}
                () = tokio::time::sleep(period) => {}
            }
        }
    }
}
