//! The local queues of one coordinator: one for each lock in use.

use std::sync::Arc;

use crate::driver::lock::LockKey;
use crate::engine::inner::Inner;
use crate::engine::local_queue::LocalQueue;
use crate::engine::registry::Registry;

pub(crate) struct LocalQueues {
    inner: Arc<Inner>,
    registry: Arc<Registry<LockKey, LocalQueue>>,
}

impl LocalQueues {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        LocalQueues { inner, registry: Arc::default() }
    }

    /// The queue of that lock. A forked child has its own, which is in no list: that may be locked by a thread that is not there.
    pub(crate) fn of(&self, key: &LockKey) -> Arc<LocalQueue> {
        let make = || LocalQueue::new(key.clone(), Arc::clone(&self.inner), Arc::clone(&self.registry));
        if self.inner.is_forked() { Arc::new(make()) } else { self.registry.get_or_make(key, make) }
    }

    /// Lets every queue look whether something that was in the way is lost.
    pub(crate) fn stir(&self) {
        for queue in self.registry.all() {
            queue.pump();
        }
    }

    /// Tells all waiters that there is nothing to wait for any more.
    pub(crate) fn refuse_all(&self) {
        for queue in self.registry.all() {
            queue.refuse_all();
        }
    }
}
