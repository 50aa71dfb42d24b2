//! The local queue of one lock: all waiters of this coordinator, in one first-come-first-served line across modes.
//!
//! At most one request is in flight at the backend. It is not tied to a waiter: it serves the head of the [`Line`] in its mode when the grant
//! comes. A used grant always goes back to the backend; only one that was not received passes to the next local waiter. An answer that is
//! no grant is for the waiter that asked, and for no other. A waiter is woken without the lock: a waker may come back at once.
//!
//! The state is in `line`, how a grant is got in `acquire`, how it is given back in `release`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::base::contain::caught;
use crate::base::error::{Error, ErrorKind, Outcome, Result};
use crate::base::mutex::{Mutex, MutexGuard};
use crate::driver::lock::{LockKey, LockMode};
use crate::driver::wanted::WishChange;
use crate::engine::heart::Start;
use crate::engine::hold::Hold;
use crate::engine::inner::Inner;
use crate::engine::line::{Answer, BackendRequest, Blocker, Grant, Line, LineWaiter, WaitMode};
use crate::engine::phase::Phase;
use crate::engine::registry::Registry;

pub(crate) struct LocalQueue {
    pub(crate) key: LockKey,
    pub(crate) inner: Arc<Inner>,
    registry: Arc<Registry<LockKey, LocalQueue>>,
    line: Mutex<Line>,
}

/// A waiter's place. Dropping it withdraws.
pub(crate) struct Place {
    queue: Arc<LocalQueue>,
    number: u64,
    pub(crate) answer: oneshot::Receiver<Answer>,
    /// The answer was taken: there is nothing to withdraw.
    pub(crate) is_answered: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_answered || self.queue.inner.is_forked() {
            return;
        }
        self.answer.close();
        match self.answer.try_recv() {
            // It was granted but not taken.
            Ok(Ok(Some(grant))) => self.queue.pass_on(grant),
            Ok(_) => {}
            Err(_) => self.queue.withdraw(self.number),
        }
    }
}

impl LocalQueue {
    pub(crate) fn new(key: LockKey, inner: Arc<Inner>, registry: Arc<Registry<LockKey, LocalQueue>>) -> Self {
        LocalQueue { key, inner, registry, line: Mutex::default() }
    }

    pub(super) fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock()
    }

    /// Takes a place at the end of the queue. `None`: it is a try, and another waits.
    pub(crate) fn enqueue(self: &Arc<Self>, mode: LockMode, patience: WaitMode) -> Result<Option<Place>> {
        if self.inner.is_forked() {
            return Err(Error::closed().in_driver(self.inner.driver.name()));
        }
        let (sender, answer) = oneshot::channel();
        let Some((number, untold)) = self.line().come(mode, patience, sender) else {
            // The one that waits there may wait for a backend that does not answer.
            return match self.hindrance(mode) {
                Hindrance::Holder | Hindrance::Silence => Ok(None),
                Hindrance::Trouble(error) => Err(error),
            };
        };
        tell(untold);
        self.pump();
        // After the close what is in flight is not completed: either the close found this waiter, or it is found here.
        let is_closed = matches!(*self.inner.phase.borrow(), Phase::Closed);
        if is_closed {
            self.refuse_all();
        }
        Ok(Some(Place { queue: Arc::clone(self), number, answer, is_answered: false }))
    }

    /// Tells all in the queue that the coordinator is closed.
    pub(crate) fn refuse_all(&self) {
        let waiters = self.line().clear();
        for waiter in waiters {
            let _ = waiter.answer.send(Err(Error::closed().in_driver(self.inner.driver.name())));
        }
    }

    /// Why a waiter whose time is over does not have the lock: `Ok` only where another has it.
    pub(crate) fn verdict(&self, mode: LockMode, limit: Duration) -> Result<()> {
        match self.hindrance(mode) {
            Hindrance::Holder => Ok(()),
            Hindrance::Trouble(error) => Err(error),
            Hindrance::Silence => {
                Err(self.hindered(ErrorKind::TimedOut, &format!("the backend has not answered within {limit:?}")))
            }
        }
    }

    fn hindered(&self, kind: ErrorKind, why: &str) -> Error {
        let error = Error::new(kind, format!("acquire {}: {why}", self.key));
        error.with_outcome(Outcome::NotApplied).in_driver(self.inner.driver.name())
    }

    /// What keeps a waiter of that mode from the lock.
    fn hindrance(&self, mode: LockMode) -> Hindrance {
        let (in_the_way, spent) = self.line().in_the_way(mode);
        drop(spent);
        let Blocker::Backend { is_queued, trouble } = in_the_way else { return Hindrance::Holder };
        if self.inner.heart().is_stopped() {
            return Hindrance::Trouble(Error::closed().in_driver(self.inner.driver.name()));
        }
        let unreachable = |why: &str| Hindrance::Trouble(self.hindered(ErrorKind::Unavailable, why));
        match &*self.inner.phase.borrow() {
            Phase::Open(_) if let Some(why) = self.inner.suspension.why() => {
                return unreachable(&format!("the backend does not answer heartbeats: {}", why.message()));
            }
            Phase::Open(_) if is_queued => return Hindrance::Holder,
            Phase::Open(_) if trouble.is_none() => return Hindrance::Silence,
            Phase::Down { error: Some(error), .. } => return Hindrance::Trouble(error.clone()),
            Phase::Closed => return Hindrance::Trouble(Error::closed().in_driver(self.inner.driver.name())),
            Phase::Open(_) | Phase::Connected(_) | Phase::Down { error: None, .. } => {}
        }
        match (trouble, self.inner.why_no_session()) {
            (Some(trouble), _) => Hindrance::Trouble(trouble),
            (None, Some(why)) => Hindrance::Trouble(why.with_outcome(Outcome::NotApplied)),
            (None, None) => unreachable("the session is still being opened, and the backend has not answered so far"),
        }
    }

    /// Starts the next request if one can be started.
    pub(crate) fn pump(self: &Arc<Self>) {
        while let Some(BackendRequest { number, mode, patience, wanted }) = self.next_request() {
            let queue = Arc::clone(self);
            let request = async move {
                let result = queue.request(mode, patience, &wanted).await;
                queue.complete(number, mode, patience, result);
                queue
            };
            // After an errand that ends at once this loop goes on; no pump runs inside a pump.
            let end = match self.inner.heart().begin_with(request, |queue| queue.pump()) {
                Start::Done(_) => continue,
                Start::Waiting => return,
                Start::Panicked(panic) => panic,
                Start::Gone => Error::closed(),
            };
            self.complete(number, mode, patience, Err(end.in_driver(self.inner.driver.name())));
        }
    }

    fn next_request(&self) -> Option<BackendRequest> {
        let next = self.line().next();
        drop(next.spent);
        for waiter in next.refused {
            let _ = waiter.answer.send(Ok(None));
        }
        next.ask
    }

    /// Hands the result to the waiter that it is for now.
    fn complete(self: &Arc<Self>, number: u64, mode: LockMode, patience: WaitMode, result: Answer) {
        let (waiter, garbage) = self.line().answered(number, mode, patience, &result);
        drop(garbage);
        self.hand_over(mode, waiter, result);
    }

    /// Answers the waiter. A grant that it does not take any more goes to the next in this mode at the head, or back.
    fn hand_over(self: &Arc<Self>, mode: LockMode, mut waiter: Option<LineWaiter>, mut answer: Answer) {
        while let Some(next) = waiter {
            // A waker that panics has woken no task; the answer is there all the same.
            match caught(|| next.answer.send(answer)) {
                Ok(Err(Ok(Some(grant)))) => answer = Ok(Some(grant)),
                _ => return,
            }
            waiter = self.next_in(mode);
        }
        if let Ok(Some(grant)) = answer {
            self.release_later(grant.hold);
        }
    }

    /// The waiter at the head, if it is of that mode: a grant is there.
    fn next_in(&self, mode: LockMode) -> Option<LineWaiter> {
        let (waiter, untold) = self.line().next_in(mode);
        tell(untold);
        waiter
    }

    /// Gives a grant that its waiter did not take to the next one of its mode, or back.
    fn pass_on(self: &Arc<Self>, grant: Grant) {
        match grant.hold.check() {
            None => {
                let mode = grant.hold.mode();
                let waiter = self.next_in(mode);
                self.hand_over(mode, waiter, Ok(Some(grant)));
            }
            Some(_) => self.release_later(grant.hold),
        }
    }

    fn withdraw(self: &Arc<Self>, number: u64) {
        let (waiter, untold) = self.line().leave(number);
        drop(waiter);
        tell(untold);
        self.pump();
    }

    /// Notes that a grant was won as that member.
    pub(crate) fn enlist(&self, membership: &Arc<Hold>, grant: &Arc<Hold>) {
        self.line().enlist(membership, grant);
    }

    /// The grants that were won as that member.
    pub(crate) fn discharge(&self, membership: &Arc<Hold>) -> Vec<Arc<Hold>> {
        self.line().discharge(membership)
    }
}

impl Drop for LocalQueue {
    fn drop(&mut self) {
        // A forked child does not touch the list, which may be locked by a thread that is not there.
        if !self.inner.is_forked() {
            self.registry.clear(&self.key);
        }
    }
}

fn tell(untold: Option<WishChange>) {
    if let Some(untold) = untold {
        untold.tell();
    }
}

/// What keeps a waiter from the lock.
enum Hindrance {
    /// Another has it.
    Holder,
    /// The backend was asked, and has not answered.
    Silence,
    /// The backend can't answer, and this is why.
    Trouble(Error),
}
