//! What every handle of a user shares: while one is left the coordinator lives.

use std::sync::Arc;

use crate::base::forked::Ours;
use crate::engine::inner::Inner;
use crate::engine::local_queues::LocalQueues;

/// Counts the user's handles: when the last goes, the coordinator closes by itself.
pub(crate) struct Handle {
    pub(crate) inner: Ours<Arc<Inner>>,
    pub(crate) queues: Ours<Arc<LocalQueues>>,
}

impl Handle {
    pub(crate) fn new(inner: Arc<Inner>, queues: Arc<LocalQueues>) -> Self {
        Handle { inner: Ours::new(inner), queues: Ours::new(queues) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.begin_close();
    }
}
