//! How a session hears of the death of others: each keeps a file open for writing, and the kernel tells when that is closed. And how it asks who has died.
//!
//! The kernel tells of a closed file before it drops the lock of another that is closed with it, and a dying process may take its time for what is between the
//! two: so there are second looks.

use std::collections::{BTreeSet, VecDeque};
use std::future::pending;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use inotify::{Inotify, WatchMask};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};
use tooz_core::Result;

use crate::critical::Critical;
use crate::error::{self, TableError};
use crate::layout::{self, GENERATION};
use crate::living::Living;
use crate::owner::Owner;
use crate::slots::Remainder;

/// How often a list is made anew because some whose things it had were dead.
const LISTINGS: usize = 16;
/// After how many questions to the kernel other tasks have their turn.
const ASKED: usize = 64;

const DELAYS: [Duration; 6] = [
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(40),
    Duration::from_millis(150),
    Duration::from_millis(500),
];
/// How many looks may be due after one delay. What is beyond that is found by the sweep.
const MOST: usize = 1024;

impl Living {
    /// What that list says without what the dead have. The kernel is asked who lives while the table is not ours, as that takes its time for thousands; so where
    /// some had died the list is made anew, and is one of a moment at which all lived that it names.
    pub(crate) async fn list_living<T: Send>(
        &self,
        mut list: impl FnMut(&mut Critical<'_>) -> Result<Option<Vec<T>>, TableError> + Send,
        owner: impl Fn(&T) -> Owner + Send,
    ) -> Result<Option<Vec<T>>> {
        let mut left = LISTINGS;
        loop {
            let Some(mut listed) = self.with(&mut list).await? else { return Ok(None) };
            let dead = self.bury_dead(listed.iter().map(&owner).collect()).await?;
            left -= 1;
            // Where sessions die all the time, the last list has to do.
            if dead.is_empty() || left == 0 {
                listed.retain(|one| !dead.contains(&owner(one)));
                return Ok(Some(listed));
            }
        }
    }

    /// Ends those sessions that are dead, and answers which.
    async fn bury_dead(&self, owners: BTreeSet<Owner>) -> Result<BTreeSet<Owner>> {
        let mut dead = BTreeSet::new();
        for (count, owner) in (1..).zip(owners) {
            if self.is_dead(owner)? {
                dead.insert(owner);
                while self.with(|table| table.bury(owner.0)).await? == Remainder::Some {}
            }
            if count % ASKED == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(dead)
    }

    fn is_dead(&self, (slot, generation): Owner) -> Result<bool> {
        if slot == self.table.slot() {
            return Ok(false);
        }
        let is_locked = self.table.is_locked(slot).map_err(|fault| error::fault(fault, &self.table.path))?;
        // Read after that: the slot may be another session's by now.
        let is_same =
            self.word(layout::slot(slot, GENERATION)).is_none_or(|word| word.load(Ordering::Acquire) == generation);
        Ok(!is_locked || !is_same)
    }
}

/// The deaths that are told.
pub(crate) struct Deaths {
    inotify: AsyncFd<Inotify>,
    closed: VecDeque<usize>,
    rechecks: [VecDeque<(Instant, usize)>; DELAYS.len()],
}

impl Deaths {
    /// Begins to listen. The kernel allows a user some 128 instances; there may be no more.
    pub(crate) fn start(sessions: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        inotify.watches().add(sessions, WatchMask::CLOSE_WRITE | WatchMask::ONLYDIR)?;
        // Tokio renamed this to an unsafe function, because a strange `AsRawFd` could name a descriptor that it does not own.
        // An `Inotify` owns its one descriptor until it is dropped, so that the safe name is as good here.
        #[allow(deprecated)]
        let inotify = AsyncFd::new(inotify)?;
        Ok(Deaths { inotify, closed: VecDeque::new(), rechecks: Default::default() })
    }

    /// The slot of a session that may be dead. Dropped before, it loses nothing.
    pub(crate) async fn next(&mut self) -> io::Result<usize> {
        loop {
            if let Some(slot) = self.closed.pop_front() {
                return Ok(slot);
            }
            let first = self.rechecks.iter_mut().filter(|queue| !queue.is_empty());
            let due = first.min_by_key(|queue| queue.front().map(|(due, _)| *due));
            tokio::select! {
                ready = self.inotify.readable_mut() => {
                    let mut ready = ready?;
                    if let Ok(closed) = ready.try_io(|inotify| read(inotify.get_mut())) {
                        self.closed.extend(closed?);
                    }
                }
                slot = due_one(due) => return Ok(slot),
            }
        }
    }

    /// Looks at a slot again later, as it was not dead yet.
    pub(crate) fn expect(&mut self, slot: usize) {
        let now = Instant::now();
        for (queue, delay) in self.rechecks.iter_mut().zip(DELAYS) {
            if queue.len() < MOST {
                queue.push_back((now + delay, slot));
            }
        }
    }
}

async fn due_one(queue: Option<&mut VecDeque<(Instant, usize)>>) -> usize {
    if let Some(queue) = queue
        && let Some((due, _)) = queue.front().copied()
    {
        sleep_until(due).await;
        if let Some((_, slot)) = queue.pop_front() {
            return slot;
        }
    }
    pending().await
}

fn read(inotify: &mut Inotify) -> io::Result<Vec<usize>> {
    let mut buffer = [0; 4096];
    let events = inotify.read_events(&mut buffer)?;
    Ok(events.filter_map(|event| event.name?.to_str()?.parse().ok()).collect())
}
