//! What waits to be released, together: see `release.rs`.

use tokio::sync::oneshot;
use tooz_core::Result;
use tooz_core::driver::Mutex;

use crate::history;
use crate::request::BATCH;

/// How many operations each of them has.
pub(crate) const OPS: usize = 2;
/// How many one transaction releases.
const MOST: usize = (BATCH - history::OPS) / OPS;

/// What became of a key that was to be deleted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReleaseReply {
    /// Whether the key was there, and the session's. If not, the session lived all the same.
    pub(crate) was_there: bool,
    /// An earlier sending may have deleted it.
    pub(crate) was_repeated: bool,
}

/// What waits to be released, and whose turn it is to do it.
#[derive(Default)]
pub(crate) struct Releases {
    waiting: Mutex<Vec<PendingRelease>>,
    /// Held by the call that writes for all.
    pub(crate) writing: tokio::sync::Mutex<()>,
}

/// One that waits to be released.
pub(crate) struct PendingRelease {
    pub(crate) key: String,
    pub(crate) done: oneshot::Sender<Result<ReleaseReply>>,
}

impl Releases {
    pub(crate) fn wait(&self, key: &str) -> oneshot::Receiver<Result<ReleaseReply>> {
        let (done, is_done) = oneshot::channel();
        self.waiting.lock().push(PendingRelease { key: key.to_owned(), done });
        is_done
    }

    /// Those that came first, as many as one transaction takes.
    pub(crate) fn take_some(&self) -> Vec<PendingRelease> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(MOST);
        waiting.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_released_at_once_as_one_transaction_takes() {
        let releases = Releases::default();
        let asked: Vec<_> = (0..MOST * 2 + 3).map(|number| releases.wait(&format!("k{number}"))).collect();
        let taken = || releases.take_some().len();
        assert_eq!((taken(), taken(), taken(), taken()), (MOST, MOST, 3, 0));
        assert!(MOST * OPS + history::OPS <= BATCH && asked.len() == MOST * 2 + 3);
    }
}
