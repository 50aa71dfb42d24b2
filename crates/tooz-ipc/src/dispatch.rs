//! What others tell: to each watcher what changed where it looks, to each waiter that it should look, to core what was taken away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use tooz_core::driver::{Mutex, PushStream, Pushed, Reporter, RequestId, Watchers, push_channel};

use crate::holdings::Holdings;
use crate::watch::RecordWatch;

/// Where what is told goes.
pub(crate) struct Dispatch {
    pub(crate) holdings: Holdings,
    pub(crate) reporter: Reporter,
    watched: Mutex<HashMap<usize, WatchEntry>>,
    /// How many entries there were.
    entries: AtomicU64,
}

/// A lock or a group that is watched.
struct WatchEntry {
    watchers: Watchers,
    watch: usize,
    /// No other entry has it: blocks are used again.
    number: u64,
    /// How often it had changed when that was last told.
    changes: u64,
}

/// A record that is watched, and by which watch, when that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WatchNumber {
    pub(crate) record: usize,
    pub(crate) watch: usize,
    number: u64,
}

impl Dispatch {
    pub(crate) fn new(reporter: Reporter) -> Self {
        Dispatch { holdings: Holdings::default(), reporter, watched: Mutex::default(), entries: AtomicU64::new(0) }
    }

    /// The watch that we have of that record, also where its watchers have gone.
    pub(crate) fn watch_of(&self, record: usize) -> Option<usize> {
        self.watched.lock().get(&record).map(|watched| watched.watch)
    }

    /// One more watcher of a record, by that watch. Only while the table is ours, so that no watch is ended or begun beside it.
    pub(crate) fn add_watcher(&self, record: usize, watch: RecordWatch) -> PushStream {
        let (pusher, stream) = push_channel();
        pusher.push(Pushed::Ready);
        let mut watched = self.watched.lock();
        // A group was deleted, and its block is another's now.
        let gone = if watch.is_new { watched.remove(&record) } else { None };
        let there = watched.entry(record).or_insert_with(|| WatchEntry {
            watchers: Watchers::default(),
            watch: watch.block,
            number: self.entries.fetch_add(1, Ordering::Relaxed),
            changes: watch.changes,
        });
        there.watchers.add(pusher);
        drop(watched);
        if let Some(mut gone) = gone {
            gone.watchers.push(&Pushed::Gone);
        }
        stream
    }

    /// The records that are watched, and by which watches.
    pub(crate) fn watched(&self) -> Vec<WatchNumber> {
        let watched = self.watched.lock();
        let all = watched.iter();
        all.map(|(record, entry)| WatchNumber { record: *record, watch: entry.watch, number: entry.number }).collect()
    }

    /// A record changed.
    pub(crate) fn changed(&self, record: usize) {
        if let Some(watched) = self.watched.lock().get_mut(&record) {
            watched.watchers.push(&Pushed::Dirty);
        }
    }

    /// All that watch and all that wait look again.
    pub(crate) fn look_everywhere(&self) {
        self.watched.lock().values_mut().for_each(|watched| watched.watchers.push(&Pushed::Dirty));
        self.holdings.wake_all();
    }

    /// A record was found to have changed so often; it is told unless that was told before.
    pub(crate) fn found(&self, record: usize, changes: u64) {
        if let Some(watched) = self.watched.lock().get_mut(&record)
            && watched.changes != changes
        {
            watched.changes = changes;
            watched.watchers.push(&Pushed::Dirty);
        }
    }

    /// A group was deleted, and that watch of it went with it.
    pub(crate) fn gone(&self, one: WatchNumber) {
        let mut watched = self.watched.lock();
        let is_it = watched.get(&one.record).is_some_and(|there| there.number == one.number);
        let gone = if is_it { watched.remove(&one.record) } else { None };
        drop(watched);
        if let Some(mut gone) = gone {
            gone.watchers.push(&Pushed::Gone);
        }
    }

    /// Some of the records whose watchers have gone, with their watches.
    pub(crate) fn unwatched(&self, most: usize) -> Vec<(usize, usize)> {
        let watched = self.watched.lock();
        let unwatched = watched.iter().filter(|(_, watched)| watched.watchers.is_empty());
        unwatched.map(|(record, watched)| (*record, watched.watch)).take(most).collect()
    }

    /// Forgets a record whose watch has ended. Only while the table is ours.
    pub(crate) fn forget_watch(&self, record: usize) {
        self.watched.lock().remove(&record);
    }

    /// A grant was taken away.
    pub(crate) fn lose_grant(&self, id: RequestId) {
        self.reporter.grant_lost(id);
    }

    /// A membership was taken over.
    pub(crate) fn lose_membership(&self, id: RequestId) {
        if let Some(group) = self.holdings.forget_membership(id) {
            self.reporter.membership_lost(&group, id);
        }
    }

    /// The session is over: all streams end, and all that wait look.
    pub(crate) fn end(&self) {
        let ended = std::mem::take(&mut *self.watched.lock());
        drop(ended);
        self.holdings.wake_all();
    }
}
