//! What the server says of itself: whether it will do, what can be promised on it, and what an operator should know.

use std::collections::HashMap;

use fred::types::Value;
use tooz_core::{Characteristic, Characteristics, Checkup, Error, ErrorKind, Result};

use crate::DRIVER;
use crate::error::strange;
use crate::link::Link;
use crate::options::{Confirmation, Eviction, Settings};
use crate::replicas::Seen;

/// The lines of `INFO`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    lines: HashMap<String, String>,
}

/// Whether the address has led here before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    First,
    Again,
}

/// The names and values of `INFO`.
pub(crate) fn lines_of(text: &str) -> HashMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

impl Server {
    pub(crate) async fn read(link: &Link) -> Result<Self> {
        let answer = link.ask("INFO", Vec::new()).await.map_err(|error| match error.kind() {
            ErrorKind::Unauthorized => error.context("this user must be allowed INFO (ACL +info)"),
            _ => error,
        })?;
        match answer.as_string() {
            Some(text) => Ok(Self::parse(&text)),
            None => Err(strange(answer)),
        }
    }

    fn parse(text: &str) -> Self {
        Server { lines: lines_of(text) }
    }

    /// The replicas that follow it.
    pub(crate) fn seen(&self) -> Seen {
        Seen::read(&self.lines)
    }

    fn line(&self, name: &str) -> &str {
        self.lines.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> u64 {
        self.line(name).parse().unwrap_or(0)
    }

    /// `Redis 7.0.15` or `Valkey 8.1.0`.
    fn product(&self) -> String {
        match (self.line("valkey_version"), self.line("redis_version")) {
            ("", "") => "a server that does not tell its version".to_owned(),
            ("", redis) => format!("Redis {redis}"),
            (valkey, _) => format!("Valkey {valkey}"),
        }
    }

    fn is_recent(&self) -> bool {
        let mut parts = self.line("redis_version").split('.').map_while(|part| part.parse::<u32>().ok());
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        !self.line("valkey_version").is_empty() || version >= (6, 2)
    }

    fn may_evict(&self) -> bool {
        self.number("maxmemory") > 0 && self.line("maxmemory_policy") != "noeviction"
    }

    fn appends(&self) -> bool {
        self.number("aof_enabled") == 1
    }

    /// Whether this server will do.
    pub(crate) fn judge(&self, settings: &Settings, visit: Visit) -> Result<()> {
        let product = self.product();
        if self.line("redis_mode") == "sentinel" {
            return Err(Error::config(
                "this is a Sentinel and holds no data: add ?sentinel=NAME, the name it knows the primary by",
            ));
        }
        if !self.is_recent() {
            return Err(Error::config(format!("this is {product}; this driver needs Redis 6.2 or later, or Valkey")));
        }
        if self.line("redis_mode") == "cluster" || self.number("cluster_enabled") == 1 {
            return Err(Error::config(
                "this server is part of a Redis Cluster, which this driver does not support: use a single server, or Sentinel",
            ));
        }
        if self.line("role") != "master" {
            if settings.is_watched_by_sentinels() {
                return Err(Error::new(ErrorKind::Unavailable, "the Sentinels still name a server that is no primary"));
            }
            if visit == Visit::Again {
                // Behind one address there are two servers at least, which are changing places.
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "this address led to a primary and leads to a replica now",
                ));
            }
            return Err(Error::config(format!(
                "this server is a replica of {}:{}: connect to the primary, or through Sentinels",
                self.line("master_host"),
                self.line("master_port"),
            )));
        }
        if self.number("loading") == 1 {
            return Err(Error::new(ErrorKind::Unavailable, "the server is still loading its data"));
        }
        if self.may_evict() && settings.eviction == Eviction::Refused {
            return Err(Error::config(format!(
                "this server evicts keys when its memory is full (maxmemory-policy {}), and with them locks that are held: \
                 set maxmemory-policy noeviction, use another server, or accept it with allow_eviction=true",
                self.line("maxmemory_policy"),
            )));
        }
        Ok(())
    }

    /// What can be promised here, where so many replicas must have what counts.
    pub(crate) fn characteristics(&self, settings: &Settings, needed: u64) -> Characteristics {
        let mut all = DRIVER.most_characteristics();
        if !self.appends() {
            all = all.without(Characteristic::HoldsAcrossRestart);
        }
        if settings.is_watched_by_sentinels() || self.number("connected_slaves") > 0 {
            // Whoever makes one of them the primary, a fail-over may go back to before what was acknowledged.
            all = all
                .without_any(Characteristics::LINEARIZABLE)
                .without_any(Characteristics::SAME_VIEW)
                .without(Characteristic::DurableFencing)
                .without(Characteristic::Serializable);
            if settings.is_watched_by_sentinels() && needed == 0 {
                all = all.without(Characteristic::HoldsAcrossRestart);
            }
        }
        all
    }

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

/// The flat list of names and values by which RESP2 tells a map, or RESP3's map.
pub(crate) fn map_of(value: Value) -> Result<HashMap<String, String>> {
    value.convert().map_err(|error| strange(error.details()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_either_product() {
        assert!(Server::parse("redis_version:6.2.0\r\n").is_recent());
        assert!(!Server::parse("redis_version:6.0.16\r\n").is_recent());
        let valkey = Server::parse("redis_version:7.2.4\r\nvalkey_version:8.1.0\r\n");
        assert!(valkey.is_recent());
        assert_eq!(valkey.product(), "Valkey 8.1.0");
    }
}
