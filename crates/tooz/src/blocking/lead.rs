//! Work that runs while something is held, and again whenever it is.

use crate::blocking::election::Leadership;
use crate::blocking::group::{Group, Membership};
use crate::blocking::lock::{Lock, LockGuard};
use tooz_core::{ErrorKind, LossReason, Result};

impl Membership {
    /// Runs `work` as the leader: waits to be elected, runs it, and resigns when it has answered. A thread can't be stopped from outside, so `work` asks
    /// [`check`](Leadership::check) between its steps; where it answers the loss, it begins anew with the next leadership.
    ///
    /// ```
    /// # #[cfg(feature = "memory")]
    /// # fn main() -> tooz::Result<()> {
    /// # let coordinator = tooz::blocking::connect("memory://blocking-lead", "worker-1")?;
    /// let membership = coordinator.group("billing")?.join_or_create("ready")?;
    /// membership.lead(|leadership| {
    ///     for step in 0..3 {
    ///         leadership.check()?;
    ///         println!("step {step} under token {}", leadership.epoch());
    ///     }
    ///     Ok(())
    /// })?;
    /// # coordinator.close()
    /// # }
    /// # #[cfg(not(feature = "memory"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// As [`campaign`](Self::campaign): the membership is over for ever, or the coordinator closed.
    pub fn lead<T>(&self, mut work: impl FnMut(&Leadership) -> Result<T, LossReason>) -> Result<T> {
        loop {
            let leadership = self.campaign()?;
            let answer = work(&leadership);
            // What a resignation meets does not take away what the work has answered.
            let _ = leadership.resign();
            if let Ok(answer) = answer {
                return Ok(answer);
            }
        }
    }
}

impl Group {
    /// Joins the group, creating it if it is missing, runs `work` [as the leader](Membership::lead), and leaves.
    ///
    /// # Errors
    /// As [`lead`](tooz_core::Group::lead).
    pub fn lead<T>(&self, work: impl FnMut(&Leadership) -> Result<T, LossReason>) -> Result<T> {
        let membership = self.join_or_create(&()).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => error.context(
                "Group::lead joins by itself, and a member that has joined before leads by Membership::lead, or leaves first",
            ),
            _ => error,
        })?;
        let answer = membership.lead(work)?;
        let _ = membership.leave();
        Ok(answer)
    }
}

impl Lock {
    /// Runs `work` while the lock is held: waits for it, runs the work, and gives the lock back. The work asks [`check`](LockGuard::check) between its steps;
    /// where it answers the loss, it begins anew with the next grant. What must not begin twice asks [`acquire`](Self::acquire) and the guard.
    ///
    /// ```
    /// # #[cfg(feature = "memory")]
    /// # fn main() -> tooz::Result<()> {
    /// # let coordinator = tooz::blocking::connect("memory://blocking-hold", "worker-1")?;
    /// let sent = coordinator.lock("mailer")?.hold(|guard| {
    ///     let mut sent = 0;
    ///     while sent < 3 {
    ///         guard.check()?;
    ///         sent += 1;
    ///     }
    ///     Ok(sent)
    /// })?;
    /// println!("{sent} sent");
    /// # coordinator.close()
    /// # }
    /// # #[cfg(not(feature = "memory"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub fn hold<T>(&self, mut work: impl FnMut(&LockGuard) -> Result<T, LossReason>) -> Result<T> {
        loop {
            let guard = self.acquire()?;
            let answer = work(&guard);
            let _ = guard.release();
            if let Ok(answer) = answer {
                return Ok(answer);
            }
        }
    }
}
