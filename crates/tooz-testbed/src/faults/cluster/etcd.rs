//! Three members of etcd.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{Cluster, PlannedServer, require};
use crate::server::Server;
use crate::server::backend::ServerRole;
use crate::server::etcd::JOINS;
use crate::server::operator::run;
use crate::server::probe;

pub(super) fn roles(places: &[PlannedServer]) -> Vec<ServerRole> {
    let names = || (0..places.len()).map(|index| format!("node{index}"));
    let members: Vec<String> =
        names().zip(places).map(|(name, place)| format!("{name}=http://{}", place.peer_front)).collect();
    let members = members.join(",");
    let role = |(name, place): (String, &PlannedServer)| {
        let advertised = place.peer_front;
        ServerRole::EtcdMember { name, advertised, members: members.clone() }
    };
    names().zip(places).map(role).collect()
}

pub(super) fn url(addresses: &str) -> String {
    format!("etcd://{addresses}")
}

/// None of them is ready before most of them run.
pub(super) fn launch(cluster: &Cluster) -> Result<()> {
    cluster.nodes.iter().try_for_each(Server::launch)?;
    cluster.nodes.iter().try_for_each(Server::wait_until_ready)
}

/// Has the others forget that member, and expect another at its address.
pub(super) fn let_join_anew(cluster: &Cluster, node: usize) -> Result<()> {
    let other = cluster.nodes.iter().enumerate().find(|(other, _)| *other != node);
    let (_, other) = other.context("there are others")?;
    let etcdctl = |words: &[&str]| -> Result<String> {
        let mut command = other.tool("etcdctl")?;
        command.arg("member").args(words);
        run(command, "")
    };
    let name = format!("node{node}");
    let members = etcdctl(&["list"])?;
    // Its id, whether it has started, its name, where its peers and its clients reach it, and whether it learns.
    let fields = members.lines().map(|line| line.split(", ").collect::<Vec<_>>());
    let old = fields.into_iter().find(|fields| fields.get(2) == Some(&name.as_str()));
    let old = old.with_context(|| format!("there is no {name} among {members}"))?;
    etcdctl(&["remove", old[0]])?;
    etcdctl(&["add", &name, &format!("--peer-urls={}", old[3])])?;
    Ok(fs::write(cluster.nodes[node].folder().join(JOINS), "")?)
}

/// How a member sees the cluster.
#[derive(PartialEq, Eq)]
struct View {
    member: String,
    leader: String,
    term: u64,
}

fn view(address: SocketAddr) -> Result<View> {
    let status = probe::post(address, "/v3/maintenance/status", "{}")?;
    let field = |name: &str| {
        let (_, after) = status.split_once(&format!("\"{name}\":\"")).with_context(|| format!("{name} is missing"))?;
        Ok::<_, anyhow::Error>(after.split('"').next().unwrap_or_default().to_owned())
    };
    // Of a cluster without a leader there is no such field.
    let leader = field("leader").unwrap_or_default();
    Ok(View { member: field("member_id")?, leader, term: field("raft_term")?.parse()? })
}

/// The node that most follow, in the latest term that any of them knows.
pub(super) fn leader(cluster: &Cluster) -> Option<usize> {
    let views: Vec<Option<View>> = cluster.nodes.iter().map(|node| view(node.direct()).ok()).collect();
    let leader = views.iter().position(|of| {
        let Some(own) = of.as_ref().filter(|own| own.member == own.leader) else { return false };
        let followers = views.iter().flatten().filter(|other| other.leader == own.member && other.term == own.term);
        Cluster::is_most(followers.count())
    })?;
    Some(leader)
}

pub(super) fn is_whole(cluster: &Cluster) -> Result<()> {
    let mut leaders = Vec::new();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let health = probe::get(node.direct(), "/health").with_context(|| format!("node {index}"))?;
        require(health.contains("\"health\":\"true\""), || format!("node {index} is not healthy"))?;
        let view = view(node.direct()).with_context(|| format!("node {index}"))?;
        leaders.push((view.leader, view.term));
    }
    require(leaders.iter().all(|leader| *leader == leaders[0]), || "the nodes follow different leaders".to_owned())?;
    // The leader of one that was cut off may be the one that it remembers.
    require(leader(cluster).is_some(), || "there is no leader".to_owned())
}
