//! The session: THE trait that a driver implements, made of its rooms [`Locks`](crate::driver::Locks) and [`Groups`](crate::driver::Groups).
//!
//! Everything else, guards, local queues, re-join, deadlines, the heart, election, partitioning, is written once in core
//! on top of it. Driver code runs in the heart's runtime, so `tokio::spawn`, timers and sockets of a driver live there,
//! and a blocked application starves none of them. A driver's future is never dropped half-way while its session lives.

use async_trait::async_trait;

use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::base::id::RequestId;
use crate::driver::checkup::{Checkup, Probe};
use crate::driver::group::Groups;
use crate::driver::lock::Locks;
use crate::driver::terms::{Owned, Terms};

/// One session of a backend: it lives, owns and ends. What is asked of it stands in [`Locks`] and [`Groups`].
///
/// Required of this trait are `terms` and `close`, and of [`Locks`] `try_lock`, `release` and `holders`; the other methods do what a backend
/// without that ability would. A driver without groups writes `impl Groups for …` with nothing in it. Every statement ends within a third
/// of the session timeout, by a limit of the driver's own.
///
/// [`ErrorKind::Lost`](crate::ErrorKind::Lost) from any method is the driver's word that the whole session is over: core then opens a new one.
#[async_trait]
pub trait Session: Locks + Groups {
    /// What was agreed, as of now: read again after each beat. Core uses a shorter timeout only from the beat after which it first reads it.
    /// The backend must not use it earlier.
    fn terms(&self) -> Terms;

    /// The clock that judges this session. Only test doubles have one of their own.
    fn clock(&self) -> Clock {
        Clock::boot_time()
    }

    /// Begins to own: makes the lease, the session key, the locked file. Called once, before the first lock or join; what
    /// comes before it (`holders`, `members`, `groups`, `watch_…`, `create_group`, `delete_group`) owns nothing.
    async fn open(&self) -> Result<()> {
        Ok(())
    }

    /// One heartbeat. It counts from the moment of the call, so it must prove that the authority which grants to others has
    /// seen it after that. Answers the requests whose grants were taken away meanwhile; `Lost` if the session is over.
    /// Not called where [`Terms::timeout`] is `None`.
    async fn beat(&self) -> Result<Vec<RequestId>> {
        Ok(Vec::new())
    }

    /// What this session owns at the backend. After a reconnect core gives back what it does not know, and says again what the backend
    /// has forgotten of its memberships.
    async fn owned(&self) -> Result<Owned> {
        Ok(Owned::default())
    }

    /// Duplicates of the file descriptors by which the kernel keeps what this session holds: as long as one of each is open
    /// in any process, nothing is freed. Empty where a server is the judge.
    #[cfg(unix)]
    fn descriptors(&self) -> Vec<std::os::fd::OwnedFd> {
        Vec::new()
    }

    /// One bare round trip, for measuring and for `tooz doctor`. It proves nothing about the session and owns nothing.
    async fn probe(&self, _probe: Probe) -> Result<()> {
        Ok(())
    }

    /// Looks at the server and at those of its settings that the driver's page warns of. Owns nothing and changes nothing.
    async fn check_up(&self) -> Result<Checkup> {
        Ok(Checkup::default())
    }

    /// Ends the session: hands over or frees all that it owns, then the session itself. Also called for a session that was
    /// lost, to end it at the server, and for one that was never opened; and again when it has failed. Core does not wait longer than the
    /// operation timeout.
    async fn close(&self) -> Result<()>;
}
