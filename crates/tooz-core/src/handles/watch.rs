//! Watching a group: the driver's hints become a snapshot and then every change, without a gap.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::oneshot;

use crate::base::backoff::Backoff;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::event_queue::{Delivery, Feeder, Reader, event_queue};
use crate::base::id::{GroupId, MemberId};
use crate::driver::push::{Change, Pushed};
use crate::driver::roster::{Roster, RosterEntry};
use crate::engine::inner::Inner;
use crate::engine::live_session::LiveSession;
use crate::engine::worry::Worry;
use crate::handles::handle::Handle;
use crate::handles::known_members::{KnownMembers, Members};
use crate::handles::watching::{next_of, reading_period, started_within, wait_for_ready};

/// What happens in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupEvent {
    /// The members as the watch began. Always the first item.
    Snapshot(Vec<RosterEntry>),
    /// A member came.
    Joined(RosterEntry),
    /// A member left or died.
    Left(MemberId),
    /// A member's capabilities are new.
    Updated(RosterEntry),
    /// Changes may have been missed (a new session, a slow reader): these are the members now.
    Reset(Vec<RosterEntry>),
    /// The group was deleted. Always the last item.
    Deleted,
}

/// The stream of a group's [`GroupEvent`]s. Where a backend says no more than that something changed, a member that came and went
/// between two readings, milliseconds apart, is not told of. It ends after `Deleted` and when the coordinator is closed; a drop ends it.
///
/// ```
/// # use {tooz_core::GroupEvent, tooz_memory as _};
/// # #[tokio::main] async fn main() -> tooz_core::Result<()> {
/// # let group = tooz_core::connect("memory://group-watch", "worker-1").await?.group("workers")?;
/// # group.create().await?;
/// let mut watch = group.watch().await?;
/// # group.delete().await?;
/// while let Some(event) = watch.next().await {
///     match event {
///         GroupEvent::Snapshot(members) | GroupEvent::Reset(members) => println!("{} members", members.len()),
///         GroupEvent::Joined(entry) => println!("{} came", entry.member),
///         other => println!("{other:?}"),
///     }
/// }
/// # Ok(()) }
/// ```
pub struct GroupWatch {
    events: Events,
    _coordinator: Arc<Handle>,
}

/// The reading end of a watch.
pub(crate) struct Events {
    reader: Reader<GroupEvent>,
    now: Arc<KnownMembers>,
    /// Whether the snapshot was read.
    has_begun: bool,
}

impl GroupWatch {
    pub(crate) async fn start(handle: Arc<Handle>, group: GroupId) -> Result<Self> {
        let events = Events::start(&handle.inner, group).await?;
        Ok(GroupWatch { events, _coordinator: handle })
    }

    /// The next event; `None` after the end.
    ///
    /// # Cancel safety
    /// Dropping it loses no event.
    pub async fn next(&mut self) -> Option<GroupEvent> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Why the stream has ended: the group was deleted (`NotFound`), or the coordinator closed (`Closed`). `None` as long as there is
    /// something to come.
    pub fn end(&self) -> Option<Error> {
        self.events.reader.end()
    }
}

impl Stream for GroupWatch {
    type Item = GroupEvent;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<GroupEvent>> {
        self.events.poll_event(context)
    }
}

impl Events {
    /// Begins a watch; a task on the heart may have it too.
    pub(crate) async fn start(inner: &Arc<Inner>, group: GroupId) -> Result<Self> {
        let (feeder, reader) = event_queue();
        let now = KnownMembers::new(inner, &group);
        let (started, start) = oneshot::channel();
        let word = format!("watch group {group:?}");
        let watcher = Watcher {
            worry: Worry::new(inner, word.clone()),
            inner: Arc::clone(inner),
            group,
            feeder,
            now: Arc::clone(&now),
            started: Some(started),
            version: 0,
            due: None,
        };
        inner.heart().spawn(watcher.run());
        started_within(inner, start, || word).await?;
        Ok(Events { reader, now, has_begun: false })
    }

    pub(crate) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<GroupEvent>> {
        Poll::Ready(match ready!(self.reader.poll_next(context)) {
            Some(Delivery::Item(event)) => {
                self.has_begun = true;
                Some(event)
            }
            Some(Delivery::Lagged) => {
                let members = self.now.members();
                // Later events are part of the members already. (A watcher that has told of the end tells no more.)
                match self.reader.clear() {
                    Some(GroupEvent::Deleted) => Some(GroupEvent::Deleted),
                    _ if std::mem::replace(&mut self.has_begun, true) => {
                        Some(GroupEvent::Reset(members.values().cloned().collect()))
                    }
                    _ => Some(GroupEvent::Snapshot(members.values().cloned().collect())),
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
    now: Arc<KnownMembers>,
    /// Until the snapshot is there, failures are the caller's.
    started: Option<oneshot::Sender<Result<()>>>,
    version: u64,
    /// A reading that has not succeeded yet, and how it is to be told.
    due: Option<Telling>,
    worry: Worry,
}

/// How news of a reading are told: the greater one makes up for the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Telling {
    Differences,
    Everything,
}

/// Why the watch is over.
enum WatchEnd {
    Deleted,
    /// It is not read any more.
    Unread,
}

enum ReadEnd {
    Told,
    Gone,
}

impl Watcher {
    async fn run(mut self) {
        let mut pauses = Backoff::for_reconnects();
        loop {
            let error = match self.in_one_session(&mut pauses).await {
                Ok(WatchEnd::Deleted) => return self.tell_of_the_end(),
                Ok(WatchEnd::Unread) => return,
                Err(error) => error,
            };
            if let Some(started) = self.started.take() {
                let word = format!("watch group {:?}", self.group);
                let _ = started.send(Err(error.in_driver(self.inner.driver.name()).context(word)));
                return;
            }
            match error.kind() {
                // It was deleted while there was no session to hear of it.
                ErrorKind::NotFound => return self.tell_of_the_end(),
                ErrorKind::Closed => return self.feeder.end(error),
                _ => {}
            }
            // Any error may be mended, and the watch has stood.
            self.worry.about(&error);
            tokio::select! {
                () = pauses.pause() => {}
                () = self.feeder.closed() => return,
            }
        }
    }

    async fn in_one_session(&mut self, pauses: &mut Backoff) -> Result<WatchEnd> {
        let session = self.worry.session_for_watch(self.started.is_some());
        let live = tokio::select! {
            live = session => live?,
            () = self.feeder.closed() => return Ok(WatchEnd::Unread),
        };
        let limit = self.inner.settings.operation_timeout;
        let (group, what) = (self.group.clone(), || format!("watch group {:?}", self.group));
        let asked = live.call_within(limit, what, |session| async move { session.watch_group(&group).await });
        let mut stream = asked.await?;
        if let Some(pushes) = &mut stream {
            wait_for_ready(pushes, limit).await?;
        }
        self.due = Some(Telling::Everything);
        let period = reading_period(&self.inner, stream.is_some());
        let mut reconnects = live.reconnects.subscribe();
        loop {
            if self.due.is_some() {
                match self.read(&live).await {
                    Ok(ReadEnd::Gone) => return Ok(WatchEnd::Deleted),
                    Ok(ReadEnd::Told) => {
                        pauses.reset();
                        self.worry.is_over();
                    }
                    // A reading that was due stays due. Hints go on arriving meanwhile, and are part of what is read next.
                    Err(error) if error.is_retryable() && self.started.is_none() => {
                        self.worry.about(&error);
                        tokio::select! {
                            () = pauses.pause() => {}
                            () = self.feeder.closed() => return Ok(WatchEnd::Unread),
                            _ = live.lost() => {}
                        }
                        if live.check().is_none() {
                            continue;
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            let telling = tokio::select! {
                () = self.feeder.closed() => return Ok(WatchEnd::Unread),
                _ = live.lost() => return Err(Error::new(ErrorKind::Lost, "the session was lost")),
                pushed = next_of(&mut stream) => match pushed? {
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
            self.due = self.due.max(Some(telling));
        }
    }

    /// Reads the members and tells what is new.
    async fn read(&mut self, live: &Arc<LiveSession>) -> Result<ReadEnd> {
        let limit = self.inner.settings.operation_timeout;
        let (group, what) = (self.group.clone(), || format!("list the members of group {:?}", self.group));
        let asked = live.call_within(limit, what, |session| async move { session.members(&group).await });
        let roster: Roster = match asked.await {
            Err(error) if error.kind() == ErrorKind::NotFound && self.started.is_none() => return Ok(ReadEnd::Gone),
            result => result?,
        };
        // The count of a server that has fallen back to an earlier state goes back too.
        self.version = roster.version;
        let new: Members = roster.members.into_iter().map(|entry| (entry.member.clone(), entry)).collect();
        let started = self.started.take();
        let told = {
            let mut members = self.now.members();
            let everything = || new.values().cloned().collect();
            let events = match (&started, self.due) {
                (Some(_), _) => vec![GroupEvent::Snapshot(everything())],
                (None, Some(Telling::Everything)) => vec![GroupEvent::Reset(everything())],
                (None, _) => differences(&members, &new),
            };
            self.now.replace(&mut members, new);
            self.feeder.put(events)
        };
        // A task that is woken may read the members.
        told.say();
        if let Some(started) = started {
            let _ = started.send(Ok(()));
        }
        self.due = None;
        Ok(ReadEnd::Told)
    }

    /// The group is gone, and so is every member: a group with members can't be deleted.
    fn tell_of_the_end(self) {
        let told = {
            let mut now = self.now.members();
            let left: Vec<_> = now.keys().cloned().map(GroupEvent::Left).collect();
            self.now.replace(&mut now, Members::new());
            self.feeder.put(left.into_iter().chain([GroupEvent::Deleted]))
        };
        told.say();
        let deleted = Error::new(ErrorKind::NotFound, format!("watch group {:?}: it was deleted", self.group));
        self.feeder.end(deleted.in_driver(self.inner.driver.name()));
    }

    fn apply(&mut self, version: u64, change: Change) {
        self.version = version;
        let told = {
            let mut members = self.now.members();
            let mut new = members.clone();
            match change {
                Change::Joined(entry) | Change::Updated(entry) => new.insert(entry.member.clone(), entry),
                Change::Left(member) => new.remove(&member),
            };
            let events = differences(&members, &new);
            self.now.replace(&mut members, new);
            self.feeder.put(events)
        };
        told.say();
    }
}

fn differences(old: &Members, new: &Members) -> Vec<GroupEvent> {
    let mut events = Vec::new();
    for (member, entry) in old {
        // Another join under the same name is another member, or one that was away.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::RequestId;
    use crate::driver::roster::Capabilities;

    fn members(entries: &[(&str, u128, i32)]) -> Members {
        let entry = |(name, id, capabilities): &(&str, u128, i32)| {
            let member: MemberId = name.parse().unwrap();
            (member.clone(), RosterEntry::new(member, RequestId(*id), Capabilities::new(capabilities).unwrap()))
        };
        entries.iter().map(entry).collect()
    }

    fn told(old: &Members, new: &Members) -> Vec<String> {
        let words = differences(old, new).into_iter().map(|event| match event {
            GroupEvent::Joined(entry) => format!("joined {}", entry.member),
            GroupEvent::Left(member) => format!("left {member}"),
            GroupEvent::Updated(entry) => format!("updated {}", entry.member),
            other => format!("{other:?}"),
        });
        words.collect()
    }

    #[test]
    fn a_member_that_left_and_came_back_between_two_readings_is_told_as_both() {
        let before = members(&[("a", 1, 0), ("b", 2, 0), ("c", 3, 0), ("d", 4, 0)]);
        let after = members(&[("a", 1, 0), ("b", 5, 0), ("c", 3, 9), ("e", 6, 0)]);
        assert_eq!(told(&before, &after), ["left b", "left d", "joined b", "updated c", "joined e"]);
        assert!(told(&after, &after).is_empty());
    }
}
