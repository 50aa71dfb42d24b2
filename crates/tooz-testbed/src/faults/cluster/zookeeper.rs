//! Three members of a ZooKeeper ensemble.

use anyhow::{Context, Result};

use super::{Cluster, PlannedServer, require};
use crate::server::Server;
use crate::server::backend::ServerRole;
use crate::server::zookeeper::{mode, serves};

pub(super) fn roles(places: &[PlannedServer]) -> Vec<ServerRole> {
    let members: Vec<_> = places.iter().map(|place| (place.peer_front, place.vote_front)).collect();
    (0..places.len()).map(|id| ServerRole::ZooKeeperMember { id, members: members.clone() }).collect()
}

pub(super) fn url(addresses: &str) -> String {
    format!("zookeeper://{addresses}")
}

/// None of them is ready before most of them run.
pub(super) fn launch(cluster: &Cluster) -> Result<()> {
    cluster.nodes.iter().try_for_each(Server::launch)?;
    cluster.nodes.iter().try_for_each(Server::wait_until_ready)
}

/// The one that says so. Of two, the one that was deposed does not know it yet; then there is none to be told.
pub(super) fn leader(cluster: &Cluster) -> Option<usize> {
    let leads = |node: &Server| mode(node.direct()).is_ok_and(|mode| mode.as_deref() == Some("leader"));
    let mut leaders = cluster.nodes.iter().enumerate().filter(|(_, node)| leads(node)).map(|(index, _)| index);
    let leader = leaders.next()?;
    leaders.next().is_none().then_some(leader)
}

pub(super) fn is_whole(cluster: &Cluster) -> Result<()> {
    for (index, node) in cluster.nodes.iter().enumerate() {
        let mode = mode(node.direct()).with_context(|| format!("node {index}"))?;
        require(mode.is_some(), || format!("node {index} does not serve"))?;
    }
    require(leader(cluster).is_some(), || "there is no leader, or more than one".to_owned())?;
    for (index, node) in cluster.nodes.iter().enumerate() {
        require(serves(node.direct()).is_ok_and(|serves| serves), || format!("node {index} begins no session"))?;
    }
    Ok(())
}
