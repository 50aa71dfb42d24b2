//! The coordinator: the user's handle of one member, and what all its handles share.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::connect::Settings;
use crate::driver::Driver;
use crate::events::{SessionEvent, SessionEvents, SessionState};
use crate::group::Group;
use crate::heart::{self, Heart};
use crate::life::Live;
use crate::lock::{Desk, Lock};
use crate::mailbox::{Feeder, mailbox};
use crate::options::{BackendUrl, Options};
use crate::session::{LockKey, Session, Terms};
use crate::supervisor::{Phase, Supervisor};
use crate::{Characteristics, Error, ErrorKind, GroupId, LockName, MemberId, RequestId, Result};

/// One member's access to a backend. A cheap clone: all clones share one session.
///
/// Dropping the last clone, lock, group, guard and watch of it ends the session in the background. A process that returns
/// from `main` right after that is gone before it happened: on backends with timeouts its locks then stay until the
/// timeout. End with [`close`](Self::close), or release what you hold.
#[derive(Clone)]
pub struct Coordinator {
    pub(crate) handle: Arc<Handle>,
}

/// Counts the user's handles: when the last goes, the coordinator closes by itself.
pub(crate) struct Handle(pub(crate) Arc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.begin_close();
    }
}

pub(crate) struct Inner {
    pub(crate) driver: &'static Driver,
    pub(crate) url: BackendUrl,
    pub(crate) options: Options,
    pub(crate) member: MemberId,
    pub(crate) settings: Settings,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) suspended: AtomicBool,
    pub(crate) want_connection: Notify,
    pub(crate) want_session: Notify,
    pub(crate) stirred: Arc<Notify>,
    pub(crate) closing: watch::Sender<bool>,
    /// How the closing went, once it is over.
    pub(crate) closed: watch::Sender<Option<Result<(), (ErrorKind, String)>>>,
    /// When a task on the user's runtime ran last, where that is watched.
    pub(crate) last_run: OnceLock<Arc<AtomicU64>>,
    heart: OnceLock<Heart>,
    desks: Mutex<HashMap<LockKey, Weak<Desk>>>,
    listeners: Mutex<Vec<Feeder<SessionEvent>>>,
    nonce: u64,
    requests: AtomicU64,
}

/// For what a session is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To read, or to change what belongs to nobody: a connection is enough.
    Look,
    /// To own something: the session must be open.
    Own,
}

/// How a session is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// One fresh attempt that fails is an answer.
    OneAttempt,
    /// Until it works, or can't ever.
    UntilItWorks,
}

impl Inner {
    /// Only a coordinator with its heart leaves `start`.
    pub(crate) fn heart(&self) -> &Heart {
        self.heart.get().expect("started before it is shared")
    }

    pub(crate) fn request_id(&self) -> RequestId {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        RequestId(u128::from(self.nonce) << 64 | u128::from(count))
    }

    /// A living session. Runs on the heart, or at least can be polled by anybody.
    pub(crate) async fn session(&self, purpose: Purpose, persistence: Persistence) -> Result<Arc<Live>> {
        if let Some(live) = self.phase.borrow().usable(purpose) {
            return Ok(live);
        }
        let mut phases = self.phase.subscribe();
        let mut seen = self.phase.borrow().attempt();
        loop {
            {
                let phase = phases.borrow_and_update();
                if let Some(live) = phase.usable(purpose) {
                    return Ok(live);
                }
                match &*phase {
                    Phase::Closed => return Err(heart::gone().in_driver(self.driver.name())),
                    Phase::Down { attempt, error: Some(error) } if *attempt > seen => {
                        if persistence == Persistence::OneAttempt || is_final(error) {
                            return Err(error.duplicate());
                        }
                        seen = *attempt;
                    }
                    _ => {}
                }
            }
            match purpose {
                Purpose::Look => self.want_connection.notify_one(),
                Purpose::Own => self.want_session.notify_one(),
            }
            if phases.changed().await.is_err() {
                return Err(heart::gone());
            }
        }
    }

    /// Asks the session something that takes one request, bounded by the operation timeout.
    pub(crate) async fn ask<T, F>(
        self: &Arc<Self>,
        purpose: Purpose,
        what: impl FnOnce() -> String + Send + 'static,
        question: impl FnOnce(Arc<dyn Session>) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let inner = Arc::clone(self);
        let name = self.driver.name();
        if self.is_forked() {
            return Err(heart::gone().in_driver(name));
        }
        let what = Arc::new(OnceWord(Mutex::new(Some(what))));
        let for_error = Arc::clone(&what);
        let limit = self.settings.operation_timeout;
        self.heart()
            .begin(async move {
                let asked = async move {
                    let live = inner.session(purpose, Persistence::OneAttempt).await?;
                    let session = Arc::clone(live.session());
                    live.call(question(session)).await
                };
                heart::within(limit, move || for_error.word(), asked).await
            })
            .answer()
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::TimedOut | ErrorKind::Closed => error.in_driver(name),
                _ => error.in_driver(name).context(what.word()),
            })
    }

    pub(crate) fn desk(self: &Arc<Self>, key: LockKey) -> Arc<Desk> {
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(desk) = desks.get(&key).and_then(Weak::upgrade) {
            return desk;
        }
        let desk = Arc::new(Desk::new(key.clone(), Arc::clone(self)));
        desks.insert(key, Arc::downgrade(&desk));
        desk
    }

    /// Takes a desk that has gone out of the list.
    pub(crate) fn clear_desk(&self, key: &LockKey) {
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        if desks.get(key).is_some_and(|desk| desk.strong_count() == 0) {
            desks.remove(key);
        }
    }

    /// Lets every local queue look whether something that was in the way is lost.
    pub(crate) fn stir_desks(&self) {
        for desk in self.all_desks() {
            desk.pump();
        }
    }

    /// Tells everybody who waits that there is nothing to wait for any more.
    pub(crate) fn refuse_all(&self) {
        for desk in self.all_desks() {
            desk.refuse_all();
        }
    }

    fn all_desks(&self) -> Vec<Arc<Desk>> {
        let desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        desks.values().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn tell(&self, event: SessionEvent) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| !listener.is_closed());
        for listener in listeners.iter() {
            listener.push(event);
        }
    }

    /// Ends all event streams.
    pub(crate) fn hush(&self) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn is_forked(&self) -> bool {
        self.heart.get().is_none_or(Heart::is_forked)
    }

    fn begin_close(&self) {
        // A forked child has no heart and must not touch what its parent owns.
        if !self.is_forked() {
            self.closing.send_replace(true);
        }
    }
}

/// A text that is made only when somebody reads it, and kept then.
struct OnceWord<F>(Mutex<Option<F>>);

impl<F: FnOnce() -> String> OnceWord<F> {
    fn word(&self) -> String {
        let make = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        make.map_or_else(String::new, |make| make())
    }
}

/// What no waiting mends.
pub(crate) fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Config | ErrorKind::Unauthorized | ErrorKind::Unsupported | ErrorKind::Closed)
}

impl Coordinator {
    pub(crate) async fn start(
        driver: &'static Driver,
        url: BackendUrl,
        options: Options,
        member: MemberId,
        settings: Settings,
        require: Characteristics,
    ) -> Result<Self> {
        let nonce = getrandom::u64().map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the system gives no random numbers").with_source(error)
        })?;
        let inner = Arc::new(Inner {
            driver,
            url,
            options,
            member,
            settings,
            phase: watch::Sender::new(Phase::Down { attempt: 0, error: None }),
            suspended: AtomicBool::new(false),
            want_connection: Notify::new(),
            want_session: Notify::new(),
            stirred: Arc::new(Notify::new()),
            closing: watch::Sender::new(false),
            closed: watch::Sender::new(None),
            last_run: OnceLock::new(),
            heart: OnceLock::new(),
            desks: Mutex::default(),
            listeners: Mutex::default(),
            nonce,
            requests: AtomicU64::new(0),
        });
        let supervisor = Supervisor::new(Arc::clone(&inner));
        let heart = Heart::start(supervisor.run())?;
        let _ = inner.heart.set(heart);
        let coordinator = Coordinator { handle: Arc::new(Handle(Arc::clone(&inner))) };
        if inner.settings.stall_timeout.is_some() {
            inner.watch_for_stalls()?;
        }
        // From here on a dropped future drops the handle, which ends the heart again.
        let first = Arc::clone(&inner);
        let limit = inner.settings.connect_timeout;
        let live = inner
            .heart()
            .begin(async move {
                let connected = async move { first.session(Purpose::Look, Persistence::OneAttempt).await };
                heart::within(limit, || "connect".to_owned(), connected).await
            })
            .answer()
            .await
            .map_err(|error| error.in_driver(driver.name()))?;
        let missing = live.session().terms().characteristics.missing(require);
        if !missing.is_empty() {
            return Err(Error::config(format!(
                "this backend lacks what is required: {missing}; `tooz drivers` lists which backends have it"
            ))
            .in_driver(driver.name()));
        }
        Ok(coordinator)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.handle.0
    }

    /// A lock by its name. Costs nothing and asks nobody.
    pub fn lock<N>(&self, name: N) -> Result<Lock>
    where
        N: TryInto<LockName>,
        Error: From<N::Error>,
    {
        Ok(Lock::new(Arc::clone(&self.handle), name.try_into()?))
    }

    /// A group by its name. Costs nothing and asks nobody; the group need not exist.
    pub fn group<N>(&self, name: N) -> Result<Group>
    where
        N: TryInto<GroupId>,
        Error: From<N::Error>,
    {
        Ok(Group::new(Arc::clone(&self.handle), name.try_into()?))
    }

    /// The groups of the namespace, sorted by name.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn groups(&self) -> Result<Vec<GroupId>> {
        let mut groups = self
            .inner()
            .ask(Purpose::Look, || "list the groups".to_owned(), |session| async move { session.groups().await })
            .await?;
        groups.sort();
        Ok(groups)
    }

    /// What this very session can do and promises; before the first connection, what the driver can do at best.
    pub fn characteristics(&self) -> Characteristics {
        match self.inner().phase.borrow().live() {
            Some(live) => live.session().terms().characteristics,
            None => self.driver().most_characteristics(),
        }
    }

    /// What the open session and the backend agreed upon; `None` while no session is open.
    pub fn terms(&self) -> Option<Terms> {
        let live = self.inner().phase.borrow().usable(Purpose::Own)?;
        Some(live.session().terms())
    }

    /// The session timeout as it was asked for; what the backend made of it is in [`terms`](Self::terms).
    pub fn session_timeout(&self) -> Duration {
        self.inner().settings.session_timeout
    }

    /// The driver behind it.
    pub fn driver(&self) -> &'static Driver {
        self.inner().driver
    }

    /// Who this is.
    pub fn member(&self) -> &MemberId {
        &self.inner().member
    }

    /// How the session is now.
    pub fn state(&self) -> SessionState {
        let phase = self.inner().phase.borrow();
        match &*phase {
            Phase::Closed => SessionState::Closed,
            Phase::Down { attempt: 0, .. } | Phase::Connected(_) => SessionState::Idle,
            Phase::Down { .. } => SessionState::Lost,
            Phase::Open(live) if live.check().is_some() => SessionState::Lost,
            Phase::Open(_) if self.inner().suspended.load(Ordering::Relaxed) => SessionState::Suspended,
            Phase::Open(_) => SessionState::Open,
        }
    }

    /// What happens to the session from now on.
    pub fn events(&self) -> SessionEvents {
        let (feeder, reader) = mailbox();
        if self.state() != SessionState::Closed {
            self.inner().listeners.lock().unwrap_or_else(PoisonError::into_inner).push(feeder);
        }
        SessionEvents::new(reader)
    }

    /// Duplicates of the descriptors by which the kernel keeps what this coordinator holds; see
    /// [`Session::descriptors`](crate::Session::descriptors). For a guard process that must outlive this one.
    #[cfg(unix)]
    pub fn descriptors(&self) -> Vec<std::os::fd::OwnedFd> {
        let live = self.inner().phase.borrow().usable(Purpose::Own);
        live.map(|live| live.session().descriptors()).unwrap_or_default()
    }

    /// Releases, leaves and ends the session, for all clones, in at most the operation timeout, also when the server is dead:
    /// then it answers `TimedOut` or `Unavailable`, and what was held stays at the server until the session timeout.
    /// Afterwards every call answers `Closed`, every grant is lost, and the heart's thread has ended.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn close(&self) -> Result<()> {
        let inner = self.inner();
        if inner.is_forked() {
            return Err(heart::gone().in_driver(inner.driver.name()));
        }
        inner.begin_close();
        let mut closed = inner.closed.subscribe();
        let result = closed.wait_for(Option::is_some).await.map(|result| result.clone()).ok().flatten();
        inner.heart().join();
        self.closed_result(result)
    }

    /// [`close`](Self::close) for code without an executor. Blocks for at most the operation timeout.
    pub fn close_blocking(&self) -> Result<()> {
        let inner = self.inner();
        if inner.is_forked() {
            return Err(heart::gone().in_driver(inner.driver.name()));
        }
        inner.begin_close();
        inner.heart().join();
        let result = inner.closed.borrow().clone();
        self.closed_result(result)
    }

    fn closed_result(&self, result: Option<Result<(), (ErrorKind, String)>>) -> Result<()> {
        match result {
            Some(Err((kind, message))) => {
                Err(Error::new(kind, message).in_driver(self.driver().name()).context("close"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Coordinator")
            .field("url", &self.inner().url)
            .field("member", self.member())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
