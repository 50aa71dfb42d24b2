//! What threads share: the primitives of the standard library and of tokio.
//!
//! Under `--cfg shuttle` they are those of `shuttle`, which lets a test choose the next thread at each of them (`interleavings`).

#[cfg(not(shuttle))]
pub use std::sync::MutexGuard;
#[cfg(not(shuttle))]
pub(crate) use std::sync::{Mutex as RawMutex, OnceLock, PoisonError, TryLockError, atomic};
#[cfg(not(shuttle))]
pub(crate) use tokio::sync::Notify;

#[cfg(shuttle)]
pub(crate) use chosen::{Notify, OnceLock};
#[cfg(shuttle)]
pub use shuttle::sync::MutexGuard;
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex as RawMutex, atomic};
#[cfg(shuttle)]
pub(crate) use std::sync::{PoisonError, TryLockError};

/// What `shuttle` does not have: the real thing, before each step of which another thread may come.
#[cfg(shuttle)]
mod chosen {
    use shuttle::thread::yield_now;

    #[derive(Debug, Default)]
    pub(crate) struct Notify(tokio::sync::Notify);

    impl Notify {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
            yield_now();
            self.0.notified()
        }

        pub(crate) fn notify_waiters(&self) {
            yield_now();
            self.0.notify_waiters();
        }
    }

    #[derive(Debug)]
    pub(crate) struct OnceLock<T>(std::sync::OnceLock<T>);

    impl<T> Default for OnceLock<T> {
        fn default() -> Self {
            OnceLock(std::sync::OnceLock::new())
        }
    }

    impl<T> OnceLock<T> {
        pub(crate) fn get(&self) -> Option<&T> {
            yield_now();
            self.0.get()
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            yield_now();
            self.0.set(value)
        }
    }
}
