//! Who leads a group: one look, and the stream of changes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::base::backoff::Backoff;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::event_queue::{Delivery, Feeder, Reader, event_queue};
use crate::base::id::{GroupId, MemberId};
use crate::driver::lock::{FencingToken, LockKey, LockMode};
use crate::driver::push::Pushed;
use crate::driver::session::Session;
use crate::engine::inner::Inner;
use crate::engine::worry::Worry;
use crate::handles::handle::Handle;
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
