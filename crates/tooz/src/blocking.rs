//! The same handles for threads without async: each call waits on the calling thread, and no runtime of the application's is needed.
//!
//! Heartbeats and everything else that goes on by itself run on the thread that each coordinator has for itself, as always.
//!
//! ```
//! # #[cfg(feature = "memory")]
//! fn main() -> tooz::Result<()> {
//!     let coordinator = tooz::blocking::connect("memory://blocking", "worker-1")?;
//!     let guard = coordinator.lock("nightly")?.acquire()?;
//!     println!("token {}", guard.fencing_token());
//!     for step in 0..3 {
//!         // Work on a thread can't be stopped from outside: it asks between its steps.
//!         guard.check()?;
//!         println!("step {step}");
//!     }
//!     guard.release()?;
//!     coordinator.close()
//! }
//! # #[cfg(not(feature = "memory"))]
//! # fn main() {}
//! ```
//!
//! Where a runtime of tokio is around (the body of an async function, a task, `spawn_blocking`), each call is an error that says so: a thread that
//! waits there would hold up all tasks of that thread. There the async handles are the right ones; `spawn_blocking` reaches them by
//! `Handle::block_on`.

mod election;
mod group;
mod lead;
mod lock;
mod wait;
mod watch;

pub use self::election::{LeaderWatch, Leadership};
pub use self::group::{Group, Membership, Partitioner};
pub use self::lock::{Lock, LockGuard, Loss, SharedLock};
use self::wait::wait;
pub use self::watch::{Events, GroupWatch};

use std::time::Duration;

use tooz_core::{
    Characteristics, Checkup, ConnectOptions, Error, GroupId, LockName, MemberId, Result, SessionState, Terms,
};

/// Connects `member` to the backend behind `url`; see [`ConnectOptions`] for everything that can be set, and [`connect_with`].
///
/// # Errors
/// As [`tooz::connect`](tooz_core::connect).
pub fn connect<N>(url: &str, member: N) -> Result<Coordinator>
where
    N: TryInto<MemberId>,
    Error: From<N::Error>,
{
    connect_with(ConnectOptions::new(url)?.member(member)?)
}

/// Connects as the options say.
///
/// # Errors
/// As [`ConnectOptions::connect`].
pub fn connect_with(options: ConnectOptions) -> Result<Coordinator> {
    wait(options.connect())?.map(Coordinator)
}

/// A member of a fleet, as [`tooz::Coordinator`](tooz_core::Coordinator). A cheap clone.
///
/// ```
/// # #[cfg(feature = "memory")]
/// # fn main() -> tooz::Result<()> {
/// let coordinator = tooz::blocking::connect("memory://blocking-coordinator", "worker-1")?;
/// assert!(coordinator.groups()?.is_empty());
/// println!("{} is {:?}", coordinator.member(), coordinator.state());
/// coordinator.close()
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct Coordinator(tooz_core::Coordinator);

impl Coordinator {
    /// The async handle, for what has no word of its own here.
    pub fn as_async(&self) -> &tooz_core::Coordinator {
        &self.0
    }

    /// The lock of that name.
    ///
    /// # Errors
    /// [`Config`](tooz_core::ErrorKind::Config): the name is none.
    pub fn lock<N>(&self, name: N) -> Result<Lock>
    where
        N: TryInto<LockName>,
        Error: From<N::Error>,
    {
        self.0.lock(name).map(Lock)
    }

    /// The group of that name.
    ///
    /// # Errors
    /// [`Config`](tooz_core::ErrorKind::Config): the name is none.
    pub fn group<N>(&self, name: N) -> Result<Group>
    where
        N: TryInto<GroupId>,
        Error: From<N::Error>,
    {
        self.0.group(name).map(Group)
    }

    /// As [`groups`](tooz_core::Coordinator::groups).
    ///
    /// # Errors
    /// As [`groups`](tooz_core::Coordinator::groups).
    pub fn groups(&self) -> Result<Vec<GroupId>> {
        wait(self.0.groups())?
    }

    /// As [`locks`](tooz_core::Coordinator::locks).
    ///
    /// # Errors
    /// As [`locks`](tooz_core::Coordinator::locks).
    pub fn locks(&self) -> Result<Vec<LockName>> {
        wait(self.0.locks())?
    }

    /// The member that this coordinator acts for.
    pub fn member(&self) -> &MemberId {
        self.0.member()
    }

    /// How the session is now, and what is wrong if something is kept up that does not work just now.
    pub fn state(&self) -> SessionState {
        self.0.state()
    }

    /// What this backend can do, and what it can't.
    pub fn characteristics(&self) -> Characteristics {
        self.0.characteristics()
    }

    /// How long a session lives without a heartbeat, as wished for; what the backend made of it is in [`terms`](Self::terms).
    pub fn session_timeout(&self) -> Duration {
        self.0.session_timeout()
    }

    /// The terms of the present session; `None`: there is none yet.
    pub fn terms(&self) -> Option<Terms> {
        self.0.terms()
    }

    /// As [`check_up`](tooz_core::Coordinator::check_up): what is wrong or unwise at the server.
    ///
    /// # Errors
    /// As [`check_up`](tooz_core::Coordinator::check_up).
    pub fn check_up(&self) -> Result<Checkup> {
        wait(self.0.check_up())?
    }

    /// What happens to the session from now on, to iterate over.
    pub fn events(&self) -> Events {
        Events(self.0.events())
    }

    /// Ends the session and everything that hangs on it, and waits for that.
    ///
    /// # Errors
    /// As [`close`](tooz_core::Coordinator::close).
    pub fn close(&self) -> Result<()> {
        wait(self.0.close())?
    }
}

/// From async code that hands over to threads.
impl From<tooz_core::Coordinator> for Coordinator {
    fn from(coordinator: tooz_core::Coordinator) -> Self {
        Coordinator(coordinator)
    }
}
