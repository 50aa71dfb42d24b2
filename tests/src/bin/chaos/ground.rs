//! What a run stands on, and how it is broken.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tooz::memory::Store;
use tooz_conformance::mutant::Bug;
use tooz_testbed::{Cluster, Disk, Proxy};

use crate::backend::{Backend, GroundKind};
use crate::deeds::LoneServer;
use crate::fault::FaultKind;
use crate::plan::PlannedFault;

/// How often connections are reset while that is the fault.
const RESET: Duration = Duration::from_millis(120);

/// How large a folder's small disk is.
const FOLDER_MEGABYTES: u32 = 8;

pub(crate) enum Ground {
    /// The name of the store, and the bug that its driver has.
    Memory(String, Option<Bug>),
    /// A folder, and the small disk on which it is, if it has one.
    Folder(TempDir, Option<Disk>),
    Shared(String),
    /// The server, each worker's way to it, and its URL.
    Server(Box<LoneServer>, Vec<Proxy>, String),
    Cluster(Cluster),
}

impl Ground {
    /// A ground on which these faults can be done.
    pub(crate) fn start(backend: &Backend, workers: usize, faults: &[FaultKind], bug: Option<Bug>) -> Result<Ground> {
        if bug.is_some() && backend.ground != GroundKind::Memory {
            bail!("a bug is put into the memory driver, not into that of {}", backend.name);
        }
        let own = format!("chaos-{}", std::process::id());
        Ok(match backend.ground {
            GroundKind::Memory => Ground::Memory(own, bug),
            GroundKind::Folder => {
                let folder = tempfile::tempdir()?;
                let disk = backend.own_disk.then(|| Disk::mount(folder.path(), FOLDER_MEGABYTES));
                Ground::Folder(folder, disk.transpose()?)
            }
            GroundKind::Shared => Ground::Shared(own),
            GroundKind::Server(kind) => {
                let lone = LoneServer::start(backend, kind, faults)?;
                let proxies = (0..workers).map(|_| Proxy::start(lone.server.address()));
                let proxies = proxies.collect::<Result<Vec<_>>>()?;
                let url = lone.url()?;
                Ground::Server(Box::new(lone), proxies, url)
            }
            GroundKind::Cluster(kind) => Ground::Cluster(Cluster::start(kind)?),
        })
    }

    /// By which URL a look at the whole is taken, past all that is broken.
    pub(crate) fn url(&self, backend: &Backend) -> String {
        let url = match self {
            Ground::Memory(name, None) => format!("memory://{name}"),
            Ground::Memory(name, Some(bug)) => format!("mutant://{name}?bug={bug}"),
            Ground::Folder(folder, _) => format!("file://{}", folder.path().display()),
            Ground::Shared(name) => format!("ipc://{name}"),
            Ground::Server(_, _, url) => url.clone(),
            Ground::Cluster(cluster) => cluster.url(),
        };
        url + backend.options
    }

    /// By which URL that worker connects.
    pub(crate) fn url_of(&self, worker: usize, backend: &Backend) -> String {
        let url = self.url(backend);
        match self {
            Ground::Server(lone, proxies, _) => {
                url.replace(&lone.server.address().to_string(), &proxies[worker].address().to_string())
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
            Ground::Server(lone, proxies, _) => {
                if fault.kind.has_victim() {
                    break_way(&proxies[fault.victim], fault).await
                } else {
                    lone.break_and_mend(fault).await
                }
            }
            Ground::Cluster(cluster) => break_cluster(cluster, fault).await,
            Ground::Folder(_, Some(disk)) => {
                disk.fill()?;
                tokio::time::sleep(fault.lasts).await;
                disk.make_room()
            }
            Ground::Folder(_, None) | Ground::Shared(_) => Ok(()),
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Ground::Folder(_, disk) = self {
            // The folder can't be removed before.
            *disk = None;
        }
        if let Ground::Shared(name) = self {
            // A table stays until a reboot, and this one is of no more use.
            let _ = std::fs::remove_dir_all(shared_folder(name));
        }
    }
}

/// Where the driver keeps a table of that name in shared memory.
pub(crate) fn shared_folder(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(format!("tooz-{}", nix::unistd::getuid())).join(name)
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

async fn break_cluster(cluster: &Cluster, fault: &PlannedFault) -> Result<()> {
    let leader = tokio::task::block_in_place(|| cluster.leader())?;
    let others = (0..cluster.nodes().len()).filter(|node| *node != leader);
    match fault.kind {
        FaultKind::LeaderCut => {
            cluster.partition_wholly(leader);
            tokio::time::sleep(fault.lasts).await;
            cluster.heal();
        }
        FaultKind::RollingRestart => roll(cluster, fault).await?,
        FaultKind::MemberReplaced => {
            let other = others.take(1).next().context("one does not lead")?;
            replace(cluster, other, fault).await?;
        }
        FaultKind::FollowerKill => kill_and_restart(cluster, &others.take(1).collect::<Vec<_>>(), fault).await?,
        FaultKind::MajorityDown => {
            kill_and_restart(cluster, &others.take(1).chain([leader]).collect::<Vec<_>>(), fault).await?;
        }
        _ => kill_and_restart(cluster, &[leader], fault).await?,
    }
    tokio::task::block_in_place(|| cluster.wait_until_whole())
}

async fn kill_and_restart(cluster: &Cluster, victims: &[usize], fault: &PlannedFault) -> Result<()> {
    tokio::task::block_in_place(|| victims.iter().try_for_each(|node| cluster.nodes()[*node].kill()))?;
    tokio::time::sleep(fault.lasts).await;
    tokio::task::block_in_place(|| victims.iter().try_for_each(|node| cluster.nodes()[*node].restart()))
}

/// Ends and starts one after the other, with a third of the time for each: half of that down, half of it back.
async fn roll(cluster: &Cluster, fault: &PlannedFault) -> Result<()> {
    let half = fault.lasts / 6;
    for node in cluster.nodes() {
        tokio::task::block_in_place(|| node.stop())?;
        tokio::time::sleep(half).await;
        tokio::task::block_in_place(|| node.restart().and_then(|()| cluster.wait_until_whole()))?;
        tokio::time::sleep(half).await;
    }
    Ok(())
}

/// Puts an empty server in the place of that one, which is gone for a while.
async fn replace(cluster: &Cluster, node: usize, fault: &PlannedFault) -> Result<()> {
    tokio::task::block_in_place(|| cluster.nodes()[node].kill())?;
    tokio::time::sleep(fault.lasts).await;
    tokio::task::block_in_place(|| cluster.replace(node))
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
