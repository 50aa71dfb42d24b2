//! One reply that gets lost.

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Duration;

/// A reply that is to get lost, from [`Proxy::swallow_reply`](super::Proxy::swallow_reply). Dropping it takes nothing back.
#[derive(Clone, Debug)]
pub struct Swallow {
    inner: Arc<SwallowInner>,
}

#[derive(Debug)]
struct SwallowInner {
    pattern: Vec<u8>,
    hang: Duration,
    happened: Mutex<bool>,
    changed: Condvar,
}

impl Swallow {
    pub(super) fn new(pattern: &[u8], hang: Duration) -> Self {
        let (pattern, happened, changed) = (pattern.to_vec(), Mutex::new(false), Condvar::new());
        Swallow { inner: Arc::new(SwallowInner { pattern, hang, happened, changed }) }
    }

    /// Waits until the server has answered and the answer is gone. `false`: not within this time.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut happened = self.inner.happened.lock();
        self.inner.changed.wait_while_for(&mut happened, |happened| !*happened, timeout);
        *happened
    }

    pub(super) fn hang(&self) -> Duration {
        self.inner.hang
    }

    pub(super) fn tell(&self) {
        *self.inner.happened.lock() = true;
        self.inner.changed.notify_all();
    }

    /// Whether the pattern ends in the new bytes; it may have begun in those before.
    pub(super) fn matches(&self, tail: &[u8], news: &[u8]) -> bool {
        let pattern = &self.inner.pattern;
        let Some(before) = pattern.len().checked_sub(1) else { return !news.is_empty() };
        let mut all = tail[tail.len() - before.min(tail.len())..].to_vec();
        all.extend_from_slice(news);
        all.windows(pattern.len()).any(|window| window == pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_in_one_piece_and_in_two() {
        let swallow = Swallow::new(b"SET lock", Duration::ZERO);
        assert!(swallow.matches(b"", b"..SET lock.."));
        assert!(swallow.matches(b"GET a SET l", b"ock b"));
        assert!(swallow.matches(b"SET loc", b"k"));
        assert!(!swallow.matches(b"SET lock", b" and more"), "it was over before");
        assert!(!swallow.matches(b"SET l", b"evel"));
        assert!(Swallow::new(b"", Duration::ZERO).matches(b"", b"x"));
    }
}
