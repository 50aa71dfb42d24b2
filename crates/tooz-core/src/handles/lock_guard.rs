//! A held lock as the user has it in hand, and the two ways to let go.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::error::Result;
use crate::base::loss_reason::LossReason;
use crate::driver::lock::{FencingToken, LockMode};
use crate::engine::heart::FirstPoll;
use crate::engine::hold::Hold;
use crate::engine::line::Grant;
use crate::engine::local_queue::LocalQueue;
use crate::handles::handle::Handle;
use crate::handles::loss::Loss;

/// A held lock. It may move between threads and tasks; its owner has the lock.
///
/// Dropping it releases in the background: it never blocks, and a process that ends right after the drop is gone before the
/// release happened. [`release`](Self::release) waits for it.
///
/// ```no_run
/// # async fn example(lock: tooz_core::Lock) -> tooz_core::Result<()> {
/// # async fn write_the_report(_token: tooz_core::FencingToken) {}
/// let guard = lock.acquire().await?;
/// // The work stops at the loss, and the resource is told under which token it is done.
/// match guard.while_held(write_the_report(guard.fencing_token())).await {
///     Ok(()) => guard.release().await,
///     Err(reason) => {
///         eprintln!("stopped: {reason}");
///         Ok(())
///     }
/// }
/// # }
/// ```
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard {
    queue: Arc<LocalQueue>,
    hold: Option<Arc<Hold>>,
    token: FencingToken,
    /// Since when it is held, where that is told.
    since: Option<Instant>,
    /// Open from the grant to the release.
    span: tracing::Span,
    // Last, so that a coordinator of which only this guard is left closes after the release was begun.
    coordinator: Arc<Handle>,
}

impl LockGuard {
    pub(crate) fn new(handle: Arc<Handle>, queue: Arc<LocalQueue>, grant: Grant) -> Self {
        let span = tracing::debug_span!(
            target: "tooz::hold",
            "hold",
            driver = handle.inner.driver.name(),
            lock = %queue.key,
            token = grant.token.0
        );
        let since = handle.inner.telemetry.held(&queue.key, grant.hold.mode());
        LockGuard { queue, hold: Some(grant.hold), token: grant.token, since, span, coordinator: handle }
    }

    pub(crate) fn hold(&self) -> &Arc<Hold> {
        self.hold.as_ref().expect("taken only by release and drop")
    }

    /// The token of this grant, greater than that of every earlier grant that conflicts with it. Give it to the resource
    /// that the lock protects; see [`FenceGate`](crate::FenceGate).
    pub fn fencing_token(&self) -> FencingToken {
        self.token
    }

    /// Exclusive or shared.
    pub fn mode(&self) -> LockMode {
        self.hold().mode()
    }

    /// Whether the lock is still held, judged by the clock at this call: false from the deadline on, also when no task and
    /// no thread of this process has run in between.
    pub fn is_held(&self) -> bool {
        self.hold().judge().is_none()
    }

    /// How long it is held for sure without another heartbeat; zero when it is lost; `None`: the kernel is the judge.
    pub fn remaining(&self) -> Option<Duration> {
        self.hold().remaining()
    }

    /// How long until the backend may grant it to others: [`remaining`](Self::remaining) and the margin; zero where it may already.
    pub fn expires_in(&self) -> Option<Duration> {
        self.hold().expires_in()
    }

    /// The loss of this grant, to wait for; other tasks ask by it whether the lock is still held.
    pub fn loss(&self) -> Loss {
        Loss::of(self.hold())
    }

    /// Runs `future` only as long as the lock is held; on loss it is dropped and the reason returned.
    ///
    /// # Errors
    /// The reason of the loss; then `future` was dropped before its end.
    ///
    /// # Cancel safety
    /// Dropping it drops `future`.
    pub async fn while_held<F: Future>(&self, future: F) -> Result<F::Output, LossReason> {
        self.loss().guard(future).await
    }

    /// Gives the lock back and waits until the backend has it.
    ///
    /// # Errors
    /// [`Lost`](crate::ErrorKind::Lost): it was lost before, and its new holder was not touched. [`Closed`](crate::ErrorKind::Closed): it had
    /// ended with the coordinator. After any other error the release goes on in the background until the session ends.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn release(mut self) -> Result<()> {
        match self.begin_release() {
            Some(begun) => begun.answer().await.map_err(|error| error.in_driver(self.coordinator.inner.driver.name())),
            None => Ok(()),
        }
    }

    /// As [`release`](Self::release), where others may still have the guard in hand: for them it is lost.
    pub(crate) async fn release_for_all(&self) -> Result<()> {
        if !self.hold().live.is_ours() {
            return Err(self.hold().live.error_of(LossReason::Forked));
        }
        self.queue.release(Arc::clone(self.hold())).answer().await
    }

    fn begin_release(&mut self) -> Option<FirstPoll<Result<()>>> {
        let hold = self.hold.take()?;
        if !hold.live.is_ours() {
            // A forked child: what the parent holds is the parent's, and is not even dropped here.
            let error = hold.live.error_of(LossReason::Forked);
            std::mem::forget(hold);
            std::mem::forget(std::mem::replace(&mut self.span, tracing::Span::none()));
            return Some(FirstPoll::Done(Err(error)));
        }
        self.tell_of_end(&hold);
        Some(self.queue.release(hold))
    }

    fn tell_of_end(&mut self, hold: &Hold) {
        let lost = hold.lost.get().or_else(|| hold.live.check());
        let (mode, lost) = (hold.mode(), lost.filter(|reason| *reason != LossReason::Released));
        let telemetry = &self.coordinator.inner.telemetry;
        telemetry.given_back(&self.queue.key, mode, self.token, self.since.take(), lost);
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        drop(self.begin_release());
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LockGuard")
            .field("lock", &self.queue.key)
            .field("token", &self.token)
            .field("lost", &self.hold.as_ref().and_then(|hold| hold.judge()))
            .finish_non_exhaustive()
    }
}
