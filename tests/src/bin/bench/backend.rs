//! What is measured: a driver with its server, started for this run, and a proxy before it that counts what goes by.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tooz::{ConnectOptions, Coordinator, Probe};
use tooz_testbed::{Kind, Provided, Server, Setup, for_tests};

use crate::progress::Progress;

/// What a round trip is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nothing: the figures are absolute.
    Absolute,
    /// One pair of `fcntl` calls on an open file.
    Fcntl,
    /// One pair of the memory driver: what core itself costs.
    Memory,
    /// One question to the server.
    Read,
    /// One committed write at the server.
    Write,
}

/// A driver with all that it needs to be measured.
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    /// Whether other processes reach it.
    pub(crate) across_processes: bool,
    /// Whether a dead member is missed only when its session times out.
    pub(crate) times_out: bool,
    url: String,
    /// Kept until the measuring is over.
    pub(crate) server: Option<Server>,
    _folder: Option<TempDir>,
    _shared_memory: Option<SharedMemory>,
}

/// What a name of the ipc driver has, taken away when the measuring is over.
struct SharedMemory(String);

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let user = nix::unistd::Uid::effective();
        let _ = std::fs::remove_dir_all(format!("/dev/shm/tooz-{user}/{}", self.0));
    }
}

/// Where a crash or heartbeats are measured, so that they come soon; every server accepts it. Elsewhere it is the default: the heartbeats
/// of a thousand members of the shortest timeout would be most of what a server does.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

impl Backend {
    /// All that can be measured, in the order of the table.
    pub(crate) fn names() -> Vec<&'static str> {
        let order = ["memory", "file", "ipc", "redis", "memcached", "etcd", "zookeeper", "consul", "postgres", "mysql"];
        let linked = tooz::drivers();
        order.into_iter().filter(|name| linked.iter().any(|driver| driver.name() == *name)).collect()
    }

    pub(crate) fn start(name: &'static str, progress: &Progress) -> Result<Self> {
        let plain = |unit, across_processes, url| Backend {
            name,
            unit,
            across_processes,
            times_out: false,
            url,
            server: None,
            _folder: None,
            _shared_memory: None,
        };
        match name {
            "memory" => return Ok(plain(Unit::Absolute, false, "memory://bench".to_owned())),
            "file" => {
                let folder = tempfile::Builder::new().prefix("tooz-bench-").tempdir()?;
                let url = format!("file://{}", folder.path().display());
                return Ok(Backend { _folder: Some(folder), ..plain(Unit::Fcntl, true, url) });
            }
            "ipc" => {
                let folder = SharedMemory(format!("bench-{}", std::process::id()));
                // Ten thousand locks, and thousands of members.
                let url = format!("ipc://{}?size=32", folder.0);
                return Ok(Backend { _shared_memory: Some(folder), ..plain(Unit::Memory, true, url) });
            }
            _ => {}
        }
        progress.step("starting the server");
        let kind: Kind = name.parse().with_context(|| format!("the testbed has no server for {name}"))?;
        let (url, server) = if let Provided::Own(url) = for_tests(kind) {
            (url, None)
        } else {
            // Durable, since what it costs to commit is what users pay.
            let mut setup = Setup::new(kind).durable();
            if kind == Kind::Postgres {
                // A member has one connection for its session, and one for as long as it looks at something.
                setup = setup.argument("-c max_connections=2500");
            }
            if kind == Kind::MySql {
                // And a sentinel.
                setup = setup.argument("--max-connections=4000");
            }
            let server = setup.start()?;
            (server.url(), Some(server))
        };
        let unit = if matches!(name, "etcd" | "zookeeper" | "consul") { Unit::Write } else { Unit::Read };
        // The server of a database sees the end of a dead process's connection.
        let times_out = !matches!(name, "postgres" | "mysql");
        Ok(Backend { times_out, server, ..plain(unit, true, url) })
    }

    /// The URL, with a namespace for each part of the run.
    pub(crate) fn url(&self, part: &str) -> String {
        with_namespace(&self.url, part)
    }

    /// The URL as the server's own clients know it.
    pub(crate) fn plain_url(&self) -> &str {
        &self.url
    }

    /// A member of this process.
    pub(crate) async fn connect(&self, part: &str, member: &str) -> Result<Coordinator> {
        connect(&self.url(part), member).await
    }

    /// How the unit is asked for, where a server is asked.
    pub(crate) fn probe(&self) -> Option<Probe> {
        match self.unit {
            Unit::Absolute | Unit::Fcntl | Unit::Memory => None,
            Unit::Read => Some(Probe::Read),
            Unit::Write => Some(Probe::Write),
        }
    }

    /// Whether an operation may be many requests that don't wait for one another.
    pub(crate) fn pipelines(&self) -> bool {
        self.name == "zookeeper"
    }

    /// Whether there is a server.
    pub(crate) fn has_server(&self) -> bool {
        !matches!(self.unit, Unit::Absolute | Unit::Fcntl | Unit::Memory)
    }
}

/// Any URL, with a namespace of the bench's own.
pub(crate) fn with_namespace(url: &str, part: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    let timeout = match part {
        "crash" | "many-locks" | "many-waiters" => format!("&session_timeout={}s", SESSION_TIMEOUT.as_secs()),
        _ => String::new(),
    };
    format!("{url}{mark}namespace=bench-{part}{timeout}")
}

/// A member at that URL.
pub(crate) async fn connect(url: &str, member: &str) -> Result<Coordinator> {
    Ok(ConnectOptions::new(url)?.member(member)?.connect().await?)
}
