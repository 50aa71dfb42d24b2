//! One session and the state of its life: the one door to its driver, and what it is believed to hold.

use std::collections::BTreeMap;
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
use crate::engine::claim::{Claim, ClaimSubject};
use crate::engine::deadline::{Deadline, Judgement};
use crate::engine::heart::{RequestFuture, within, within_while};
use crate::engine::patience::{Patience, ReturnCounter};
use crate::engine::telemetry::Telemetry;

/// Memberships as the backend has them: by which join, and with what capabilities.
pub(crate) type BackendMemberships = BTreeMap<RequestId, Capabilities>;

/// One session and the state of its life. It never comes back from the dead: core connects a new one.
pub(crate) struct LiveSession {
    session: OnceLock<Arc<dyn Session>>,
    clock: OnceLock<Clock>,
    deadline: Deadline,
    /// Set when the session was ended at the backend too, or that was given up: from then on calls may be dropped.
    pub(crate) ended: Latch,
    claims: Mutex<BTreeMap<RequestId, Weak<Claim>>>,
    /// Counts the reconnects that the driver told of.
    pub(crate) reconnects: watch::Sender<u64>,
    /// What the backend had of this session's memberships after the last reconnect, if it may have forgotten some.
    pub(crate) found: watch::Sender<Arc<BackendMemberships>>,
    /// By what the connection went; none while there is one.
    outage: watch::Sender<Option<Error>>,
    /// What the driver can't keep up beside the session just now.
    trouble: watch::Sender<Option<Error>>,
    progress: ReturnCounter,
    /// Something was lost: a task that waits for a place should look again.
    pub(crate) stirred: Arc<Notify>,
    pid: u32,
    driver: &'static str,
    telemetry: Arc<Telemetry>,
}

impl LiveSession {
    pub(crate) fn new(telemetry: Arc<Telemetry>, stirred: Arc<Notify>) -> Arc<Self> {
        Arc::new(LiveSession {
            session: OnceLock::new(),
            clock: OnceLock::new(),
            deadline: Deadline::default(),
            ended: Latch::default(),
            claims: Mutex::default(),
            reconnects: watch::Sender::new(0),
            found: watch::Sender::default(),
            outage: watch::Sender::default(),
            trouble: watch::Sender::default(),
            progress: ReturnCounter::default(),
            stirred,
            pid: std::process::id(),
            driver: telemetry.driver(),
            telemetry,
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

    /// Why it is lost, judged now. A deadline that is found passed is latched.
    pub(crate) fn check(&self) -> Option<LossReason> {
        match self.judge() {
            Judgement::Lives => None,
            Judgement::Lost(reason) => Some(reason),
            Judgement::Passed => {
                self.lose(LossReason::Expired);
                Some(LossReason::Expired)
            }
        }
    }

    /// Whether it is lost, judged now, without latching that: for a caller that has a lock, since the latch wakes those that wait for the loss.
    pub(crate) fn is_over(&self) -> bool {
        self.judge() != Judgement::Lives
    }

    fn judge(&self) -> Judgement {
        self.deadline.judge(|| self.clock().now())
    }

    /// False in a forked child: what the parent holds is the parent's. Asked once at every entry, since it is a system call.
    pub(crate) fn is_ours(&self) -> bool {
        self.pid == std::process::id()
    }

    pub(crate) fn lose(&self, reason: LossReason) {
        if self.deadline.lose(reason) {
            self.stirred.notify_one();
        }
    }

    pub(crate) async fn lost(&self) -> LossReason {
        self.deadline.loss.wait().await
    }

    /// Credits a heartbeat to the moment at which it was sent. False: it came too late, the session stays lost.
    pub(crate) fn credit(&self, sent: Moment, timeout: Duration, margin: Duration) -> bool {
        let counts = self.deadline.credit(sent, timeout, margin, || self.clock().now());
        // Judged once more: what it brings may be over by now.
        self.check().is_none() && counts
    }

    pub(crate) fn deadline(&self) -> Moment {
        self.deadline.get()
    }

    /// To the deadline; `None`: there is none. Zero once it is lost.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let deadline = self.deadline();
        (deadline != Moment::NEVER).then(|| deadline.since(self.clock().now()))
    }

    /// To the moment at which the backend may grant to others. A backend that has ended the session may already.
    pub(crate) fn expires_in(&self) -> Option<Duration> {
        if self.deadline.loss.get().is_some_and(|reason| reason != LossReason::Expired) {
            return Some(Duration::ZERO);
        }
        let expiry = self.deadline.expiry();
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

    /// Asks the driver like [`call`](Self::call), but waits at most `limit`, so that a driver that never answers holds up no task for ever.
    /// The driver's future is not dropped at the limit; it runs to its end.
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
        let asked: RequestFuture<T> = Box::pin(async move { live.call(|session| ask(Arc::clone(session))).await });
        async move { within(limit, what, asked).await.map_err(|error| error.in_driver(driver)) }
    }

    /// The patience with something that is taken back from now on; `each` is how long nothing of this session may get done.
    pub(crate) fn patience(&self, each: Duration) -> Patience<'_> {
        Patience::new(self.clock(), &self.progress, each)
    }

    /// Asks like [`call_within`](Self::call_within) for something that is to be taken back, and waits for as long as `patience` lasts: it may have
    /// thousands of requests before it.
    pub(crate) async fn call_in_turn<F>(
        self: &Arc<Self>,
        patience: &mut Patience<'_>,
        what: impl FnOnce() -> String,
        ask: impl FnOnce(Arc<dyn Session>) -> F + Send + 'static,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let live = Arc::clone(self);
        let asked: RequestFuture<()> =
            Box::pin(async move { live.call(|session| live.counted(ask(Arc::clone(session)))).await });
        within_while(patience, what, asked).await.map_err(|error| error.in_driver(self.driver))
    }

    /// What is done counts as progress, also when its asker does not wait any more.
    async fn counted<T>(&self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = asked.await;
        if answer.is_ok() {
            self.progress.made();
        }
        answer
    }

    /// Asks like [`call_within`](Self::call_within), and repeats, with pauses, a question that failed for a reason that may pass: a connection
    /// that is being made anew should not fail a caller that asks just then. The request must bear being done twice. In all it takes at most
    /// `limit`.
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
        let (begin, give_up) = (self.clock().now(), limit / 2);
        let (mut past, mut pauses, mut before) = (Duration::ZERO, None, None::<Error>);
        loop {
            let (live, ask) = (Arc::clone(self), ask.clone());
            let counted = |session| async move { live.counted(ask(session)).await };
            let error = match self.call_within(limit.saturating_sub(past), &what, counted).await {
                Err(error) => error,
                answer => return answer,
            };
            if !error.is_retryable() || self.check().is_some() || past >= give_up {
                return Err(telling(error, before));
            }
            let pauses = pauses.get_or_insert_with(Backoff::for_reconnects);
            Box::pin(async {
                tokio::select! {
                    () = pauses.pause() => {}
                    _ = self.lost() => {}
                }
            })
            .await;
            past = self.clock().now().since(begin);
            if past >= limit {
                return Err(telling(error, before));
            }
            before = Some(error);
        }
    }

    pub(crate) fn error_of(&self, reason: LossReason) -> Error {
        let kind = if reason == LossReason::Closed { ErrorKind::Closed } else { ErrorKind::Lost };
        Error::new(kind, reason.to_string()).in_driver(self.driver)
    }

    /// Begins to answer for what is asked by that request.
    pub(crate) fn claim(&self, id: RequestId, what: ClaimSubject) -> Arc<Claim> {
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
            self.telemetry.lost_one(&claim.what, reason);
            self.stirred.notify_one();
        }
    }

    /// Tells operators that the session was lost, with all that it still held.
    pub(crate) fn tell_of_loss(&self, reason: LossReason) {
        let claims: Vec<_> = self.claims().values().filter_map(Weak::upgrade).collect();
        let held = claims.iter().filter(|claim| claim.lost.get().is_none());
        self.telemetry.session_lost(held.map(|claim| &claim.what), reason);
    }

    pub(crate) fn margin_of(terms: &Terms, timeout: Duration) -> Duration {
        terms.margin.max(timeout / 10)
    }

    pub(crate) fn watch_outage(&self) -> watch::Receiver<Option<Error>> {
        self.outage.subscribe()
    }

    pub(crate) fn watch_trouble(&self) -> watch::Receiver<Option<Error>> {
        self.trouble.subscribe()
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<RequestId, Weak<Claim>>> {
        self.claims.lock()
    }
}

/// The error that tells more: what was left of a time limit says nothing, what the attempt before has met does. The outcome is that of the last.
fn telling(last: Error, before: Option<Error>) -> Error {
    match before {
        Some(before) if last.kind() == ErrorKind::TimedOut => before.with_outcome(last.outcome()),
        _ => last,
    }
}

/// What a driver tells between the calls.
impl Hears for LiveSession {
    fn session_lost(&self, why: String) {
        self.lose(LossReason::SessionEnded);
        self.telemetry.session_ended(why);
    }

    fn grant_lost(&self, request: RequestId) {
        self.lose_one(request, LossReason::Broken);
    }

    fn membership_lost(&self, join: RequestId) {
        self.lose_one(join, LossReason::TakenOver);
    }

    fn connected(&self) {
        self.reconnects.send_modify(|count| *count += 1);
        self.outage.send_replace(None);
    }

    fn disconnected(&self, why: Error) {
        self.outage.send_replace(Some(why));
    }

    fn troubled(&self, trouble: Option<Error>) {
        self.trouble.send_if_modified(|before| {
            let is_new = *before != trouble;
            if is_new {
                *before = trouble;
            }
            is_new
        });
    }
}

#[cfg(test)]
mod tests;
