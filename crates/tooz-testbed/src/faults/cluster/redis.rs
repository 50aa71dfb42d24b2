//! A primary of Redis with two replicas, and three Sentinels.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{Cluster, NODES, PlannedServer, require};
use crate::server::Server;
use crate::server::backend::ServerRole;
use crate::server::probe;
use crate::server::redis::NAME;
use crate::server::wait;

/// Sentinels ask for news every ten seconds, which is a long time on one machine. Those before 7.0 can't be told, and
/// just take longer.
///
/// One whose connection was cut, as a new primary does to all, connects again no sooner than a ping period after it connected last. That
/// must be less than the time after which it takes a server for down, or a fail-over is followed by another one; and five of it more than
/// the second between two questions to the replicas of a primary that is down, or none of them is known well enough to be promoted.
const IN_A_HURRY: &str = "SENTINEL DEBUG info-period 200 publish-period 200 ask-period 200 ping-period 300";

pub(super) fn roles(places: &[PlannedServer]) -> Vec<ServerRole> {
    let primary = places[0].front;
    let role = |index: usize| match index {
        0 => ServerRole::RedisNode { replica_of: None },
        1..NODES => ServerRole::RedisNode { replica_of: Some(primary) },
        _ => ServerRole::RedisSentinel { primary },
    };
    (0..places.len()).map(role).collect()
}

pub(super) fn url(sentinels: &str) -> String {
    format!("redis://{sentinels}/0?sentinel={NAME}")
}

/// Sentinels learn of the replicas from the primary; those that have not connected yet when it is asked are found late.
pub(super) fn launch(cluster: &Cluster) -> Result<()> {
    cluster.nodes[0].launch()?;
    cluster.nodes[0].wait_until_ready()?;
    for server in &cluster.nodes[1..] {
        server.launch()?;
    }
    cluster.nodes.iter().try_for_each(Server::wait_until_ready)?;
    wait::until(super::PATIENCE, "the replicas have the data of the primary", || {
        Ok((1..NODES).all(|replica| follows(cluster, replica).is_ok()).then_some(()))
    })?;
    cluster.sentinels.iter().try_for_each(Server::launch)?;
    cluster.sentinels.iter().try_for_each(Server::wait_until_ready)?;
    for sentinel in &cluster.sentinels {
        ask(sentinel.direct(), IN_A_HURRY)?;
    }
    Ok(())
}

/// What a server answers, line by line, without the lengths.
fn ask(address: SocketAddr, command: &str) -> Result<Vec<String>> {
    // The answer to the second command says where the one to the first ends.
    let end = b"+PONG\r\n";
    let answer = probe::ask(address, format!("{command}\r\nPING\r\n").as_bytes(), |answer| answer.ends_with(end))?;
    let answer = String::from_utf8_lossy(&answer[..answer.len().saturating_sub(end.len())]).into_owned();
    Ok(answer.lines().filter(|line| !line.starts_with(['$', '*'])).map(str::to_owned).collect())
}

/// The value after that name in an answer that lists names and values.
fn value<'a>(lines: &'a [String], name: &str) -> Option<&'a str> {
    let place = lines.iter().position(|line| line == name)?;
    lines.get(place + 1).map(String::as_str)
}

fn node_at(cluster: &Cluster, port: &str) -> Option<usize> {
    cluster.nodes.iter().position(|node| node.address().port().to_string() == port)
}

/// The node that most Sentinels name, if it says the same of itself.
pub(super) fn leader(cluster: &Cluster) -> Option<usize> {
    let named: Vec<usize> = cluster.sentinels.iter().filter_map(|sentinel| named_by(cluster, sentinel).ok()).collect();
    let most = |node: &usize| Cluster::is_most(named.iter().filter(|other| *other == node).count());
    let leader = (0..NODES).find(most)?;
    let role = ask(cluster.nodes[leader].direct(), "ROLE").ok()?;
    (role.first().map(String::as_str) == Some("master")).then_some(leader)
}

fn named_by(cluster: &Cluster, sentinel: &Server) -> Result<usize> {
    let address = ask(sentinel.direct(), &format!("SENTINEL get-master-addr-by-name {NAME}"))?;
    let port = address.get(1).context("it names no primary")?;
    node_at(cluster, port).context("it names a primary that is none of the nodes")
}

fn follows(cluster: &Cluster, replica: usize) -> Result<()> {
    let info = ask(cluster.nodes[replica].direct(), "INFO replication")?;
    require(info.iter().any(|line| line == "master_link_status:up"), || format!("node {replica} follows no primary"))
}

pub(super) fn is_whole(cluster: &Cluster) -> Result<()> {
    let leader = leader(cluster).context("there is no primary that the Sentinels agree on")?;
    for replica in (0..NODES).filter(|node| *node != leader) {
        follows(cluster, replica)?;
        let info = ask(cluster.nodes[replica].direct(), "INFO replication")?;
        let port = cluster.nodes[leader].address().port();
        let right = info.iter().any(|line| *line == format!("master_port:{port}"));
        require(right, || format!("node {replica} follows another primary than the one of the Sentinels"))?;
    }
    for (index, sentinel) in cluster.sentinels.iter().enumerate() {
        require(named_by(cluster, sentinel)? == leader, || format!("Sentinel {index} names another primary"))?;
        let master = ask(sentinel.direct(), &format!("SENTINEL MASTER {NAME}"))?;
        let is = |name: &str, right: &str| {
            let found = value(&master, name).unwrap_or("nothing");
            require(found == right, || format!("Sentinel {index} says {found} of {name}, and not {right}"))
        };
        is("flags", "master")?;
        is("num-slaves", "2")?;
        is("num-other-sentinels", "2")?;
        for of in ["REPLICAS", "SENTINELS"] {
            let others = ask(sentinel.direct(), &format!("SENTINEL {of} {NAME}"))?;
            let down = others.iter().any(|line| line.contains("s_down") || line.contains("disconnected"));
            require(!down, || format!("Sentinel {index} misses some of {of}"))?;
        }
    }
    Ok(())
}
