//! Three servers that are one, and the network between them.

mod consul;
mod etcd;
mod redis;
mod sockets;
mod whose;
mod zookeeper;

use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::faults::proxy::Proxy;
use crate::provision;
use crate::provision::kind::Kind;
use crate::server::backend::ServerRole;
use crate::server::consul::door;
use crate::server::ports;
use crate::server::ports::{Port, Ports};
use crate::server::setup::Setup;
use crate::server::wait;
use crate::server::{Pid, Server};

use self::whose::Roster;

/// How many servers a cluster has: the fewest of which one can fail.
pub(super) const NODES: usize = 3;

/// How long a cluster may take until it has a leader, or all its servers again. It takes about a second on an idle machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A cluster of three servers: of etcd or Consul; of Redis a primary and two replicas, with three Sentinels that watch them under
/// the name `tooz`.
///
/// Everything that goes to one of its servers, from clients and from the others, goes through a [`Proxy`], which knows by
/// the kernel's lists of sockets which of the servers has made a connection. So one server can be cut off from the others
/// without any right over the network: see [`partition`](Self::partition).
///
/// Servers are counted from zero. Indices that are out of range panic.
#[derive(Debug)]
pub struct Cluster {
    kind: Kind,
    nodes: Vec<Server>,
    sentinels: Vec<Server>,
    links: Vec<Link>,
    cuts: Mutex<[Cut; NODES]>,
}

/// The way to one server.
#[derive(Debug)]
struct Link {
    proxy: Proxy,
    /// Whose way it is: first the nodes, then the Sentinels.
    to: usize,
    for_clients: bool,
}

/// What a node is cut off from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cut {
    Nothing,
    Peers,
    Everybody,
}

/// What is known of a server before it is made.
struct PlannedServer {
    ports: Ports,
    pid: Pid,
    /// Where clients connect.
    front: SocketAddr,
    /// Where peers connect, if that is somewhere else.
    peer_front: SocketAddr,
    /// Where peers of ZooKeeper connect to agree on a leader.
    vote_front: SocketAddr,
}

impl Setup {
    /// Starts a cluster of three servers, each of them like this; a Sentinel gets no arguments.
    pub fn start_cluster(self) -> Result<Cluster> {
        Cluster::start_as(&self)
    }
}

impl Cluster {
    /// Starts a cluster and returns when it is whole.
    pub fn start(kind: Kind) -> Result<Cluster> {
        Setup::new(kind).start_cluster()
    }

    pub(crate) fn start_as(setup: &Setup) -> Result<Cluster> {
        if setup.tls || setup.unix_socket {
            bail!("a cluster of the testbed speaks plain TCP; tls() and unix_socket() are for a single server");
        }
        if setup.kind == Kind::Postgres {
            bail!("PostgreSQL has one primary: there is no cluster to start");
        }
        if setup.kind == Kind::Memcached {
            bail!("servers of memcached know nothing of each other: there is no cluster to start");
        }
        if setup.kind == Kind::MySql {
            bail!("named locks are of one server: there is no cluster of MariaDB to start");
        }
        let with_sentinels = setup.kind == Kind::Redis;
        let count = if with_sentinels { NODES * 2 } else { NODES };
        let (places, links) = places(count, setup.kind)?;
        let installation = provision::provision_version(setup.kind, setup.version.as_deref(), &|_| ())?;
        let roles: Vec<ServerRole> = match setup.kind {
            Kind::Redis => redis::roles(&places),
            Kind::Etcd => etcd::roles(&places),
            Kind::ZooKeeper => zookeeper::roles(&places),
            Kind::Postgres | Kind::Memcached | Kind::MySql => Vec::new(),
            Kind::Consul => consul::roles(&places),
        };
        let mut servers = Vec::new();
        for (place, role) in places.into_iter().zip(roles) {
            let PlannedServer { ports, pid, front, .. } = place;
            servers.push(Server::new(setup, installation.clone(), ports, front, role, pid)?);
        }
        let sentinels = servers.split_off(NODES);
        let cuts = Mutex::new([Cut::Nothing; NODES]);
        let cluster = Cluster { kind: setup.kind, nodes: servers, sentinels, links, cuts };
        match cluster.kind {
            Kind::Redis => redis::launch(&cluster)?,
            Kind::Etcd => etcd::launch(&cluster)?,
            Kind::ZooKeeper => zookeeper::launch(&cluster)?,
            Kind::Postgres | Kind::Memcached | Kind::MySql => {}
            Kind::Consul => consul::launch(&cluster)?,
        }
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    /// What a driver connects to, with all servers in it; for Redis all Sentinels and the name.
    pub fn url(&self) -> String {
        let all = |servers: &[Server]| {
            servers.iter().map(|server| server.address().to_string()).collect::<Vec<_>>().join(",")
        };
        match self.kind {
            Kind::Redis => redis::url(&all(&self.sentinels)),
            Kind::Etcd => etcd::url(&all(&self.nodes)),
            Kind::ZooKeeper => zookeeper::url(&all(&self.nodes)),
            Kind::Postgres | Kind::Memcached | Kind::MySql => self.url_of(0),
            Kind::Consul => consul::url(&all(&self.nodes)),
        }
    }

    /// The URL of one server alone.
    pub fn url_of(&self, node: usize) -> String {
        self.nodes[node].url()
    }

    /// The servers that keep the data. What can be done to a [`Server`] can be done to each. One that is restarted while it
    /// is cut off, or while most are down, may not become ready.
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// The Sentinels; none but for Redis.
    pub fn sentinels(&self) -> &[Server] {
        &self.sentinels
    }

    /// Which server leads now, as most see it: the leader of etcd, the primary of Redis. Waits, within bounds, until there is
    /// one that answers.
    ///
    /// A leader that has just been cut off is still the leader until the others have noticed:
    /// [`leader_other_than`](Self::leader_other_than).
    pub fn leader(&self) -> Result<usize> {
        wait::until(PATIENCE, "the cluster has a leader", || Ok(self.look_for_leader()))
    }

    /// Waits, within bounds, until most see another server lead than that one.
    pub fn leader_other_than(&self, node: usize) -> Result<usize> {
        let look = || Ok(self.look_for_leader().filter(|leader| *leader != node));
        wait::until(PATIENCE, &format!("another node than {node} leads"), look)
    }

    /// Puts an empty server in the place of that one, which is killed, and returns when it answers: what it needs it has from the others, most of
    /// which have to be there. An etcd gets to know it as another member. Not for the leader: an empty primary of Redis would be followed.
    pub fn replace(&self, node: usize) -> Result<()> {
        self.nodes[node].kill()?;
        if self.kind == Kind::Etcd {
            etcd::let_join_anew(self, node)?;
        }
        self.nodes[node].make_empty()?;
        self.nodes[node].run()
    }

    fn look_for_leader(&self) -> Option<usize> {
        match self.kind {
            Kind::Redis => redis::leader(self),
            Kind::Etcd => etcd::leader(self),
            Kind::ZooKeeper => zookeeper::leader(self),
            Kind::Postgres | Kind::Memcached | Kind::MySql => None,
            Kind::Consul => consul::leader(self),
        }
    }

    /// Waits, within bounds, until all servers are there, see each other and agree.
    pub fn wait_until_whole(&self) -> Result<()> {
        let mut why = String::new();
        let whole = wait::until(PATIENCE, "the cluster is whole", || {
            let whole = match self.kind {
                Kind::Redis => redis::is_whole(self),
                Kind::Etcd => etcd::is_whole(self),
                Kind::ZooKeeper => zookeeper::is_whole(self),
                Kind::Postgres | Kind::Memcached | Kind::MySql => Ok(()),
                Kind::Consul => consul::is_whole(self),
            };
            match whole {
                Ok(()) => Ok(Some(())),
                Err(error) => {
                    why = format!("{error:#}");
                    Ok(None)
                }
            }
        });
        whole.with_context(|| {
            // One that died or throws says why in its log.
            let logs = self.nodes.iter().chain(&self.sentinels).enumerate();
            let logs: Vec<String> =
                logs.map(|(at, node)| format!("the log of server {at}:\n{}", node.end_of_log())).collect();
            format!("at last: {why}; {}", logs.join("\n"))
        })
    }

    /// Cuts one node off from the others, and for Redis from the Sentinels: silently, both ways. Connections between them
    /// hang, and so do new ones. Clients reach it as before, and those that wait on it wait.
    ///
    /// Several nodes can be cut off at a time; then they don't reach each other either.
    pub fn partition(&self, node: usize) {
        self.cut(node, Cut::Peers);
    }

    /// Cuts one node off like [`partition`](Self::partition), and from its clients too: their connections hang as well.
    pub fn partition_wholly(&self, node: usize) {
        self.cut(node, Cut::Everybody);
    }

    fn cut(&self, node: usize, cut: Cut) {
        let mut cuts = self.cuts.lock();
        cuts[node] = cut;
        self.enforce(*cuts);
    }

    /// Ends all partitions. What was held flows on.
    pub fn heal(&self) {
        let mut cuts = self.cuts.lock();
        *cuts = [Cut::Nothing; NODES];
        self.enforce(*cuts);
    }

    fn enforce(&self, cuts: [Cut; NODES]) {
        let is_cut = |member: usize| cuts.get(member).is_some_and(|cut| *cut != Cut::Nothing);
        let members = self.nodes.len() + self.sentinels.len();
        for link in &self.links {
            let others = (0..members).filter(|from| *from != link.to && (is_cut(*from) || is_cut(link.to)));
            let mut held: Vec<Option<usize>> = others.map(Some).collect();
            if link.for_clients && cuts.get(link.to) == Some(&Cut::Everybody) {
                held.push(None);
            }
            link.proxy.hold_those_of(&held);
        }
    }

    /// Whether most of the nodes are of that number.
    fn is_most(number: usize) -> bool {
        number * 2 > NODES
    }
}

/// Ports and proxies for so many servers.
fn places(count: usize, kind: Kind) -> Result<(Vec<PlannedServer>, Vec<Link>)> {
    let pids: Vec<Pid> = (0..count).map(|_| Pid::default()).collect();
    let roster = Arc::new(Roster::new(pids.clone()));
    let (mut places, mut links) = (Vec::new(), Vec::new());
    for (to, pid) in pids.into_iter().enumerate() {
        let ports = ports::three()?;
        let mut link = |port: &Port, for_clients: bool| -> Result<SocketAddr> {
            let who_is = whose::connections_of(&roster);
            let proxy = match (kind, for_clients) {
                // Its servers announce the port at which they listen, so that the proxy has the same at another address.
                (Kind::Consul, false) => Proxy::start_at(door(to, port.address()), port.address(), who_is)?,
                _ => Proxy::start_knowing(port.address(), who_is)?,
            };
            if kind == Kind::ZooKeeper && !for_clients {
                // A follower that a new leader hangs up on, because it does not listen yet, calls for another election.
                proxy.wait_for_server(Duration::from_secs(1));
            }
            let address = proxy.address();
            links.push(Link { proxy, to, for_clients });
            Ok(address)
        };
        let front = link(&ports[0], true)?;
        // The peers of a Redis come by the same door as its clients.
        let peer_front = if kind == Kind::Redis { front } else { link(&ports[1], false)? };
        let vote_front = if kind == Kind::ZooKeeper { link(&ports[2], false)? } else { peer_front };
        places.push(PlannedServer { ports, pid, front, peer_front, vote_front });
    }
    if kind == Kind::ZooKeeper {
        // A server that is called by a lesser one hangs up and calls back, where that one said that it listens.
        let doors: Vec<_> = places.iter().map(|place| (place.ports[2].address(), place.vote_front)).collect();
        for link in links.iter().filter(|link| !link.for_clients) {
            link.proxy.introduce_as(&doors);
        }
    }
    Ok((places, links))
}

/// Says what is missing to be whole.
fn require(condition: bool, what: impl FnOnce() -> String) -> Result<()> {
    if !condition {
        bail!(what());
    }
    Ok(())
}
