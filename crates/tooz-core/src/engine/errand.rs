//! What a heart runs of a future that did not end at its first poll, and the short cuts for those that need no heart.
//!
//! A hop to a heart and back costs more than all that a local backend does, and a tenth of a round trip to a server. So
//!
//! - a future that waits is *asleep*: it is polled once more on the caller's thread, with its own waker, and is no task yet;
//! - when a poll on a caller's thread wakes a future of any heart (a release that grants to a waiter of the same process), the next
//!   step of that one is an *errand*: it is taken on the same thread, as soon as the poll is over;
//! - after any other wake-up its heart takes the step, and the future is a task of it from then on.
//!
//! | state | who takes its steps | left by |
//! |---|---|---|
//! | asleep | the thread that wakes it, as an errand | any other wake-up: a task; its end; the heart's end |
//! | task | the heart, and a thread that wakes it, as an errand | its end; the heart's end |

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use tokio::runtime::Handle;

use crate::base::mutex::{Mutex, MutexGuard};
use crate::engine::inside::{HeartState, Inside, Sleeper};
use crate::engine::trace::quiet_step;

/// How many errands one poll may lead to. More errands go to the hearts: no caller's call should last for ever.
const ERRANDS: usize = 64;

pub(crate) type BoxedTask = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// What was woken on this thread, while an `Errands` collects it.
    static COLLECTED: RefCell<Option<Vec<Arc<Steps>>>> = const { RefCell::new(None) };
}

/// The rest of a future, for its heart to run. When the heart drops it, it is gone, even where a waker of it is left.
pub(crate) struct Rest(Arc<Steps>);

struct Steps {
    /// `None`: it has ended.
    future: Mutex<Option<BoxedTask>>,
    sleep: Mutex<Sleep>,
    runtime: Handle,
    shared: Arc<HeartState>,
}

/// On whose thread a step is taken.
#[derive(Clone, Copy)]
enum StepThread {
    Heart,
    Caller,
}

/// Who is to be woken for a step.
enum Sleep {
    /// It is no task yet.
    Asleep,
    /// It is a task, which has left this when it was polled.
    Task(Option<Waker>),
}

impl Rest {
    /// Leaves `future` to its heart, which polls it at once.
    pub(crate) fn run(future: BoxedTask, runtime: Handle, shared: Arc<HeartState>) {
        let steps = Arc::new(Steps::new(future, Sleep::Task(None), runtime, shared));
        steps.runtime.spawn(Rest(Arc::clone(&steps)));
    }

    /// Polls `future` here with the waker that it keeps, and leaves the rest asleep. The caller is inside the heart's runtime, and collects errands.
    pub(crate) fn leave(future: BoxedTask, runtime: Handle, shared: Arc<HeartState>) {
        let steps = Arc::new(Steps::new(future, Sleep::Asleep, runtime, shared));
        // Before the poll: a wake-up in between takes it off again.
        steps.shared.asleep.add(Arc::clone(&steps) as Arc<dyn Sleeper>);
        let poll = steps.step_here(&mut steps.future.lock());
        if poll.is_ready() {
            steps.shared.asleep.remove(&*steps);
        }
    }
}

impl Future for Rest {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let steps = &self.0;
        // First the waker, then the step: a wake-up in between wakes the heart, which looks again.
        *steps.sleep.lock() = Sleep::Task(Some(context.waker().clone()));
        let mut future = steps.future.lock();
        steps.step(&mut future, StepThread::Heart)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Sleeper for Steps {
    fn end(&self) {
        let future = self.future.lock().take();
        drop(future);
    }
}

impl Steps {
    fn new(future: BoxedTask, sleep: Sleep, runtime: Handle, shared: Arc<HeartState>) -> Self {
        Steps { future: Mutex::new(Some(future)), sleep: Mutex::new(sleep), runtime, shared }
    }

    fn step(self: &Arc<Self>, future: &mut MutexGuard<'_, Option<BoxedTask>>, thread: StepThread) -> Poll<()> {
        let Some(present) = future.as_mut() else { return Poll::Ready(()) };
        let waker = Waker::from(Arc::clone(self));
        let poll = match thread {
            StepThread::Heart => present.as_mut().poll(&mut Context::from_waker(&waker)),
            StepThread::Caller => poll_here(present.as_mut(), &waker),
        };
        if poll.is_ready() {
            **future = None;
        }
        poll
    }

    /// Takes a step on this thread, which is a caller's. What panics has ended: a task that waits for an answer is told that there is none.
    fn step_here(self: &Arc<Self>, future: &mut MutexGuard<'_, Option<BoxedTask>>) -> Poll<()> {
        let step = catch_unwind(AssertUnwindSafe(|| self.step(future, StepThread::Caller)));
        step.unwrap_or_else(|_panic| {
            **future = None;
            Poll::Ready(())
        })
    }

    /// Takes a step on this thread, if no other thread takes one just now.
    fn run_errand(self: &Arc<Self>) {
        {
            let inside = Inside::new(&self.shared);
            if inside.is_stopped() {
                return;
            }
            // The thread that is at it may be past what it was woken for.
            let Some(mut future) = self.future.try_lock() else { return self.wake_heart() };
            let _context = self.runtime.enter();
            let _quiet = quiet_step();
            if self.step_here(&mut future).is_pending() {
                return;
            }
        }
        // It has ended, and the heart's part of it may end later.
        let task = match &mut *self.sleep.lock() {
            Sleep::Asleep => None,
            Sleep::Task(waker) => waker.take(),
        };
        match task {
            Some(task) => self.shared.ended.add(task),
            None => self.shared.asleep.remove(&**self),
        }
    }

    /// Has the heart take the next step. What was asleep is its task from now on.
    fn wake_heart(self: &Arc<Self>) {
        let waker = {
            let mut sleep = self.sleep.lock();
            match &*sleep {
                Sleep::Task(waker) => waker.clone(),
                Sleep::Asleep => {
                    *sleep = Sleep::Task(None);
                    drop(sleep);
                    return self.become_task();
                }
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn become_task(self: &Arc<Self>) {
        let inside = Inside::new(&self.shared);
        // A heart that has ended, or is about to, ends what is asleep as well.
        if inside.is_stopped() {
            return;
        }
        self.runtime.spawn(Rest(Arc::clone(self)));
        self.shared.asleep.remove(&**self);
    }
}

impl Wake for Steps {
    fn wake(self: Arc<Self>) {
        let collected = with_collected(|collected| match collected {
            Some(errands) => {
                errands.push(Arc::clone(&self));
                true
            }
            None => false,
        });
        if collected != Some(true) {
            self.wake_heart();
        }
    }
}

/// Polls on whatever thread and in whatever task this is. Their budget is for work that might go on for ever; a driver's step waits
/// for something sooner or later, and a budget that is used up would send the rest of it to another thread.
pub(crate) fn poll_here<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    pin!(tokio::task::unconstrained(future)).poll(&mut Context::from_waker(waker))
}

/// Collects what is woken on this thread while it lives, and runs it in the end.
pub(crate) struct Errands {
    /// Not one inside another, whose list it is.
    is_outermost: bool,
}

impl Errands {
    pub(crate) fn collect() -> Self {
        let is_outermost = with_collected(|collected| {
            let is_new = collected.is_none();
            collected.get_or_insert_default();
            is_new
        });
        Errands { is_outermost: is_outermost == Some(true) }
    }
}

impl Drop for Errands {
    fn drop(&mut self) {
        if !self.is_outermost {
            return;
        }
        let mut left = ERRANDS;
        loop {
            let errands =
                with_collected(|collected| collected.as_mut().map(std::mem::take)).flatten().unwrap_or_default();
            if errands.is_empty() {
                break;
            }
            for errand in errands {
                // A panic has enough to do with itself.
                if left == 0 || std::thread::panicking() {
                    errand.wake_heart();
                } else {
                    left -= 1;
                    errand.run_errand();
                }
            }
        }
        with_collected(Option::take);
    }
}

/// `None` on a thread that is about to end.
fn with_collected<T>(deed: impl FnOnce(&mut Option<Vec<Arc<Steps>>>) -> T) -> Option<T> {
    COLLECTED.try_with(|collected| deed(&mut collected.borrow_mut())).ok()
}

#[cfg(test)]
mod tests;
