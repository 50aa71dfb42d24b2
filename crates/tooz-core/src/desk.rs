//! The local queue of one lock: one FIFO across modes, at most one request in flight at the backend.
//!
//! The request in flight is not tied to a waiter: it serves whoever stands at the head in its mode when the grant comes. A
//! used grant always goes back to the backend; only one that nobody received passes to the next local waiter.

// Long because the queue is one state machine, and its interleavings are judged side by side.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::heart::{self, Begun, Start};
use crate::inner::{Inner, Persistence, Purpose, is_final};
use crate::life::Live;
use crate::loss::{Hold, LossReason};
use crate::session::{FencingToken, LockKey, LockMode, LockRequest, Wanted, Wish};
use crate::supervisor::Phase;
use crate::wait::Backoff;
use crate::{Error, ErrorKind, Outcome, Result};

/// What a waiter is willing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Try,
    Wait,
}

/// A grant on its way to a waiter.
pub(crate) struct Grant {
    pub(crate) hold: Arc<Hold>,
    pub(crate) token: FencingToken,
}

type Answer = Result<Option<Grant>>;

pub(crate) struct Desk {
    pub(crate) key: LockKey,
    pub(crate) inner: Arc<Inner>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Waiter>,
    numbers: u64,
    in_flight: Option<InFlight>,
    /// Grants that the backend has not got back yet.
    held: Vec<Arc<Hold>>,
    /// Why the request in flight can't get through just now.
    trouble: Option<Error>,
    /// In an election: which grant was won as which membership.
    won: Vec<(Weak<Hold>, Weak<Hold>)>,
}

struct Waiter {
    number: u64,
    mode: LockMode,
    patience: Patience,
    answer: oneshot::Sender<Answer>,
}

struct InFlight {
    mode: LockMode,
    wanted: Wish,
}

/// A waiter's place. Dropping it withdraws.
pub(crate) struct Place {
    desk: Arc<Desk>,
    number: u64,
    pub(crate) answer: oneshot::Receiver<Answer>,
    /// The answer was taken: there is nothing to withdraw.
    pub(crate) is_answered: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_answered || self.desk.inner.heart().is_forked() {
            return;
        }
        self.answer.close();
        match self.answer.try_recv() {
            // It was granted but nobody took it.
            Ok(Ok(Some(grant))) => self.desk.pass_on(grant),
            Ok(_) => {}
            Err(_) => self.desk.withdraw(self.number),
        }
    }
}

impl Desk {
    pub(crate) fn new(key: LockKey, inner: Arc<Inner>) -> Self {
        Desk { key, inner, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place at the end of the queue. `None`: it is a try, and somebody waits or holds in a conflicting mode.
    pub(crate) fn queue(self: &Arc<Self>, mode: LockMode, patience: Patience) -> Result<Option<Place>> {
        if self.inner.heart().is_forked() {
            return Err(heart::gone().in_driver(self.inner.driver.name()));
        }
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut state = self.state();
            if patience == Patience::Try && state.queue.iter().any(|waiter| waiter.patience == Patience::Wait) {
                return Ok(None);
            }
            state.numbers += 1;
            let number = state.numbers;
            state.queue.push_back(Waiter { number, mode, patience, answer: sender });
            state.update_wanted();
            number
        };
        self.pump();
        // After the close nobody completes what is in flight: either the close found this waiter, or it is found here.
        if matches!(*self.inner.phase.borrow(), Phase::Closed) {
            self.refuse_all();
        }
        Ok(Some(Place { desk: Arc::clone(self), number, answer, is_answered: false }))
    }

    /// Tells everybody in the queue that the coordinator is closed.
    pub(crate) fn refuse_all(&self) {
        let waiters = std::mem::take(&mut self.state().queue);
        for waiter in waiters {
            let _ = waiter.answer.send(Err(heart::gone().in_driver(self.inner.driver.name())));
        }
    }

    /// Why the backend can't be reached just now, for a waiter whose time is over.
    pub(crate) fn trouble(&self) -> Option<Error> {
        let unreachable = |why: &str| {
            let error = Error::new(ErrorKind::Unavailable, format!("acquire {}: {why}", self.key));
            Some(error.with_outcome(Outcome::NotApplied).in_driver(self.inner.driver.name()))
        };
        match &*self.inner.phase.borrow() {
            Phase::Down { error: Some(error), .. } => return Some(error.duplicate()),
            Phase::Down { error: None, .. } => return unreachable("the session was lost, a new one is not open yet"),
            Phase::Open(_) if self.inner.suspended.load(Ordering::Relaxed) => {
                return unreachable("the backend does not answer heartbeats");
            }
            Phase::Open(_) | Phase::Connected(_) | Phase::Closed => {}
        }
        self.state().trouble.as_ref().map(Error::duplicate)
    }

    /// Starts the next request if one can be started.
    pub(crate) fn pump(self: &Arc<Self>) {
        while let Some((mode, patience, wanted)) = self.next_request() {
            let desk = Arc::clone(self);
            let request = async move {
                let result = desk.request(mode, patience, &wanted).await;
                desk.complete(mode, result);
                desk
            };
            // What ends at once is followed by the next turn of this loop, not by a pump inside a pump.
            match self.inner.heart().begin_with(request, |desk| desk.pump()) {
                Start::Done(_) => {}
                Start::Waiting => return,
                Start::Gone => {
                    self.complete(mode, Err(heart::gone().in_driver(self.inner.driver.name())));
                }
            }
        }
    }

    fn next_request(&self) -> Option<(LockMode, Patience, Wanted)> {
        let mut state = self.state();
        if state.in_flight.is_some() {
            return None;
        }
        state.held.retain(|hold| match hold.lost.get() {
            // Given back, but not yet at the backend: it is in the way as long as its session lives.
            None | Some(LossReason::Released) => hold.live.check().is_none(),
            Some(_) => false,
        });
        loop {
            let head = state.queue.front()?;
            let (mode, patience) = (head.mode, head.patience);
            let mut in_the_way = state.held.iter().filter(|hold| mode_of(hold).conflicts_with(mode)).peekable();
            if in_the_way.peek().is_none() {
                let (sender, wanted) = Wanted::channel();
                state.in_flight = Some(InFlight { mode, wanted: sender });
                return Some((mode, patience, wanted));
            }
            // What is being given back will be free in a moment; what is held will not.
            if patience == Patience::Wait || in_the_way.all(|hold| hold.lost.get().is_some()) {
                return None;
            }
            if let Some(waiter) = state.queue.pop_front() {
                let _ = waiter.answer.send(Ok(None));
            }
        }
    }

    /// Gets one grant from the backend: in as many sessions as it takes for one who waits, in one for one who tries.
    async fn request(&self, mode: LockMode, patience: Patience, wanted: &Wanted) -> Answer {
        let mut pauses = Backoff::for_reconnects();
        let persistence = match patience {
            Patience::Try => Persistence::OneAttempt,
            Patience::Wait => Persistence::UntilItWorks,
        };
        loop {
            let live = tokio::select! {
                biased;
                live = self.inner.session(Purpose::Own, persistence) => live?,
                () = wanted.unwanted() => return Ok(None),
            };
            let request = LockRequest::new(self.key.clone(), mode, self.inner.request_id());
            let hold = live.hold(request.id, Some(request.clone()));
            let session = live.session();
            let answer = match patience {
                Patience::Try => live.call(session.try_lock(&request)).await,
                Patience::Wait => live.call(session.lock(&request, wanted)).await,
            };
            let (error, is_settled) = match answer {
                Ok(None) => return Ok(None),
                Ok(Some(granted)) => match hold.check() {
                    // The deadline is checked once more before anybody believes in the grant.
                    None => return Ok(Some(Grant { hold, token: granted.token })),
                    Some(reason) => (live.error_of(reason), false),
                },
                // What was asked last may not have been done, but one who waits may have had a place in the queue before that. (Of
                // what nobody may do, nothing can be withdrawn either.)
                Err(error) => {
                    let was_not_done = error.outcome() == Outcome::NotApplied;
                    let is_settled = was_not_done && (patience == Patience::Try || is_final(&error));
                    (error, is_settled)
                }
            };
            let error = error.context(format!("acquire {}", self.key));
            // Known before the withdrawal, which takes as long as the trouble does.
            if patience == Patience::Wait && !is_final(&error) && error.kind() != ErrorKind::Lost {
                self.state().trouble = Some(error.duplicate());
            }
            if !is_settled {
                self.withdraw_at_backend(&live, &request).await;
            }
            // A request may be what finds out that the session is over; nobody has lost anything that was asked for here.
            if is_final(&error) || (patience == Patience::Try && error.kind() != ErrorKind::Lost) {
                return Err(error);
            }
            if !wanted.is_wanted() {
                return Ok(None);
            }
            if error.kind() != ErrorKind::Lost {
                tokio::select! {
                    () = pauses.pause() => {}
                    () = wanted.unwanted() => return Ok(None),
                }
            }
        }
    }

    /// Hands the result to whoever is at the head now.
    fn complete(self: &Arc<Self>, mode: LockMode, result: Answer) {
        let mut nobodys = None;
        {
            let mut state = self.state();
            state.in_flight = None;
            state.trouble = None;
            match result {
                Ok(Some(grant)) => {
                    state.held.push(Arc::clone(&grant.hold));
                    nobodys = state.deliver(mode, grant);
                }
                // One who waits and came after the withdrawal keeps the place: the next request is for them.
                Ok(None) => {
                    if state.queue.front().is_some_and(|head| head.mode == mode && head.patience == Patience::Try)
                        && let Some(waiter) = state.queue.pop_front()
                    {
                        let _ = waiter.answer.send(Ok(None));
                    }
                }
                Err(error) => {
                    if state.queue.front().is_some_and(|head| head.mode == mode)
                        && let Some(waiter) = state.queue.pop_front()
                    {
                        let _ = waiter.answer.send(Err(error));
                    }
                }
            }
        }
        if let Some(grant) = nobodys {
            self.release_later(grant.hold);
        }
    }

    /// Gives a grant that its waiter did not take to the next one of its mode, or back.
    fn pass_on(self: &Arc<Self>, grant: Grant) {
        let nobodys = match grant.hold.check() {
            None => self.state().deliver(mode_of(&grant.hold), grant),
            Some(_) => Some(grant),
        };
        if let Some(grant) = nobodys {
            self.release_later(grant.hold);
        }
    }

    fn withdraw(self: &Arc<Self>, number: u64) {
        {
            let mut state = self.state();
            state.queue.retain(|waiter| waiter.number != number);
            state.update_wanted();
        }
        self.pump();
    }

    /// Gives a grant back in the background.
    pub(crate) fn release_later(self: &Arc<Self>, hold: Arc<Hold>) {
        let desk = Arc::clone(self);
        self.inner.heart().spawn(async move {
            let _ = desk.release(hold).answer().await;
        });
    }

    /// Gives a grant back. What fails goes on in the background until the session ends.
    pub(crate) fn release(self: &Arc<Self>, hold: Arc<Hold>) -> Begun<Result<()>> {
        let name = self.inner.driver.name();
        if let Some(reason) = hold.check() {
            self.gone(&hold);
            if reason == LossReason::Broken {
                self.withdraw_the_broken(&hold);
            }
            let error = Error::new(
                if reason == LossReason::Closed { ErrorKind::Closed } else { ErrorKind::Lost },
                format!("release {}: {reason}; whoever holds it now was not touched", self.key),
            );
            return Begun::Done(Err(error.in_driver(name)));
        }
        hold.lost.set(LossReason::Released);
        let desk = Arc::clone(self);
        let limit = self.inner.settings.operation_timeout;
        self.inner.heart().begin(async move {
            let key = desk.key.clone();
            heart::within(limit, || format!("release {key}"), async move {
                let live = Arc::clone(&hold.live);
                let Some(request) = hold.request.clone() else { return Ok(()) };
                let first = live.call_patiently(limit, || live.session().release(&request)).await;
                match first {
                    Err(error) if live.check().is_none() => {
                        let trying = Arc::clone(&desk);
                        tokio::spawn(async move {
                            trying.withdraw_at_backend(&live, &request).await;
                            trying.gone(&hold);
                        });
                        Err(error.context(format!("release {} (it goes on in the background)", desk.key)))
                    }
                    result => {
                        desk.gone(&hold);
                        result
                    }
                }
            })
            .await
        })
    }

    /// A driver that took a grant for lost by mistake would leave it at the backend, for nobody, for as long as the session lives. By its
    /// request it can be given back without touching anybody else's.
    fn withdraw_the_broken(self: &Arc<Self>, hold: &Hold) {
        if let Some(request) = hold.request.clone()
            && hold.live.check().is_none()
        {
            let (desk, live) = (Arc::clone(self), Arc::clone(&hold.live));
            self.inner.heart().spawn(async move { desk.withdraw_at_backend(&live, &request).await });
        }
    }

    /// Notes that a grant was won as that member.
    pub(crate) fn enlist(&self, membership: &Arc<Hold>, grant: &Arc<Hold>) {
        let mut state = self.state();
        state.won.retain(|(_, grant)| grant.strong_count() > 0);
        state.won.push((Arc::downgrade(membership), Arc::downgrade(grant)));
    }

    /// The grants that were won as that member.
    pub(crate) fn discharge(&self, membership: &Arc<Hold>) -> Vec<Arc<Hold>> {
        let mut state = self.state();
        let all = std::mem::take(&mut state.won);
        let (own, others) =
            all.into_iter().partition(|(member, _)| std::ptr::eq(member.as_ptr(), Arc::as_ptr(membership)));
        state.won = others;
        own.into_iter().filter_map(|(_, grant): (Weak<Hold>, Weak<Hold>)| grant.upgrade()).collect()
    }

    fn gone(self: &Arc<Self>, hold: &Arc<Hold>) {
        {
            let mut state = self.state();
            state.held.retain(|held| !Arc::ptr_eq(held, hold));
            if state.queue.is_empty() {
                return;
            }
        }
        self.pump();
    }

    /// Takes a request back of which nobody knows whether it was done. One that stays unknown for a whole timeout ends the
    /// session, so that no lock is left that nobody holds.
    async fn withdraw_at_backend(&self, live: &Arc<Live>, request: &LockRequest) {
        let clock = live.clock().clone();
        let timeout = live.session().terms().timeout.unwrap_or(self.inner.settings.session_timeout);
        let give_up = clock.now() + timeout.max(Duration::from_secs(1));
        let mut pauses = Backoff::for_reconnects();
        while live.check().is_none() {
            match live.call(live.session().release(request)).await {
                Ok(()) => return,
                Err(_) if clock.now() >= give_up => live.lose(LossReason::SessionEnded),
                Err(_) => {
                    tokio::select! {
                        () = pauses.pause() => {}
                        _ = live.lost() => {}
                    }
                }
            }
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.inner.clear_desk(&self.key);
    }
}

impl State {
    /// Gives the grant to the first waiter in this mode at the head who still listens. What comes back is nobody's.
    fn deliver(&mut self, mode: LockMode, mut grant: Grant) -> Option<Grant> {
        while self.queue.front().is_some_and(|head| head.mode == mode) {
            let Some(waiter) = self.queue.pop_front() else { break };
            match waiter.answer.send(Ok(Some(grant))) {
                Err(Ok(Some(returned))) => grant = returned,
                Ok(()) | Err(_) => return None,
            }
        }
        Some(grant)
    }

    /// The request in flight is wanted as long as somebody at the head wants its mode.
    fn update_wanted(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            let wanted = self.queue.front().is_some_and(|head| head.mode == in_flight.mode);
            in_flight.wanted.set(wanted);
        }
    }
}

fn mode_of(hold: &Hold) -> LockMode {
    hold.request.as_ref().map_or(LockMode::Exclusive, |request| request.mode)
}
