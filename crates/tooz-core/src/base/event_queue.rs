//! A bounded queue between one feeder and one stream: it never blocks the feeder and never hides that it overflowed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::base::contain::caught;
use crate::base::error::Error;
use crate::base::forked::Ours;
use crate::base::mutex::{Mutex, MutexGuard};
use crate::base::sync::Notify;

/// How many items wait for a slow reader before they are given up for one `Lagged`.
const CAPACITY: usize = 1024;

/// What a reader finds.
pub(crate) enum Delivery<T> {
    Item(T),
    /// Items were thrown away; what comes next is newer than all of them.
    Lagged,
}

struct Buffer<T> {
    state: Mutex<QueueState<T>>,
    reader_gone: Notify,
}

struct QueueState<T> {
    queue: VecDeque<T>,
    overflowed: bool,
    ended: bool,
    /// Why it ended, where that was said.
    end: Option<Error>,
    reader_gone: bool,
    waker: Option<Waker>,
}

pub(crate) struct Feeder<T>(Arc<Buffer<T>>);
pub(crate) struct Reader<T>(Ours<Arc<Buffer<T>>>);

pub(crate) fn event_queue<T>() -> (Feeder<T>, Reader<T>) {
    let shared = Arc::new(Buffer {
        state: Mutex::new(QueueState {
            queue: VecDeque::new(),
            overflowed: false,
            ended: false,
            end: None,
            reader_gone: false,
            waker: None,
        }),
        reader_gone: Notify::new(),
    });
    (Feeder(Arc::clone(&shared)), Reader(Ours::new(shared)))
}

impl<T> Buffer<T> {
    fn lock(&self) -> MutexGuard<'_, QueueState<T>> {
        self.state.lock()
    }

    /// A reader that is woken may come back at once, and what is thrown away may have a drop of its own: both happen without the lock.
    fn change<G>(&self, change: impl FnOnce(&mut QueueState<T>) -> G) -> PendingWake<G> {
        let mut state = self.lock();
        PendingWake { _garbage: change(&mut state), waker: state.waker.take() }
    }
}

/// A change that the reader has not been woken for: to be said once no lock is held.
#[must_use]
pub(crate) struct PendingWake<G> {
    _garbage: G,
    waker: Option<Waker>,
}

impl<G> PendingWake<G> {
    pub(crate) fn say(self) {
        // A waker that panics has woken no task, and is not to end the task that fed it.
        if let Some(waker) = self.waker {
            let _ = caught(|| waker.wake());
        }
    }
}

impl<T> Feeder<T> {
    pub(crate) fn push(&self, item: T) {
        self.put([item]).say();
    }

    /// Adds these items in one step; the reader is woken later, for callers that hold a lock of their own.
    pub(crate) fn put(&self, items: impl IntoIterator<Item = T>) -> PendingWake<VecDeque<T>> {
        self.0.change(|state| {
            let mut garbage = VecDeque::new();
            for item in items {
                if state.ended || state.reader_gone {
                    garbage.push_back(item);
                    continue;
                }
                if state.queue.len() >= CAPACITY {
                    // One word tells the reader that items were thrown away, and it looks afresh. The new item stays: it may be the last.
                    garbage.append(&mut state.queue);
                    state.overflowed = true;
                }
                state.queue.push_back(item);
            }
            garbage
        })
    }

    /// Ends the stream, and says why.
    pub(crate) fn end(self, why: Error) {
        self.0.change(|state| state.end.replace(why)).say();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().reader_gone
    }

    /// Ends when the reader is dropped.
    pub(crate) async fn closed(&self) {
        loop {
            let gone = self.0.reader_gone.notified();
            if self.is_closed() {
                return;
            }
            gone.await;
        }
    }
}

impl<T> Drop for Feeder<T> {
    fn drop(&mut self) {
        self.0.change(|state| state.ended = true).say();
    }
}

impl<T> Reader<T> {
    /// Throws away what waits, and answers the last of it.
    pub(crate) fn clear(&mut self) -> Option<T> {
        let mut state = self.0.lock();
        state.overflowed = false;
        let mut thrown_away = std::mem::take(&mut state.queue);
        drop(state);
        thrown_away.pop_back()
    }

    /// Why the stream has ended, once there is nothing more to read. One that was not told why ended with its coordinator.
    pub(crate) fn end(&self) -> Option<Error> {
        let state = self.0.lock();
        let has_ended = state.ended && state.queue.is_empty() && !state.overflowed;
        has_ended.then(|| state.end.clone().unwrap_or_else(Error::closed))
    }

    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Delivery<T>>> {
        // A waker's clone and drop are the code of others, which never runs under a lock of ours.
        let waker = context.waker().clone();
        let mut state = self.0.lock();
        if std::mem::take(&mut state.overflowed) {
            return Poll::Ready(Some(Delivery::Lagged));
        }
        if let Some(item) = state.queue.pop_front() {
            return Poll::Ready(Some(Delivery::Item(item)));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        let before = state.waker.replace(waker);
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        if !self.0.is_ours() {
            return;
        }
        let change = self.0.change(|state| {
            state.reader_gone = true;
            std::mem::take(&mut state.queue)
        });
        drop(change);
        self.0.reader_gone.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_is_told_of_the_gap_and_the_end() {
        let (feeder, mut reader) = event_queue();
        for item in 0..=CAPACITY {
            feeder.push(item);
        }
        feeder.push(7);
        drop(feeder);
        let mut seen = Vec::new();
        while let Some(next) = std::future::poll_fn(|context| reader.poll_next(context)).await {
            seen.push(match next {
                Delivery::Item(item) => Some(item),
                Delivery::Lagged => None,
            });
        }
        assert_eq!(seen, [None, Some(CAPACITY), Some(7)]);
    }

    #[tokio::test]
    async fn the_last_item_is_never_thrown_away() {
        let (feeder, mut reader) = event_queue();
        for item in 0..=CAPACITY {
            feeder.push(item);
        }
        feeder.end(Error::config("it was the last"));
        assert!(matches!(std::future::poll_fn(|context| reader.poll_next(context)).await, Some(Delivery::Lagged)));
        assert!(reader.end().is_none(), "there is something to read yet");
        assert_eq!(reader.clear(), Some(CAPACITY));
        assert!(std::future::poll_fn(|context| reader.poll_next(context)).await.is_none());
        assert_eq!(reader.end().unwrap().to_string(), "it was the last");
    }

    #[test]
    fn a_waker_may_read_at_once() {
        struct ReadsAtOnce(Mutex<Option<Reader<u8>>>);
        impl std::task::Wake for ReadsAtOnce {
            fn wake(self: Arc<Self>) {
                let mut reader = self.0.lock().take().unwrap();
                assert!(reader.poll_next(&mut Context::from_waker(Waker::noop())).is_ready());
            }
        }
        let (feeder, mut reader) = event_queue();
        let wakes = Arc::new(ReadsAtOnce(Mutex::new(None)));
        assert!(reader.poll_next(&mut Context::from_waker(&Waker::from(Arc::clone(&wakes)))).is_pending());
        *wakes.0.lock() = Some(reader);
        feeder.push(1);
        assert!(feeder.is_closed(), "it has read, and is gone");
    }
}
