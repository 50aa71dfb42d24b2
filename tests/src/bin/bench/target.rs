//! What each backend should reach. The figures are the project's own, set before the code was written.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::backend::SESSION_TIMEOUT;
use crate::stats;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// The unit itself.
    Raw,
    Write,
    Pair,
    /// A pair, over what an application would pay without tooz.
    OverBare,
    SharedPair,
    /// A pair from one kind of caller, over the floor or over another client.
    Callers,
    WakeUp,
    Join,
    List,
    Push,
    Crash,
    Contended,
    /// How long the unluckiest of those who contend waits.
    WorstWait,
    /// What one heartbeat of a member with many locks takes.
    Heartbeat,
    Scale,
}

/// What would be good enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// At most so many units, at the median.
    Ratio(f64),
    /// At most so long, at the median.
    Within(Duration),
    /// At most so long, always.
    Always(Duration),
    /// At most this figure.
    AtMost(f64),
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |limit: &Duration| stats::words(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        match self {
            Target::Ratio(ratio) => write!(formatter, "≤ {ratio} ×"),
            Target::Within(limit) => write!(formatter, "≤ {}", words(limit)),
            Target::Always(limit) => write!(formatter, "each ≤ {}", words(limit)),
            Target::AtMost(figure) => write!(formatter, "≤ {figure}"),
        }
    }
}

/// The target of a backend; `None`: there is none.
#[expect(clippy::match_same_arms, reason = "one backend after the other, as a table")]
pub(crate) fn of(backend: &str, measure: Measure) -> Option<Target> {
    use Measure::{Crash, Join, Pair, SharedPair, WakeUp};
    let micros = Duration::from_micros;
    let target = match (backend, measure) {
        ("memory", Pair | SharedPair) => Target::Within(micros(2)),
        ("memory", WakeUp) => Target::Within(micros(20)),
        ("memory", Join) => Target::Within(micros(5)),
        ("file", Pair | SharedPair) => Target::Ratio(10.0),
        ("file", WakeUp) => Target::Within(micros(300)),
        ("file", Join) => Target::Within(micros(1000)),
        ("file" | "ipc", Crash) => Target::Always(micros(5000)),
        ("redis", Pair | SharedPair) => Target::Ratio(2.5),
        ("memcached", Pair | SharedPair) => Target::Ratio(3.0),
        ("redis", WakeUp) => Target::Ratio(3.0),
        ("redis", Crash) => Target::Always(SESSION_TIMEOUT + Duration::from_millis(500)),
        ("memcached", WakeUp) => Target::Within(micros(2000)),
        // Its clock counts whole seconds, and may be one behind.
        ("memcached", Crash) => Target::Always(SESSION_TIMEOUT + Duration::from_secs(2)),
        ("etcd" | "zookeeper" | "consul", Pair | SharedPair) => Target::Ratio(2.5),
        ("etcd" | "zookeeper", WakeUp) => Target::Ratio(2.0),
        ("consul", WakeUp) => Target::Ratio(3.0),
        ("etcd", Crash) => Target::Always(SESSION_TIMEOUT + Duration::from_secs(1)),
        // The tick of the test server.
        ("zookeeper", Crash) => Target::Always(SESSION_TIMEOUT + Duration::from_millis(500)),
        ("consul", Crash) => Target::Always(SESSION_TIMEOUT * 2),
        ("postgres", Pair | SharedPair) => Target::Ratio(3.0),
        ("mysql", Pair | SharedPair) => Target::Ratio(3.5),
        ("postgres" | "mysql", WakeUp) => Target::Ratio(15.0),
        ("postgres" | "mysql", Crash) => Target::Always(Duration::from_millis(50)),
        _ => return None,
    };
    Some(target)
}

/// At most so many times what the bare statements of the same client cost.
pub(crate) fn over_bare(backend: &str) -> Option<f64> {
    (backend == "mysql").then_some(1.5)
}

/// At most so many times the floor, or the other client where there is no floor or the caller is the body of main.
pub(crate) fn of_caller(backend: &str, is_main: bool) -> Option<f64> {
    match backend {
        "redis" if is_main => Some(1.1),
        "redis" => Some(1.6),
        "postgres" | "mysql" => Some(1.5),
        "file" => Some(3.0),
        _ => None,
    }
}

/// Why a backend may miss a target, where that was found out and is to stay.
pub(crate) fn why_missed(backend: &str, measure: Measure) -> Option<&'static str> {
    use Measure::{Heartbeat, Pair, SharedPair, WorstWait};
    let why = match (backend, measure) {
        ("memory", WorstWait) => {
            "a process that loses the processor before it has queued is passed by for some rounds: a time slice of the kernel is as long \
             as 40 of them"
        }
        ("file", Pair | SharedPair) => {
            "an exclusive pair is six calls of the kernel that take and give back a lock or note the token, a shared one seven: it \
             is about the target, now above and now below"
        }
        ("redis", Pair | SharedPair) => {
            "two scripts are two round trips and 15 to 20 µs of the server's time, of which calling any script is 3: how much \
             that is depends on how long a bare round trip takes, 20 µs on an idle machine that does not sleep, 100 on one that does"
        }
        ("etcd", Pair | SharedPair) => {
            "two transactions, which compare and read beside their writes, where the unit is a bare put without either"
        }
        ("zookeeper", Pair | SharedPair) => {
            "two writes, and the reading of the queue that is sent along with the first: a server takes the requests of a connection \
             one after the other, so that it comes up to 0.2 ms later, which is half a write where a write does not wait for a disk"
        }
        ("zookeeper", Heartbeat) => {
            "a heartbeat is one write, however many locks there are; the others are pings, by which a connection that has died is \
             found out within a fifth of the session timeout"
        }
        _ => return None,
    };
    Some(why)
}

/// How many requests a join may take.
pub(crate) fn join_requests(backend: &str) -> Option<f64> {
    match backend {
        "redis" | "etcd" | "zookeeper" | "consul" => Some(1.0),
        "postgres" | "mysql" => Some(2.0),
        "memcached" => Some(3.0),
        _ => None,
    }
}

/// How many requests a list of all members with their capabilities may take.
pub(crate) fn list_requests(backend: &str) -> Option<f64> {
    match backend {
        "redis" | "etcd" | "consul" | "postgres" | "mysql" => Some(1.0),
        "zookeeper" | "memcached" => Some(2.0),
        _ => None,
    }
}
