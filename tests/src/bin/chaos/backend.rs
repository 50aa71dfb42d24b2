//! The backends: what each stands on, and how long it takes its time.

use std::time::Duration;

use anyhow::{Result, bail};
use tooz_testbed::Kind;

use crate::Arguments;

/// What a run needs to know of a backend.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) ground: GroundKind,
    /// What stands behind every URL, so that the driver knows what the testbed's server is like.
    pub(crate) options: &'static str,
    pub(crate) session_timeout: Duration,
    /// How long after the end of a process the backend may keep what it had.
    pub(crate) inherited: Duration,
    /// The older version of the server with which the run begins, and the newer one, where it is to be replaced.
    pub(crate) versions: Option<(&'static str, &'static str)>,
    /// Whether the data have a small disk of their own.
    pub(crate) own_disk: bool,
    /// A reading may show what was so before.
    pub(crate) reads_may_be_old: bool,
}

/// What a run stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroundKind {
    /// A store in the memory of one process.
    Memory,
    /// A folder.
    Folder,
    /// Shared memory of the host.
    Shared,
    Server(Kind),
    /// Three servers that are one.
    Cluster(Kind),
}

const SHORT: Duration = Duration::from_secs(2);

const fn server(name: &'static str, kind: Kind, inherited: u64) -> Backend {
    Backend {
        name,
        ground: GroundKind::Server(kind),
        options: "",
        session_timeout: SHORT,
        inherited: Duration::from_millis(inherited),
        versions: None,
        own_disk: false,
        reads_may_be_old: false,
    }
}

const fn embedded(name: &'static str, ground: GroundKind, inherited: u64) -> Backend {
    Backend { ground, ..server(name, Kind::Redis, inherited) }
}

/// All of them.
pub(crate) const BACKENDS: &[Backend] = &[
    server("consul", Kind::Consul, 4500),
    server("etcd", Kind::Etcd, 3000),
    embedded("file", GroundKind::Folder, 500),
    embedded("ipc", GroundKind::Shared, 500),
    server("memcached", Kind::Memcached, 4500),
    embedded("memory", GroundKind::Memory, 2500),
    server("mysql", Kind::MySql, 2500),
    server("postgres", Kind::Postgres, 2500),
    server("redis", Kind::Redis, 2500),
    Backend {
        options: "?tick_time=250ms",
        // Any server of an ensemble answers, from what it knows.
        reads_may_be_old: true,
        ..server("zookeeper", Kind::ZooKeeper, 2500)
    },
];

impl Backend {
    pub(crate) fn named(name: &str) -> Result<&'static Backend> {
        let names = || BACKENDS.iter().map(|backend| backend.name).collect::<Vec<_>>().join(", ");
        match BACKENDS.iter().find(|backend| backend.name == name) {
            Some(backend) => Ok(backend),
            None => bail!("there is no backend `{name}`; there are: {}", names()),
        }
    }

    /// The same with what the arguments say of its ground.
    pub(crate) fn with(&self, arguments: &Arguments) -> Result<Backend> {
        let mut backend = Backend { ..*self };
        if arguments.cluster {
            backend = backend.clustered()?;
        }
        if arguments.upgrade {
            backend = backend.upgraded()?;
        }
        if arguments.disk {
            backend = backend.with_disk()?;
        }
        Ok(backend)
    }

    /// The same on a cluster of three, for those that have clusters.
    pub(crate) fn clustered(&self) -> Result<Backend> {
        match self.ground {
            GroundKind::Server(kind @ (Kind::Etcd | Kind::Consul | Kind::ZooKeeper | Kind::Redis)) => Ok(Backend {
                ground: GroundKind::Cluster(kind),
                // An election takes its time, and leases begin anew with it.
                inherited: self.inherited + Duration::from_secs(3),
                ..*self
            }),
            _ => bail!("{} has no cluster here; etcd, consul, zookeeper and redis have", self.name),
        }
    }

    /// The same with a server that is old at first, for those of which there are two versions.
    pub(crate) fn upgraded(&self) -> Result<Backend> {
        let GroundKind::Server(kind) = self.ground else { bail!("{} has no server to upgrade", self.name) };
        let versions = match kind {
            Kind::Redis => ("7.0", "8.0"),
            Kind::Etcd => ("3.4", "3.5"),
            Kind::ZooKeeper => ("3.8", "3.9"),
            Kind::Memcached => ("1.6.18", "1.6.38"),
            Kind::MySql => ("10.11", "11.8"),
            _ => bail!("{} has no two versions of which one goes on with the data of the other", self.name),
        };
        Ok(Backend { versions: Some(versions), ..*self })
    }

    /// The same with a small disk for the data, for those that keep any on one.
    pub(crate) fn with_disk(&self) -> Result<Backend> {
        match self.ground {
            GroundKind::Server(kind) if kind != Kind::Memcached => Ok(Backend { own_disk: true, ..*self }),
            GroundKind::Folder => Ok(Backend { own_disk: true, ..*self }),
            _ => bail!("{} keeps nothing on a disk that can be filled here", self.name),
        }
    }

    /// How long what a fault has left behind may take to be mended: two session timeouts, or two of what the backend makes of them.
    pub(crate) fn recovery(&self) -> Duration {
        self.session_timeout.max(self.inherited) * 2
    }
}
