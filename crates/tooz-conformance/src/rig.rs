//! What the suite has to know of a driver: its URLs, how long to wait, and what can be done to its backend.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tooz_core::{Characteristics, Driver};

/// Something that can be done to a backend, given the URL.
type BackendAction = Arc<dyn Fn(&str) + Send + Sync>;
/// Something that can be done to one member, given the URL and the member's id.
type MemberAction = Arc<dyn Fn(&str, &str) + Send + Sync>;
/// Makes a URL from a tag.
type MakeUrl = Arc<dyn Fn(&str) -> String + Send + Sync>;
/// Makes a URL of another: given the URL, and the member.
type Path = Arc<dyn Fn(&str, &str) -> String + Send + Sync>;
/// A clock that can be moved, given the URL.
type Advance = Arc<dyn Fn(&str, Duration) + Send + Sync>;

/// A driver on the test bench.
///
/// Only the name and the URLs are needed. Each ability that is given lets more cases run; those that need a missing one
/// are listed as `not claimed`. The abilities are called on a thread where blocking is fine, and panic when they fail.
///
/// ```
/// use std::time::Duration;
/// use tooz_conformance::Rig;
///
/// let rig = Rig::new("chalk", |tag| format!("chalk://{tag}"))
///     .session_timeout(Duration::from_secs(1))
///     .patience(Duration::from_secs(5));
/// ```
#[derive(Clone)]
pub struct Rig {
    pub(crate) name: String,
    pub(crate) url: MakeUrl,
    pub(crate) patience: Duration,
    pub(crate) moment: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) lingering: Duration,
    pub(crate) across_processes: bool,
    pub(crate) hides_locks: bool,
    pub(crate) hides_waiters: bool,
    pub(crate) end_session: Option<MemberAction>,
    pub(crate) own_server: Option<MakeUrl>,
    pub(crate) path: Option<Path>,
    pub(crate) cut: Option<MemberAction>,
    pub(crate) heal: Option<MemberAction>,
    pub(crate) restart: Option<BackendAction>,
    pub(crate) advance_clock: Option<Advance>,
    /// What a session was found to promise, once one was opened.
    pub(crate) session: Arc<OnceLock<Characteristics>>,
    driver: Option<&'static Driver>,
}

impl Rig {
    /// A rig for the driver of that name. `url` makes a URL from a tag (letters, digits and dashes) that is new for every
    /// case: two tags must be two stores, or two namespaces of one.
    pub fn new(name: impl Into<String>, url: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Rig {
            name: name.into(),
            url: Arc::new(url),
            patience: Duration::from_secs(10),
            moment: Duration::from_millis(60),
            session_timeout: Duration::from_secs(2),
            lingering: Duration::ZERO,
            across_processes: false,
            hides_locks: false,
            hides_waiters: false,
            end_session: None,
            own_server: None,
            path: None,
            cut: None,
            heal: None,
            restart: None,
            advance_clock: None,
            session: Arc::default(),
            driver: None,
        }
    }

    /// How long the suite waits for what must happen (10 s). A case that waits longer has failed.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How long the suite watches that something does *not* happen (60 ms): a few round trips of the backend.
    pub fn moment(mut self, moment: Duration) -> Self {
        self.moment = moment;
        self
    }

    /// The session timeout that the cases ask for (2 s): short, but not below what the backend accepts.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// How much longer than the session timeout the backend may keep the session of the dead (nothing): a member that is refused is told to
    /// come back only after that.
    pub fn lingering(mut self, lingering: Duration) -> Self {
        self.lingering = lingering;
        self
    }

    /// Says that another process reaches the same store by the same URL.
    pub fn across_processes(mut self) -> Self {
        self.across_processes = true;
        self
    }

    /// Says that the backend does not know the names of the locks that are in use: listing them is then `Unsupported`.
    pub fn hides_locks(mut self) -> Self {
        self.hides_locks = true;
        self
    }

    /// Says that the backend does not know the waiters for a lock: listing them is then `Unsupported`.
    pub fn hides_waiters(mut self) -> Self {
        self.hides_waiters = true;
        self
    }

    /// How to end a member's session at the backend: `|url, member|`.
    pub fn end_session(mut self, deed: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        self.end_session = Some(Arc::new(deed));
        self
    }

    /// By which URL a member of the case with that URL reaches the store in the cases that cut members off: a proxy of its
    /// own, say. Without it every member has the URL of the case.
    pub fn path(mut self, path: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> Self {
        self.path = Some(Arc::new(path));
        self
    }

    /// How to cut a member off from the backend, so that its requests hang or fail until [`heal`](Self::heal).
    pub fn cut(mut self, deed: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        self.cut = Some(Arc::new(deed));
        self
    }

    /// How to undo a [`cut`](Self::cut).
    pub fn heal(mut self, deed: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        self.heal = Some(Arc::new(deed));
        self
    }

    /// Makes the URL of a server that a case has for itself, from its tag, for the cases that [`restart`](Self::restart) it.
    /// Without it they take the URL of every other case.
    pub fn own_server(mut self, url: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        self.own_server = Some(Arc::new(url));
        self
    }

    /// How to restart the server of that URL with its data kept; returns when it serves again.
    pub fn restart(mut self, deed: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.restart = Some(Arc::new(deed));
        self
    }

    /// How to move the clock forward that judges the sessions of that URL ([`tooz_core::driver::Clock::advance`]).
    pub fn advance_clock(mut self, deed: impl Fn(&str, Duration) + Send + Sync + 'static) -> Self {
        self.advance_clock = Some(Arc::new(deed));
        self
    }

    /// The card to judge by, where the scheme of the URLs should not be looked up in the registry. The suite connects
    /// through it too; this is how a mutant of a linked driver is tested.
    pub fn driver(mut self, driver: &'static Driver) -> Self {
        self.driver = Some(driver);
        self
    }

    /// The driver that was named, or else that answers the URLs.
    pub(crate) fn card(&self) -> Option<&'static Driver> {
        self.driver.or_else(|| {
            let url = (self.url)("card");
            let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
            tooz_core::drivers().into_iter().find(|driver| driver.schemes().contains(&scheme.as_str()))
        })
    }

    pub(crate) fn named_driver(&self) -> Option<&'static Driver> {
        self.driver
    }

    /// What the driver has at its best.
    pub(crate) fn characteristics(&self) -> Characteristics {
        self.card().map(Driver::most_characteristics).unwrap_or_default()
    }
}

impl fmt::Debug for Rig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rig").field("name", &self.name).finish_non_exhaustive()
    }
}
