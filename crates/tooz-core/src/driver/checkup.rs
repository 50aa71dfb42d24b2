//! What a driver finds when it looks at its server for an operator, and the bare round trip that speed is measured in.

/// A bare round trip to the authority, over the connection that the session itself uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The cheapest question there is (`PING`, a one-key read, `SELECT 1`).
    Read,
    /// The cheapest committed write, of one key under the namespace that belongs to no user and that the driver takes away again with
    /// [`Session::close`](crate::driver::Session::close). Where a write costs no more than a read, it is the same.
    Write,
}

/// What a driver found when it looked at its server: see [`Session::check_up`](crate::driver::Session::check_up).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Checkup {
    /// The server with its version, such as `Redis 7.0.15 at 127.0.0.1:6379`; empty where there is no server.
    pub server: String,
    /// One entry for each setting that matters, the good ones too, in the order in which they should be read.
    pub findings: Vec<Finding>,
}

/// One setting of a server, and what it means for programs that rely on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found, in one sentence.
    pub what: String,
    /// How to mend it; empty if there is nothing to mend.
    pub mend: String,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, with a risk that the driver's page tells of.
    Warning,
    /// Locks will be lost, or nothing works.
    Wrong,
}

impl Checkup {
    /// A server of which nothing more is known.
    pub fn new(server: impl Into<String>) -> Self {
        Checkup { server: server.into(), findings: Vec::new() }
    }

    /// Adds what is as it should be.
    pub fn good(mut self, what: impl Into<String>) -> Self {
        self.findings.push(Finding { verdict: Verdict::Good, what: what.into(), mend: String::new() });
        self
    }

    /// Adds a risk, and how to mend it.
    pub fn warning(mut self, what: impl Into<String>, mend: impl Into<String>) -> Self {
        self.findings.push(Finding { verdict: Verdict::Warning, what: what.into(), mend: mend.into() });
        self
    }

    /// Adds what must be mended, and how.
    pub fn wrong(mut self, what: impl Into<String>, mend: impl Into<String>) -> Self {
        self.findings.push(Finding { verdict: Verdict::Wrong, what: what.into(), mend: mend.into() });
        self
    }
}
