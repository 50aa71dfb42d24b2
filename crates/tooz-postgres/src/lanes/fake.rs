//! A wire of tests: what is told on it, who is woken by it, and whether it is still open.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tooz_core::driver::{Mutex, MutexGuard};

use crate::lanes::{Admission, Listen, WireTurn};

/// The other end of a wire.
#[derive(Default)]
pub(crate) struct Net(Mutex<State>);

#[derive(Default)]
struct State {
    is_open: bool,
    has_died: bool,
    /// The next poll panics.
    panics: bool,
    /// What is to be told, and how much was.
    waits: u32,
    told: u32,
    /// As a socket has it: that of the last poll.
    waker: Option<Waker>,
}

pub(crate) struct Fake(Arc<Net>, ());

impl Net {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn wire(self: &Arc<Self>) -> Fake {
        self.state().is_open = true;
        Fake(Arc::clone(self), ())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state().is_open
    }

    pub(crate) fn told(&self) -> u32 {
        self.state().told
    }

    /// The server tells one thing.
    pub(crate) fn tell(&self) {
        self.state().waits += 1;
        self.wake();
    }

    /// The server ends the connection.
    pub(crate) fn die(&self) {
        self.state().has_died = true;
        self.wake();
    }

    pub(crate) fn has_died(&self) -> bool {
        self.state().has_died
    }

    pub(crate) fn panic(&self) {
        self.state().panics = true;
    }

    fn wake(&self) {
        let waker = self.state().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A statement that is under way is woken by what comes, in place of all others.
    pub(crate) fn wakes(&self, waker: &Waker) {
        let before = self.state().waker.replace(waker.clone());
        drop(before);
    }

    /// Whether that one is woken by what comes.
    pub(crate) fn would_wake(&self, waker: &Waker) -> bool {
        self.state().waker.as_ref().is_some_and(|one| one.will_wake(waker))
    }
}

impl Listen for Fake {
    type Connection = ();

    fn connection(&mut self) -> Option<&mut ()> {
        Some(&mut self.1)
    }

    fn poll_listen(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let before = {
            let mut state = self.0.state();
            assert!(!state.panics, "as part of a test");
            state.told += std::mem::take(&mut state.waits);
            if state.has_died {
                return Poll::Ready(());
            }
            state.waker.replace(context.waker().clone())
        };
        drop(before);
        Poll::Pending
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.0.state().is_open = false;
    }
}

pub(crate) fn turn(asked: Admission<Fake>) -> WireTurn<Fake> {
    let Admission::Turn(turn) = asked else { panic!("the wire is not idle") };
    turn
}
