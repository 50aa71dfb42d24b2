//! Being inside of a heart's runtime, on any thread: as long as a thread is inside, the runtime stays.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use crate::base::mutex::Mutex;

/// What a heart shares with all threads that poll inside its runtime.
#[derive(Default)]
pub(crate) struct HeartState {
    pub(crate) stopped: AtomicBool,
    /// How many callers are inside the runtime's context just now, polling inline.
    pub(crate) inside: AtomicUsize,
    /// Tasks whose futures have ended elsewhere.
    pub(crate) ended: EndedTasks,
    /// What waits to be woken, and is no task.
    pub(crate) asleep: Asleep,
}

thread_local! {
    /// How often this thread is inside of hearts.
    pub(crate) static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// As long as this lives, the heart's runtime does too, unless it was [stopped](Self::is_stopped) before.
pub(crate) struct Inside<'a>(&'a HeartState);

impl<'a> Inside<'a> {
    pub(crate) fn new(shared: &'a HeartState) -> Self {
        shared.inside.fetch_add(1, Ordering::SeqCst);
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
        Inside(shared)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
        let _ = DEPTH.try_with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}

/// Tasks whose futures have ended on other threads, while their heart still counts them. Waking the thread of a heart for one costs more than
/// the errand did, so the heart is told of them in batches.
#[derive(Default)]
pub(crate) struct EndedTasks(Mutex<Vec<Waker>>);

impl EndedTasks {
    const BATCH: usize = 32;

    pub(crate) fn add(&self, task: Waker) {
        let mut tasks = self.0.lock();
        tasks.push(task);
        if tasks.len() >= Self::BATCH {
            let all = std::mem::take(&mut *tasks);
            drop(tasks);
            all.into_iter().for_each(Waker::wake);
        }
    }
}

/// A future that has been polled on a caller's thread and is no task of the runtime: it becomes one where it is woken.
pub(crate) trait Sleeper: Send + Sync {
    /// Drops the future, of which wakers may be left.
    fn end(&self);
}

/// The futures of a heart that nothing but a waker knows, so that they end with it.
#[derive(Default)]
pub(crate) struct Asleep(Mutex<HashMap<usize, Arc<dyn Sleeper>>>);

impl Asleep {
    pub(crate) fn add(&self, sleeper: Arc<dyn Sleeper>) {
        self.0.lock().insert(address(&*sleeper), sleeper);
    }

    /// It has ended, or is a task from now on.
    pub(crate) fn remove(&self, sleeper: &dyn Sleeper) {
        let removed = self.0.lock().remove(&address(sleeper));
        drop(removed);
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Ends all that there are. What ends may wake others, and have others begin.
    pub(crate) fn end(&self) {
        loop {
            let all = std::mem::take(&mut *self.0.lock());
            if all.is_empty() {
                return;
            }
            for sleeper in all.values() {
                sleeper.end();
            }
        }
    }
}

fn address(sleeper: &dyn Sleeper) -> usize {
    std::ptr::from_ref(sleeper).addr()
}
