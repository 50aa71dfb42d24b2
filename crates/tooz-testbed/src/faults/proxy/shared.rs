//! What the threads of a proxy share: the faults, the connections, and the right to forward.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::doors::Doors;
use super::faults::{Faults, Way};
use super::swallow::Swallow;
use crate::server::wait;

/// How long a change waits for those who are just forwarding. A write takes no longer than its own timeout.
const PATIENCE: Duration = Duration::from_secs(2);

/// What went one way.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Flow {
    /// Bytes that were forwarded.
    pub bytes: u64,
    /// In how many pieces. A small request or reply is one piece, unless two come at the same moment.
    pub chunks: u64,
}

/// What went through a proxy, from its start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Counts {
    /// From clients to the server.
    pub to_server: Flow,
    /// From the server to clients.
    pub to_client: Flow,
    /// Connections that were made.
    pub connections: u64,
}

impl Counts {
    fn flow(&mut self, way: Way) -> &mut Flow {
        match way {
            Way::ToServer => &mut self.to_server,
            Way::ToClient => &mut self.to_client,
        }
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) upstream: SocketAddr,
    /// How long to wait for a server that does not listen yet.
    pub(super) patience: OnceLock<Duration>,
    /// What clients that introduce themselves are called.
    pub(super) doors: OnceLock<Doors>,
    state: Mutex<ProxyState>,
    changed: Condvar,
}

#[derive(Default, Debug)]
pub(super) struct ProxyState {
    faults: Faults,
    counts: Counts,
    /// How many threads are forwarding at this moment.
    forwarding: usize,
    connections: Vec<Weak<Connection>>,
    closed: bool,
}

/// Why nothing is forwarded any more.
#[derive(Debug)]
pub(super) struct ForwardingEnd;

impl Shared {
    pub(super) fn new(upstream: SocketAddr) -> Self {
        Shared {
            upstream,
            patience: OnceLock::new(),
            doors: OnceLock::new(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, ProxyState> {
        self.state.lock()
    }

    /// Changes the faults; they are in effect on return.
    pub(super) fn change(&self, change: impl FnOnce(&mut Faults)) {
        let mut state = self.state();
        change(&mut state.faults);
        self.changed.notify_all();
        // Who was allowed to forward before the change is done by then.
        self.changed.wait_while_for(&mut state, |state| state.forwarding > 0, PATIENCE);
    }

    /// Takes all faults back.
    pub(super) fn heal(&self) {
        self.change(|faults| *faults = Faults::default());
        let all = self.state().connections.clone();
        for connection in all.iter().filter_map(Weak::upgrade).filter(|connection| connection.lost_a_reply()) {
            connection.die();
        }
        self.wake();
    }

    pub(super) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Takes a new connection on the list. `false`: it is to be refused.
    pub(super) fn admit(&self, connection: &Arc<Connection>) -> bool {
        let mut state = self.state();
        if state.closed || state.faults.refuse {
            return false;
        }
        state.counts.connections += 1;
        state.connections.retain(|connection| connection.strong_count() > 0);
        state.connections.push(Arc::downgrade(connection));
        true
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    /// Resets every connection, and returns when all their sockets are closed.
    pub(super) fn reset_all(&self) {
        let all = std::mem::take(&mut self.state().connections);
        for connection in all.iter().filter_map(Weak::upgrade) {
            connection.die();
        }
        self.wake();
        // The last of its threads closes a connection. None of them waits for anything but this proxy.
        let gone = || all.iter().all(|connection| connection.strong_count() == 0);
        let _ = wait::until(PATIENCE, "the connections are closed", || Ok(gone().then_some(())));
    }

    /// Makes every thread look again at what it waits for.
    pub(super) fn wake(&self) {
        // Under the lock, or else one that is between looking and waiting would sleep on.
        let _state = self.state();
        self.changed.notify_all();
    }

    /// Waits until a connection may be made to the server.
    pub(super) fn wait_to_connect(&self, connection: &Connection) -> Result<(), ForwardingEnd> {
        self.wait_while(self.state(), connection, |faults| faults.hold(connection.client_is, Way::ToServer)).map(drop)
    }

    /// Waits until what came at that time may be passed on, and allows it for as long as the permit lives. That must not
    /// be long: a change of the faults waits for its end.
    pub(super) fn permit(&self, connection: &Connection, way: Way, came: Instant) -> Result<Permit<'_>, ForwardingEnd> {
        let mut state = self.state();
        loop {
            state = self.wait_while(state, connection, |faults| faults.hold(connection.client_is, way))?;
            let left = (came + state.faults.delay).saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.forwarding += 1;
                return Ok(Permit { shared: self, way });
            }
            self.changed.wait_for(&mut state, left);
        }
    }

    fn wait_while<'a>(
        &'a self,
        mut state: MutexGuard<'a, ProxyState>,
        connection: &Connection,
        held: impl Fn(&Faults) -> bool,
    ) -> Result<MutexGuard<'a, ProxyState>, ForwardingEnd> {
        loop {
            if connection.is_dead() {
                return Err(ForwardingEnd);
            }
            if !held(&state.faults) {
                return Ok(state);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Lets a connection hang whose reply was swallowed.
    pub(super) fn hang(&self, connection: &Connection, hang: Duration) {
        let mut state = self.state();
        self.changed.wait_while_for(&mut state, |_| !connection.is_dead(), hang);
    }
}

/// The right to pass something on, which a change of the faults waits for.
pub(super) struct Permit<'a> {
    shared: &'a Shared,
    way: Way,
}

impl Permit<'_> {
    /// The swallow that waits for what is about to be sent.
    pub(super) fn take_swallow(&self, tail: &[u8], news: &[u8]) -> Option<Swallow> {
        self.shared.state().faults.take_swallow(tail, news)
    }

    /// Passes on so many bytes, or some of them, by `write`, which tells how many it managed.
    pub(super) fn pass(self, wanted: usize, write: impl FnOnce(usize) -> usize) -> Result<usize, ForwardingEnd> {
        let mut state = self.shared.state();
        let allowed = state.faults.allowance(self.way, wanted).ok_or(ForwardingEnd)?;
        // Counted before: a client that has received something finds it counted. A piece that has to be written in two goes counts
        // once, at its end.
        let flow = state.counts.flow(self.way);
        flow.bytes += allowed as u64;
        flow.chunks += u64::from(allowed == wanted);
        drop(state);
        let written = write(allowed);
        if written < allowed {
            let mut state = self.shared.state();
            state.faults.return_allowance(self.way, allowed - written);
            let flow = state.counts.flow(self.way);
            flow.bytes -= (allowed - written) as u64;
            flow.chunks -= u64::from(allowed == wanted);
        }
        Ok(written)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.shared.state().forwarding -= 1;
        self.shared.changed.notify_all();
    }
}
