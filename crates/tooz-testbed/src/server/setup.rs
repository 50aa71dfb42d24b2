//! What a server is to be like, said before it starts.

use crate::provision::kind::Kind;

/// A server to be started, with what is special about it.
///
/// ```no_run
/// use tooz_testbed::{Kind, Setup};
///
/// let server = Setup::new(Kind::Redis).argument("--maxmemory 10mb").start()?;
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // Each is a choice of its own.
pub struct Setup {
    pub(crate) kind: Kind,
    pub(crate) arguments: Vec<String>,
    pub(crate) version: Option<String>,
    pub(crate) tls: bool,
    pub(crate) unix_socket: bool,
    pub(crate) durable: bool,
    pub(crate) own_clock: bool,
    pub(crate) password: Option<String>,
    pub(crate) disk: Option<u32>,
}

impl Setup {
    /// A server of that kind with nothing special about it.
    pub fn new(kind: Kind) -> Self {
        Setup {
            kind,
            arguments: Vec::new(),
            version: None,
            tls: false,
            unix_socket: false,
            durable: false,
            own_clock: false,
            password: None,
            disk: None,
        }
    }

    /// More of the server's own command line, after what the testbed says, so that it wins where the server lets the
    /// last one win. Split at spaces; [`exact_argument`](Self::exact_argument) is not.
    pub fn argument(mut self, arguments: &str) -> Self {
        self.arguments.extend(arguments.split_whitespace().map(str::to_owned));
        self
    }

    /// One more argument of the server's own command line, as it is.
    pub fn exact_argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// A version that there are packages of, such as `3.4` for etcd. What is installed on this machine is not looked at
    /// then. The error of [`start`](Self::start) lists the versions that there are.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Lets it speak TLS only, with a certificate for `127.0.0.1` and `localhost` of an authority of its own:
    /// [`Server::ca_file`](crate::Server::ca_file). Not for clusters. (ZooKeeper answers on a plain port too, by which the testbed asks whether it is ready.)
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Lets it listen on a Unix socket only, which is then its URL. Redis, PostgreSQL and MariaDB can; not for clusters, and not with TLS.
    pub fn unix_socket(mut self) -> Self {
        self.unix_socket = true;
        self
    }

    /// Lets it keep what it answered over a crash of the whole machine, as it would in production. Without this a server does
    /// not wait for the disk, since no test takes the machine's power away; with it, the cost of a write is the real one.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Lets its time of day be set: [`Server::set_clock_ahead`](crate::Server::set_clock_ahead). Redis, memcached, PostgreSQL and MariaDB can;
    /// it takes a library (`libfaketime`), which is fetched as the servers are, and makes each look at the clock slower.
    pub fn own_clock(mut self) -> Self {
        self.own_clock = true;
        self
    }

    /// Gives its data a disk of their own of so many megabytes, which can be filled: [`Server::disk`](crate::Server::disk). It takes the right to mount.
    pub fn disk(mut self, megabytes: u32) -> Self {
        self.disk = Some(megabytes);
        self
    }

    /// Lets it have a user `app` with that password and no more rights than a member needs: see
    /// [`Server::url_with_user`](crate::Server::url_with_user). Redis, PostgreSQL and MariaDB; not for clusters.
    pub fn user(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }
}
