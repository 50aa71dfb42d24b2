//! A bounded queue between one feeder and one stream: it never blocks the feeder and never hides that it overflowed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tokio::sync::Notify;

use crate::session::Pushed;

/// How many items wait for a slow reader before they are given up for one `Overflowed`.
const CAPACITY: usize = 1024;

/// What a reader finds.
pub(crate) enum Letter<T> {
    Item(T),
    /// Items were thrown away; what comes next is newer than all of them.
    Overflowed,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    reader_gone: Notify,
}

struct State<T> {
    queue: VecDeque<T>,
    overflowed: bool,
    ended: bool,
    reader_gone: bool,
    waker: Option<Waker>,
}

pub(crate) struct Feeder<T>(Arc<Shared<T>>);
pub(crate) struct Reader<T>(Arc<Shared<T>>);

pub(crate) fn mailbox<T>() -> (Feeder<T>, Reader<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            overflowed: false,
            ended: false,
            reader_gone: false,
            waker: None,
        }),
        reader_gone: Notify::new(),
    });
    (Feeder(Arc::clone(&shared)), Reader(shared))
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State<T>)) {
        let waker = {
            let mut state = self.lock();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Feeder<T> {
    pub(crate) fn push(&self, item: T) {
        self.0.change(|state| {
            if state.ended || state.reader_gone {
            } else if state.queue.len() < CAPACITY {
                state.queue.push_back(item);
            } else {
                // What was thrown away and this item are told by one word: the reader looks afresh.
                state.queue.clear();
                state.overflowed = true;
            }
        });
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
        self.0.change(|state| state.ended = true);
    }
}

impl<T> Reader<T> {
    /// Throws away what waits, and answers the last of it.
    pub(crate) fn clear(&mut self) -> Option<T> {
        let mut state = self.0.lock();
        state.overflowed = false;
        std::mem::take(&mut state.queue).pop_back()
    }

    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Letter<T>>> {
        let mut state = self.0.lock();
        if std::mem::take(&mut state.overflowed) {
            return Poll::Ready(Some(Letter::Overflowed));
        }
        if let Some(item) = state.queue.pop_front() {
            return Poll::Ready(Some(Letter::Item(item)));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.reader_gone = true;
            state.queue.clear();
        });
        self.0.reader_gone.notify_waiters();
    }
}

/// The stream of a watch as a driver hands it to core.
pub type PushStream = Pin<Box<dyn Stream<Item = Pushed> + Send>>;

/// The driver's end of a [`push_channel`].
pub struct Pusher(Feeder<Pushed>);

/// Makes a stream for [`Session::watch_group`](crate::Session::watch_group) that can be fed from any thread.
///
/// It is bounded and never blocks: a reader that is too slow finds [`Pushed::Gap`] in place of what it missed.
pub fn push_channel() -> (Pusher, PushStream) {
    let (feeder, reader) = mailbox();
    (Pusher(feeder), Box::pin(PushReader(reader)))
}

impl Pusher {
    /// Tells the watcher. Dropping the pusher ends the stream, and core watches anew.
    pub fn push(&self, pushed: Pushed) {
        self.0.push(pushed);
    }

    /// Whether the watcher has gone, so that nothing needs to be told any more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Ends when the watcher has gone.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

struct PushReader(Reader<Pushed>);

impl Stream for PushReader {
    type Item = Pushed;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Pushed>> {
        self.0.poll_next(context).map(|letter| {
            letter.map(|letter| match letter {
                Letter::Item(pushed) => pushed,
                Letter::Overflowed => Pushed::Gap,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_is_told_of_the_gap_and_the_end() {
        let (feeder, mut reader) = mailbox();
        for item in 0..=CAPACITY {
            feeder.push(item);
        }
        feeder.push(7);
        drop(feeder);
        let mut seen = Vec::new();
        while let Some(letter) = std::future::poll_fn(|context| reader.poll_next(context)).await {
            seen.push(match letter {
                Letter::Item(item) => Some(item),
                Letter::Overflowed => None,
            });
        }
        assert_eq!(seen, [None, Some(7)]);
    }
}
