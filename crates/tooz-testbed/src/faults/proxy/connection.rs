//! One connection through a proxy: its two sockets, and whether it is to end.

use parking_lot::Mutex;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use super::faults::Way;
use super::swallow::Swallow;

/// A write that finds no room looks this often whether the connection still lives and nothing holds it.
const WRITE_PATIENCE: Duration = Duration::from_millis(20);

/// Both sockets of a connection. They are closed by its last thread.
#[derive(Debug)]
pub(super) struct Connection {
    client: TcpStream,
    server: OnceLock<TcpStream>,
    pub(super) client_is: Option<usize>,
    dead: AtomicBool,
    /// The reply to what was forwarded last is not to arrive.
    swallow: Mutex<Option<Swallow>>,
}

impl Connection {
    pub(super) fn new(client: TcpStream, client_is: Option<usize>) -> io::Result<Self> {
        prepare(&client)?;
        let (server, dead, swallow) = (OnceLock::new(), AtomicBool::new(false), Mutex::new(None));
        Ok(Connection { client, server, client_is, dead, swallow })
    }

    /// Adds the half that leads to the server. `false`: it can't be prepared, or the connection was reset meanwhile.
    pub(super) fn add_server(&self, server: TcpStream) -> bool {
        if prepare(&server).is_err() {
            return false;
        }
        let _ = self.server.set(server);
        !self.is_dead()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Lets it end with a reset of both sides, as soon as its threads have noticed. Those that wait in what they share have
    /// to be woken.
    pub(super) fn die(&self) {
        self.dead.store(true, Ordering::Release);
        for stream in [Some(&self.client), self.server.get()].into_iter().flatten() {
            // Closing is a reset then. Shutting down the reading half tells the other side nothing; it wakes the thread
            // that is reading. Both fail where the connection has ended by itself.
            let _ = setsockopt(stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// Whether the client waits, or will, for something that does not arrive.
    pub(super) fn lost_a_reply(&self) -> bool {
        self.swallow().is_some()
    }

    /// What is to be done with the reply to what was forwarded last.
    pub(super) fn swallow(&self) -> Option<Swallow> {
        self.swallow.lock().clone()
    }

    pub(super) fn swallow_next(&self, swallow: Swallow) {
        *self.swallow.lock() = Some(swallow);
    }

    /// From where bytes of this way come, and where they go.
    pub(super) fn ends(&self, way: Way) -> Option<(&TcpStream, &TcpStream)> {
        let server = self.server.get()?;
        Some(if way == Way::ToServer { (&self.client, server) } else { (server, &self.client) })
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_PATIENCE))
}
