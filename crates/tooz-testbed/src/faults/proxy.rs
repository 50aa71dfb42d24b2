//! A TCP proxy inside this process, with faults that do exactly what they say.

mod accept;
mod connection;
mod doors;
mod faults;
mod forward;
mod shared;
mod swallow;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{Shutdown, shutdown};

pub use self::shared::{Counts, Flow};
pub use self::swallow::Swallow;

pub(crate) use self::accept::ClientIdentifier;

use self::doors::Doors;
use self::faults::Faults;
use self::shared::Shared;

/// How long a connection lives whose reply was swallowed: for a client it is then as good as lost, and still far from
/// any deadline.
const HANG: Duration = Duration::from_millis(100);

/// A proxy between clients and one server, on a port of its own.
///
/// Faults add up, apply to the connections there are and to new ones alike unless they say otherwise, and have come into
/// effect when the call returns: not a byte slips through after [`stall`](Self::stall). [`heal`](Self::heal) takes all of
/// them back.
///
/// What it can't do: a proxy accepts connections even where the network behind it is dead, so that a client's *connecting*
/// succeeds and its first request hangs. A server that is down looks like a connection that is reset right away.
///
/// All clones are the same proxy. It ends, and resets its connections, when the last of them is dropped.
#[derive(Clone, Debug)]
pub struct Proxy {
    inner: Arc<ProxyInner>,
}

#[derive(Debug)]
struct ProxyInner {
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    address: SocketAddr,
}

impl Proxy {
    /// Starts a proxy in front of that server, which need not be up yet.
    pub fn start(upstream: SocketAddr) -> Result<Proxy> {
        Proxy::start_knowing(upstream, Box::new(|_| None))
    }

    /// Starts one that can tell some of its clients apart.
    pub(crate) fn start_knowing(upstream: SocketAddr, who_is: ClientIdentifier) -> Result<Proxy> {
        Proxy::start_at((Ipv4Addr::LOCALHOST, 0).into(), upstream, who_is)
    }

    /// Starts a proxy that can tell some of its clients apart, at an address that is known before.
    pub(crate) fn start_at(door: SocketAddr, upstream: SocketAddr, who_is: ClientIdentifier) -> Result<Proxy> {
        let listener = TcpListener::bind(door).with_context(|| format!("cannot listen on {}", door.ip()))?;
        let address = listener.local_addr()?;
        let listener = Arc::new(listener);
        let shared = Arc::new(Shared::new(upstream));
        let (accepting, its_listener) = (Arc::clone(&shared), Arc::clone(&listener));
        thread::Builder::new()
            .name(format!("proxy of {upstream}"))
            .spawn(move || accept::run(&accepting, &its_listener, who_is))?;
        Ok(Proxy { inner: Arc::new(ProxyInner { shared, listener, address }) })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// The URL of the proxy for a driver: `proxy.url("redis")` is `redis://127.0.0.1:41234`.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address())
    }

    /// Delays everything by this much *each way*, so that a round trip takes twice as much longer. Order and throughput
    /// stay.
    pub fn delay(&self, delay: Duration) {
        self.change(|faults| faults.delay = delay);
    }

    /// Forwards nothing either way. Nothing is lost: what was held flows on after [`heal`](Self::heal), the end of a
    /// connection too. New connections are accepted and held.
    pub fn stall(&self) {
        self.change(|faults| (faults.hold_to_server, faults.hold_to_client) = (true, true));
    }

    /// The server hears no more of its clients, and is heard. As in a network that drops packets one way, the bytes of a
    /// connection are not gone: they arrive after [`heal`](Self::heal), unless the connection is [`reset`](Self::reset)
    /// before.
    pub fn drop_to_server(&self) {
        self.change(|faults| faults.hold_to_server = true);
    }

    /// The clients hear no more of the server, and are heard. As with [`drop_to_server`](Self::drop_to_server), nothing of a
    /// connection that lives on is lost.
    pub fn drop_to_client(&self) {
        self.change(|faults| faults.hold_to_client = true);
    }

    /// Resets the connections there are, with what is held of them; both sides know when this returns. New ones are
    /// served as before.
    pub fn reset(&self) {
        self.inner.shared.reset_all();
    }

    /// Resets new connections as soon as they are made. Those there are go on.
    pub fn refuse(&self) {
        self.change(|faults| faults.refuse = true);
    }

    /// Lets this many more bytes through to the clients, all connections together, and then resets the connection on
    /// which the next byte would come, once.
    pub fn cut_after(&self, bytes: u64) {
        self.change(|faults| faults.cut_after = Some(bytes));
    }

    /// The reply to one request gets lost: the next bytes from a client that contain `matching` are forwarded, and of what
    /// the server sends on that connection from then on, nothing arrives. Soon after the server has answered, the
    /// connection is reset.
    ///
    /// The bytes are found even if they come in pieces. No bytes at all are found in whatever is sent next.
    pub fn swallow_reply(&self, matching: &[u8]) -> Swallow {
        self.swallow_reply_for(matching, HANG)
    }

    /// The reply to one request gets lost, as [`swallow_reply`](Self::swallow_reply) says; the connection hangs for `hang` after the server has
    /// answered, before it is reset.
    pub fn swallow_reply_for(&self, matching: &[u8], hang: Duration) -> Swallow {
        let swallow = Swallow::new(matching, hang);
        self.change(|faults| faults.swallows.push(swallow.clone()));
        swallow
    }

    /// Takes all faults back. Connections of which a reply was swallowed are reset, since nothing could heal them.
    pub fn heal(&self) {
        self.inner.shared.heal();
    }

    /// Holds the connections of these clients as [`stall`](Self::stall) does all: those that [`ClientIdentifier`] says so of, and with
    /// `None` those that it does not know.
    pub(crate) fn hold_those_of(&self, clients: &[Option<usize>]) {
        self.change(|faults| faults.hold_those_of = clients.to_vec());
    }

    /// Lets new connections wait for a server that does not listen yet, for this long. Without a proxy they would be refused and
    /// tried again; one that was made and then ends is something else to many.
    pub(crate) fn wait_for_server(&self, patience: Duration) {
        // Said once, before anybody connects.
        let _ = self.inner.shared.patience.set(patience);
    }

    /// Replaces the first of each pair by the second in what a client says first: of itself, for those that call back, it names the door that it
    /// listens at, past the proxy before it.
    pub(crate) fn introduce_as(&self, doors: &[(SocketAddr, SocketAddr)]) {
        // Said once, before anybody connects.
        let _ = self.inner.shared.doors.set(Doors::new(doors));
    }

    /// What went through so far.
    pub fn counts(&self) -> Counts {
        self.inner.shared.counts()
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.inner.shared.change(change);
    }
}

impl Drop for ProxyInner {
    fn drop(&mut self) {
        self.shared.close();
        // Wakes the thread that accepts; closing would not, as long as it is in there. It fails only if there is no listener any more.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        self.shared.reset_all();
    }
}
