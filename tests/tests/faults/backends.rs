//! The backends on trial.

use std::time::Duration;

use tooz_testbed::Kind;

use crate::backend::{Backend, Sessions};
use crate::raw::Raw;
use crate::tool::lines;
use crate::{consul, memcached, mysql, otherwise, postgres};

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
        otherwise: otherwise::CONNECTIONS,
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
        otherwise: otherwise::FORGETFUL,
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
        otherwise: otherwise::CONNECTIONS,
    },
];
