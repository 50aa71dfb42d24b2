//! What the doctor looks at: settings of the server that lose locks.

use tooz_core::Checkup;

use crate::options::{Confirmation, Settings};
use crate::server::Server;

impl Server {
    /// What an operator should know, where so many replicas must have what counts.
    pub(crate) fn check_up(&self, settings: &Settings, needed: u64) -> Checkup {
        let mut found = Checkup::new(format!("{} at {}", self.product(), settings.target));
        found = if self.appends() {
            found.good("appendonly is on: what is held outlives a restart of the server")
        } else {
            found.warning(
                "appendonly is off: a restart of the server ends every session, and with it every lock",
                "CONFIG SET appendonly yes, and the same in redis.conf",
            )
        };
        if self.appends() && self.line("aof_last_write_status") == "err" {
            found = found.wrong("the append-only file can't be written", "make room on the server's disk");
        }
        if self.line("rdb_last_bgsave_status") == "err" {
            found = found.wrong(
                "the last snapshot could not be saved: unless stop-writes-on-bgsave-error is no, the server refuses all writes until one \
                 can, and every session ends",
                "make room on the server's disk and look at the rights of its directory; see the server's log",
            );
        }
        if self.stops_writes() {
            found = found.warning(
                "save points are set and stop-writes-on-bgsave-error is yes: a snapshot that fails stops all writes, and ends every session",
                "CONFIG SET stop-writes-on-bgsave-error no, or CONFIG SET save \"\", and the same in redis.conf",
            );
        }
        let policy = self.line("maxmemory_policy");
        found = match (policy, self.number("maxmemory")) {
            ("noeviction", _) => found.good("maxmemory-policy is noeviction: no lock is evicted"),
            (_, 0) => found.warning(
                format!("maxmemory-policy is {policy}; only maxmemory=0 keeps it from evicting locks"),
                "CONFIG SET maxmemory-policy noeviction",
            ),
            _ => found.wrong(
                format!("maxmemory-policy is {policy}: locks that are held may be evicted"),
                "CONFIG SET maxmemory-policy noeviction",
            ),
        };
        let (used, most) = (self.number("used_memory"), self.number("maxmemory"));
        if most > 0 && used > most / 10 * 9 {
            found = found.warning(
                format!("{used} of {most} bytes of memory are in use: a full server refuses new locks"),
                "raise maxmemory",
            );
        }
        let connected = self.number("connected_slaves");
        match (settings.confirmation(), settings.is_watched_by_sentinels()) {
            (Confirmation::None, false) => {
                if connected > 0 {
                    found = found.warning(
                        format!("{connected} replicas, and no Sentinels: a switch-over may go back to before what was acknowledged"),
                        "connect through Sentinels, with ?sentinel=NAME, or set wait=",
                    );
                }
            }
            (Confirmation::None, true) => {
                found = found.warning(
                    format!("{connected} replicas, and a heartbeat counts without them: a deposed primary keeps sessions alive"),
                    "leave out wait=0, and have at least one replica",
                );
            }
            (_, _) if needed == 0 => {
                found = found.warning(
                    "no replicas: a heartbeat counts without any, and there is nothing that the Sentinels could fail over to",
                    "have two replicas",
                );
            }
            (_, _) if connected < needed => {
                found = found.wrong(
                    format!("{connected} replicas are connected, and a heartbeat counts only with {needed}"),
                    "start the replicas, or set wait=",
                );
            }
            (_, _) if connected == needed => {
                found = found.warning(
                    format!("a heartbeat counts when {needed} of {connected} connected replicas have it: one that is lost stops all grants"),
                    "have one replica more",
                );
            }
            (_, _) => {
                found =
                    found.good(format!("a heartbeat counts when {needed} of {connected} connected replicas have it"));
            }
        }
        found
    }
}
