//! What a run stands on, and how it is broken.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tooz::memory::Store;
use tooz_conformance::mutant::Bug;
use tooz_testbed::{Cluster, Proxy, Server};

use crate::backend::{Backend, GroundKind};
use crate::fault::FaultKind;
use crate::plan::PlannedFault;

/// How often connections are reset while that is the fault.
const RESET: Duration = Duration::from_millis(120);

pub(crate) enum Ground {
    /// The name of the store, and the bug that its driver has.
    Memory(String, Option<Bug>),
    Folder(TempDir),
    Shared(String),
    /// The server, and each worker's way to it.
    Server(Box<Server>, Vec<Proxy>),
    Cluster(Cluster),
}

impl Ground {
    pub(crate) fn start(backend: &Backend, workers: usize, bug: Option<Bug>) -> Result<Ground> {
        if bug.is_some() && backend.ground != GroundKind::Memory {
            bail!("a bug is put into the memory driver, not into that of {}", backend.name);
        }
        let own = format!("chaos-{}", std::process::id());
        Ok(match backend.ground {
            GroundKind::Memory => Ground::Memory(own, bug),
            GroundKind::Folder => Ground::Folder(tempfile::tempdir()?),
            GroundKind::Shared => Ground::Shared(own),
            GroundKind::Server(kind) => {
                let server = Server::start(kind)?;
                let proxies = (0..workers).map(|_| Proxy::start(server.address()));
                let proxies = proxies.collect::<Result<Vec<_>>>()?;
                Ground::Server(Box::new(server), proxies)
            }
            GroundKind::Cluster(kind) => Ground::Cluster(Cluster::start(kind)?),
        })
    }

    /// By which URL a look at the whole is taken, past all that is broken.
    pub(crate) fn url(&self, backend: &Backend) -> String {
        let url = match self {
            Ground::Memory(name, None) => format!("memory://{name}"),
            Ground::Memory(name, Some(bug)) => format!("mutant://{name}?bug={bug}"),
            Ground::Folder(folder) => format!("file://{}", folder.path().display()),
            Ground::Shared(name) => format!("ipc://{name}"),
            Ground::Server(server, _) => server.url(),
            Ground::Cluster(cluster) => cluster.url(),
        };
        url + backend.options
    }

    /// By which URL that worker connects.
    pub(crate) fn url_of(&self, worker: usize, backend: &Backend) -> String {
        let url = self.url(backend);
        match self {
            Ground::Server(server, proxies) => {
                url.replace(&server.address().to_string(), &proxies[worker].address().to_string())
            }
            _ => url,
        }
    }

    /// Whether the workers are part of this process.
    pub(crate) fn is_of_one_process(&self) -> bool {
        matches!(self, Ground::Memory(..))
    }

    /// Breaks what is not a worker, keeps it so for its time, and mends it.
    pub(crate) async fn break_and_mend(&self, fault: &PlannedFault) -> Result<()> {
        match self {
            Ground::Memory(name, _) => break_store(&Store::named(name), fault).await,
            Ground::Server(server, proxies) => {
                if fault.kind.has_victim() {
                    break_way(&proxies[fault.victim], fault).await
                } else {
                    break_server(server, fault).await
                }
            }
            Ground::Cluster(cluster) => break_cluster(cluster, fault).await,
            Ground::Folder(_) | Ground::Shared(_) => Ok(()),
        }
    }
}

async fn break_store(store: &Store, fault: &PlannedFault) -> Result<()> {
    let member = format!("w{}", fault.victim).parse().context("a worker's name is a member's")?;
    if fault.kind == FaultKind::SessionEnd {
        store.expire(&member);
        return Ok(());
    }
    store.partition(&member);
    tokio::time::sleep(fault.lasts).await;
    store.heal(&member);
    Ok(())
}

/// What is done to a server.
type Deed = fn(&Server) -> Result<()>;

async fn break_server(server: &Server, fault: &PlannedFault) -> Result<()> {
    let (begin, end): (Deed, Deed) = match fault.kind {
        FaultKind::ServerRestart => (Server::stop, Server::restart),
        FaultKind::ServerPause | FaultKind::ServerHang => (Server::pause, Server::resume),
        _ => (Server::kill, Server::restart),
    };
    tokio::task::block_in_place(|| begin(server))?;
    tokio::time::sleep(fault.lasts).await;
    tokio::task::block_in_place(|| end(server))
}

async fn break_cluster(cluster: &Cluster, fault: &PlannedFault) -> Result<()> {
    let leader = tokio::task::block_in_place(|| cluster.leader())?;
    let others = (0..cluster.nodes().len()).filter(|node| *node != leader);
    let victims: Vec<usize> = match fault.kind {
        FaultKind::FollowerKill => others.take(1).collect(),
        FaultKind::MajorityDown => others.take(1).chain([leader]).collect(),
        _ => vec![leader],
    };
    if fault.kind == FaultKind::LeaderCut {
        cluster.partition_wholly(leader);
        tokio::time::sleep(fault.lasts).await;
        cluster.heal();
    } else {
        tokio::task::block_in_place(|| victims.iter().try_for_each(|node| cluster.nodes()[*node].kill()))?;
        tokio::time::sleep(fault.lasts).await;
        tokio::task::block_in_place(|| victims.iter().try_for_each(|node| cluster.nodes()[*node].restart()))?;
    }
    tokio::task::block_in_place(|| cluster.wait_until_whole())
}

async fn break_way(way: &Proxy, fault: &PlannedFault) -> Result<()> {
    match fault.kind {
        FaultKind::Refuse => {
            way.refuse();
            way.reset();
        }
        FaultKind::Deaf => way.drop_to_client(),
        FaultKind::Mute => way.drop_to_server(),
        FaultKind::Slow => way.delay(Duration::from_millis(30)),
        FaultKind::Reset | FaultKind::Swallow => return break_again_and_again(way, fault).await,
        _ => way.stall(),
    }
    tokio::time::sleep(fault.lasts).await;
    way.heal();
    Ok(())
}

async fn break_again_and_again(way: &Proxy, fault: &PlannedFault) -> Result<()> {
    let end = tokio::time::Instant::now() + fault.lasts;
    while tokio::time::Instant::now() < end {
        if fault.kind == FaultKind::Reset {
            way.reset();
        } else {
            // Of whatever is sent next.
            way.swallow_reply(b"");
        }
        tokio::time::sleep(RESET).await;
    }
    way.heal();
    Ok(())
}
