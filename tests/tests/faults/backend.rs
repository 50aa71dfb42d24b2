//! The backends on trial, and what the cases have to know of each.

use std::process::Command;
use std::time::Duration;

use tooz_testbed::{Kind, Server};

use crate::{connections, postgres};

/// What the cases have to know of a backend.
pub(crate) struct Backend {
    pub(crate) kind: Kind,
    pub(crate) scheme: &'static str,
    /// How long after the session timeout of a killed holder the next one owns the lock: the driver's own promise.
    pub(crate) slack: Duration,
    /// Everything that is stored at the server, one line each.
    pub(crate) stored: fn(&Server) -> Vec<String>,
    /// How many lines may stay for ever: the few counters of a namespace.
    pub(crate) counters: usize,
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
    /// The end of its connection, whatever the cause, and the timeout of who is silent.
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
        slack: Duration::from_millis(500),
        stored: |server| lines(server.tool("redis-cli").expect("redis-cli is there").args(["--raw", "KEYS", "*"])),
        counters: 3,
        sessions: Sessions::Timed,
        otherwise: &[],
    },
    Backend {
        kind: Kind::Etcd,
        scheme: "etcd",
        slack: Duration::from_secs(1),
        stored: |server| {
            let tool = || server.tool("etcdctl").expect("etcdctl is there");
            let mut stored = lines(tool().args(["get", "", "--prefix", "--keys-only"]));
            // The first line says how many leases follow.
            stored.extend(lines(tool().args(["lease", "list"])).into_iter().skip(1).map(|id| format!("lease {id}")));
            stored
        },
        counters: 3,
        sessions: Sessions::Timed,
        otherwise: &[],
    },
    Backend {
        kind: Kind::Postgres,
        scheme: "postgres",
        // The server's own timers, and its processes that are not scheduled at once.
        slack: Duration::from_millis(500),
        stored: |server| postgres::ask(server, postgres::STORED),
        counters: 0,
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
