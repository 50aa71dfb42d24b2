//! What the room of each server says of how it is run, so that no other room need know which server it is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use crate::provision::kind::Kind;
use crate::server::clock::Clock;
use crate::server::operator::Deed;
use crate::server::programs::Programs;
use crate::server::tls::Tls;

/// How one kind of server is run.
pub(crate) trait Backend: Sync {
    /// Writes what has to be in the folder before the first start.
    fn prepare(&self, plan: &Plan) -> Result<()>;

    /// The command that runs the server in the foreground.
    fn command(&self, plan: &Plan) -> Result<Command>;

    /// Whether it answers requests by now. An error means that it does not, like `false`, and says why.
    fn is_ready(&self, plan: &Plan) -> Result<bool>;

    /// The URL that a driver takes.
    fn url(&self, plan: &Plan) -> String;

    /// One of its own programs, with the arguments that make it talk to this server.
    fn tool(&self, plan: &Plan, program: &str) -> Result<Command>;

    /// The URL that a driver takes, of the user that a [`Deed`] can make, with its password in that file.
    fn url_with_user(&self, plan: &Plan, _password_file: &Path) -> Result<String> {
        bail!("the testbed makes no user at {}", plan.kind)
    }

    /// Does that to the running server.
    fn operate(&self, plan: &Plan, deed: Deed<'_>) -> Result<()> {
        bail!("the testbed can't do {deed:?} to {}", plan.kind)
    }

    /// How many requests it has counted since it was started; `None`: it does not count them.
    fn requests(&self, _plan: &Plan) -> Result<Option<u64>> {
        Ok(None)
    }

    /// The signal by which it is asked to end without waiting for its clients.
    fn stop_signal(&self) -> Signal {
        Signal::SIGTERM
    }

    /// The folder in which all its processes work, for a server that is more than one process.
    fn family(&self, _plan: &Plan) -> Option<PathBuf> {
        None
    }
}

/// A server as it is to be run: everything that stays the same over restarts.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) installation: Programs,
    /// Its own folder, for data, log, sockets and certificates.
    pub(crate) folder: PathBuf,
    /// Where it listens for clients.
    pub(crate) listen: SocketAddr,
    /// Where it listens for its peers, if it has a port for them.
    pub(crate) peers: SocketAddr,
    /// Where clients connect: to itself, or to the proxy before it in a cluster.
    pub(crate) address: SocketAddr,
    /// Where it can be asked after its health without TLS.
    pub(crate) health: SocketAddr,
    pub(crate) tls: Option<Tls>,
    /// Where it listens instead of at the address.
    pub(crate) unix_socket: Option<PathBuf>,
    pub(crate) role: ServerRole,
    /// Whether it waits for the disk, as it would in production.
    pub(crate) durable: bool,
    /// By which its time of day can be set.
    pub(crate) clock: Option<Clock>,
    /// Whether it has a user for programs, which stays over restarts.
    pub(crate) has_user: bool,
    /// Arguments of the caller's, after all others.
    pub(crate) arguments: Vec<String>,
}

/// What a server is among others. Addresses are those at which the others are reached.
#[derive(Debug)]
pub(crate) enum ServerRole {
    Alone,
    /// A member of an etcd cluster, with its name, its own address for its peers, and all members.
    EtcdMember {
        name: String,
        advertised: SocketAddr,
        members: String,
    },
    /// A server of a Consul cluster: its number, its own address for the others, and where each is found by gossip.
    ConsulServer {
        id: usize,
        advertised: SocketAddr,
        gossip: Vec<SocketAddr>,
    },
    /// An agent of Consul that keeps no data and asks those servers.
    ConsulClient {
        gossip: Vec<SocketAddr>,
    },
    /// A member of a ZooKeeper ensemble: its number, and where each member is reached by its peers and for votes.
    ZooKeeperMember {
        id: usize,
        members: Vec<(SocketAddr, SocketAddr)>,
    },
    /// The primary of a Redis that Sentinels watch, or a replica of that one.
    RedisNode {
        replica_of: Option<SocketAddr>,
    },
    /// A Sentinel that watches that primary.
    RedisSentinel {
        primary: SocketAddr,
    },
}

impl Plan {
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

/// A path for a command line that is made of text.
pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
