//! The heart: a thread of its own with a small runtime, in which every driver's future runs, whatever the application does.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::base::contain::{caught, contained};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::forked::Ours;
use crate::base::mutex::Mutex;
use crate::engine::errand::{BoxedTask, Errands, Rest, poll_here};
use crate::engine::inside::{DEPTH, HeartState, Inside};
use crate::engine::patience::Patience;
use crate::engine::trace::{quiet_step, quietly};

pub(crate) struct Heart {
    runtime: Handle,
    shared: Arc<HeartState>,
    thread: Mutex<Option<JoinHandle<()>>>,
    thread_id: ThreadId,
    pid: u32,
}

/// Where a future is that was begun on the heart.
pub(crate) enum FirstPoll<T> {
    /// It ended at the first poll, on the caller's thread.
    Done(T),
    /// The rest is asleep, or a task of the heart.
    Waiting(oneshot::Receiver<T>, Arc<HeartState>),
    /// It panicked at the first poll.
    Panicked(Error),
    /// There is no heart any more.
    Gone,
}

/// What became of the first poll of a future whose answer is not awaited.
pub(crate) enum Start<T> {
    Done(T),
    Waiting,
    Panicked(Error),
    Gone,
}

impl Heart {
    /// Starts the thread, which lives until `life` ends. Whatever ends it, a panic included, `at_end` is the last that it does.
    pub(crate) fn start(
        life: impl Future<Output = ()> + Send + 'static,
        at_end: impl FnOnce() + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(HeartState::default());
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "the heart's thread or runtime can't be started").with_source(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let ending = EndGuard { shared: Arc::clone(&shared), at_end: Some(at_end) };
        let thread = std::thread::Builder::new()
            .name("tooz-heart".to_owned())
            .spawn(move || {
                let ending = ending;
                // What panicked has ended; all that wait for it are told by `ending`.
                let _ = caught(|| quietly(|| runtime.block_on(life)));
                let shared = Arc::clone(&ending.shared);
                drop(ending);
                // Callers that poll inline still need the timers and sockets of this runtime; such polls are short.
                while shared.inside.load(Ordering::SeqCst) > 0 {
                    std::thread::yield_now();
                }
                {
                    // What is asleep is no part of the runtime, but its drop may want one.
                    let _context = runtime.enter();
                    let _ = caught(|| shared.asleep.end());
                }
                // A name look-up that hangs in a blocking thread must not hold up the end.
                let _ = caught(|| runtime.shutdown_timeout(Duration::from_millis(1)));
            })
            .map_err(failed)?;
        let thread_id = thread.thread().id();
        Ok(Heart { runtime: handle, shared, thread: Mutex::new(Some(thread)), thread_id, pid: std::process::id() })
    }

    /// Polls `future` here, inside the heart's runtime; what is left of it runs on the heart when it is woken, whatever becomes of the
    /// answer. A hop to the heart and back costs more than most answers of a local backend, hence the first poll; it leaves nothing behind,
    /// and only a future that waits is given a waker of its own in a second one.
    ///
    /// Not for a forked child: every entry asks [`is_forked`](Self::is_forked) before.
    pub(crate) fn begin<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> FirstPoll<T> {
        let mut answer = None;
        let start = self.first_step(future, |future| {
            let (sender, receiver) = oneshot::channel();
            answer = Some(receiver);
            Box::pin(async move {
                let _ = sender.send(future.await);
            })
        });
        match (start, answer) {
            (Start::Done(value), _) => FirstPoll::Done(value),
            (Start::Waiting, Some(receiver)) => FirstPoll::Waiting(receiver, Arc::clone(&self.shared)),
            (Start::Panicked(panic), _) => FirstPoll::Panicked(panic),
            (Start::Waiting | Start::Gone, _) => FirstPoll::Gone,
        }
    }

    /// Begins a future whose end is not awaited: it is polled once here, and where that does not end it, the heart runs the rest and then `then`.
    pub(crate) fn begin_with<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
        then: impl FnOnce(T) + Send + 'static,
    ) -> Start<T> {
        self.first_step(future, |future| Box::pin(async move { then(future.await) }))
    }

    fn first_step<T, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
        rest: impl FnOnce(Pin<Box<F>>) -> BoxedTask,
    ) -> Start<T> {
        let inside = Inside::new(&self.shared);
        if inside.is_stopped() {
            return Start::Gone;
        }
        if !can_poll_here() {
            Rest::run(rest(Box::pin(future)), self.runtime.clone(), Arc::clone(&self.shared));
            return Start::Waiting;
        }
        let _context = self.runtime.enter();
        // The step of a task that this wakes is taken on this thread too, when it is done.
        let _errands = Errands::collect();
        let _quiet = quiet_step();
        let mut future = Box::pin(future);
        match caught(|| poll_here(future.as_mut(), Waker::noop())) {
            Ok(Poll::Ready(value)) => Start::Done(value),
            Ok(Poll::Pending) => {
                Rest::leave(rest(future), self.runtime.clone(), Arc::clone(&self.shared));
                Start::Waiting
            }
            Err(panic) => Start::Panicked(panic),
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::SeqCst)
    }

    /// How many futures are asleep.
    #[cfg(test)]
    pub(crate) fn asleep(&self) -> usize {
        self.shared.asleep.count()
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.pid != std::process::id()
    }

    /// Runs `future` on the heart without a poll here.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let inside = Inside::new(&self.shared);
        if !self.is_forked() && !inside.is_stopped() {
            self.runtime.spawn(future);
        }
    }

    /// Ends after `limit`, or with the heart, under any executor. The heart wakes for it when its time is over and not before: most
    /// waits end sooner.
    pub(crate) fn timer(&self, limit: Duration) -> Timer<'_> {
        let inside = Inside::new(&self.shared);
        let sleep = (!inside.is_stopped()).then(|| {
            let _context = self.runtime.enter();
            Ours::new(Box::pin(tokio::time::sleep(limit)))
        });
        Timer { shared: &self.shared, sleep }
    }

    /// Sleeps under any executor, at most as long as the heart lives.
    pub(crate) async fn pause(&self, duration: Duration) {
        let mut timer = self.timer(duration);
        poll_fn(|context| timer.poll(context)).await;
    }

    /// Waits for the end of the thread. Blocks; cheap when the thread is about to end. A second caller waits as long.
    pub(crate) fn join(&self) {
        // A thread that is just inside is what the heart waits for before it ends.
        if std::thread::current().id() == self.thread_id || DEPTH.try_with(Cell::get).unwrap_or(0) > 0 {
            return;
        }
        let mut thread = self.thread.lock();
        if let Some(thread) = thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is done when the heart's thread ends, however it ends.
struct EndGuard<F: FnOnce()> {
    shared: Arc<HeartState>,
    at_end: Option<F>,
}

impl<F: FnOnce()> Drop for EndGuard<F> {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        if let Some(at_end) = self.at_end.take() {
            let _ = caught(at_end);
        }
    }
}

/// At a thread's end, while its thread-locals are dropped (of which a guard may be one), no runtime can be entered on it.
fn can_poll_here() -> bool {
    !Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed())
}

/// A time limit that a heart keeps.
pub(crate) struct Timer<'a> {
    shared: &'a HeartState,
    /// Dropping it takes it off the heart's list, whose lock is never given back in a forked child.
    sleep: Option<Ours<Pin<Box<tokio::time::Sleep>>>>,
}

impl Timer<'_> {
    /// Once it has ended, it is not to be polled again.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // A runtime that has ended wakes all its timers, but then they must not be polled.
        let inside = Inside::new(self.shared);
        match &mut self.sleep {
            Some(sleep) if !inside.is_stopped() => sleep.as_mut().poll(context),
            _ => Poll::Ready(()),
        }
    }
}

impl<T> FirstPoll<Result<T>> {
    /// The answer, under any executor.
    pub(crate) async fn answer(self) -> Result<T> {
        match self {
            FirstPoll::Done(result) => result,
            FirstPoll::Waiting(receiver, shared) => receiver.await.unwrap_or_else(|_| {
                // While the heart lives, nothing drops a future but a panic.
                Err(if shared.stopped.load(Ordering::SeqCst) {
                    Error::closed()
                } else {
                    Error::panicked("it left no answer")
                })
            }),
            FirstPoll::Panicked(panic) => Err(panic),
            FirstPoll::Gone => Err(Error::closed()),
        }
    }
}

/// A future that is not dropped half-way: where this is, the heart runs the rest, and its answer is dropped. Lives on the heart alone.
pub(crate) struct RunsOn<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> RunsOn<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        RunsOn(Some(Box::pin(future)))
    }
}

impl<T: Send + 'static> Future for RunsOn<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let poll = future.as_mut().poll(context);
        if poll.is_ready() {
            self.0 = None;
        }
        poll
    }
}

impl<T: Send + 'static> Drop for RunsOn<T> {
    fn drop(&mut self) {
        if let (Some(rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move { drop(rest.await) });
        }
    }
}

/// A future that is on the heap already: what holds it stays small, however much it holds.
pub(crate) type RequestFuture<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Waits for `asked` at most `limit`. It is not dropped then: past the limit it runs on, and its result is dropped.
///
/// Runs inside the heart's runtime. A future that is ready at once costs no timer, and only one that is late costs a task.
pub(crate) async fn within<T: Send + 'static>(
    limit: Duration,
    what: impl FnOnce() -> String,
    mut asked: RequestFuture<T>,
) -> Result<T> {
    if let Poll::Ready(result) = poll_fn(|context| Poll::Ready(caught(|| asked.as_mut().poll(context)))).await? {
        return result;
    }
    if let Ok(result) = tokio::time::timeout(limit, contained(asked.as_mut())).await {
        return result;
    }
    tokio::spawn(asked);
    Err(no_answer_within(limit, what))
}

/// Waits for `asked` like [`within`], for as long as `patience` lasts.
pub(crate) async fn within_while<T: Send + 'static>(
    patience: &mut Patience<'_>,
    what: impl FnOnce() -> String,
    mut asked: RequestFuture<T>,
) -> Result<T> {
    let begun = patience.now();
    loop {
        if let Ok(result) = tokio::time::timeout(patience.each(), contained(asked.as_mut())).await {
            return result;
        }
        if patience.is_over() {
            tokio::spawn(asked);
            return Err(no_answer_within(patience.now().since(begun), what));
        }
    }
}

fn no_answer_within(limit: Duration, what: impl FnOnce() -> String) -> Error {
    Error::new(
        ErrorKind::TimedOut,
        format!("no answer within {limit:.1?}: {}; raise operation_timeout if the backend is just slow", what()),
    )
}

#[cfg(test)]
mod tests;
