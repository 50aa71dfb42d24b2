//! Watching a group: the driver's hints become a snapshot and then every change, without a gap.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::oneshot;

use crate::inner::{Handle, Inner, Persistence, Purpose, is_final};
use crate::life::Live;
use crate::mailbox::{Feeder, Letter, PushStream, Reader, mailbox};
use crate::session::{Change, Pushed, Roster, RosterEntry};
use crate::wait::{Backoff, next_push};
use crate::{Error, ErrorKind, GroupId, MemberId, Result};

/// What happens in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupEvent {
    /// The members as the watch began. Always the first item.
    Snapshot(Vec<RosterEntry>),
    /// Somebody came.
    Joined(RosterEntry),
    /// Somebody left or died.
    Left(MemberId),
    /// Somebody's capabilities are new.
    Updated(RosterEntry),
    /// Changes may have been missed (a new session, a slow reader): these are the members now.
    Reset(Vec<RosterEntry>),
    /// The group was deleted. Always the last item.
    Deleted,
}

/// The stream of a group's [`GroupEvent`]s. Where a backend says no more than that something changed, somebody who came and went
/// between two readings, milliseconds apart, is not told of. It ends after `Deleted` and when the coordinator is closed; dropping it ends it.
pub struct GroupWatch {
    events: Events,
    coordinator: Arc<Handle>,
}

/// The reading end of a watch.
pub(crate) struct Events {
    reader: Reader<GroupEvent>,
    now: Arc<Now>,
}

/// The members as the watch knows them, changed in one step with what is told of it.
struct Now {
    members: Mutex<Members>,
}

type Members = BTreeMap<MemberId, RosterEntry>;

impl Now {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupWatch {
    pub(crate) async fn start(handle: Arc<Handle>, group: GroupId) -> Result<Self> {
        let (feeder, reader) = mailbox();
        let now = Arc::new(Now { members: Mutex::default() });
        let (started, start) = oneshot::channel();
        let inner = Arc::clone(&handle.0);
        let watcher = Watcher { inner, group, feeder, now: Arc::clone(&now), started: Some(started), version: 0 };
        handle.0.heart().spawn(watcher.run());
        start.await.unwrap_or_else(|_| Err(crate::heart::gone().in_driver(handle.0.driver.name())))?;
        Ok(GroupWatch { events: Events { reader, now }, coordinator: handle })
    }

    /// The events alone, for a task on the heart: it must not keep the coordinator from closing.
    pub(crate) fn without_handle(self) -> (Events, Arc<Handle>) {
        (self.events, self.coordinator)
    }

    /// The next event; `None` after the end.
    ///
    /// # Cancel safety
    /// Dropping it loses no event.
    pub async fn next(&mut self) -> Option<GroupEvent> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for GroupWatch {
    type Item = GroupEvent;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<GroupEvent>> {
        self.events.poll_event(context)
    }
}

impl Events {
    pub(crate) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<GroupEvent>> {
        Poll::Ready(match ready!(self.reader.poll_next(context)) {
            Some(Letter::Item(event)) => Some(event),
            Some(Letter::Overflowed) => {
                let members = self.now.members();
                // What came since is part of the members already.
                match self.reader.clear() {
                    Some(GroupEvent::Deleted) => Some(GroupEvent::Deleted),
                    _ => Some(GroupEvent::Reset(members.values().cloned().collect())),
                }
            }
            None => None,
        })
    }
}

struct Watcher {
    inner: Arc<Inner>,
    group: GroupId,
    feeder: Feeder<GroupEvent>,
    now: Arc<Now>,
    /// Until the snapshot is there, failures are the caller's.
    started: Option<oneshot::Sender<Result<()>>>,
    version: u64,
}

/// How news of a reading are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Telling {
    Differences,
    Everything,
}

/// The watch is over.
struct Over;

impl Watcher {
    async fn run(mut self) {
        let mut pauses = Backoff::for_reconnects();
        loop {
            let watched = self.in_one_session(&mut pauses).await;
            let error = match watched {
                Ok(Over) => return,
                Err(error) => error,
            };
            if let Some(started) = self.started.take() {
                let word = format!("watch group {:?}", self.group);
                let _ = started.send(Err(error.in_driver(self.inner.driver.name()).context(word)));
                return;
            }
            if error.kind() == ErrorKind::NotFound {
                // It was deleted while there was no session to hear of it.
                return self.tell_of_the_end();
            }
            if is_final(&error) || self.feeder.is_closed() {
                return;
            }
            tokio::select! {
                () = pauses.pause() => {}
                () = self.feeder.closed() => return,
            }
        }
    }

    async fn in_one_session(&mut self, pauses: &mut Backoff) -> Result<Over> {
        let persistence = match self.started {
            Some(_) => Persistence::OneAttempt,
            None => Persistence::UntilItWorks,
        };
        let live = self.inner.session(Purpose::Look, persistence).await?;
        let mut stream = live.call(live.session().watch_group(&self.group)).await?;
        if let Some(pushes) = &mut stream {
            wait_for_ready(pushes, self.inner.settings.operation_timeout).await?;
        }
        if self.read(&live, Telling::Everything).await? {
            return Ok(Over);
        }
        pauses.reset();
        let period = reading_period(&self.inner, stream.is_some());
        let mut reconnects = live.reconnects.subscribe();
        loop {
            let telling = tokio::select! {
                () = self.feeder.closed() => return Ok(Over),
                _ = live.lost() => return Err(Error::new(ErrorKind::Lost, "the session was lost")),
                pushed = next_of(&mut stream) => match pushed {
                    // The stream has ended while the session lives: watch anew.
                    None => return Err(Error::new(ErrorKind::Unavailable, "the backend ended the watch")),
                    Some(Pushed::Ready) => continue,
                    Some(Pushed::Delta { after, version, change }) => {
                        if version <= self.version {
                            continue;
                        }
                        if after.is_none_or(|after| after == self.version) {
                            self.apply(version, change);
                            continue;
                        }
                        Telling::Everything
                    }
                    Some(Pushed::Gap) => Telling::Everything,
                    Some(Pushed::Dirty | Pushed::Gone) => Telling::Differences,
                },
                Ok(()) = reconnects.changed() => Telling::Differences,
                () = tokio::time::sleep(period) => Telling::Differences,
            };
            match self.read(&live, telling).await {
                Ok(true) => return Ok(Over),
                Ok(false) => {}
                Err(error) if error.is_retryable() => {
                    // Hints go on arriving; the next reading makes up for this one.
                    tokio::time::sleep(period.min(Duration::from_secs(1))).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the members and tells what is new. True: the group is gone.
    async fn read(&mut self, live: &Arc<Live>, telling: Telling) -> Result<bool> {
        let roster: Roster = match live.call(live.session().members(&self.group)).await {
            Err(error) if error.kind() == ErrorKind::NotFound && self.started.is_none() => {
                self.tell_of_the_end();
                return Ok(true);
            }
            result => result?,
        };
        // The count of a server that has fallen back to an earlier state goes back too.
        self.version = roster.version;
        let new: Members = roster.members.into_iter().map(|entry| (entry.member.clone(), entry)).collect();
        let mut members = self.now.members();
        let everything = || new.values().cloned().collect();
        if let Some(started) = self.started.take() {
            self.feeder.push(GroupEvent::Snapshot(everything()));
            let _ = started.send(Ok(()));
        } else if telling == Telling::Everything {
            self.feeder.push(GroupEvent::Reset(everything()));
        } else {
            for event in differences(&members, &new) {
                self.feeder.push(event);
            }
        }
        *members = new;
        Ok(false)
    }

    /// The group is gone, and so is everybody who was in it: a group with members can't be deleted.
    fn tell_of_the_end(&mut self) {
        for member in std::mem::take(&mut *self.now.members()).into_keys() {
            self.feeder.push(GroupEvent::Left(member));
        }
        self.feeder.push(GroupEvent::Deleted);
    }

    fn apply(&mut self, version: u64, change: Change) {
        self.version = version;
        let mut members = self.now.members();
        let mut new = members.clone();
        match change {
            Change::Joined(entry) | Change::Updated(entry) => new.insert(entry.member.clone(), entry),
            Change::Left(member) => new.remove(&member),
        };
        for event in differences(&members, &new) {
            self.feeder.push(event);
        }
        *members = new;
    }
}

fn differences(old: &Members, new: &Members) -> Vec<GroupEvent> {
    let mut events = Vec::new();
    for (member, entry) in old {
        // Another join under the same name is somebody else, or somebody who was away.
        if new.get(member).is_none_or(|now| now.id != entry.id) {
            events.push(GroupEvent::Left(member.clone()));
        }
    }
    for (member, entry) in new {
        match old.get(member) {
            Some(before) if before.id == entry.id => {
                if before.capabilities != entry.capabilities {
                    events.push(GroupEvent::Updated(entry.clone()));
                }
            }
            _ => events.push(GroupEvent::Joined(entry.clone())),
        }
    }
    events
}

/// How often to read without being told: where nothing is pushed, often; where it is, once in a session timeout.
pub(crate) fn reading_period(inner: &Inner, pushed: bool) -> Duration {
    let timeout = inner.settings.session_timeout;
    let period =
        if pushed { timeout } else { (timeout / 20).clamp(Duration::from_millis(50), Duration::from_millis(500)) };
    period.mul_f64(0.8 + 0.2 * f64::from(fastrand::u8(..)) / 255.0)
}

pub(crate) async fn wait_for_ready(stream: &mut PushStream, limit: Duration) -> Result<()> {
    let ready = async {
        while let Some(pushed) = next_push(stream).await {
            if matches!(pushed, Pushed::Ready) {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the backend ended the watch before it began"))
    };
    tokio::time::timeout(limit, ready)
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::TimedOut, format!("the watch was not ready within {limit:?}"))))
}

/// The next push; never, where nothing is pushed.
pub(crate) async fn next_of(stream: &mut Option<PushStream>) -> Option<Pushed> {
    match stream {
        Some(stream) => next_push(stream).await,
        None => std::future::pending().await,
    }
}
