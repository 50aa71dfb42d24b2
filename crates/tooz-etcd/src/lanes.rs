//! What goes before what: how many requests are under way, and how heartbeats pass them.

use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// How many wishes, and how many duties, of one session are under way at most: enough to keep a server busy.
const CROWD: usize = 64;

/// What goes before what. A thousand requests at once would stand before the session's own heartbeat in the server's queue, so that they
/// take turns; heartbeats wait for no turn.
#[derive(Clone, Copy)]
pub(crate) enum Lane {
    /// What the application wants to have or to know.
    Wish,
    /// What gives back, or goes on with what was begun: forty thousand wishes are not in its way.
    Duty,
    /// What the session itself lives by. It bounds itself.
    First,
}

/// The turns of one session.
pub(crate) struct Lanes {
    wishes: Semaphore,
    duties: Semaphore,
    /// Closed while a heartbeat is under way that would have to make its way through a crowd.
    gate: watch::Sender<bool>,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Lanes { wishes: Semaphore::new(CROWD), duties: Semaphore::new(CROWD), gate: watch::Sender::new(true) }
    }

    /// Waits for a turn, which lasts until the answer is dropped.
    pub(crate) async fn turn(&self, lane: Lane) -> Option<SemaphorePermit<'_>> {
        let turn = match lane {
            Lane::Wish => self.wishes.acquire().await.ok(),
            Lane::Duty => self.duties.acquire().await.ok(),
            Lane::First => return None,
        };
        if !*self.gate.borrow() {
            let _ = self.gate.subscribe().wait_for(|is_open| *is_open).await;
        }
        turn
    }

    /// Nothing new is sent until the answer is dropped, if so much is under way that a heartbeat would stand in a queue behind it, here or
    /// at the server.
    pub(crate) fn clear(&self) -> Option<ClearLanes<'_>> {
        let is_crowded = self.wishes.available_permits() == 0 || self.duties.available_permits() == 0;
        is_crowded.then(|| {
            self.gate.send_replace(false);
            ClearLanes(&self.gate)
        })
    }
}

/// Lanes that are kept clear for a heartbeat.
pub(crate) struct ClearLanes<'a>(&'a watch::Sender<bool>);

impl Drop for ClearLanes<'_> {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_heartbeat_closes_the_lanes_only_where_there_is_a_crowd() {
        let lanes = Lanes::new();
        assert!(lanes.clear().is_none());
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            crowd.push(lanes.turn(Lane::Wish).await);
        }
        let cleared = lanes.clear();
        assert!(cleared.is_some() && lanes.turn(Lane::First).await.is_none());
        let mut duty = Box::pin(lanes.turn(Lane::Duty));
        let at_once = tokio::time::timeout(std::time::Duration::from_millis(10), &mut duty).await;
        assert!(at_once.is_err(), "a duty passes the heartbeat");
        drop(cleared);
        assert!(duty.await.is_some());
    }
}
