//! The backends on trial, and what the cases have to know of each.

use std::process::Command;
use std::time::Duration;

use tooz_testbed::{Kind, Server};

use crate::raw::Raw;
use crate::{connections, consul, memcached, mysql, postgres};

/// What the cases have to know of a backend.
pub(crate) struct Backend {
    pub(crate) kind: Kind,
    pub(crate) scheme: &'static str,
    /// What stands behind every URL, so that the driver knows what the testbed's server is like.
    pub(crate) options: &'static str,
    /// How long after the session timeout of a killed holder the next one owns the lock: the driver's own promise.
    pub(crate) slack: Duration,
    /// Everything that is stored at the server, one line each.
    pub(crate) stored: fn(&Server) -> Vec<String>,
    /// How many lines may stay for ever: the few counters or branches of a namespace.
    pub(crate) counters: usize,
    /// How long the server takes to clear away by itself what was emptied.
    pub(crate) clearing: Duration,
    /// What ends a session at the server.
    pub(crate) sessions: Sessions,
    /// The cases of which something else is true here.
    pub(crate) otherwise: &'static [Otherwise],
}

/// What ends a session at the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Its timeout alone: connections come and go.
    Timed,
    /// Its timeout alone, which the server lets go by twice: what a dead holder had is free that much later than elsewhere.
    Doubled,
    /// The end of its connection, whatever the cause, and the timeout of a client that is silent.
    Connections,
}

/// A case whose premise a backend does not share. It is listed as not claimed, with all of this.
pub(crate) struct Otherwise {
    pub(crate) case: &'static str,
    pub(crate) why: &'static str,
    /// The case that shows what is true of this backend instead, if there is anything to show.
    pub(crate) instead: Option<&'static str>,
}

pub(crate) const BACKENDS: &[Backend] = &[
    Backend {
        kind: Kind::Redis,
        scheme: "redis",
        options: "",
        slack: Duration::from_millis(500),
        stored: |server| lines(server.tool("redis-cli").expect("redis-cli is there").args(["--raw", "KEYS", "*"])),
        counters: 3,
        clearing: Duration::ZERO,
        sessions: Sessions::Timed,
        otherwise: &[],
    },
    Backend {
        kind: Kind::Etcd,
        scheme: "etcd",
        options: "",
        slack: Duration::from_secs(1),
        stored: |server| {
            let tool = || server.tool("etcdctl").expect("etcdctl is there");
            let mut stored = lines(tool().args(["get", "", "--prefix", "--keys-only"]));
            // The first line says how many leases follow.
            stored.extend(lines(tool().args(["lease", "list"])).into_iter().skip(1).map(|id| format!("lease {id}")));
            stored
        },
        counters: 3,
        clearing: Duration::ZERO,
        sessions: Sessions::Timed,
        otherwise: &[],
    },
    Backend {
        kind: Kind::ZooKeeper,
        scheme: "zookeeper",
        options: "?tick_time=250ms",
        // The testbed's servers tick every 250 ms, and end sessions in the tick after their time.
        slack: Duration::from_millis(500),
        stored: |server| {
            let mut raw = Raw::connect(server.address()).expect("the server takes one more session");
            let mut stored = raw.tree("/").expect("the nodes can be listed");
            raw.close().expect("the session can be closed");
            stored.retain(|path| path != "/zookeeper" && !path.starts_with("/zookeeper/"));
            stored
        },
        // The namespace, and its branches for locks, elections, groups and sessions.
        counters: 6,
        // Empty queues: the testbed's servers look for them every second.
        clearing: Duration::from_secs(2),
        sessions: Sessions::Timed,
        otherwise: &[],
    },
    Backend {
        kind: Kind::Postgres,
        scheme: "postgres",
        options: "",
        // The server's own timers, and its processes that are not scheduled at once.
        slack: Duration::from_millis(500),
        stored: |server| postgres::ask(server, postgres::STORED),
        counters: 0,
        clearing: Duration::ZERO,
        sessions: Sessions::Connections,
        otherwise: connections::OTHERWISE,
    },
    Backend {
        kind: Kind::Consul,
        scheme: "consul",
        options: "",
        slack: Duration::from_millis(500),
        stored: |server| {
            let mut stored =
                lines(server.tool("consul").expect("consul is there").args(["kv", "get", "-keys", "-recurse", ""]));
            stored.extend(consul::sessions(server).into_iter().map(|id| format!("lease {id}")));
            stored
        },
        // The record of the layout.
        counters: 1,
        clearing: Duration::ZERO,
        sessions: Sessions::Doubled,
        otherwise: &[],
    },
    Backend {
        kind: Kind::Memcached,
        scheme: "memcached",
        options: "",
        // The server counts in whole seconds of a clock that may be a second behind, so the driver lets sessions be kept two seconds longer.
        slack: Duration::from_millis(2500),
        stored: memcached::stored,
        // The layout, the clock, and the names of groups.
        counters: 3,
        clearing: Duration::ZERO,
        sessions: Sessions::Timed,
        otherwise: memcached::OTHERWISE,
    },
    Backend {
        kind: Kind::MySql,
        scheme: "mysql",
        options: "",
        // The server's own timers, and its threads that are not scheduled at once.
        slack: Duration::from_millis(500),
        stored: |server| mysql::ask(server, mysql::STORED),
        counters: 0,
        // What stood for shares.
        clearing: Duration::from_secs(3),
        sessions: Sessions::Connections,
        otherwise: connections::OTHERWISE,
    },
];

/// The lines that a command prints, without the empty ones.
pub(crate) fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().expect("the server's tool starts");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}: {text}{errors}", output.status);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
