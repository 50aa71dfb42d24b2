//! A waiting request as both sides see it: core says whether it is wanted, the driver how it goes.

use std::sync::Arc;

use crate::base::error::Error;
use crate::base::mutex::{Mutex, MutexGuard};
use crate::base::sync::Notify;
use crate::base::sync::atomic::{AtomicBool, Ordering};

/// Whether a waiting request is still wanted. It may change to false and back while the request waits. It is also the driver's way to
/// say that the request stands in the queue.
#[derive(Clone, Debug)]
pub struct Wanted(Arc<WantedState>);

/// Core's end of a [`Wanted`]. When it goes, no caller is left that could want the request.
#[derive(Debug)]
pub(crate) struct Wish(Arc<WantedState>);

/// A change of a [`Wish`] that has to be told yet, which wakes a task: not under a lock.
#[must_use]
pub(crate) struct WishChange(Arc<WantedState>);

#[derive(Debug, Default)]
struct WantedState {
    unwanted: AtomicBool,
    /// Whether it was unwanted for a moment since the attempt began.
    was_unwanted: AtomicBool,
    /// Whether any attempt ever stood in the queue.
    has_stood: AtomicBool,
    word: Mutex<Word>,
    changed: Notify,
}

/// What the driver has said of the present attempt.
#[derive(Debug, Default)]
struct Word {
    /// How many words there were.
    count: u64,
    latest: Option<WaitProgress>,
}

/// How a wait at the backend goes.
#[derive(Clone, Debug)]
pub(crate) enum WaitProgress {
    /// Another has the lock, and the request stands in the queue.
    Queued,
    /// The driver tries again by itself.
    Trouble(Error),
}

impl WantedState {
    fn word(&self) -> MutexGuard<'_, Word> {
        self.word.lock()
    }

    fn say(&self, progress: Option<WaitProgress>) {
        let before = {
            let mut word = self.word();
            word.count += 1;
            std::mem::replace(&mut word.latest, progress)
        };
        drop(before);
        self.changed.notify_waiters();
    }
}

impl Wish {
    /// `None`: it was so before.
    pub(crate) fn set(&self, wanted: bool) -> Option<WishChange> {
        if !wanted {
            self.0.was_unwanted.store(true, Ordering::Release);
        }
        (self.0.unwanted.swap(!wanted, Ordering::AcqRel) == wanted).then(|| WishChange(Arc::clone(&self.0)))
    }

    /// Whether the driver's latest word is that the request stands in the queue: another has the lock.
    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.0.word().latest, Some(WaitProgress::Queued))
    }

    pub(crate) fn has_stood(&self) -> bool {
        self.0.has_stood.load(Ordering::Acquire)
    }
}

impl WishChange {
    pub(crate) fn tell(self) {
        self.0.changed.notify_waiters();
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        if let Some(untold) = self.set(false) {
            untold.tell();
        }
    }
}

impl Wanted {
    pub(crate) fn channel() -> (Wish, Wanted) {
        let state = Arc::<WantedState>::default();
        (Wish(Arc::clone(&state)), Wanted(state))
    }

    /// Whether it is wanted now.
    pub fn is_wanted(&self) -> bool {
        !self.0.unwanted.load(Ordering::Acquire)
    }

    /// Ends at once when the request is not wanted, else as soon as it is not.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn unwanted(&self) {
        loop {
            // Listening begins before the look, so that nothing is missed in between.
            let changed = self.0.changed.notified();
            if !self.is_wanted() {
                return;
            }
            changed.await;
        }
    }

    /// The driver's word that the backend has answered: another has the lock, and this request stands in the queue. Without it
    /// core could not tell a lock that is held from a backend that does not answer, and a wait with a time limit would end with an error.
    pub fn queued(&self) {
        self.0.has_stood.store(true, Ordering::Release);
        let is_said = matches!(self.0.word().latest, Some(WaitProgress::Queued));
        if !is_said {
            self.0.say(Some(WaitProgress::Queued));
        }
    }

    /// The word of a driver that goes on by itself after an error, for example because the place in the queue is kept by that: why it does not
    /// get through just now. The next [`queued`](Self::queued) takes it back.
    pub fn trouble(&self, error: &Error) {
        self.0.say(Some(WaitProgress::Trouble(error.clone())));
    }

    /// A new attempt has no place yet. Answers how many words there were.
    pub(crate) fn begin_attempt(&self) -> u64 {
        self.0.was_unwanted.store(!self.is_wanted(), Ordering::Release);
        let mut word = self.0.word();
        word.latest = None;
        word.count
    }

    /// Whether the driver had a reason to withdraw the attempt.
    pub(crate) fn was_unwanted(&self) -> bool {
        self.0.was_unwanted.load(Ordering::Acquire)
    }

    /// The next word after that many.
    pub(crate) async fn next_word(&self, seen: &mut u64) -> WaitProgress {
        loop {
            let changed = self.0.changed.notified();
            {
                let word = self.0.word();
                if word.count > *seen
                    && let Some(latest) = &word.latest
                {
                    *seen = word.count;
                    return latest.clone();
                }
            }
            changed.await;
        }
    }
}
