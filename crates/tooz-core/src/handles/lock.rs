//! Locks as the user sees them: handles, guards, and the two ways to let go.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tracing::Instrument;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::LockName;
use crate::base::loss_reason::LossReason;
use crate::driver::lock::{FencingToken, Holder, LockKey, LockMode, Waiter};
use crate::driver::session::Session;
use crate::engine::heart::Begun;
use crate::engine::hold::Hold;
use crate::engine::line::{Grant, Patience};
use crate::engine::local_queue::{LocalQueue, Place};
use crate::engine::phase::Need;
use crate::handles::handle::Handle;
use crate::handles::loss::Loss;

/// A lock, in exclusive mode. A cheap clone.
///
/// Two tasks that share a coordinator exclude each other just as two processes do; a task that acquires twice waits for
/// itself, as with `tokio::sync::Mutex`.
///
/// ```no_run
/// # async fn example(coordinator: tooz_core::Coordinator) -> tooz_core::Result<()> {
/// let lock = coordinator.lock("nightly")?;
/// let Some(guard) = lock.try_acquire().await? else {
///     println!("held by {:?}, and {} wait", lock.holders().await?, lock.waiters().await?.len());
///     return Ok(());
/// };
/// guard.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct Lock {
    handle: Arc<Handle>,
    queue: Arc<LocalQueue>,
    name: LockName,
}

/// The same lock in shared mode: shared grants stand beside each other and exclude exclusive ones.
///
/// ```no_run
/// # async fn example(lock: tooz_core::Lock) -> tooz_core::Result<()> {
/// let reader = lock.shared().acquire().await?;
/// let beside = lock.shared().try_acquire().await?;
/// assert!(beside.is_some(), "readers stand beside each other");
/// # drop(reader);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SharedLock(Lock);

impl Lock {
    pub(crate) fn new(handle: Arc<Handle>, name: LockName) -> Self {
        let queue = handle.queues.of(&LockKey::lock(&name));
        Lock { handle, queue, name }
    }

    /// The name.
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// The shared side of this lock.
    pub fn shared(&self) -> SharedLock {
        SharedLock(self.clone())
    }

    /// Waits for the lock, however long it takes, also across lost sessions: then it queues again, its place lost. Ends with an
    /// error only when the coordinator is closed, or, before it has ever stood in the queue, when the configuration is wrong or the
    /// credentials are refused. Afterwards such an answer is told by [`Coordinator::events`](crate::Coordinator::events) and
    /// [`state`](crate::Coordinator::state), and the wait goes on.
    ///
    /// # Cancel safety
    /// Dropping it withdraws from the queue and leaks nothing.
    pub async fn acquire(&self) -> Result<LockGuard> {
        self.wait_for(LockMode::Exclusive).await
    }

    /// Takes the lock if it can be had now, `None` if not. Not reaching the backend is an error.
    ///
    /// # Cancel safety
    /// Dropping it withdraws and leaks nothing.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        self.try_for(LockMode::Exclusive).await
    }

    /// Waits for the lock, at most so long; `None` when the time is over and somebody else has the lock. A backend that has not answered by
    /// then, or refuses, is an error. Returns on time even where the withdrawal has not.
    ///
    /// # Cancel safety
    /// Dropping it withdraws and leaks nothing.
    pub async fn acquire_within(&self, limit: Duration) -> Result<Option<LockGuard>> {
        self.wait_within(LockMode::Exclusive, limit).await
    }

    /// Who holds it now, in any mode.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn holders(&self) -> Result<Vec<Holder>> {
        let key = self.queue.key.clone();
        let word = key.clone();
        let question = move |session: Arc<dyn Session>| {
            let key = key.clone();
            async move { session.holders(&key).await }
        };
        self.handle.inner.ask(Need::Connection, move || format!("read the holders of {word}"), question).await
    }

    /// Who waits for it now, first come first.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the backend does not know.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn waiters(&self) -> Result<Vec<Waiter>> {
        let key = self.queue.key.clone();
        let word = key.clone();
        let question = move |session: Arc<dyn Session>| {
            let key = key.clone();
            async move { session.waiters(&key).await }
        };
        self.handle.inner.ask(Need::Connection, move || format!("read who waits for {word}"), question).await
    }

    /// Frees, by force, exactly the grant that [`holders`](Self::holders) showed; `NotFound` if it is there no more. The
    /// ex-holder is told, but does not stop by itself: whatever it guards needs the fencing token.
    pub async fn break_lock(&self, holder: &Holder) -> Result<()> {
        let key = self.queue.key.clone();
        let (word, token) = (key.clone(), holder.token);
        let question = move |session: Arc<dyn Session>| {
            let key = key.clone();
            async move { session.break_lock(&key, token).await }
        };
        self.handle.inner.ask(Need::Connection, move || format!("break {word}"), question).await
    }

    async fn wait_for(&self, mode: LockMode) -> Result<LockGuard> {
        let span = tracing::debug_span!(target: "tooz::acquire", "acquire", lock = %self.name, mode = mode.name());
        async {
            loop {
                let Some(mut place) = self.queue.enqueue(mode, Patience::Wait)? else {
                    return Err(Error::new(ErrorKind::Backend, "a waiter was refused a place in the local queue"));
                };
                let waiting = tracing::debug_span!(target: "tooz::wait", "wait", lock = %self.name);
                match answer(&mut place).instrument(waiting).await? {
                    Some(grant) => match self.guard(grant) {
                        Ok(guard) => return Ok(guard),
                        Err(_lost_on_the_way) => {}
                    },
                    None => {
                        return Err(Error::new(ErrorKind::Backend, "the driver gave up a wait that is still wanted"));
                    }
                }
            }
        }
        .instrument(span)
        .await
    }

    async fn try_for(&self, mode: LockMode) -> Result<Option<LockGuard>> {
        let Some(mut place) = self.queue.enqueue(mode, Patience::Try)? else { return Ok(None) };
        let limit = self.handle.inner.settings.operation_timeout;
        match self.first(&mut place, limit).await {
            Some(answered) => answered?.map(|grant| self.guard(grant)).transpose(),
            None if self.handle.inner.heart().is_stopped() => {
                Err(Error::closed().in_driver(self.handle.inner.driver.name()))
            }
            None => Err(Error::new(
                ErrorKind::TimedOut,
                format!("try {}: no answer within {limit:?}; it is withdrawn in the background", self.queue.key),
            )
            .in_driver(self.handle.inner.driver.name())),
        }
    }

    async fn wait_within(&self, mode: LockMode, limit: Duration) -> Result<Option<LockGuard>> {
        // `None`: so long that it never ends.
        let end = Instant::now().checked_add(limit);
        loop {
            let Some(mut place) = self.queue.enqueue(mode, Patience::Wait)? else { return Ok(None) };
            let left = end.map_or(limit, |end| end.saturating_duration_since(Instant::now()));
            match self.first(&mut place, left).await {
                Some(answered) => match answered?.map(|grant| self.guard(grant)) {
                    Some(Err(_lost_on_the_way)) => {}
                    answer => return answer.transpose(),
                },
                // Not getting a lock is no error, but not reaching the backend is.
                None => return self.queue.verdict(mode, limit).map(|()| None),
            }
        }
    }

    /// The answer, or `None` after `limit`. The timer is on the heart: the caller may have any executor.
    async fn first(&self, place: &mut Place, limit: Duration) -> Option<Result<Option<Grant>>> {
        let mut answer = pin!(answer(place));
        if let Poll::Ready(answered) = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await {
            return Some(answered);
        }
        let mut over = self.handle.inner.heart().timer(limit);
        poll_fn(|context| {
            if let Poll::Ready(answered) = answer.as_mut().poll(context) {
                return Poll::Ready(Some(answered));
            }
            over.poll(context).map(|()| None)
        })
        .await
    }

    /// The deadline is checked once more, in the hands of who asked: this process may have stood still since the grant was made.
    fn guard(&self, grant: Grant) -> Result<LockGuard> {
        match grant.hold.lost.get().or_else(|| grant.hold.live.check()) {
            None => Ok(LockGuard::new(Arc::clone(&self.handle), Arc::clone(&self.queue), grant)),
            Some(reason) => {
                let error = grant.hold.live.error_of(reason).context(format!("acquire {}", self.queue.key));
                // What was broken on its way may still be at the backend, for nobody.
                self.queue.release_later(grant.hold);
                Err(error)
            }
        }
    }
}

impl SharedLock {
    /// As [`Lock::acquire`], beside other shared holders.
    ///
    /// # Cancel safety
    /// Dropping it withdraws from the queue and leaks nothing.
    pub async fn acquire(&self) -> Result<LockGuard> {
        self.0.wait_for(LockMode::Shared).await
    }

    /// As [`Lock::try_acquire`], beside other shared holders.
    ///
    /// # Cancel safety
    /// Dropping it withdraws and leaks nothing.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        self.0.try_for(LockMode::Shared).await
    }

    /// As [`Lock::acquire_within`], beside other shared holders.
    ///
    /// # Cancel safety
    /// Dropping it withdraws and leaks nothing.
    pub async fn acquire_within(&self, limit: Duration) -> Result<Option<LockGuard>> {
        self.0.wait_within(LockMode::Shared, limit).await
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Lock").field(&self.name).finish()
    }
}

pub(crate) async fn answer(place: &mut Place) -> Result<Option<Grant>> {
    let answer = (&mut place.answer).await;
    place.is_answered = true;
    answer.unwrap_or_else(|_| Err(Error::closed()))
}

/// A held lock. It may move between threads and tasks; whoever has the value has the lock.
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
        LockGuard { queue, hold: Some(grant.hold), token: grant.token, span, coordinator: handle }
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
        remaining(self.hold())
    }

    /// How long until the backend may grant it to others: [`remaining`](Self::remaining) and the margin; zero where it may already.
    pub fn expires_in(&self) -> Option<Duration> {
        self.hold().expires_in()
    }

    /// The loss of this grant, to wait for.
    pub fn loss(&self) -> Loss {
        Loss::of(self.hold())
    }

    /// Runs `future` only as long as the lock is held; on loss it is dropped and the reason returned.
    ///
    /// # Cancel safety
    /// Dropping it drops `future`.
    pub async fn while_held<F: Future>(&self, future: F) -> Result<F::Output, LossReason> {
        self.loss().guard(future).await
    }

    /// Gives the lock back and waits until the backend has it. `Lost`: it was lost before, and whoever has it now was not
    /// touched. After any other error the release goes on in the background until the session ends.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn release(mut self) -> Result<()> {
        match self.begin_release() {
            Some(begun) => begun.answer().await.map_err(|error| error.in_driver(self.coordinator.inner.driver.name())),
            None => Ok(()),
        }
    }

    fn begin_release(&mut self) -> Option<Begun<Result<()>>> {
        let hold = self.hold.take()?;
        if !hold.live.is_ours() {
            // A forked child: what the parent holds is the parent's, and is not even dropped here.
            let error = hold.live.error_of(LossReason::Forked);
            std::mem::forget(hold);
            std::mem::forget(std::mem::replace(&mut self.span, tracing::Span::none()));
            return Some(Begun::Done(Err(error)));
        }
        Some(self.queue.release(hold))
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

pub(crate) fn remaining(hold: &Hold) -> Option<Duration> {
    match hold.judge() {
        Some(_) => Some(Duration::ZERO),
        None => hold.live.remaining(),
    }
}
