//! What a heart runs of a future that did not end at its first poll, and the short cut for those that are woken by such a poll.
//!
//! A hop to a heart and back costs more than all that a local backend does. So when a poll on a caller's thread wakes a future of
//! any heart (a release that grants to a waiter of the same process), the next step of that one is an *errand*: it is taken on the
//! same thread, as soon as the poll is over. After any other wake-up its heart takes the step.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use tokio::runtime::Handle;

use crate::base::mutex::{Mutex, MutexGuard};
use crate::engine::inside::{HeartState, Inside};
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
    heart: Mutex<Option<Waker>>,
    runtime: Handle,
    shared: Arc<HeartState>,
}

/// On whose thread a step is taken.
#[derive(Clone, Copy)]
enum StepThread {
    Heart,
    Caller,
}

impl Rest {
    pub(crate) fn new(future: BoxedTask, runtime: Handle, shared: Arc<HeartState>) -> Self {
        Rest(Arc::new(Steps { future: Mutex::new(Some(future)), heart: Mutex::default(), runtime, shared }))
    }
}

impl Future for Rest {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let steps = &self.0;
        // First the waker, then the step: a wake-up in between wakes the heart, which looks again.
        *steps.heart() = Some(context.waker().clone());
        let mut future = steps.future.lock();
        steps.step(&mut future, StepThread::Heart)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let future = self.0.future.lock().take();
        drop(future);
    }
}

impl Steps {
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
            match catch_unwind(AssertUnwindSafe(|| self.step(&mut future, StepThread::Caller))) {
                Ok(Poll::Pending) => return,
                Ok(Poll::Ready(())) => {}
                // As where a heart runs it: a task that waits for an answer is told that there is none.
                Err(_panic) => *future = None,
            }
        }
        // It has ended, and the heart's part of it may end later.
        let task = self.heart().take();
        if let Some(task) = task {
            self.shared.ended.add(task);
        }
    }

    fn wake_heart(&self) {
        let waker = self.heart().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn heart(&self) -> MutexGuard<'_, Option<Waker>> {
        self.heart.lock()
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
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::{self, ThreadId};

    use tokio::sync::oneshot;

    use super::*;
    use crate::engine::heart::{FirstPoll, Heart};

    /// A heart that lives until the sender is dropped.
    fn heart() -> (Heart, oneshot::Sender<()>) {
        let (life, end) = oneshot::channel();
        let heart = Heart::start(async move { drop(end.await) }, || {});
        (heart.unwrap(), life)
    }

    /// Begins to wait for the receiver on that heart, and returns when it is the heart that waits.
    fn wait_on<T: Send + 'static>(
        heart: &Heart,
        mut awaited: oneshot::Receiver<T>,
        then: impl FnOnce() -> ThreadId + Send + 'static,
    ) -> oneshot::Receiver<ThreadId> {
        let here = thread::current().id();
        let waits = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&waits);
        let begun = heart.begin(async move {
            poll_fn(|context| {
                let poll = Pin::new(&mut awaited).poll(context);
                told.store(thread::current().id() != here, Ordering::Release);
                poll.map(drop)
            })
            .await;
            then()
        });
        while !waits.load(Ordering::Acquire) {
            thread::yield_now();
        }
        let FirstPoll::Waiting(answer, _) = begun else { panic!("it has nothing to wait for") };
        answer
    }

    #[test]
    fn who_is_woken_by_a_poll_goes_on_on_the_same_thread() {
        let ((waiting, _life), (releasing, _other)) = (heart(), heart());
        // Now and then its heart is still about to begin to wait, and then goes on itself.
        let is_taken_here = || {
            let (sender, receiver) = oneshot::channel();
            let mut answer = wait_on(&waiting, receiver, || thread::current().id());
            assert!(matches!(releasing.begin(async { sender.send(()) }), FirstPoll::Done(Ok(()))));
            answer.try_recv() == Ok(thread::current().id())
        };
        assert!((0..100).any(|_| is_taken_here()), "it is always left to its heart");
    }

    #[test]
    fn who_is_woken_from_elsewhere_goes_on_on_his_heart() {
        let (waiting, _life) = heart();
        let (sender, receiver) = oneshot::channel();
        let answer = wait_on(&waiting, receiver, || thread::current().id());
        sender.send(()).unwrap();
        assert_ne!(answer.blocking_recv().unwrap(), thread::current().id());
    }

    #[test]
    fn a_panic_in_an_errand_is_not_the_callers() {
        let ((waiting, _life), (releasing, _other)) = (heart(), heart());
        let (sender, receiver) = oneshot::channel();
        let answer = wait_on(&waiting, receiver, || panic!("as part of a test"));
        assert!(matches!(releasing.begin(async { sender.send(()) }), FirstPoll::Done(Ok(()))));
        assert!(answer.blocking_recv().is_err(), "a task that waits is told that there is no answer");
    }

    #[test]
    fn what_a_heart_has_not_finished_goes_with_it() {
        let (waiting, life) = heart();
        let (sender, receiver) = oneshot::channel::<()>();
        // Its waker is here, and holds nothing of it.
        let answer = wait_on(&waiting, receiver, || thread::current().id());
        drop(life);
        waiting.join();
        assert!(answer.blocking_recv().is_err());
        assert!(sender.is_closed(), "the future is still there");
    }
}
