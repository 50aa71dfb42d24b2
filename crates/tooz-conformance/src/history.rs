//! Histories: what workers did and were told, written down with the times of the machine's monotonic clock.
//!
//! All workers run on one host, so the order of the times is real. [`checker`](crate::checker) judges what is written here.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tooz_core::LockMode;

mod attempt;
mod listing;
mod membership;
mod play;
mod telling;

pub use attempt::{Attempt, Break, Grant, Response, Sighting};
pub use listing::{Listing, Queue, Temptation, TemptationKind};
pub use membership::{Change, ChangeKind, Listed, Reading, Stay};
pub use play::Play;
pub use telling::{LeaderWatching, Share, Telling, Told, ToldLeader, Watching};

/// The machine's monotonic clock in nanoseconds: the same for every process of the host.
#[cfg(unix)]
pub fn now() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock is part of every supported kernel");
    let nanos = Duration::from(time).as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// The time since the first call in nanoseconds: for histories of one process.
#[cfg(not(unix))]
pub fn now() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let nanos = START.get_or_init(std::time::Instant::now).elapsed().as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// Exclusive or shared, as it stands in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// Beside others.
    Shared,
}

impl Mode {
    /// Whether two grants exclude each other.
    pub const fn conflicts_with(self, other: Mode) -> bool {
        matches!(self, Mode::Exclusive) || matches!(other, Mode::Exclusive)
    }

    /// As the library has it.
    pub const fn of_lock(self) -> LockMode {
        match self {
            Mode::Exclusive => LockMode::Exclusive,
            Mode::Shared => LockMode::Shared,
        }
    }
}

/// A fault, from its beginning until it was mended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What it was, in a few words.
    pub name: String,
    /// When it began.
    pub from: u64,
    /// When it was mended.
    pub to: u64,
}

/// All that happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Of locks.
    pub attempts: Vec<Attempt>,
    /// Of leaderships: the lock is the group, the token is the epoch.
    pub campaigns: Vec<Attempt>,
    /// Of holders that were broken.
    pub breaks: Vec<Break>,
    /// Of holders that were shown.
    pub sightings: Vec<Sighting>,
    /// Of leaders that were shown.
    pub leaders: Vec<Sighting>,
    /// Of memberships.
    pub stays: Vec<Stay>,
    /// Of members that were listed.
    pub readings: Vec<Reading>,
    /// What watches of members told.
    pub watches: Vec<Watching>,
    /// What watches of leaders told.
    pub leader_watches: Vec<LeaderWatching>,
    /// What partitioners said.
    pub shares: Vec<Share>,
    /// Of locks in use that were listed.
    #[serde(default)]
    pub listings: Vec<Listing>,
    /// Of waiters that were listed.
    #[serde(default)]
    pub queues: Vec<Queue>,
    /// Of what members tried that must be refused.
    #[serde(default)]
    pub temptations: Vec<Temptation>,
    /// What was broken meanwhile.
    pub faults: Vec<Fault>,
}
