//! Locks as the user sees them: how one is asked for.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tracing::Instrument;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::LockName;
use crate::driver::lock::{FencingToken, Holder, LockKey, LockMode, Waiter};
use crate::driver::session::Session;
use crate::engine::line::{Answer, Grant, WaitMode};
use crate::engine::local_queue::{LocalQueue, Place};
use crate::engine::patience::MOMENT;
use crate::engine::phase::Need;
use crate::handles::handle::Handle;
use crate::handles::lock_guard::LockGuard;

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

/// A lock in shared mode: shared grants stand beside each other and exclude exclusive ones.
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

/// How a wait with a limit has ended.
enum LimitedWait {
    Answered(Answer),
    TimeIsOver,
}

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

    /// Waits for the lock, however long it takes, also across lost sessions: then it queues again, its place lost.
    ///
    /// # Errors
    /// [`Closed`](crate::ErrorKind::Closed) when the coordinator is. [`Config`](crate::ErrorKind::Config), [`Unauthorized`](crate::ErrorKind::Unauthorized) and the like, which no waiting
    /// mends, only before it has ever stood in the queue. Afterwards such an answer is told by
    /// [`Coordinator::events`](crate::Coordinator::events) and [`state`](crate::Coordinator::state), and the wait goes on.
    ///
    /// # Cancel safety
    /// Dropping it withdraws from the queue and leaks nothing.
    pub async fn acquire(&self) -> Result<LockGuard> {
        self.wait_for(LockMode::Exclusive).await
    }

    /// Takes the lock if it can be had now, `None` if not.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) or [`TimedOut`](crate::ErrorKind::TimedOut) when the backend could not be reached or has not answered within the
    /// operation timeout: then it is unknown whether the lock could be had, and what was asked is taken back.
    ///
    /// # Cancel safety
    /// Dropping it withdraws and leaks nothing.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        self.try_for(LockMode::Exclusive).await
    }

    /// Waits for the lock, at most so long; `None` when the time is over and another has the lock. Returns on time even where the
    /// withdrawal has not.
    ///
    /// # Errors
    /// [`TimedOut`](crate::ErrorKind::TimedOut) or [`Unavailable`](crate::ErrorKind::Unavailable) when the backend has not answered by then, or could not be reached; what it
    /// refuses, with its reason. Then nothing says that another has the lock.
    ///
    /// # Cancel safety
    /// Dropping it withdraws and leaks nothing.
    pub async fn acquire_within(&self, limit: Duration) -> Result<Option<LockGuard>> {
        self.wait_within(LockMode::Exclusive, limit).await
    }

    /// Its present holders, in any mode.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) where the backend can't be reached, [`TimedOut`](crate::ErrorKind::TimedOut) where it has not answered within the
    /// operation timeout.
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
        self.handle.inner.ask(Need::Reading, move || format!("read the holders of {word}"), question).await
    }

    /// Its present waiters, first come first.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the backend does not know; [`Unavailable`](ErrorKind::Unavailable) where it can't be reached,
    /// [`TimedOut`](ErrorKind::TimedOut) where it has not answered within the operation timeout.
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
        self.handle.inner.ask(Need::Reading, move || format!("read who waits for {word}"), question).await
    }

    /// Frees, by force, exactly the grant that [`holders`](Self::holders) showed. The ex-holder is told, but does not stop by itself:
    /// whatever it guards needs the fencing token.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the grant is there no more; [`Unsupported`](crate::ErrorKind::Unsupported) where the backend can't take a lock away.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
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
        let wait = self.handle.inner.telemetry.wait(&self.queue.key, mode);
        let answer = self.wait_for_grant(mode).await;
        wait.over(answer.as_ref().map(|guard| Some(guard.fencing_token())));
        answer
    }

    async fn wait_for_grant(&self, mode: LockMode) -> Result<LockGuard> {
        let span = tracing::debug_span!(target: "tooz::acquire", "acquire", lock = %self.name, mode = mode.name());
        async {
            loop {
                let Some(mut place) = self.queue.enqueue(mode, WaitMode::Wait)? else {
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
        let wait = self.handle.inner.telemetry.wait(&self.queue.key, mode);
        let answer = self.try_for_grant(mode).await;
        wait.over(token_of(&answer));
        answer
    }

    async fn try_for_grant(&self, mode: LockMode) -> Result<Option<LockGuard>> {
        let Some(mut place) = self.queue.enqueue(mode, WaitMode::Try)? else { return Ok(None) };
        let limit = self.handle.inner.settings.operation_timeout;
        match self.first(&mut place, limit.saturating_add(MOMENT)).await {
            LimitedWait::Answered(answer) => answer?.map(|grant| self.guard(grant)).transpose(),
            LimitedWait::TimeIsOver if self.handle.inner.heart().is_stopped() => {
                Err(Error::closed().in_driver(self.handle.inner.driver.name()))
            }
            LimitedWait::TimeIsOver => Err(Error::new(
                ErrorKind::TimedOut,
                format!("try {}: no answer within {limit:?}; it is withdrawn in the background", self.queue.key),
            )
            .in_driver(self.handle.inner.driver.name())),
        }
    }

    async fn wait_within(&self, mode: LockMode, limit: Duration) -> Result<Option<LockGuard>> {
        let wait = self.handle.inner.telemetry.wait(&self.queue.key, mode);
        let answer = self.wait_for_grant_within(mode, limit).await;
        wait.over(token_of(&answer));
        answer
    }

    async fn wait_for_grant_within(&self, mode: LockMode, limit: Duration) -> Result<Option<LockGuard>> {
        // `None`: so long that it never ends.
        let end = Instant::now().checked_add(limit);
        loop {
            let Some(mut place) = self.queue.enqueue(mode, WaitMode::Wait)? else { return Ok(None) };
            let left = end.map_or(limit, |end| end.saturating_duration_since(Instant::now()));
            match self.first(&mut place, left).await {
                LimitedWait::Answered(answer) => match answer?.map(|grant| self.guard(grant)) {
                    Some(Err(_lost_on_the_way)) => {}
                    answer => return answer.transpose(),
                },
                // Not getting a lock is no error, but not reaching the backend is.
                LimitedWait::TimeIsOver => return self.queue.verdict(mode, limit).map(|()| None),
            }
        }
    }

    /// Waits for the answer, at most so long. The timer is on the heart: the caller may have any executor.
    async fn first(&self, place: &mut Place, limit: Duration) -> LimitedWait {
        let mut answer = pin!(answer(place));
        if let Poll::Ready(answered) = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await {
            return LimitedWait::Answered(answered);
        }
        let mut over = self.handle.inner.heart().timer(limit);
        poll_fn(|context| {
            if let Poll::Ready(answered) = answer.as_mut().poll(context) {
                return Poll::Ready(LimitedWait::Answered(answered));
            }
            over.poll(context).map(|()| LimitedWait::TimeIsOver)
        })
        .await
    }

    /// The deadline is checked once more, in the hands of the caller: this process may have stood still since the grant was made.
    fn guard(&self, grant: Grant) -> Result<LockGuard> {
        match grant.hold.lost.get().or_else(|| grant.hold.live.check()) {
            None => Ok(LockGuard::new(Arc::clone(&self.handle), Arc::clone(&self.queue), grant)),
            Some(reason) => {
                let error = grant.hold.live.error_of(reason).context(format!("acquire {}", self.queue.key));
                // A grant that was broken on its way may still be at the backend, without a holder.
                self.queue.release_later(grant.hold);
                Err(error)
            }
        }
    }
}

impl SharedLock {
    /// As [`Lock::acquire`], beside other shared holders.
    ///
    /// # Errors
    /// As [`Lock::acquire`]; [`Unsupported`](crate::ErrorKind::Unsupported) where the backend has no shared locks.
    ///
    /// # Cancel safety
    /// Dropping it withdraws from the queue and leaks nothing.
    pub async fn acquire(&self) -> Result<LockGuard> {
        self.0.wait_for(LockMode::Shared).await
    }

    /// As [`Lock::try_acquire`], beside other shared holders.
    ///
    /// # Errors
    /// As [`Lock::try_acquire`]; [`Unsupported`](crate::ErrorKind::Unsupported) where the backend has no shared locks.
    ///
    /// # Cancel safety
    /// Dropping it withdraws and leaks nothing.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        self.0.try_for(LockMode::Shared).await
    }

    /// As [`Lock::acquire_within`], beside other shared holders.
    ///
    /// # Errors
    /// As [`Lock::acquire_within`]; [`Unsupported`](crate::ErrorKind::Unsupported) where the backend has no shared locks.
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

fn token_of(answer: &Result<Option<LockGuard>>) -> Result<Option<FencingToken>, &Error> {
    answer.as_ref().map(|guard| guard.as_ref().map(LockGuard::fencing_token))
}

pub(crate) async fn answer(place: &mut Place) -> Answer {
    let answer = (&mut place.answer).await;
    place.is_answered = true;
    answer.unwrap_or_else(|_| Err(Error::closed()))
}
