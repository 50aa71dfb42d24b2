//! The local queue of one lock: one FIFO across modes, at most one request in flight at the backend.
//!
//! The request in flight is not tied to a waiter: it serves whoever stands at the head in its mode when the grant comes. A
//! used grant always goes back to the backend; only one that nobody received passes to the next local waiter. An answer that is no
//! grant is nobody's but the asker's. Whoever is answered is woken without the lock: a waker may come back at once.

// Long because the queue is one state machine, and its interleavings are judged side by side.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::base::backoff::{A_DAY, Backoff};
use crate::base::contain::caught;
use crate::base::error::{Error, ErrorKind, Outcome, Result};
use crate::base::loss_reason::LossReason;
use crate::base::mutex::{Mutex, MutexGuard};
use crate::driver::lock::{FencingToken, Granted, LockKey, LockMode, LockRequest};
use crate::driver::session::Session;
use crate::driver::wanted::{Progress, Untold, Wanted, Wish};
use crate::engine::claim::Claimed;
use crate::engine::heart::{Begun, Start};
use crate::engine::held::Held;
use crate::engine::hold::Hold;
use crate::engine::inner::{Inner, Retry};
use crate::engine::live_session::LiveSession;
use crate::engine::phase::{Need, Phase};
use crate::engine::registry::Registry;
use crate::engine::worry::Worry;

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

/// What is to be said beside a release that comes too late.
const UNTOUCHED: &str = "whoever holds it now was not touched";

pub(crate) struct LocalQueue {
    pub(crate) key: LockKey,
    pub(crate) inner: Arc<Inner>,
    registry: Arc<Registry<LockKey, LocalQueue>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiters: VecDeque<Waiter>,
    numbers: u64,
    in_flight: Option<InFlight>,
    /// Grants that the backend has not got back yet.
    held: Held,
    /// Why the request in flight does not get through: the latest word, gone as soon as it stands in the queue.
    trouble: Option<Error>,
    /// In an election: which grant was won as which membership.
    won: Vec<(Weak<Hold>, Weak<Hold>)>,
}

struct Waiter {
    number: u64,
    mode: LockMode,
    patience: Patience,
    /// Whether it has stood in a line that moved: then it is kept up also where the backend refuses.
    has_stood: bool,
    answer: oneshot::Sender<Answer>,
}

struct InFlight {
    /// For whom it was begun.
    number: u64,
    mode: LockMode,
    patience: Patience,
    wanted: Wish,
}

/// What is to be asked of the backend, and for whom.
struct Errand {
    /// The one at the head as it was begun.
    number: u64,
    mode: LockMode,
    patience: Patience,
    wanted: Wanted,
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
            // It was granted but nobody took it.
            Ok(Ok(Some(grant))) => self.queue.pass_on(grant),
            Ok(_) => {}
            Err(_) => self.queue.withdraw(self.number),
        }
    }
}

impl LocalQueue {
    pub(crate) fn new(key: LockKey, inner: Arc<Inner>, registry: Arc<Registry<LockKey, LocalQueue>>) -> Self {
        LocalQueue { key, inner, registry, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Takes a place at the end of the queue. `None`: it is a try, and somebody waits or holds in a conflicting mode.
    pub(crate) fn enqueue(self: &Arc<Self>, mode: LockMode, patience: Patience) -> Result<Option<Place>> {
        if self.inner.is_forked() {
            return Err(Error::closed().in_driver(self.inner.driver.name()));
        }
        let (sender, answer) = oneshot::channel();
        let (number, untold) = {
            let mut state = self.state();
            if patience == Patience::Try && state.waiters.iter().any(|waiter| waiter.patience == Patience::Wait) {
                drop(state);
                // Whoever waits there may wait for a backend that does not answer, and for nobody.
                return match self.standing(mode) {
                    Line::Moves | Line::Asks => Ok(None),
                    Line::Stands(error) => Err(error),
                };
            }
            state.numbers += 1;
            let number = state.numbers;
            let has_stood = state.line_moves();
            state.waiters.push_back(Waiter { number, mode, patience, has_stood, answer: sender });
            (number, state.update_wanted())
        };
        tell(untold);
        self.pump();
        // After the close nobody completes what is in flight: either the close found this waiter, or it is found here.
        let is_closed = matches!(*self.inner.phase.borrow(), Phase::Closed);
        if is_closed {
            self.refuse_all();
        }
        Ok(Some(Place { queue: Arc::clone(self), number, answer, is_answered: false }))
    }

    /// Tells everybody in the queue that the coordinator is closed.
    pub(crate) fn refuse_all(&self) {
        let waiters = std::mem::take(&mut self.state().waiters);
        for waiter in waiters {
            let _ = waiter.answer.send(Err(Error::closed().in_driver(self.inner.driver.name())));
        }
    }

    /// Why one whose time is over does not have the lock: `Ok` only where somebody else has it.
    pub(crate) fn verdict(&self, mode: LockMode, limit: Duration) -> Result<()> {
        match self.standing(mode) {
            Line::Moves => Ok(()),
            Line::Stands(error) => Err(error),
            Line::Asks => {
                Err(self.hindered(ErrorKind::TimedOut, &format!("the backend has not answered within {limit:?}")))
            }
        }
    }

    fn hindered(&self, kind: ErrorKind, why: &str) -> Error {
        let error = Error::new(kind, format!("acquire {}: {why}", self.key));
        error.with_outcome(Outcome::NotApplied).in_driver(self.inner.driver.name())
    }

    /// What is in the way of who is in the line.
    fn standing(&self, mode: LockMode) -> Line {
        let (is_queued, trouble, spent) = {
            let mut state = self.state();
            // What is just being given back is nobody's, but may not get through.
            if !state.held.admits(mode) && !state.held.is_coming_back(mode) {
                return Line::Moves;
            }
            let is_queued = state.in_flight.as_ref().is_some_and(|in_flight| in_flight.wanted.is_queued());
            (is_queued, state.trouble.clone(), state.held.take_spent())
        };
        drop(spent);
        if self.inner.heart().is_stopped() {
            return Line::Stands(Error::closed().in_driver(self.inner.driver.name()));
        }
        let unreachable = |why: &str| Line::Stands(self.hindered(ErrorKind::Unavailable, why));
        match &*self.inner.phase.borrow() {
            Phase::Open(_) if self.inner.suspended.load(Ordering::Relaxed) => {
                return unreachable("the backend does not answer heartbeats");
            }
            Phase::Open(_) if is_queued => return Line::Moves,
            Phase::Open(_) if trouble.is_none() => return Line::Asks,
            Phase::Down { error: Some(error), .. } => return Line::Stands(error.clone()),
            Phase::Closed => return Line::Stands(Error::closed().in_driver(self.inner.driver.name())),
            Phase::Open(_) | Phase::Connected(_) | Phase::Down { error: None, .. } => {}
        }
        match (trouble, self.inner.why_no_session()) {
            (Some(trouble), _) => Line::Stands(trouble),
            (None, Some(why)) => Line::Stands(why.with_outcome(Outcome::NotApplied)),
            (None, None) => unreachable("the session is not open yet"),
        }
    }

    fn set_trouble(&self, trouble: Option<Error>) {
        let before = std::mem::replace(&mut self.state().trouble, trouble);
        drop(before);
    }

    /// Starts the next request if one can be started.
    pub(crate) fn pump(self: &Arc<Self>) {
        while let Some(Errand { number, mode, patience, wanted }) = self.next_request() {
            let queue = Arc::clone(self);
            let request = async move {
                let result = queue.request(mode, patience, &wanted).await;
                queue.complete(number, mode, patience, result);
                queue
            };
            // What ends at once is followed by the next turn of this loop, not by a pump inside a pump.
            let end = match self.inner.heart().begin_with(request, |queue| queue.pump()) {
                Start::Done(_) => continue,
                Start::Waiting => return,
                Start::Panicked(panic) => panic,
                Start::Gone => Error::closed(),
            };
            self.complete(number, mode, patience, Err(end.in_driver(self.inner.driver.name())));
        }
    }

    fn next_request(&self) -> Option<Errand> {
        let mut refused = Vec::new();
        let (next, spent) = {
            let mut state = self.state();
            (state.next_request(&mut refused), state.held.take_spent())
        };
        drop(spent);
        for waiter in refused {
            let _ = waiter.answer.send(Ok(None));
        }
        next
    }

    /// Gets one grant from the backend: in as many sessions as it takes for one who waits, in one for one who tries.
    async fn request(self: &Arc<Self>, mode: LockMode, patience: Patience, wanted: &Wanted) -> Answer {
        let mut pauses = None;
        let mut worry = None;
        loop {
            let error = match self.attempt(mode, patience, wanted, &mut worry).await {
                Ok(Some(grant)) => return Ok(Some(grant)),
                Ok(None) if patience == Patience::Try || !wanted.is_wanted() => return Ok(None),
                // It was unwanted for a moment. A driver that gives up without that is asked again with pauses.
                Ok(None) if wanted.was_unwanted() => continue,
                Ok(None) => {
                    let why = "the driver gave up a wait that is still wanted";
                    Error::new(ErrorKind::Backend, why).in_driver(self.inner.driver.name())
                }
                Err(Stop::Again) if wanted.is_wanted() => continue,
                Err(Stop::Again) => return Ok(None),
                Err(Stop::NoSession(error)) => {
                    if self.ends(&error, patience) {
                        return Err(error);
                    }
                    // Its next attempt comes after a pause already.
                    self.set_trouble(Some(error.clone()));
                    self.worry(&mut worry).about(&error);
                    continue;
                }
                Err(Stop::For(error)) => error,
            };
            if self.ends(&error, patience) {
                return Err(error.context(format!("acquire {}", self.key)));
            }
            if !wanted.is_wanted() {
                return Ok(None);
            }
            self.worry(&mut worry).about(&error);
            let pauses = pauses.get_or_insert_with(Backoff::for_reconnects);
            Box::pin(async {
                tokio::select! {
                    () = pauses.pause() => {}
                    () = wanted.unwanted() => {}
                }
            })
            .await;
        }
    }

    /// Whether that error is the answer, and no reason to try again.
    fn ends(&self, error: &Error, patience: Patience) -> bool {
        if error.kind() == ErrorKind::Closed || patience == Patience::Try {
            return true;
        }
        let mut state = self.state();
        state.note_who_stood();
        error.is_final() && !state.waiters.front().is_some_and(|head| head.has_stood)
    }

    async fn attempt(
        self: &Arc<Self>,
        mode: LockMode,
        patience: Patience,
        wanted: &Wanted,
        worry: &mut Option<Worry>,
    ) -> Result<Option<Grant>, Stop> {
        let retry = match patience {
            Patience::Try => Retry::Never,
            Patience::Wait => Retry::UntilRefused,
        };
        let live = if let Some(live) = self.inner.usable(Need::Session) {
            live
        } else {
            tokio::select! {
                biased;
                live = Box::pin(self.inner.session(Need::Session, retry)) => live.map_err(Stop::NoSession)?,
                () = wanted.unwanted() => return Ok(None),
            }
        };
        let request = LockRequest::new(self.key.clone(), mode, self.inner.request_id());
        let hold = Hold::new(&live, request.id, Claimed::Lock(request.clone()));
        let answer = match patience {
            Patience::Try => {
                let limit = self.inner.settings.operation_timeout;
                let (what, asked) = (|| format!("try {}", self.key), request.clone());
                let (give_up, queue, late) = (Instant::now() + limit.min(A_DAY), Arc::clone(self), Arc::clone(&live));
                let trying = move |session: Arc<dyn Session>| async move {
                    let answer = session.try_lock(&asked).await;
                    // A grant that comes so late is nobody's.
                    if matches!(answer, Ok(Some(_))) && Instant::now() >= give_up {
                        queue.withdraw_at_backend(&late, &asked).await;
                        return Err(Error::new(ErrorKind::TimedOut, "it was granted too late, and given back"));
                    }
                    answer
                };
                Box::pin(live.call_within(limit, what, trying)).await
            }
            Patience::Wait => self.wait_in(&live, &request, wanted, worry).await,
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
                let is_settled = was_not_done && (patience == Patience::Try || error.is_final());
                (error, is_settled)
            }
        };
        // Known before the withdrawal, which takes as long as the trouble does.
        if patience == Patience::Wait && error.kind() != ErrorKind::Lost {
            self.set_trouble(Some(error.clone().context(format!("acquire {}", self.key))));
        }
        if !is_settled {
            Box::pin(self.withdraw_at_backend(&live, &request)).await;
        }
        // A request may be what finds out that the session is over; nobody has lost anything that was asked for here. The next session
        // is made with pauses, where that is needed. A grant that was broken on its way is another's fault, but may come again at once.
        Err(match error.kind() {
            ErrorKind::Lost if live.check().is_some() => Stop::Again,
            ErrorKind::Lost => {
                let error = Error::new(ErrorKind::Unavailable, error.message());
                Stop::For(error.with_outcome(Outcome::NotApplied).in_driver(self.inner.driver.name()))
            }
            _ => Stop::For(error),
        })
    }

    /// Waits at the backend. What had gone wrong before is mended as soon as the request stands in the queue.
    async fn wait_in(
        &self,
        live: &LiveSession,
        request: &LockRequest,
        wanted: &Wanted,
        worry: &mut Option<Worry>,
    ) -> Result<Option<Granted>> {
        let mut seen = wanted.begin_attempt();
        let waiting = live.call(|session| session.lock(request, wanted));
        tokio::pin!(waiting);
        // Most locks are free, and cost no timer.
        if let Poll::Ready(answer) = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await {
            return answer;
        }
        Box::pin(self.wait_on(waiting, wanted, &mut seen, worry)).await
    }

    /// Goes on with a wait that the backend did not answer at once.
    async fn wait_on(
        &self,
        mut waiting: Pin<&mut impl Future<Output = Result<Option<Granted>>>>,
        wanted: &Wanted,
        seen: &mut u64,
        worry: &mut Option<Worry>,
    ) -> Result<Option<Granted>> {
        let too_long = tokio::time::sleep(self.inner.settings.operation_timeout);
        tokio::pin!(too_long);
        let mut has_said = false;
        loop {
            tokio::select! {
                biased;
                answer = &mut waiting => return answer,
                word = wanted.next_word(seen) => {
                    has_said = true;
                    match word {
                        Progress::Queued => {
                            worry.take();
                            self.set_trouble(None);
                        }
                        Progress::Trouble(error) => {
                            self.set_trouble(Some(error.clone().context(format!("acquire {}", self.key))));
                            self.worry(worry).about(&error);
                        }
                    }
                }
                // It may be queued all the same, or not: a driver that waits without a word is waited for, but not in silence.
                () = &mut too_long, if !has_said => {
                    has_said = true;
                    let late = "the backend has not said whether the request stands in the queue";
                    self.worry(worry).say(&Error::new(ErrorKind::TimedOut, late).with_outcome(Outcome::Unknown));
                }
            }
        }
    }

    fn worry<'a>(&self, worry: &'a mut Option<Worry>) -> &'a mut Worry {
        worry.get_or_insert_with(|| Worry::new(&self.inner, format!("acquire {}", self.key)))
    }

    /// Hands the result to whoever it is for now.
    fn complete(self: &Arc<Self>, number: u64, mode: LockMode, patience: Patience, result: Answer) {
        let (waiter, _garbage) = {
            let mut state = self.state();
            state.note_who_stood();
            let garbage = (state.in_flight.take(), state.trouble.take());
            let waiter = match &result {
                Ok(Some(grant)) => {
                    state.held.add(&grant.hold);
                    let waiter = state.take_head(|head| head.mode == mode);
                    // Whoever is behind stands in a line that has moved.
                    state.note_who_stood();
                    waiter
                }
                // One who tries is answered for the own try alone.
                _ if patience == Patience::Try => state.take(number),
                // One who waits and came after the withdrawal keeps the place: the next request is for them.
                Ok(None) => None,
                Err(_) => state.take_head(|head| head.mode == mode && head.patience == Patience::Wait),
            };
            (waiter, garbage)
        };
        self.hand_over(mode, waiter, result);
    }

    /// Answers the waiter. A grant that he does not take any more goes to the next in this mode at the head, or back.
    fn hand_over(self: &Arc<Self>, mode: LockMode, mut waiter: Option<Waiter>, mut answer: Answer) {
        while let Some(next) = waiter {
            // A waker that panics has woken nobody; the answer is there all the same.
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

    /// Takes the one at the head, if it is of that mode: a grant is there. What is in flight may be nobody's by that.
    fn next_in(&self, mode: LockMode) -> Option<Waiter> {
        let (waiter, untold) = {
            let mut state = self.state();
            (state.take_head(|head| head.mode == mode), state.update_wanted())
        };
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
        let (waiter, untold) = {
            let mut state = self.state();
            (state.take(number), state.update_wanted())
        };
        drop(waiter);
        tell(untold);
        self.pump();
    }

    /// Gives a grant back in the background.
    pub(crate) fn release_later(self: &Arc<Self>, hold: Arc<Hold>) {
        let queue = Arc::clone(self);
        self.inner.heart().spawn(async move {
            let _ = queue.release(hold).answer().await;
        });
    }

    /// Gives a grant back. What fails goes on in the background until the session ends.
    pub(crate) fn release(self: &Arc<Self>, hold: Arc<Hold>) -> Begun<Result<()>> {
        let name = self.inner.driver.name();
        if let Some(reason) = hold.check() {
            // What is being given back is in the way until the backend has it.
            if reason != LossReason::Released {
                self.gone(&hold);
            }
            if reason == LossReason::Broken {
                self.withdraw_the_broken(&hold);
            }
            let error = Error::new(
                if reason == LossReason::Closed { ErrorKind::Closed } else { ErrorKind::Lost },
                format!("release {}: {reason}; {UNTOUCHED}", self.key),
            );
            return Begun::Done(Err(error.in_driver(name)));
        }
        hold.lost.set(LossReason::Released);
        let queue = Arc::clone(self);
        let limit = self.inner.settings.operation_timeout;
        self.inner.heart().begin(async move {
            let live = Arc::clone(&hold.live);
            // Not the hold: a driver that never answers must not keep alive what the session believes to have.
            let (what, given_back) = (|| format!("release {}", queue.key), hold.claim());
            let released = live.call_patiently(limit, what, move |session| {
                let claim = Arc::clone(&given_back);
                async move {
                    match &claim.what {
                        Claimed::Lock(request) => session.release(request).await,
                        Claimed::Membership => Ok(()),
                    }
                }
            });
            match released.await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    queue.gone(&hold);
                    let taken = format!("release {}: {}; {}", queue.key, LossReason::Broken, UNTOUCHED);
                    Err(Error::new(ErrorKind::Lost, taken).with_source(error).in_driver(queue.inner.driver.name()))
                }
                Err(error) if live.check().is_none() => {
                    let trying = Arc::clone(&queue);
                    tokio::spawn(async move {
                        if let Claimed::Lock(request) = &hold.what {
                            trying.withdraw_at_backend(&live, request).await;
                        }
                        trying.gone(&hold);
                    });
                    Err(error.context(format!("release {} (it goes on in the background)", queue.key)))
                }
                result => {
                    queue.gone(&hold);
                    result
                }
            }
        })
    }

    /// A driver that took a grant for lost by mistake would leave it at the backend, for nobody, for as long as the session lives. By its
    /// request it can be given back without touching anybody else's.
    fn withdraw_the_broken(self: &Arc<Self>, hold: &Hold) {
        if let Claimed::Lock(request) = &hold.what
            && hold.live.check().is_none()
        {
            let (queue, live, request) = (Arc::clone(self), Arc::clone(&hold.live), request.clone());
            self.inner.heart().spawn(async move { queue.withdraw_at_backend(&live, &request).await });
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
        let (removed, is_empty) = {
            let mut state = self.state();
            (state.held.remove(hold), state.waiters.is_empty())
        };
        drop(removed);
        if !is_empty {
            self.pump();
        }
    }

    /// Takes a request back of which nobody knows whether it was done. One that stays unknown for too long ends the
    /// session, so that no lock is left that nobody holds. It is asked once more only after an error: an unanswered one is still on its way,
    /// and a second one would only lengthen the driver's queue.
    async fn withdraw_at_backend(&self, live: &Arc<LiveSession>, request: &LockRequest) {
        let clock = live.clock().clone();
        let patience = self.inner.patience_with(live);
        let give_up = clock.now() + patience;
        let mut pauses = Backoff::for_reconnects();
        while live.check().is_none() {
            let (what, request) = (|| format!("release {}", self.key), request.clone());
            // Each has the whole of it: one that is asked after errors may have to wait for its turn too.
            match live.call_within(patience, what, |session| async move { session.release(&request).await }).await {
                Ok(()) => return,
                Err(error) if error.kind() == ErrorKind::NotFound => return,
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

impl Drop for LocalQueue {
    fn drop(&mut self) {
        // A forked child does not touch the list, which may be locked by a thread that is not there.
        if !self.inner.is_forked() {
            self.registry.clear(&self.key);
        }
    }
}

fn tell(untold: Option<Untold>) {
    if let Some(untold) = untold {
        untold.tell();
    }
}

/// What is in the way of who waits.
enum Line {
    /// Somebody else has the lock.
    Moves,
    /// The backend was asked, and has not answered.
    Asks,
    /// It can't answer, and this is why.
    Stands(Error),
}

/// Why an attempt has not led to a grant.
enum Stop {
    /// There is no session, and this is why.
    NoSession(Error),
    /// The session was over: the next one is asked.
    Again,
    /// Something else, which is the answer for who tries, and may be for who waits.
    For(Error),
}

impl State {
    fn next_request(&mut self, refused: &mut Vec<Waiter>) -> Option<Errand> {
        if self.in_flight.is_some() {
            return None;
        }
        loop {
            let head = self.waiters.front()?;
            let (number, mode, patience) = (head.number, head.mode, head.patience);
            if self.held.admits(mode) {
                let (wish, wanted) = Wanted::channel();
                self.in_flight = Some(InFlight { number, mode, patience, wanted: wish });
                return Some(Errand { number, mode, patience, wanted });
            }
            // What is being given back will be free in a moment; what is held will not.
            if patience == Patience::Wait || self.held.is_coming_back(mode) {
                return None;
            }
            refused.extend(self.waiters.pop_front());
        }
    }

    fn take(&mut self, number: u64) -> Option<Waiter> {
        let index = self.waiters.iter().position(|waiter| waiter.number == number)?;
        self.waiters.remove(index)
    }

    fn take_head(&mut self, is_meant: impl FnOnce(&Waiter) -> bool) -> Option<Waiter> {
        self.waiters.front().is_some_and(is_meant).then(|| self.waiters.pop_front())?
    }

    /// A wait in flight is wanted as long as somebody at the head waits in its mode; a try, as long as the one who tries is there.
    fn update_wanted(&mut self) -> Option<Untold> {
        let in_flight = self.in_flight.as_ref()?;
        let wanted = match in_flight.patience {
            Patience::Try => self.waiters.iter().any(|waiter| waiter.number == in_flight.number),
            Patience::Wait => {
                self.waiters.front().is_some_and(|head| head.mode == in_flight.mode && head.patience == Patience::Wait)
            }
        };
        in_flight.wanted.set(wanted)
    }

    /// Whether whoever comes now stands in a line in which somebody has the lock, or has stood at the backend.
    fn line_moves(&self) -> bool {
        !self.held.is_empty() || self.in_flight.as_ref().is_some_and(|in_flight| in_flight.wanted.has_stood())
    }

    /// Whoever is in the line while it moves has stood.
    fn note_who_stood(&mut self) {
        if self.line_moves() {
            for waiter in &mut self.waiters {
                waiter.has_stood = true;
            }
        }
    }
}
