//! The pool of connections that wait in the server's own queues, lent by turns to the requests of one session that wait for a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tooz_core::driver::Mutex;
use tooz_core::{Error, Result};

use crate::error;
use crate::layout::{Layout, Name, fresh_waiter};
use crate::options::Settings;
use crate::packet::Packets;
use crate::setup::{self, Role};

/// In this time each request that wants a connection has had a turn, as long as no turn would be shorter than the shortest.
const CYCLE: Duration = Duration::from_mins(2);
/// What a turn at least takes to be worth its round trips.
const SHORTEST_TURN: Duration = Duration::from_millis(200);

/// Ends when what a lent connection held is free for others; with an error if that is for the server to find out.
pub(crate) type GateOpening = oneshot::Receiver<()>;

/// All waiting connections of one session.
pub(crate) struct Pool {
    settings: Settings,
    layout: Layout,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<IdleConnection>>,
    /// How many requests want a connection and have none.
    queued: AtomicUsize,
    /// One more request wants one.
    pub(crate) pressed: Notify,
    /// What gives connections back in the background; stopped with the session.
    cleaning: Mutex<JoinSet<()>>,
}

struct IdleConnection {
    waiter: WaitingConnection,
    since: Instant,
}

/// A connection that waits.
pub(crate) struct WaitingConnection {
    pub(crate) packets: Packets,
    /// The named lock that it holds, by which its wait is known and can be ended.
    pub(crate) name: Name,
    /// The number by which the server knows it.
    pub(crate) number: i64,
    /// Whether it is written down that it waits.
    pub(crate) is_written: bool,
}

/// A connection on loan. Dropping it closes it, and with it ends whatever it waits for or holds.
pub(crate) struct Loan {
    pub(crate) waiter: WaitingConnection,
    permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(settings: Settings, layout: Layout) -> Self {
        let permits = Arc::new(Semaphore::new(settings.waiters));
        Pool {
            settings,
            layout,
            permits,
            idle: Mutex::default(),
            queued: AtomicUsize::new(0),
            pressed: Notify::new(),
            cleaning: Mutex::default(),
        }
    }

    /// Waits for a turn: first come, first served.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        self.queued.fetch_add(1, Ordering::AcqRel);
        let _counted = CountGuard(&self.queued);
        self.pressed.notify_waiters();
        Arc::clone(&self.permits).acquire_owned().await.map_err(|_| error::lost("wait for a turn"))
    }

    /// Whether a request wants a connection and has none.
    pub(crate) fn is_pressed(&self) -> bool {
        self.queued() > 0
    }

    /// How many requests want a connection and have none.
    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// How long a turn may be for a request that would take that long: so short that all that wait for theirs have one within the cycle.
    pub(crate) fn turn_length(&self, patience: Duration) -> Duration {
        patience.min(longest_turn(self.settings.waiters, self.queued()))
    }

    /// A connection for a turn: one that is there, else a new one. With the error the turn is given back, for another attempt.
    pub(crate) async fn lend(&self, permit: OwnedSemaphorePermit) -> Result<Loan, (Error, OwnedSemaphorePermit)> {
        let fresh_enough = self.settings.session_timeout / 2;
        let found = {
            let mut idle = self.idle.lock();
            // The server ends those that were idle for the session timeout.
            idle.retain(|one| one.since.elapsed() < fresh_enough);
            idle.pop()
        };
        let waiter = match found {
            Some(one) => one.waiter,
            None => match self.connect().await {
                Ok(waiter) => waiter,
                Err(error) => return Err((error, permit)),
            },
        };
        Ok(Loan { waiter, permit })
    }

    async fn connect(&self) -> Result<WaitingConnection> {
        const DOING: &str = "set a waiting connection up";
        let (mut packets, begun) = setup::connect(&self.settings, Role::Wait).await?;
        let name = fresh_waiter();
        let naming = packets.ask(&format!("SELECT GET_LOCK('{name}', 0)")).await;
        naming.map_err(|error| error::of(error, DOING))?;
        Ok(WaitingConnection { packets, name, number: begun.number, is_written: false })
    }

    /// Takes a connection back in the background, and lets go of what it holds first. One that is not quick is closed. The answer
    /// ends when it holds nothing any more.
    pub(crate) fn take_back(self: &Arc<Self>, mut lent: Loan) -> GateOpening {
        let (open, opened) = oneshot::channel();
        let pool = Arc::downgrade(self);
        let waits = self.layout.table("waits");
        let limit = self.settings.statement_timeout;
        let mut cleaning = self.cleaning.lock();
        while cleaning.try_join_next().is_some() {}
        cleaning.spawn(async move {
            if !let_go(&mut lent.waiter, limit).await {
                return;
            }
            let _ = open.send(());
            if lent.waiter.is_written && !strike(&mut lent.waiter, &waits, limit).await {
                return;
            }
            if let Some(pool) = pool.upgrade() {
                let Loan { waiter, permit } = lent;
                let idle = IdleConnection { waiter, since: Instant::now() };
                pool.idle.lock().push(idle);
                drop(permit);
            }
        });
        opened
    }

    /// Closes all connections that are not in use; requests that wait are told by the session.
    pub(crate) fn close(&self) {
        self.permits.close();
        self.cleaning.lock().abort_all();
        self.idle.lock().clear();
    }
}

/// Whether the connection holds nothing any more but its own name. However often it has taken a lock, that is over then.
async fn let_go(waiter: &mut WaitingConnection, limit: Duration) -> bool {
    let name = &waiter.name;
    let letting_go = format!(
        "SELECT IF(IS_USED_LOCK('{name}') = CONNECTION_ID(), RELEASE_ALL_LOCKS(), NULL); SELECT GET_LOCK('{name}', 0)"
    );
    let asked = tokio::time::timeout(limit, waiter.packets.ask(&letting_go)).await;
    matches!(asked, Ok(Ok(answer)) if matches!(answer.number(0, 0), Ok(Some(_))) && matches!(answer.number(1, 0), Ok(Some(1))))
}

/// Takes away what was written of its wait. Without its name it would count for nothing, but it has that again.
async fn strike(waiter: &mut WaitingConnection, waits: &str, limit: Duration) -> bool {
    let striking = format!("DELETE FROM {waits} WHERE waiter = '{}'", waiter.name);
    waiter.is_written = false;
    matches!(tokio::time::timeout(limit, waiter.packets.ask(&striking)).await, Ok(Ok(_)))
}

/// The longest turn where so many requests wait for so few connections.
fn longest_turn(connections: usize, queued: usize) -> Duration {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    (CYCLE / count(queued).max(1)).saturating_mul(count(connections)).max(SHORTEST_TURN)
}

struct CountGuard<'a>(&'a AtomicUsize);

impl Drop for CountGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_a_turn_within_minutes() {
        for (connections, queued, limit) in
            [(4, 1, CYCLE), (4, 240, CYCLE), (1, 600, CYCLE), (4, 2400, CYCLE), (4, 10_000, Duration::from_mins(9))]
        {
            let rounds = u32::try_from(queued / connections).unwrap();
            let cycle = longest_turn(connections, queued) * rounds;
            assert!(cycle <= limit, "{queued} on {connections}: {cycle:?}");
        }
        // A request that has the connections almost for itself takes the time of a slice.
        assert!(longest_turn(4, 0) >= Duration::from_mins(1) && longest_turn(4, 8) >= Duration::from_mins(1));
    }
}
