//! What the session believes it has: its places in queues, those that hold a lock among them, and its memberships.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tooz_core::GroupId;
use tooz_core::driver::{Mutex, RequestId};

/// What one session has in the table.
#[derive(Default)]
pub(crate) struct Holdings {
    places: Mutex<HashMap<RequestId, Held>>,
    /// The waiters, by their places.
    waits: Mutex<HashMap<usize, Arc<Notify>>>,
    memberships: Mutex<HashMap<RequestId, (GroupId, usize)>>,
}

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) block: usize,
    /// `None`: it waits.
    pub(crate) token: Option<u64>,
}

impl Holdings {
    /// Notes a place, or that it has the lock now.
    pub(crate) fn hold(&self, id: RequestId, held: Held) {
        self.places.lock().insert(id, held);
    }

    pub(crate) fn place(&self, id: RequestId) -> Option<Held> {
        self.places.lock().get(&id).copied()
    }

    pub(crate) fn forget_place(&self, id: RequestId) {
        self.places.lock().remove(&id);
    }

    /// Those that have a lock.
    pub(crate) fn grants(&self) -> Vec<(RequestId, usize)> {
        let places = self.places.lock();
        places.iter().filter(|(_, held)| held.token.is_some()).map(|(id, held)| (*id, held.block)).collect()
    }

    /// Those that have had a lock by that place: a block is used again.
    pub(crate) fn grants_at(&self, block: usize) -> Vec<RequestId> {
        let places = self.places.lock();
        let there = places.iter().filter(|(_, held)| held.block == block && held.token.is_some());
        there.map(|(id, _)| *id).collect()
    }

    /// Begins to wait at a place.
    pub(crate) fn wait(&self, block: usize) -> Arc<Notify> {
        Arc::clone(self.waits.lock().entry(block).or_default())
    }

    pub(crate) fn end_wait(&self, block: usize) {
        self.waits.lock().remove(&block);
    }

    /// Wakes the waiter at that place.
    pub(crate) fn wake(&self, block: usize) {
        if let Some(waiter) = self.waits.lock().get(&block) {
            waiter.notify_one();
        }
    }

    /// Wakes all that wait.
    pub(crate) fn wake_all(&self) {
        self.waits.lock().values().for_each(|waiter| waiter.notify_one());
    }

    /// Notes a membership.
    pub(crate) fn enter(&self, id: RequestId, group: &GroupId, block: usize) {
        self.memberships.lock().insert(id, (group.clone(), block));
    }

    pub(crate) fn membership(&self, id: RequestId) -> Option<usize> {
        self.memberships.lock().get(&id).map(|(_, block)| *block)
    }

    pub(crate) fn forget_membership(&self, id: RequestId) -> Option<GroupId> {
        self.memberships.lock().remove(&id).map(|(group, _)| group)
    }

    pub(crate) fn memberships(&self) -> Vec<(RequestId, usize)> {
        self.memberships.lock().iter().map(|(id, (_, block))| (*id, *block)).collect()
    }
}
