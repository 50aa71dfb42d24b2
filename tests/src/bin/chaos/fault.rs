//! What can be broken, by name.

use std::str::FromStr;
use std::time::Duration;

use tooz_testbed::Kind;

use crate::backend::{Backend, GroundKind};

/// One kind of fault. What each is, is said by its [`Card`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FaultKind {
    ServerKill,
    ServerRestart,
    ServerDown,
    ServerPause,
    ServerHang,
    Upgrade,
    ClockAhead,
    ClockBack,
    Full,
    DiskFull,
    ReadOnly,
    Rotation,
    ShutOut,
    ClientKill,
    ClientPause,
    ClientHang,
    Stall,
    Cut,
    Refuse,
    Reset,
    Deaf,
    Mute,
    Slow,
    Swallow,
    SessionEnd,
    Partition,
    LongPartition,
    LeaderKill,
    LeaderCut,
    FollowerKill,
    MajorityDown,
    RollingRestart,
    MemberReplaced,
}

/// What there is to say of a kind of fault.
pub(crate) struct Card {
    pub(crate) kind: FaultKind,
    pub(crate) name: &'static str,
    /// What it is, in a sentence for a table.
    pub(crate) sentence: &'static str,
    pub(crate) of: Victim,
    pub(crate) lasts: Length,
}

/// To what it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// A process that is a worker.
    Process,
    /// A worker's way to the server.
    Way,
    /// A worker in the store of the same process.
    Store,
    /// Any server that is alone.
    Server,
    /// A server of one of these kinds that is alone.
    ServerOf(&'static [Kind]),
    /// A server that begins with an older version, for which there is a newer one.
    OldServer,
    /// What keeps its data on a disk of its own.
    SmallDisk,
    Cluster,
}

/// How long it lasts, in session timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// It is done as soon as it is begun.
    Once,
    /// What is gone is put back at once.
    Moment,
    Short,
    Long,
    /// Short or long.
    Any,
    /// Long, and the same again until all is over that it has brought about.
    Twice,
}

use Length::{Any, Long, Moment, Once, Short, Twice};
use Victim::{Cluster, OldServer, Process, Server, ServerOf, SmallDisk, Store, Way};

const fn card(kind: FaultKind, name: &'static str, of: Victim, lasts: Length, sentence: &'static str) -> Card {
    Card { kind, name, sentence, of, lasts }
}

/// Those whose time of day can be set: other servers ask the kernel past all libraries.
const WITH_A_CLOCK: Victim = ServerOf(&[Kind::Redis, Kind::Memcached, Kind::Postgres, Kind::MySql]);

/// Those that have users with passwords and rights.
const WITH_USERS: Victim = ServerOf(&[Kind::Redis, Kind::Postgres, Kind::MySql]);

/// Those that know by themselves when they are full, whatever the disk.
const WITH_A_LIMIT: Victim = ServerOf(&[Kind::Redis, Kind::Memcached, Kind::Etcd]);

/// All, in the order of the table.
pub(crate) const CARDS: &[Card] = &[
    card(
        FaultKind::ServerKill,
        "server-kill",
        Server,
        Moment,
        "the server is killed and started again at once, with its data",
    ),
    card(
        FaultKind::ServerRestart,
        "server-restart",
        Server,
        Moment,
        "the server is ended gracefully and started again",
    ),
    card(FaultKind::ServerDown, "server-down", Server, Long, "the server is down for longer than a session lasts"),
    card(
        FaultKind::ServerPause,
        "server-pause",
        Server,
        Short,
        "the server stands still for less than a session lasts",
    ),
    card(FaultKind::ServerHang, "server-hang", Server, Long, "the server stands still for longer"),
    card(FaultKind::Upgrade, "upgrade", OldServer, Moment, "with `--upgrade`: a newer version goes on with the data"),
    card(
        FaultKind::ClockAhead,
        "clock-ahead",
        WITH_A_CLOCK,
        Twice,
        "the server's clock is set ahead by more than a session lasts, and right again",
    ),
    card(FaultKind::ClockBack, "clock-back", WITH_A_CLOCK, Twice, "the same, but back"),
    card(
        FaultKind::Full,
        "full",
        WITH_A_LIMIT,
        Any,
        "the server has no room for more (`maxmemory`, `-M`, the alarm `NOSPACE`)",
    ),
    card(FaultKind::DiskFull, "disk-full", SmallDisk, Any, "with `--disk`: the disk of the data is full"),
    card(
        FaultKind::ReadOnly,
        "read-only",
        WITH_USERS,
        Any,
        "the workers may not write: `-@write`, `read_only`, `REVOKE`",
    ),
    card(
        FaultKind::Rotation,
        "rotation",
        WITH_USERS,
        Short,
        "the workers' password is changed at the server, and later in their file",
    ),
    card(
        FaultKind::ShutOut,
        "shut-out",
        WITH_USERS,
        Any,
        "the workers' user may not log in, and its connections are ended",
    ),
    card(FaultKind::ClientKill, "client-kill", Process, Moment, "a worker is killed and started again"),
    card(FaultKind::ClientPause, "client-pause", Process, Short, "a worker is stopped for less than a session lasts"),
    card(FaultKind::ClientHang, "client-hang", Process, Long, "a worker is stopped for longer"),
    card(
        FaultKind::Stall,
        "stall",
        Way,
        Short,
        "nothing passes between a worker and the server, for less than a session lasts",
    ),
    card(FaultKind::Cut, "cut", Way, Long, "nothing passes for longer"),
    card(FaultKind::Refuse, "refuse", Way, Short, "a worker's connections are reset and new ones refused"),
    card(FaultKind::Reset, "reset", Way, Short, "a worker's connections are reset again and again"),
    card(FaultKind::Deaf, "deaf", Way, Short, "the server hears a worker, which hears nothing"),
    card(FaultKind::Mute, "mute", Way, Short, "a worker hears the server, which hears nothing of it"),
    card(FaultKind::Slow, "slow", Way, Short, "everything between a worker and the server takes its time"),
    card(FaultKind::Swallow, "swallow", Way, Short, "replies to a worker get lost, with their connections"),
    card(FaultKind::SessionEnd, "session-end", Store, Once, "the backend ends a worker's session"),
    card(
        FaultKind::Partition,
        "partition",
        Store,
        Short,
        "a worker can't reach the backend, for less than a session lasts",
    ),
    card(FaultKind::LongPartition, "long-partition", Store, Long, "the same for longer"),
    card(
        FaultKind::LeaderKill,
        "leader-kill",
        Cluster,
        Any,
        "with `--cluster`: the leader is killed and started again",
    ),
    card(
        FaultKind::LeaderCut,
        "leader-cut",
        Cluster,
        Any,
        "with `--cluster`: the leader is cut off from the others and from clients",
    ),
    card(
        FaultKind::FollowerKill,
        "follower-kill",
        Cluster,
        Short,
        "with `--cluster`: another server is killed and started again",
    ),
    card(FaultKind::MajorityDown, "majority-down", Cluster, Any, "with `--cluster`: two of three servers are down"),
    card(
        FaultKind::RollingRestart,
        "rolling-restart",
        Cluster,
        Twice,
        "with `--cluster`: each server is ended gracefully and started again, one after the other",
    ),
    card(
        FaultKind::MemberReplaced,
        "member-replaced",
        Cluster,
        Any,
        "with `--cluster`: an empty server takes the place of one that does not lead",
    ),
];

impl FaultKind {
    pub(crate) fn card(self) -> &'static Card {
        CARDS.iter().find(|card| card.kind == self).expect("each kind has a card")
    }

    pub(crate) fn name(self) -> &'static str {
        self.card().name
    }

    /// Whether it can be done to that backend's ground.
    pub(crate) fn fits(self, backend: &Backend) -> bool {
        match (self.card().of, backend.ground) {
            (Process, ground) => ground != GroundKind::Memory,
            (Store, ground) => ground == GroundKind::Memory,
            (Server | Way, GroundKind::Server(_)) | (Cluster, GroundKind::Cluster(_)) => true,
            (ServerOf(kinds), GroundKind::Server(kind)) => kinds.contains(&kind),
            (OldServer, GroundKind::Server(_)) => backend.versions.is_some(),
            (SmallDisk, _) => backend.own_disk,
            _ => false,
        }
    }

    /// Whether one worker is the victim, or all are.
    pub(crate) fn has_victim(self) -> bool {
        matches!(self.card().of, Process | Store | Way)
    }

    /// Whether it can be done once only in a run.
    pub(crate) fn is_final(self) -> bool {
        self.card().of == OldServer
    }

    /// From when to when it may last.
    pub(crate) fn lasts(self, backend: &Backend) -> (Duration, Duration) {
        let whole = backend.session_timeout;
        match self.card().lasts {
            Once => (Duration::from_millis(1), Duration::from_millis(20)),
            Moment => (Duration::ZERO, whole.mul_f64(0.2)),
            Short => (whole.mul_f64(0.1), whole.mul_f64(0.5)),
            Long => (whole.mul_f64(1.1), whole.mul_f64(2.0)),
            Twice => (whole.mul_f64(2.4), whole.mul_f64(4.0)),
            Any => (whole.mul_f64(0.2), whole * 2),
        }
    }
}

impl FromStr for FaultKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = CARDS.iter().find(|card| card.name == name).map(|card| card.kind);
        let names = || CARDS.iter().map(|card| card.name).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| format!("there is no fault `{name}`; there are: {}", names()))
    }
}
