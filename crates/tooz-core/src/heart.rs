//! The heart: a thread of its own with a small runtime, in which every driver's future runs, whatever the application does.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::{Error, ErrorKind, Result};

pub(crate) struct Heart {
    runtime: Handle,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    pid: u32,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    /// How many callers are inside the runtime's context just now, polling inline.
    inside: AtomicUsize,
}

/// Where a future is that was begun on the heart.
pub(crate) enum Begun<T> {
    /// It ended at the first poll, on the caller's thread.
    Done(T),
    /// The heart runs the rest.
    Waiting(oneshot::Receiver<T>),
    /// There is no heart any more.
    Gone,
}

impl Heart {
    /// Starts the thread, which lives until `life` ends.
    pub(crate) fn start(life: impl Future<Output = ()> + Send + 'static) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "the heart's thread or runtime can't be started").with_source(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let at_end = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("tooz-heart".to_owned())
            .spawn(move || {
                runtime.block_on(life);
                at_end.stopped.store(true, Ordering::SeqCst);
                // Whoever polls inline still needs the timers and sockets of this runtime; such polls are short.
                while at_end.inside.load(Ordering::SeqCst) > 0 {
                    std::thread::yield_now();
                }
                // A name look-up that hangs in a blocking thread must not hold up the end.
                runtime.shutdown_timeout(Duration::from_millis(1));
            })
            .map_err(failed)?;
        Ok(Heart { runtime: handle, shared, thread: Mutex::new(Some(thread)), pid: std::process::id() })
    }

    /// Polls `future` once here, inside the heart's runtime; what is left of it runs on the heart, whatever becomes of the
    /// answer. A hop to the heart and back costs more than most answers of a local backend, hence the first poll.
    ///
    /// Not for a forked child: every entry asks [`is_forked`](Self::is_forked) before.
    pub(crate) fn begin<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Begun<T> {
        let _inside = Inside::new(&self.shared);
        if self.shared.stopped.load(Ordering::SeqCst) {
            return Begun::Gone;
        }
        let _context = self.runtime.enter();
        let mut future = Box::pin(future);
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Begun::Done(value),
            Poll::Pending => {
                let (sender, receiver) = oneshot::channel();
                self.runtime.spawn(async move {
                    let _ = sender.send(future.await);
                });
                Begun::Waiting(receiver)
            }
        }
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.pid != std::process::id()
    }

    /// Runs `future` on the heart without a poll here.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let _inside = Inside::new(&self.shared);
        if !self.is_forked() && !self.shared.stopped.load(Ordering::SeqCst) {
            self.runtime.spawn(future);
        }
    }

    /// Waits for the end of the thread. Blocks; cheap when the thread is about to end.
    pub(crate) fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

struct Inside<'a>(&'a Shared);

impl<'a> Inside<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.inside.fetch_add(1, Ordering::SeqCst);
        Inside(shared)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<T> Begun<Result<T>> {
    /// The answer, under any executor.
    pub(crate) async fn answer(self) -> Result<T> {
        match self {
            Begun::Done(result) => result,
            Begun::Waiting(receiver) => receiver.await.unwrap_or_else(|_| Err(gone())),
            Begun::Gone => Err(gone()),
        }
    }
}

pub(crate) fn gone() -> Error {
    Error::new(ErrorKind::Closed, "the coordinator is closed, or belongs to another process; connect a new one")
}

/// Waits for `future` at most `limit`. It is never dropped: past the limit it runs on, and its result is nobody's.
///
/// Runs inside the heart's runtime. A future that is ready at once costs no task.
pub(crate) async fn within<T: Send + 'static>(
    limit: Duration,
    what: impl FnOnce() -> String,
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let mut future: Pin<Box<dyn Future<Output = Result<T>> + Send>> = Box::pin(future);
    let first = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
    if let Poll::Ready(result) = first {
        return result;
    }
    match tokio::time::timeout(limit, tokio::spawn(future)).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Error::new(ErrorKind::Backend, format!("the driver panicked: {}", what()))),
        Err(_) => Err(Error::new(
            ErrorKind::TimedOut,
            format!("no answer within {limit:?}: {}; raise operation_timeout if the backend is just slow", what()),
        )),
    }
}
