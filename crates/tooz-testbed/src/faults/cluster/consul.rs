//! Three servers of Consul, and an agent beside them that keeps no data.
//!
//! What they say to each other about the data, and what they pass on of their clients' requests, goes by the ways that can be cut. Their gossip,
//! which says who is there, does not.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};

use super::{Cluster, PlannedServer, require};
use crate::provision;
use crate::provision::kind::Kind;
use crate::server::backend::ServerRole;
use crate::server::consul::{door, leader_seen_by, serves};
use crate::server::ports;
use crate::server::probe;
use crate::server::setup::Setup;
use crate::server::{Pid, Server};

pub(super) fn roles(places: &[PlannedServer]) -> Vec<ServerRole> {
    let gossip: Vec<SocketAddr> =
        places.iter().enumerate().map(|(id, place)| door(id, place.ports[2].address())).collect();
    let role = |(id, place): (usize, &PlannedServer)| ServerRole::ConsulServer {
        id,
        advertised: place.peer_front,
        gossip: gossip.clone(),
    };
    places.iter().enumerate().map(role).collect()
}

pub(super) fn url(addresses: &str) -> String {
    format!("consul://{addresses}")
}

/// None of them is ready before most of them run.
pub(super) fn launch(cluster: &Cluster) -> Result<()> {
    cluster.nodes.iter().try_for_each(Server::launch)?;
    cluster.nodes.iter().try_for_each(Server::wait_until_ready)
}

/// The one that most name.
pub(super) fn leader(cluster: &Cluster) -> Option<usize> {
    let named: Vec<_> = cluster.nodes.iter().map(|node| leader_seen_by(node.direct()).ok().flatten()).collect();
    (0..cluster.nodes.len()).find(|&index| {
        let address = door(index, cluster.nodes[index].peers());
        // One that is cut off, paused or down does not name itself.
        named[index] == Some(address) && Cluster::is_most(named.iter().filter(|one| **one == Some(address)).count())
    })
}

pub(super) fn is_whole(cluster: &Cluster) -> Result<()> {
    let mut leaders = Vec::new();
    for (index, node) in cluster.nodes.iter().enumerate() {
        leaders.push(leader_seen_by(node.direct()).with_context(|| format!("node {index}"))?);
        require(serves(node.direct()).is_ok_and(|serves| serves), || format!("node {index} does not serve"))?;
    }
    require(leaders[0].is_some() && leaders.iter().all(|one| *one == leaders[0]), || {
        "the nodes follow different leaders".to_owned()
    })?;
    let raft = probe::get(cluster.nodes[0].direct(), "/v1/operator/raft/configuration")?;
    // One that wants a token does not say who votes.
    let voters = raft.matches("\"Voter\":true").count();
    require(raft.starts_with("HTTP/1.1 403") || voters == cluster.nodes.len(), || format!("{voters} of them vote"))?;
    require(leader(cluster).is_some(), || "there is no leader".to_owned())
}

impl Cluster {
    /// Starts an agent of Consul that keeps no data and asks the servers of this cluster, as there is one on each host of a fleet.
    /// `arguments` are more of its command line, split at spaces. It is no part of the cluster, but ends with what is dropped of it.
    pub fn client_agent(&self, arguments: &str) -> Result<Server> {
        if self.kind != Kind::Consul {
            bail!("an agent is a part of Consul, and not of {}", self.kind);
        }
        let setup = Setup::new(Kind::Consul).argument(arguments);
        let installation = provision::provision_version(Kind::Consul, None, &|_| ())?;
        let gossip = self.nodes.iter().enumerate().map(|(id, node)| door(id, node.health())).collect();
        let ports = ports::three()?;
        let front = ports[0].address();
        let agent =
            Server::new(&setup, installation, ports, front, ServerRole::ConsulClient { gossip }, Pid::default())?;
        agent.launch()?;
        agent.wait_until_ready()?;
        Ok(agent)
    }
}
