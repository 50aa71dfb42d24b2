//! Futures polled by hand: so many times, then dropped, or until they end.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use fastrand::Rng;

/// After this long a wait is stuck.
const STUCK: Duration = Duration::from_secs(20);

/// A thread that sleeps until it is woken.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    told: Condvar,
}

impl Bell {
    fn wait(&self, limit: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.told.wait_timeout_while(rung, limit, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_one();
    }
}

/// Polls until it ends, by its wakers alone.
#[track_caller]
pub(crate) fn to_the_end<T>(what: &str, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let begun = Instant::now();
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        let left = STUCK.saturating_sub(begun.elapsed());
        assert!(!left.is_zero(), "{what} is stuck");
        bell.wait(left);
    }
}

/// Polls a few times, with or without waiting for the waker in between and not always with the same one, and then drops the future,
/// unless it has ended.
pub(crate) fn dropped_somewhere<T>(random: &mut Rng, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let bell = Arc::new(Bell::default());
    for _ in 0..random.u8(0..6) {
        let waker = if random.u8(0..4) == 0 { Waker::noop().clone() } else { Waker::from(Arc::clone(&bell)) };
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(value);
        }
        match random.u8(0..4) {
            0 => {}
            1 => std::thread::yield_now(),
            2 => bell.wait(Duration::from_micros(random.u64(1..200))),
            _ => bell.wait(Duration::from_millis(random.u64(1..4))),
        }
    }
    None
}
