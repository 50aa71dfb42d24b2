//! The coordinator: the user's handle of one member.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::base::characteristic::Characteristics;
use crate::base::credentials::CredentialSource;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::event_queue::event_queue;
use crate::base::id::{GroupId, LockName, MemberId};
use crate::base::mutex::Mutex;
use crate::base::options::Options;
use crate::base::options::backend_url::BackendUrl;
use crate::base::session_event::SessionState;
use crate::base::settings::Settings;
use crate::driver::card::Driver;
use crate::driver::checkup::{Checkup, Probe};
use crate::driver::lock::Space;
use crate::driver::terms::Terms;
use crate::engine::heart::{Heart, within};
use crate::engine::inner::{Inner, Retry};
use crate::engine::local_queues::LocalQueues;
use crate::engine::meter::Meter;
use crate::engine::phase::{Need, Phase};
use crate::engine::supervisor::{Supervisor, end_with_the_heart};
use crate::engine::suspension::Suspension;
use crate::engine::telemetry::Telemetry;
use crate::engine::troubles::Troubles;
use crate::handles::group::Group;
use crate::handles::handle::Handle;
use crate::handles::lock::Lock;
use crate::handles::session_events::SessionEvents;

/// One member's access to a backend. A cheap clone: all clones share one session.
///
/// Dropping the last clone, lock, group, guard and watch of it ends the session in the background. A process that returns
/// from `main` right after that is gone before it happened: on backends with timeouts its locks then stay until the
/// timeout. End with [`close`](Self::close), or release what you hold.
///
/// ```
/// # use tooz_memory as _;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tooz_core::Result<()> {
/// let coordinator = tooz_core::connect("memory://coordinator", "worker-1").await?;
/// let guard = coordinator.lock("nightly")?.acquire().await?;
/// let membership = coordinator.group("workers")?.join_or_create("ready").await?;
/// println!("{} holds its lock with {:?}", coordinator.member(), coordinator.terms());
/// guard.release().await?;
/// membership.leave().await?;
/// coordinator.close().await
/// # }
/// ```
#[derive(Clone)]
pub struct Coordinator {
    pub(crate) handle: Arc<Handle>,
}

impl Coordinator {
    pub(crate) async fn start(
        driver: &'static Driver,
        url: BackendUrl,
        options: Options,
        credentials: CredentialSource,
        settings: Settings,
        require: Characteristics,
        telemetry: Telemetry,
    ) -> Result<Self> {
        let nonce = getrandom::u64().map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the system gives no random numbers").with_source(error)
        })?;
        let inner = Arc::new(Inner {
            driver,
            url,
            options,
            credentials,
            member: telemetry.member().clone(),
            settings,
            telemetry: Arc::new(telemetry),
            require,
            phase: watch::Sender::new(Phase::Down { attempt: 0, error: None }),
            suspension: Suspension::default(),
            want_connection: Notify::new(),
            want_session: Notify::new(),
            stirred: Arc::new(Notify::new()),
            closing: watch::Sender::new(false),
            closed: watch::Sender::new(None),
            last_run: OnceLock::new(),
            heart: OnceLock::new(),
            listeners: Mutex::new(Some(Vec::new())),
            troubles: Troubles::default(),
            no_session: Mutex::default(),
            nonce,
            requests: AtomicU64::new(0),
        });
        let queues = Arc::new(LocalQueues::new(Arc::clone(&inner)));
        let supervisor = Supervisor::new(Arc::clone(&inner), Arc::clone(&queues));
        let (ending, their) = (Arc::clone(&inner), Arc::clone(&queues));
        let heart = Heart::start(supervisor.run(), move || end_with_the_heart(&ending, &their))?;
        let _ = inner.heart.set(heart);
        let coordinator = Coordinator { handle: Arc::new(Handle::new(Arc::clone(&inner), queues)) };
        if Meter::IS_ON {
            inner.heart().spawn(tick(Arc::downgrade(&inner)));
        }
        if inner.settings.stall_timeout.is_some() {
            inner.watch_for_stalls()?;
        }
        // From here on a dropped future drops the handle, which ends the heart again.
        let first = Arc::clone(&inner);
        // Each attempt has the connect timeout, and its error names the address: this one only catches what hangs beyond that.
        let limit = inner.settings.connect_timeout.saturating_add(inner.settings.connect_timeout / 4);
        inner
            .heart()
            .begin(async move {
                let connected = async move { first.session(Need::Connection, Retry::Never).await.map(drop) };
                within(limit, || "connect".to_owned(), Box::pin(connected)).await
            })
            .answer()
            .await
            .map_err(|error| error.in_driver(driver.name()))?;
        Ok(coordinator)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    /// A lock by its name. Costs nothing and asks no server.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config): it is no name; the error says why.
    pub fn lock<N>(&self, name: N) -> Result<Lock>
    where
        N: TryInto<LockName>,
        Error: From<N::Error>,
    {
        Ok(Lock::new(Arc::clone(&self.handle), name.try_into()?))
    }

    /// A group by its name. Costs nothing and asks no server; the group need not exist.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config): it is no name; the error says why.
    pub fn group<N>(&self, name: N) -> Result<Group>
    where
        N: TryInto<GroupId>,
        Error: From<N::Error>,
    {
        Ok(Group::new(Arc::clone(&self.handle), name.try_into()?))
    }

    /// The groups of the namespace, sorted by name.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the backend has no groups; [`Unavailable`](ErrorKind::Unavailable) where it can't be reached,
    /// [`TimedOut`](ErrorKind::TimedOut) where it has not answered within the operation timeout.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn groups(&self) -> Result<Vec<GroupId>> {
        let mut groups = self
            .inner()
            .ask(Need::Reading, || "list the groups".to_owned(), |session| async move { session.groups().await })
            .await?;
        groups.sort();
        Ok(groups)
    }

    /// The locks of the namespace that are in use: they have a holder or a waiter. Sorted by name.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the backend does not know, because it keeps hashes in place of names;
    /// [`Unavailable`](ErrorKind::Unavailable) where it can't be reached, [`TimedOut`](ErrorKind::TimedOut) where it has not answered within the
    /// operation timeout.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn locks(&self) -> Result<Vec<LockName>> {
        let keys = self
            .inner()
            .ask(Need::Reading, || "list the locks in use".to_owned(), |session| async move { session.locks().await })
            .await?;
        let users = keys.into_iter().filter(|key| key.space == Space::Lock);
        let mut names = users.map(|key| LockName::new(&*key.name)).collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// One bare round trip to the backend, for measuring: what any operation costs at least.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) where the backend can't be reached, [`TimedOut`](ErrorKind::TimedOut) where it has not answered within the
    /// operation timeout.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn probe(&self, probe: Probe) -> Result<()> {
        let what = || "measure the round trip".to_owned();
        self.inner().ask(Need::Reading, what, move |session| async move { session.probe(probe).await }).await
    }

    /// Looks at the server and at those of its settings that matter to coordination, as `tooz doctor` shows them.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) where the server can't be reached, [`TimedOut`](ErrorKind::TimedOut) where it has not answered within the
    /// operation timeout, [`Unauthorized`](ErrorKind::Unauthorized) where it refuses this user. A setting that is wrong is no error but a finding.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn check_up(&self) -> Result<Checkup> {
        let what = || "look at the server".to_owned();
        self.inner().ask(Need::Reading, what, |session| async move { session.check_up().await }).await
    }

    /// What this very session can do and promises; before the first connection, what the driver can do at best.
    pub fn characteristics(&self) -> Characteristics {
        let live = if self.inner().is_forked() { None } else { self.inner().phase.borrow().live().cloned() };
        match live {
            Some(live) => live.terms().map_or(self.driver().most_characteristics(), |terms| terms.characteristics),
            None => self.driver().most_characteristics(),
        }
    }

    /// What the open session and the backend agreed upon; `None` while no session is open.
    pub fn terms(&self) -> Option<Terms> {
        if self.inner().is_forked() {
            return None;
        }
        let live = self.inner().usable(Need::Session)?;
        live.terms().ok()
    }

    /// The session timeout as it was asked for; what the backend made of it is in [`terms`](Self::terms).
    pub fn session_timeout(&self) -> Duration {
        self.inner().settings.session_timeout
    }

    /// The driver behind it.
    pub fn driver(&self) -> &'static Driver {
        self.inner().driver
    }

    /// The member that this coordinator acts for.
    pub fn member(&self) -> &MemberId {
        &self.inner().member
    }

    /// How the session is now, and what is wrong if something is kept up that does not work just now.
    pub fn state(&self) -> SessionState {
        let inner = self.inner();
        if inner.is_forked() {
            return SessionState::Closed;
        }
        let trouble = || inner.troubles.latest().map(SessionState::Troubled);
        let phase = match &*inner.phase.borrow() {
            Phase::Closed => return SessionState::Closed,
            Phase::Open(live) => Some(Arc::clone(live)),
            Phase::Down { attempt: 0, .. } | Phase::Connected(_) => None,
            Phase::Down { .. } => return trouble().unwrap_or(SessionState::Lost),
        };
        match phase {
            None => trouble().unwrap_or(SessionState::Idle),
            Some(live) if live.check().is_some() => SessionState::Lost,
            Some(_) => match inner.suspension.why() {
                Some(why) => SessionState::Suspended(why),
                None => trouble().unwrap_or(SessionState::Open),
            },
        }
    }

    /// What happens to the session from now on.
    pub fn events(&self) -> SessionEvents {
        let (feeder, reader) = event_queue();
        if !self.inner().is_forked() {
            self.inner().listen(feeder);
        }
        SessionEvents::new(reader)
    }

    /// Duplicates of the descriptors by which the kernel keeps what this coordinator holds; see
    /// [`Session::descriptors`](crate::driver::Session::descriptors). For a guard process that must outlive this one.
    #[cfg(unix)]
    pub fn descriptors(&self) -> Vec<std::os::fd::OwnedFd> {
        let live = self.inner().usable(Need::Session);
        live.and_then(|live| live.descriptors().ok()).unwrap_or_default()
    }

    /// Releases, leaves and ends the session, for all clones, in at most the operation timeout, also when the server is dead.
    /// Afterwards every call answers `Closed`, every grant is lost, and the heart's thread has ended. A second call has the answer of
    /// the first.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut) or [`Unavailable`](ErrorKind::Unavailable) where the server did not confirm the end: what was held may stay there
    /// until the session timeout. [`Closed`](ErrorKind::Closed) in a forked child, which owns nothing of its parent's. All else is as after `Ok`.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn close(&self) -> Result<()> {
        let inner = self.inner();
        if inner.is_forked() {
            return Err(Error::closed().in_driver(inner.driver.name()));
        }
        inner.begin_close();
        let mut closed = inner.closed.subscribe();
        let _ = closed.wait_for(Option::is_some).await;
        inner.heart().join();
        self.closed_result()
    }

    /// [`close`](Self::close) for code without an executor. Blocks for at most the operation timeout.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn close_blocking(&self) -> Result<()> {
        let inner = self.inner();
        if inner.is_forked() {
            return Err(Error::closed().in_driver(inner.driver.name()));
        }
        inner.begin_close();
        inner.heart().join();
        self.closed_result()
    }

    fn closed_result(&self) -> Result<()> {
        let result = self.inner().closed.borrow().clone();
        // None only where it was asked for on the heart's own thread, which ends after this.
        result.unwrap_or(Ok(())).map_err(|error| error.in_driver(self.driver().name()).context("close"))
    }
}

/// How often figures go to the recorder of the application.
const TICK: Duration = Duration::from_secs(1);

/// Hands the figures over, as long as the coordinator lives.
async fn tick(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(TICK).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.tick();
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
