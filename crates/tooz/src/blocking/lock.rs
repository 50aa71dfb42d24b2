//! Locks and their guards.

use std::time::Duration;

use crate::blocking::wait::{wait, wait_for};
use tooz_core::{FencingToken, Holder, LockMode, LockName, LossReason, Result, Waiter};

/// A lock, in exclusive mode; as [`tooz::Lock`](tooz_core::Lock). A cheap clone.
///
/// ```no_run
/// # fn example(coordinator: tooz::blocking::Coordinator) -> tooz::Result<()> {
/// let lock = coordinator.lock("nightly")?;
/// match lock.try_acquire()? {
///     Some(guard) => guard.release(),
///     None => Ok(println!("held by {:?}", lock.holders()?)),
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Lock(pub(super) tooz_core::Lock);

/// A lock in shared mode; as [`tooz::SharedLock`](tooz_core::SharedLock).
///
/// ```no_run
/// # fn example(coordinator: tooz::blocking::Coordinator) -> tooz::Result<()> {
/// let guard = coordinator.lock("catalogue")?.shared().acquire()?;
/// // reads, beside other readers
/// guard.release()
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SharedLock(tooz_core::SharedLock);

/// A held lock; as [`tooz::LockGuard`](tooz_core::LockGuard). A drop gives it back in the background.
///
/// ```no_run
/// # fn example(lock: tooz::blocking::Lock) -> tooz::Result<()> {
/// let guard = lock.acquire()?;
/// while guard.is_held() {
///     // a step of the work, under guard.fencing_token()
///     # break;
/// }
/// guard.release()
/// # }
/// ```
#[must_use = "the lock is released when the guard is dropped"]
#[derive(Debug)]
pub struct LockGuard(tooz_core::LockGuard);

/// The end of a grant, to wait for or to ask from any thread; as [`tooz::Loss`](tooz_core::Loss). A cheap clone.
///
/// ```no_run
/// # fn example(guard: tooz::blocking::LockGuard) -> tooz::Result<()> {
/// let loss = guard.loss();
/// std::thread::spawn(move || println!("{:?}", loss.wait()));
/// guard.release()
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Loss(pub(super) tooz_core::Loss);

impl Lock {
    /// The name.
    pub fn name(&self) -> &LockName {
        self.0.name()
    }

    /// The shared side of this lock.
    pub fn shared(&self) -> SharedLock {
        SharedLock(self.0.shared())
    }

    /// As [`acquire`](tooz_core::Lock::acquire): waits for the lock, however long it takes.
    ///
    /// # Errors
    /// As [`acquire`](tooz_core::Lock::acquire).
    pub fn acquire(&self) -> Result<LockGuard> {
        wait(self.0.acquire())?.map(LockGuard)
    }

    /// As [`try_acquire`](tooz_core::Lock::try_acquire): `None` if it can't be had now.
    ///
    /// # Errors
    /// As [`try_acquire`](tooz_core::Lock::try_acquire).
    pub fn try_acquire(&self) -> Result<Option<LockGuard>> {
        Ok(wait(self.0.try_acquire())??.map(LockGuard))
    }

    /// As [`acquire_within`](tooz_core::Lock::acquire_within): `None` when the time is over and another has the lock.
    ///
    /// # Errors
    /// As [`acquire_within`](tooz_core::Lock::acquire_within).
    pub fn acquire_within(&self, limit: Duration) -> Result<Option<LockGuard>> {
        Ok(wait(self.0.acquire_within(limit))??.map(LockGuard))
    }

    /// As [`holders`](tooz_core::Lock::holders).
    ///
    /// # Errors
    /// As [`holders`](tooz_core::Lock::holders).
    pub fn holders(&self) -> Result<Vec<Holder>> {
        wait(self.0.holders())?
    }

    /// As [`waiters`](tooz_core::Lock::waiters).
    ///
    /// # Errors
    /// As [`waiters`](tooz_core::Lock::waiters).
    pub fn waiters(&self) -> Result<Vec<Waiter>> {
        wait(self.0.waiters())?
    }

    /// As [`break_lock`](tooz_core::Lock::break_lock).
    ///
    /// # Errors
    /// As [`break_lock`](tooz_core::Lock::break_lock).
    pub fn break_lock(&self, holder: &Holder) -> Result<()> {
        wait(self.0.break_lock(holder))?
    }
}

impl SharedLock {
    /// As [`Lock::acquire`], beside other shared holders.
    ///
    /// # Errors
    /// As [`acquire`](tooz_core::SharedLock::acquire).
    pub fn acquire(&self) -> Result<LockGuard> {
        wait(self.0.acquire())?.map(LockGuard)
    }

    /// As [`Lock::try_acquire`], beside other shared holders.
    ///
    /// # Errors
    /// As [`try_acquire`](tooz_core::SharedLock::try_acquire).
    pub fn try_acquire(&self) -> Result<Option<LockGuard>> {
        Ok(wait(self.0.try_acquire())??.map(LockGuard))
    }

    /// As [`Lock::acquire_within`], beside other shared holders.
    ///
    /// # Errors
    /// As [`acquire_within`](tooz_core::SharedLock::acquire_within).
    pub fn acquire_within(&self, limit: Duration) -> Result<Option<LockGuard>> {
        Ok(wait(self.0.acquire_within(limit))??.map(LockGuard))
    }
}

impl LockGuard {
    /// The token of this grant, for the resource that the lock protects.
    pub fn fencing_token(&self) -> FencingToken {
        self.0.fencing_token()
    }

    /// Exclusive or shared.
    pub fn mode(&self) -> LockMode {
        self.0.mode()
    }

    /// Whether the lock is still held, judged by the clock at this call.
    pub fn is_held(&self) -> bool {
        self.0.is_held()
    }

    /// The same for use with `?`, between the steps of the work.
    ///
    /// # Errors
    /// The reason of the loss.
    pub fn check(&self) -> Result<(), LossReason> {
        self.0.loss().reason().map_or(Ok(()), Err)
    }

    /// How long it is held for sure without another heartbeat; zero when it is lost; `None`: the kernel is the judge.
    pub fn remaining(&self) -> Option<Duration> {
        self.0.remaining()
    }

    /// How long until the backend may grant it to others.
    pub fn expires_in(&self) -> Option<Duration> {
        self.0.expires_in()
    }

    /// The loss of this grant, to wait for on another thread.
    pub fn loss(&self) -> Loss {
        Loss(self.0.loss())
    }

    /// Gives the lock back and waits until the backend has it.
    ///
    /// # Errors
    /// As [`release`](tooz_core::LockGuard::release).
    pub fn release(self) -> Result<()> {
        wait(self.0.release())?
    }
}

impl Loss {
    /// Whether it has come, judged by the clock at this call.
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// Why, if it has come.
    pub fn reason(&self) -> Option<LossReason> {
        self.0.reason()
    }

    /// How long it does not come for sure without another heartbeat; zero when it has; `None`: the kernel is the judge.
    pub fn remaining(&self) -> Option<Duration> {
        self.0.remaining()
    }

    /// Waits until it comes.
    ///
    /// # Errors
    /// [`Config`](tooz_core::ErrorKind::Config): it was called inside an async runtime.
    pub fn wait(&self) -> Result<LossReason> {
        wait(self.0.wait())
    }

    /// Waits until it comes, at most so long: `None` if it has not by then.
    ///
    /// # Errors
    /// [`Config`](tooz_core::ErrorKind::Config): it was called inside an async runtime.
    pub fn wait_for(&self, limit: Duration) -> Result<Option<LossReason>> {
        wait_for(self.0.wait(), limit)
    }
}
