//! What the cases have to know of a backend.

use std::time::Duration;

use tooz_testbed::{Kind, Server};

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
