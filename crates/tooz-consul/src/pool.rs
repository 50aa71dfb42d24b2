//! A few connections of one use: so many at a time, kept for the next request, and to one agent as long as that serves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tooz_core::driver::Mutex;

use crate::connection::Connection;

/// The connections of one use.
pub(crate) struct Pool {
    turns: Semaphore,
    /// Those that are not in use, with the moment since when; the latest last.
    idle: Mutex<Vec<(Instant, Connection)>>,
    /// The agent to which new ones lead.
    agent: AtomicUsize,
}

impl Pool {
    /// So many at a time.
    pub(crate) fn of(connections: usize) -> Self {
        Pool { turns: Semaphore::new(connections), idle: Mutex::default(), agent: AtomicUsize::new(0) }
    }

    /// Waits for a turn, which lasts until the answer is dropped.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// A turn, if one is to be had at once.
    pub(crate) fn turn_now(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.try_acquire().ok()
    }

    /// The agent that is asked just now.
    pub(crate) fn agent(&self) -> usize {
        self.agent.load(Ordering::Relaxed)
    }

    /// Leaves that agent for the next of so many, unless another request has done so.
    pub(crate) fn leave(&self, agent: usize, of: usize) {
        let next = (agent + 1) % of.max(1);
        let _ = self.agent.compare_exchange(agent, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Takes one that leads to the agent and has not ended.
    pub(crate) fn take(&self) -> Option<Connection> {
        let agent = self.agent();
        let mut idle = self.idle.lock();
        // Those to an agent that was left are of no more use.
        idle.retain(|(_, connection)| connection.agent == agent);
        while let Some((_, mut connection)) = idle.pop() {
            if connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps it for the next request.
    pub(crate) fn keep(&self, connection: Connection) {
        self.idle.lock().push((Instant::now(), connection));
    }

    /// Closes those that were not used for so long: the agent counts them, with those of all others at this address.
    pub(crate) fn prune(&self, unused: Duration) {
        self.idle.lock().retain(|(since, _)| since.elapsed() < unused);
    }

    /// Closes all that are not in use.
    pub(crate) fn clear(&self) {
        self.idle.lock().clear();
    }
}
