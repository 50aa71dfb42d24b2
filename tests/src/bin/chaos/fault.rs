//! What can be broken, by name.

use std::str::FromStr;
use std::time::Duration;

use crate::backend::{Backend, GroundKind};

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FaultKind {
    /// The server is killed and started again at once, with its data kept.
    ServerKill,
    /// The server is ended gracefully and started again at once.
    ServerRestart,
    /// The server is down for longer than a session lasts.
    ServerDown,
    /// The server stands still, for less than a session lasts.
    ServerPause,
    /// The server stands still for longer.
    ServerHang,
    /// A worker is killed, and started again under its name.
    ClientKill,
    /// A worker is stopped for less than a session lasts.
    ClientPause,
    /// A worker is stopped for longer.
    ClientHang,
    /// Nothing passes between a worker and the server, for less than a session lasts.
    Stall,
    /// Nothing passes for longer.
    Cut,
    /// A worker's connections are reset, and new ones refused for a while.
    Refuse,
    /// A worker's connections are reset again and again, in the middle of everything.
    Reset,
    /// The server hears a worker, which hears nothing.
    Deaf,
    /// A worker hears the server, which hears nothing of it.
    Mute,
    /// Everything between a worker and the server takes its time.
    Slow,
    /// Some replies to a worker get lost, with their connections.
    Swallow,
    /// The backend ends a worker's session.
    SessionEnd,
    /// A worker can't reach the backend in the same process, for less than a session lasts.
    Partition,
    /// The same for longer.
    LongPartition,
    /// The leader of a cluster is killed, and started again after the others have another.
    LeaderKill,
    /// The leader of a cluster is cut off from the others and from all clients.
    LeaderCut,
    /// A server of a cluster that does not lead is killed, and started again.
    FollowerKill,
    /// Two of the three servers of a cluster are down.
    MajorityDown,
}

impl FaultKind {
    pub(crate) const ALL: &[FaultKind] = &[
        FaultKind::ServerKill,
        FaultKind::ServerRestart,
        FaultKind::ServerDown,
        FaultKind::ServerPause,
        FaultKind::ServerHang,
        FaultKind::ClientKill,
        FaultKind::ClientPause,
        FaultKind::ClientHang,
        FaultKind::Stall,
        FaultKind::Cut,
        FaultKind::Refuse,
        FaultKind::Reset,
        FaultKind::Deaf,
        FaultKind::Mute,
        FaultKind::Slow,
        FaultKind::Swallow,
        FaultKind::SessionEnd,
        FaultKind::Partition,
        FaultKind::LongPartition,
        FaultKind::LeaderKill,
        FaultKind::LeaderCut,
        FaultKind::FollowerKill,
        FaultKind::MajorityDown,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            FaultKind::ServerKill => "server-kill",
            FaultKind::ServerRestart => "server-restart",
            FaultKind::ServerDown => "server-down",
            FaultKind::ServerPause => "server-pause",
            FaultKind::ServerHang => "server-hang",
            FaultKind::ClientKill => "client-kill",
            FaultKind::ClientPause => "client-pause",
            FaultKind::ClientHang => "client-hang",
            FaultKind::Stall => "stall",
            FaultKind::Cut => "cut",
            FaultKind::Refuse => "refuse",
            FaultKind::Reset => "reset",
            FaultKind::Deaf => "deaf",
            FaultKind::Mute => "mute",
            FaultKind::Slow => "slow",
            FaultKind::Swallow => "swallow",
            FaultKind::SessionEnd => "session-end",
            FaultKind::Partition => "partition",
            FaultKind::LongPartition => "long-partition",
            FaultKind::LeaderKill => "leader-kill",
            FaultKind::LeaderCut => "leader-cut",
            FaultKind::FollowerKill => "follower-kill",
            FaultKind::MajorityDown => "majority-down",
        }
    }

    /// What it is, in a sentence for a table.
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            FaultKind::ServerKill => "the server is killed and started again at once, with its data",
            FaultKind::ServerRestart => "the server is ended gracefully and started again",
            FaultKind::ServerDown => "the server is down for longer than a session lasts",
            FaultKind::ServerPause => "the server stands still for less than a session lasts",
            FaultKind::ServerHang => "the server stands still for longer",
            FaultKind::ClientKill => "a worker is killed and started again",
            FaultKind::ClientPause => "a worker is stopped for less than a session lasts",
            FaultKind::ClientHang => "a worker is stopped for longer",
            FaultKind::Stall => "nothing passes between a worker and the server, for less than a session lasts",
            FaultKind::Cut => "nothing passes for longer",
            FaultKind::Refuse => "a worker's connections are reset and new ones refused",
            FaultKind::Reset => "a worker's connections are reset again and again",
            FaultKind::Deaf => "the server hears a worker, which hears nothing",
            FaultKind::Mute => "a worker hears the server, which hears nothing of it",
            FaultKind::Slow => "everything between a worker and the server takes its time",
            FaultKind::Swallow => "replies to a worker get lost, with their connections",
            FaultKind::SessionEnd => "the backend ends a worker's session",
            FaultKind::Partition => "a worker can't reach the backend, for less than a session lasts",
            FaultKind::LongPartition => "the same for longer",
            FaultKind::LeaderKill => "with `--cluster`: the leader is killed and started again",
            FaultKind::LeaderCut => "with `--cluster`: the leader is cut off from the others and from clients",
            FaultKind::FollowerKill => "with `--cluster`: another server is killed and started again",
            FaultKind::MajorityDown => "with `--cluster`: two of three servers are down",
        }
    }

    /// Whether it can be done to that backend's ground.
    pub(crate) fn fits(self, ground: GroundKind) -> bool {
        use FaultKind::{ClientHang, ClientKill, ClientPause, LongPartition, Partition, SessionEnd};
        let of_processes = matches!(self, ClientKill | ClientPause | ClientHang);
        let of_memory = matches!(self, SessionEnd | Partition | LongPartition);
        let of_clusters = matches!(
            self,
            FaultKind::LeaderKill | FaultKind::LeaderCut | FaultKind::FollowerKill | FaultKind::MajorityDown
        );
        match ground {
            GroundKind::Memory => of_memory,
            GroundKind::Folder | GroundKind::Shared => of_processes,
            GroundKind::Server(_) => !of_memory && !of_clusters,
            GroundKind::Cluster(_) => of_clusters || of_processes,
        }
    }

    /// Whether one worker is the victim, or all are.
    pub(crate) const fn has_victim(self) -> bool {
        use FaultKind::{FollowerKill, LeaderCut, LeaderKill, MajorityDown};
        use FaultKind::{ServerDown, ServerHang, ServerKill, ServerPause, ServerRestart};
        let of_servers = matches!(self, ServerKill | ServerRestart | ServerDown | ServerPause | ServerHang);
        !of_servers && !matches!(self, FollowerKill | LeaderCut | LeaderKill | MajorityDown)
    }

    /// From when to when it may last.
    pub(crate) fn lasts(self, backend: &Backend) -> (Duration, Duration) {
        use FaultKind::{ClientHang, Cut, LongPartition, ServerDown, ServerHang};
        let whole = backend.session_timeout;
        match self {
            FaultKind::LeaderKill | FaultKind::LeaderCut | FaultKind::MajorityDown => (whole.mul_f64(0.2), whole * 2),
            ServerDown | ServerHang | ClientHang | Cut | LongPartition => (whole.mul_f64(1.1), whole.mul_f64(2.0)),
            FaultKind::SessionEnd => (Duration::from_millis(1), Duration::from_millis(20)),
            FaultKind::ServerKill | FaultKind::ServerRestart | FaultKind::ClientKill => {
                (Duration::ZERO, whole.mul_f64(0.2))
            }
            _ => (whole.mul_f64(0.1), whole.mul_f64(0.5)),
        }
    }
}

impl FromStr for FaultKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = FaultKind::ALL.iter().copied().find(|kind| kind.name() == name);
        let names = || FaultKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| format!("there is no fault `{name}`; there are: {}", names()))
    }
}
