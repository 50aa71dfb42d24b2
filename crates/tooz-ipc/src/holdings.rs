//! What the session believes it has: its places in queues, those that hold a lock among them, and its memberships.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tooz_core::GroupId;
use tooz_core::driver::{Mutex, RequestId};

/// What one session has in the table.
#[derive(Default)]
pub(crate) struct Holdings {
    places: Mutex<HashMap<RequestId, HeldLock>>,
    /// The waiters, by their places. A place that was given back may be another waiter's before the first has gone, so that there may be several.
    waits: Mutex<HashMap<usize, Vec<Arc<Notify>>>>,
    memberships: Mutex<HashMap<RequestId, (GroupId, usize)>>,
}

/// A wait at a place. It takes away nothing but itself when it ends.
pub(crate) struct Wait<'a> {
    holdings: &'a Holdings,
    block: usize,
    rung: Arc<Notify>,
}

impl Wait<'_> {
    /// Ends when the place is rung for. A ring that came before counts.
    pub(crate) async fn rung(&self) {
        self.rung.notified().await;
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waits = self.holdings.waits.lock();
        if let Some(waiters) = waits.get_mut(&self.block) {
            waiters.retain(|waiter| !Arc::ptr_eq(waiter, &self.rung));
            if waiters.is_empty() {
                waits.remove(&self.block);
            }
        }
    }
}

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldLock {
    pub(crate) block: usize,
    /// `None`: it waits.
    pub(crate) token: Option<u64>,
}

impl Holdings {
    /// Notes a place, or that it has the lock now.
    pub(crate) fn hold(&self, id: RequestId, held: HeldLock) {
        self.places.lock().insert(id, held);
    }

    pub(crate) fn place(&self, id: RequestId) -> Option<HeldLock> {
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
    pub(crate) fn wait(&self, block: usize) -> Wait<'_> {
        let rung = Arc::new(Notify::new());
        self.waits.lock().entry(block).or_default().push(Arc::clone(&rung));
        Wait { holdings: self, block, rung }
    }

    /// Wakes the waiter at that place.
    pub(crate) fn wake(&self, block: usize) {
        for waiter in self.waits.lock().get(&block).into_iter().flatten() {
            waiter.notify_one();
        }
    }

    /// Wakes all that wait.
    pub(crate) fn wake_all(&self) {
        self.waits.lock().values().flatten().for_each(|waiter| waiter.notify_one());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The first has given its place back, and the second got the same block before the first was through.
    #[tokio::test]
    async fn a_wait_that_ends_takes_no_ring_of_another_at_the_same_place() {
        let holdings = Holdings::default();
        let (first, second) = (holdings.wait(7), holdings.wait(7));
        drop(first);
        holdings.wake(7);
        second.rung().await;
        drop(second);
        assert!(holdings.waits.lock().is_empty(), "nothing is left of a wait");
    }
}
