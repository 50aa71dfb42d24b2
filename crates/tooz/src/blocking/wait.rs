//! Waiting for a future on the calling thread, which sleeps until it is woken.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use tooz_core::{Error, Result};

/// Wakes a thread that waits.
struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// What the future answers. Every future of this library works under any executor, so that a thread alone is enough.
pub(super) fn wait<T>(future: impl Future<Output = T>) -> Result<T> {
    wait_until(future, None).map(|answer| answer.expect("there is no limit"))
}

/// The same for at most so long; `None`: the time is over, and the future was dropped.
pub(super) fn wait_for<T>(future: impl Future<Output = T>, limit: Duration) -> Result<Option<T>> {
    wait_until(future, Instant::now().checked_add(limit))
}

fn wait_until<T>(future: impl Future<Output = T>, end: Option<Instant>) -> Result<Option<T>> {
    if Handle::try_current().is_ok() {
        return Err(Error::config(
            "tooz::blocking was called inside an async runtime, where a thread that waits holds up all tasks: use the async handles there, or a thread of your own",
        ));
    }
    let waker = Waker::from(Arc::new(Sleeper(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            return Ok(Some(answer));
        }
        // A wake-up that came since the poll lets the thread pass at once.
        match end.map(|end| end.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(left) if left.is_zero() => return Ok(None),
            Some(left) => thread::park_timeout(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tooz_core::ErrorKind;

    #[test]
    fn a_thread_waits_until_it_is_woken_and_no_longer_than_its_limit() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let waking = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            sender.send(5)
        });
        assert_eq!(wait(receiver).unwrap(), Ok(5));
        waking.join().unwrap().unwrap();
        assert_eq!(wait_for(std::future::pending::<()>(), Duration::from_millis(1)).unwrap(), None);
        assert_eq!(wait_for(std::future::ready(1), Duration::ZERO).unwrap(), Some(1));
    }

    #[test]
    fn inside_a_runtime_it_is_an_error_that_says_so() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = runtime.block_on(async { wait(std::future::ready(())) }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("inside an async runtime"), "{error}");
    }
}
