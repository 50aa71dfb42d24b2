//! What others tell: to each watcher what changed where it looks, to each waiter that it should look, to core what was taken away.

use std::collections::HashMap;

use tooz_core::driver::{Mutex, PushStream, Pushed, Reporter, RequestId, Watchers, push_channel};

use crate::holdings::Holdings;

/// Where what is told goes.
pub(crate) struct Dispatch {
    pub(crate) holdings: Holdings,
    pub(crate) reporter: Reporter,
    watched: Mutex<HashMap<usize, Watched>>,
}

/// A lock or a group that is watched.
struct Watched {
    watchers: Watchers,
    watch: usize,
    /// How often it had changed when that was last told.
    changes: u64,
}

impl Dispatch {
    pub(crate) fn new(reporter: Reporter) -> Self {
        Dispatch { holdings: Holdings::default(), reporter, watched: Mutex::default() }
    }

    /// One more watcher of that record, by a watch that is there already. `None`: there is none.
    pub(crate) fn add_watcher(&self, record: usize) -> Option<PushStream> {
        let (pusher, stream) = push_channel();
        let mut watched = self.watched.lock();
        let there = watched.get_mut(&record).filter(|there| !there.watchers.is_empty())?;
        pusher.push(Pushed::Ready);
        there.watchers.add(pusher);
        Some(stream)
    }

    /// The first watcher of a record, by a new watch.
    pub(crate) fn begin(&self, record: usize, watch: usize, changes: u64) -> PushStream {
        let (pusher, stream) = push_channel();
        pusher.push(Pushed::Ready);
        let mut watchers = Watchers::default();
        watchers.add(pusher);
        self.watched.lock().insert(record, Watched { watchers, watch, changes });
        stream
    }

    /// The records that are watched, by which watches, and how often they had changed.
    pub(crate) fn watched(&self) -> Vec<(usize, usize, u64)> {
        self.watched.lock().iter().map(|(record, watched)| (*record, watched.watch, watched.changes)).collect()
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

    /// A group was deleted.
    pub(crate) fn gone(&self, record: usize) {
        if let Some(mut watched) = self.watched.lock().remove(&record) {
            watched.watchers.push(&Pushed::Gone);
        }
    }

    /// Forgets the records whose watchers have gone. Answers them with their watches.
    pub(crate) fn take_unwatched(&self) -> Vec<(usize, usize)> {
        let mut watched = self.watched.lock();
        watched
            .extract_if(|_, watched| watched.watchers.is_empty())
            .map(|(record, gone)| (record, gone.watch))
            .collect()
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
