//! A mutex that knows no poison, for core and for drivers.

pub use crate::base::sync::MutexGuard;
use crate::base::sync::{PoisonError, RawMutex, TryLockError};
use std::fmt;

/// The mutex of the standard library without poison.
///
/// Code that panics under a lock of ours has changed either nothing or everything, so the value can still be used, and a panic in one
/// place must not become a panic in every other.
#[derive(Default)]
pub struct Mutex<T: ?Sized>(RawMutex<T>);

impl<T> Mutex<T> {
    /// A mutex around that value.
    pub const fn new(value: T) -> Self {
        Mutex(RawMutex::new(value))
    }

    /// The value, when the mutex is not needed any more.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until the value is free, and keeps it until the guard goes. The thread is blocked meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value if it is free now.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The value, without waiting: a caller with `&mut` is alone with the mutex.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_panic_under_the_lock_stops_no_other_thread() {
        let mutex = Mutex::new(1);
        let panics = || {
            let mut value = mutex.lock();
            *value = 2;
            panic!("as intended");
        };
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_eq!(*mutex.lock(), 2);
        assert_eq!(mutex.try_lock().map(|value| *value), Some(2));
        assert_eq!(mutex.into_inner(), 2);
    }
}
