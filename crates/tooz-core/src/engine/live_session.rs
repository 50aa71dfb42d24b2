//! How long a session lives and how its end is known: one deadline judged by the clock, latched by whoever sees it first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::base::backoff::Backoff;
use crate::base::clock::{Clock, Moment};
use crate::base::contain::{caught, contained};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::RequestId;
use crate::base::latch::Latch;
use crate::base::loss_reason::LossReason;
use crate::base::mutex::{Mutex, MutexGuard};
use crate::driver::lock::LockRequest;
use crate::driver::reporter::{Hears, Reporter};
use crate::driver::roster::Capabilities;
use crate::driver::session::Session;
use crate::driver::terms::Terms;
use crate::engine::claim::{Claim, Claimed};
use crate::engine::heart::{Asked, within};
use crate::engine::trace;

/// The deadline while there is none to keep: not opened yet, or the kernel is the judge.
const NEVER: u64 = Moment::NEVER.as_nanos();
/// The deadline of what is lost for ever.
const LOST: u64 = 0;

/// Memberships as the backend has them: by which join, and with what capabilities.
pub(crate) type Found = BTreeMap<RequestId, Capabilities>;

/// One session and the state of its life. It never comes back from the dead: core connects a new one.
pub(crate) struct LiveSession {
    session: OnceLock<Arc<dyn Session>>,
    clock: OnceLock<Clock>,
    deadline: AtomicU64,
    expiry: AtomicU64,
    /// When the last heartbeat that counts was sent. Heartbeats of one session never overlap, so this has one writer.
    credited: AtomicU64,
    loss: Latch,
    /// Set when the session was ended at the backend too, or that was given up: from then on calls may be dropped.
    pub(crate) ended: Latch,
    claims: Mutex<BTreeMap<RequestId, Weak<Claim>>>,
    /// Counts the reconnects that the driver told of.
    pub(crate) reconnects: watch::Sender<u64>,
    /// What the backend had of this session's memberships after the last reconnect, if it may have forgotten some.
    pub(crate) found: watch::Sender<Arc<Found>>,
    connected: watch::Sender<bool>,
    /// Something was lost: whoever waits for a place should look again.
    pub(crate) stirred: Arc<Notify>,
    pid: u32,
    driver: &'static str,
}

impl LiveSession {
    pub(crate) fn new(driver: &'static str, stirred: Arc<Notify>) -> Arc<Self> {
        Arc::new(LiveSession {
            session: OnceLock::new(),
            clock: OnceLock::new(),
            deadline: AtomicU64::new(NEVER),
            expiry: AtomicU64::new(NEVER),
            credited: AtomicU64::new(0),
            loss: Latch::default(),
            ended: Latch::default(),
            claims: Mutex::default(),
            reconnects: watch::Sender::new(0),
            found: watch::Sender::default(),
            connected: watch::Sender::new(true),
            stirred,
            pid: std::process::id(),
            driver,
        })
    }

    pub(crate) fn attach(&self, session: Arc<dyn Session>) -> Result<()> {
        let _ = self.clock.set(caught(|| session.clock())?);
        let _ = self.session.set(session);
        Ok(())
    }

    /// Only a `LiveSession` with its session leaves the coordinator's connect.
    pub(crate) fn session(&self) -> &Arc<dyn Session> {
        self.session.get().expect("attached before it is shared")
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.clock.get().expect("attached before it is shared")
    }

    pub(crate) fn reporter(self: &Arc<Self>) -> Reporter {
        let hears: Weak<dyn Hears> = Arc::<Self>::downgrade(self);
        Reporter::to(hears)
    }

    /// The terms as of now. A driver that panics here has lost its session.
    pub(crate) fn terms(&self) -> Result<Terms> {
        self.caught_in_life(Session::terms)
    }

    /// Whether the driver sees that grant as standing, as far as it can see without waiting.
    pub(crate) fn still_holds(&self, request: &LockRequest) -> bool {
        self.caught_in_life(|session| session.holds(request)).unwrap_or(false)
    }

    #[cfg(unix)]
    pub(crate) fn descriptors(&self) -> Result<Vec<std::os::fd::OwnedFd>> {
        self.caught_in_life(Session::descriptors)
    }

    fn caught_in_life<T>(&self, deed: impl FnOnce(&dyn Session) -> T) -> Result<T> {
        caught(|| deed(&**self.session())).map_err(|panic| {
            self.lose(LossReason::DriverPanicked);
            panic.in_driver(self.driver)
        })
    }

    /// Why it is lost, judged now. Whoever finds the deadline passed latches that.
    pub(crate) fn check(&self) -> Option<LossReason> {
        let deadline = self.deadline.load(Ordering::Acquire);
        if deadline == LOST {
            return Some(self.loss.get().unwrap_or(LossReason::Expired));
        }
        if deadline != NEVER && self.clock().now().as_nanos() >= deadline {
            self.lose(LossReason::Expired);
            return Some(LossReason::Expired);
        }
        None
    }

    /// Whether it is lost, judged now, without latching that: for who has a lock, since the latch wakes those who wait for the loss.
    pub(crate) fn is_over(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Acquire);
        deadline == LOST || (deadline != NEVER && self.clock().now().as_nanos() >= deadline)
    }

    /// False in a forked child: what the parent holds is the parent's. Asked once at every entry, since it is a system call.
    pub(crate) fn is_ours(&self) -> bool {
        self.pid == std::process::id()
    }

    pub(crate) fn lose(&self, reason: LossReason) {
        // The deadline goes first: who is told of the loss must find `is_held()` false already.
        self.deadline.store(LOST, Ordering::Release);
        if self.loss.set(reason) {
            self.stirred.notify_one();
        }
    }

    pub(crate) async fn lost(&self) -> LossReason {
        self.loss.wait().await
    }

    /// Credits a heartbeat to the moment at which it was sent. False: it came too late, the session stays lost.
    ///
    /// An older heartbeat never moves the deadline back. A newer one does where the backend has shortened the timeout: from then on the
    /// shorter one is what it keeps.
    pub(crate) fn credit(&self, sent: Moment, timeout: Duration, margin: Duration) -> bool {
        let expiry = sent + timeout;
        let new = expiry.before(margin).as_nanos().max(LOST + 1);
        loop {
            let current = self.deadline.load(Ordering::Acquire);
            if self.check().is_some() {
                return false;
            }
            if sent.as_nanos() < self.credited.load(Ordering::Acquire) {
                return true;
            }
            if self.deadline.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                self.credited.store(sent.as_nanos(), Ordering::Release);
                self.expiry.store(expiry.as_nanos(), Ordering::Release);
                return self.check().is_none();
            }
        }
    }

    pub(crate) fn deadline(&self) -> Moment {
        Moment::from_nanos(self.deadline.load(Ordering::Acquire))
    }

    /// To the deadline; `None`: there is none. Zero once it is lost.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let deadline = self.deadline();
        (deadline != Moment::NEVER).then(|| deadline.since(self.clock().now()))
    }

    /// To the moment at which the backend may grant to others. A backend that has ended the session may already.
    pub(crate) fn expires_in(&self) -> Option<Duration> {
        if self.loss.get().is_some_and(|reason| reason != LossReason::Expired) {
            return Some(Duration::ZERO);
        }
        let expiry = Moment::from_nanos(self.expiry.load(Ordering::Acquire));
        (expiry != Moment::NEVER).then(|| expiry.since(self.clock().now()))
    }

    /// Asks the driver. Its future is dropped half-way only when the session has ended at the backend. Whatever a driver was asked,
    /// `Lost` is its word for the end of the session; its panic is an error like others.
    pub(crate) async fn call<'a, T, F>(&'a self, ask: impl FnOnce(&'a Arc<dyn Session>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        tokio::select! {
            biased;
            result = contained(async { ask(self.session()).await }) => result.map_err(|error| {
                if error.kind() == ErrorKind::Lost {
                    self.lose(LossReason::SessionEnded);
                }
                error.not_of_core().in_driver(self.driver)
            }),
            reason = self.ended.wait() => Err(self.error_of(reason)),
        }
    }

    /// The same for what is asked in the background: a driver that never answers must not keep for ever who might as well ask again. What
    /// was asked is not dropped by that; it ends when it ends.
    pub(crate) fn call_within<T, F>(
        self: &Arc<Self>,
        limit: Duration,
        what: impl FnOnce() -> String,
        ask: impl FnOnce(Arc<dyn Session>) -> F + Send + 'static,
    ) -> impl Future<Output = Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (live, driver) = (Arc::clone(self), self.driver);
        // On the heap before anything holds it: each layer above would hold it once more.
        let asked: Asked<T> = Box::pin(async move { live.call(|session| ask(Arc::clone(session))).await });
        async move { within(limit, what, asked).await.map_err(|error| error.in_driver(driver)) }
    }

    /// The same again and again, with pauses, while what fails may be mended by waiting: a connection that is being made anew
    /// should not fail whoever asks just then. Whatever is asked must bear being done twice. In all it takes at most `limit`.
    pub(crate) async fn call_patiently<T, F>(
        self: &Arc<Self>,
        limit: Duration,
        what: impl Fn() -> String,
        ask: impl Fn(Arc<dyn Session>) -> F + Clone + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        // The last error tells more than "no answer in time", so it comes before that.
        let (begin, give_up) = (self.clock().now(), limit / 2);
        let (mut past, mut pauses) = (Duration::ZERO, None);
        loop {
            match self.call_within(limit.saturating_sub(past), &what, ask.clone()).await {
                Err(error) if error.is_retryable() && self.check().is_none() && past < give_up => {
                    let pauses = pauses.get_or_insert_with(Backoff::for_reconnects);
                    Box::pin(async {
                        tokio::select! {
                            () = pauses.pause() => {}
                            _ = self.lost() => {}
                        }
                    })
                    .await;
                    past = self.clock().now().since(begin);
                }
                result => return result,
            }
        }
    }

    pub(crate) fn error_of(&self, reason: LossReason) -> Error {
        let kind = if reason == LossReason::Closed { ErrorKind::Closed } else { ErrorKind::Lost };
        Error::new(kind, reason.to_string()).in_driver(self.driver)
    }

    /// Begins to answer for what is asked by that request.
    pub(crate) fn claim(&self, id: RequestId, what: Claimed) -> Arc<Claim> {
        let claim = Arc::new(Claim { id, what, lost: Latch::default() });
        self.claims().insert(id, Arc::downgrade(&claim));
        claim
    }

    /// Called by the drop of a hold, which a forked child does too: there the lock may be held by a thread that is not there.
    pub(crate) fn forget(&self, id: RequestId) {
        let mut claims = match self.claims.try_lock() {
            Some(claims) => claims,
            None if self.is_ours() => self.claims(),
            None => return,
        };
        claims.remove(&id);
    }

    pub(crate) fn knows(&self, id: RequestId) -> bool {
        self.claims().contains_key(&id)
    }

    /// Whether that request is known, and not over.
    pub(crate) fn stands(&self, id: RequestId) -> bool {
        self.held(id).is_some_and(|claim| claim.lost.get().is_none())
    }

    fn held(&self, id: RequestId) -> Option<Arc<Claim>> {
        self.claims().get(&id).and_then(Weak::upgrade)
    }

    /// One grant of this session is lost, the session itself is not.
    pub(crate) fn lose_one(&self, id: RequestId, reason: LossReason) {
        if let Some(claim) = self.held(id)
            && claim.lost.set(reason)
        {
            trace::lost_one(self.driver, &claim.what, reason);
            self.stirred.notify_one();
        }
    }

    pub(crate) fn margin_of(terms: &Terms, timeout: Duration) -> Duration {
        terms.margin.max(timeout / 10)
    }

    pub(crate) fn watch_connection(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<RequestId, Weak<Claim>>> {
        self.claims.lock()
    }
}

/// What a driver tells between the calls.
impl Hears for LiveSession {
    fn session_lost(&self, why: String) {
        self.lose(LossReason::SessionEnded);
        trace::session_ended(self.driver, why);
    }

    fn grant_lost(&self, request: RequestId) {
        self.lose_one(request, LossReason::Broken);
    }

    fn membership_lost(&self, join: RequestId) {
        self.lose_one(join, LossReason::TakenOver);
    }

    fn connected(&self) {
        self.reconnects.send_modify(|count| *count += 1);
        self.connected.send_replace(true);
    }

    fn disconnected(&self) {
        self.connected.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::Fake;
    use crate::engine::hold::Hold;
    use crate::handles::loss::Loss;

    const TIMEOUT: Duration = Duration::from_secs(10);
    const MARGIN: Duration = Duration::from_secs(1);

    #[test]
    fn a_beat_that_comes_too_late_brings_nothing_back() {
        let (live, clock) = Fake::live(TIMEOUT);
        let opened = clock.now();
        assert!(live.credit(opened, TIMEOUT, MARGIN));
        let sent = clock.now();
        // The reply is swallowed until the deadline has passed; nobody has looked in between.
        clock.advance(TIMEOUT);
        assert!(!live.credit(sent, TIMEOUT, MARGIN));
        assert_eq!(live.check(), Some(LossReason::Expired));
        assert!(!live.credit(clock.now(), TIMEOUT, MARGIN), "not even a fresh one");
    }

    #[test]
    fn the_deadline_counts_from_the_sending_and_never_moves_back() {
        let (live, clock) = Fake::live(TIMEOUT);
        let early = clock.now();
        clock.advance(Duration::from_secs(3));
        let late = clock.now();
        assert!(live.credit(late, TIMEOUT, MARGIN));
        let deadline = live.deadline();
        assert_eq!(deadline, (late + TIMEOUT).before(MARGIN));
        assert!(live.credit(early, TIMEOUT, MARGIN));
        assert_eq!(live.deadline(), deadline);
        assert!(live.expires_in() > live.remaining());
    }

    #[test]
    fn a_timeout_that_shrinks_pulls_the_deadline_in() {
        let (live, clock) = Fake::live(TIMEOUT);
        assert!(live.credit(clock.now(), TIMEOUT, MARGIN));
        clock.advance(Duration::from_secs(3));
        let sent = clock.now();
        assert!(live.credit(sent, TIMEOUT / 5, MARGIN));
        assert_eq!(live.deadline(), (sent + TIMEOUT / 5).before(MARGIN));
        clock.advance(TIMEOUT / 5);
        assert_eq!(live.check(), Some(LossReason::Expired));
    }

    #[test]
    fn what_the_backend_has_ended_expires_at_once() {
        let (live, clock) = Fake::live(TIMEOUT);
        assert!(live.credit(clock.now(), TIMEOUT, MARGIN));
        live.reporter().session_lost("the server said so");
        assert_eq!(live.expires_in(), Some(Duration::ZERO));
        let (live, clock) = Fake::live(TIMEOUT);
        assert!(live.credit(clock.now(), TIMEOUT, MARGIN));
        clock.advance(Duration::from_secs(9));
        assert_eq!(live.check(), Some(LossReason::Expired));
        assert!(live.expires_in() > Some(Duration::ZERO), "the margin is left");
    }

    #[test]
    fn the_last_hold_of_a_membership_may_go_while_it_is_asked_for() {
        let (live, _clock) = Fake::live(TIMEOUT);
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|scope| {
            let asking = (Arc::clone(&live), Arc::clone(&done));
            scope.spawn(move || {
                while !asking.1.load(Ordering::Relaxed) {
                    asking.0.stands(RequestId(1));
                }
            });
            for _ in 0..20_000 {
                drop(Hold::new(&live, RequestId(1), Claimed::Membership));
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn one_lost_grant_is_not_the_others_loss() {
        let (live, _clock) = Fake::live(TIMEOUT);
        let (one, other) =
            (Hold::new(&live, RequestId(1), Claimed::Membership), Hold::new(&live, RequestId(2), Claimed::Membership));
        live.reporter().grant_lost(RequestId(1));
        assert_eq!(one.judge(), Some(LossReason::Broken));
        assert_eq!(other.judge(), None);
        drop(other);
        assert!(!live.knows(RequestId(2)), "what is dropped is forgotten");
    }

    #[tokio::test]
    async fn who_is_told_of_a_loss_finds_it_lost() {
        let (live, _clock) = Fake::live(TIMEOUT);
        let hold = Hold::new(&live, RequestId(1), Claimed::Membership);
        let loss = Loss::of(&hold);
        let waiting = tokio::spawn(async move { (loss.wait().await, loss.is_lost()) });
        tokio::task::yield_now().await;
        live.reporter().session_lost("the server said so");
        assert_eq!(waiting.await.unwrap(), (LossReason::SessionEnded, true));
    }

    #[tokio::test]
    async fn a_guarded_future_is_not_polled_past_the_deadline() {
        let (live, clock) = Fake::live(TIMEOUT);
        assert!(live.credit(clock.now(), TIMEOUT, MARGIN));
        let hold = Hold::new(&live, RequestId(1), Claimed::Membership);
        assert_eq!(Loss::of(&hold).guard(async { 7 }).await, Ok(7));
        clock.advance(TIMEOUT);
        let polled = std::cell::Cell::new(false);
        assert_eq!(Loss::of(&hold).guard(async { polled.set(true) }).await, Err(LossReason::Expired));
        assert!(!polled.get());
    }
}
