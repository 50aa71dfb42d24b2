//! What a soak stands on: a server of its own, or a part of this machine.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tooz_testbed::{Kind, Server};

use crate::census::{self, Census};
use crate::usage::Usage;

/// A backend of this run's own.
pub(crate) enum Ground {
    Server(Box<Server>),
    Folder(TempDir),
    /// Shared memory, by the name of its namespace.
    Shared(String),
    /// A store in the memory of this process.
    Memory(String),
}

impl Ground {
    pub(crate) fn start(backend: &str) -> Result<Ground> {
        let own = || format!("soak-{}", std::process::id());
        Ok(match backend {
            "file" => Ground::Folder(tempfile::tempdir()?),
            "ipc" => Ground::Shared(own()),
            "memory" => Ground::Memory(own()),
            server => {
                let kind: Kind = server.parse().with_context(|| {
                    let all = Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
                    format!("there is no backend `{server}`; there are: file, ipc, memory, {all}")
                })?;
                Ground::Server(Box::new(Server::start(kind)?))
            }
        })
    }

    pub(crate) fn url(&self) -> String {
        match self {
            // The driver is told what the testbed's server is like.
            Ground::Server(server) if server.kind() == Kind::ZooKeeper => server.url() + "?tick_time=250ms",
            Ground::Server(server) => server.url(),
            Ground::Folder(folder) => format!("file://{}", folder.path().display()),
            // A table so small that what is left in it would soon fill it.
            Ground::Shared(name) => format!("ipc://{name}?size=1"),
            Ground::Memory(name) => format!("memory://{name}"),
        }
    }

    /// How many names of locks are used: `file` keeps a file for each that there ever was, and memcached the last token of each for an hour.
    pub(crate) fn names(&self) -> u64 {
        let keeps_names = match self {
            Ground::Folder(_) => true,
            Ground::Server(server) => server.kind() == Kind::Memcached,
            Ground::Shared(_) | Ground::Memory(_) => false,
        };
        if keeps_names { 64 } else { u64::MAX }
    }

    /// What is stored there now.
    pub(crate) fn census(&self) -> Result<Census> {
        match self {
            Ground::Server(server) => census::of_server(server),
            Ground::Folder(folder) => Ok(census::of_folder(folder.path())),
            Ground::Shared(name) => Ok(census::of_folder(&shared(name))),
            Ground::Memory(_) => Ok(Census::new()),
        }
    }

    /// What the server's processes use; nothing where there is no server.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match self {
            Ground::Server(server) => Some(Usage::of_family(server.pid())),
            _ => None,
        }
    }
}

/// Where `ipc` keeps what has that name, for this user.
fn shared(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/tooz-{}/{name}", nix::unistd::geteuid()))
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Ground::Shared(name) = self {
            // Its name has the number of this process: the table is no other's.
            let _ = std::fs::remove_dir_all(shared(name));
        }
    }
}
