//! What the server says of itself in `INFO`: whether it will do, and what can be promised on it.

use std::collections::HashMap;

use tooz_core::{Characteristic, Characteristics, Error, ErrorKind, Result};

use crate::connection::Connection;
use crate::error::strange;
use crate::options::{Eviction, Settings};
use crate::replicas::ReplicaCounts;
use crate::reply::{lines_of, map_of};
use crate::request::Argument;

/// What one server with an append-only file gives. Each is defended in the README.
pub(crate) const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::MANY_HOSTS)
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .with(Characteristic::Serializable)
    .with(Characteristic::HoldsAcrossRestart);

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

impl Server {
    pub(crate) async fn read(connection: &Connection) -> Result<Self> {
        let answer = connection.ask("INFO", &[]).await.map_err(|error| match error.kind() {
            ErrorKind::Unauthorized => error.context("this user must be allowed INFO (ACL +info)"),
            _ => error,
        })?;
        match answer.as_string() {
            Some(text) => Ok(Self::parse(&text)),
            None => Err(strange(answer)),
        }
    }

    /// Reads two settings besides, as far as this user is let.
    pub(crate) async fn read_settings(&mut self, connection: &Connection) {
        for name in ["save", "stop-writes-on-bgsave-error"] {
            let answer = connection.ask("CONFIG", &[Argument::Word("GET"), Argument::Word(name)]).await;
            self.lines.extend(answer.and_then(map_of).unwrap_or_default());
        }
    }

    /// Whether a snapshot that fails stops all writes; no, where it is not known.
    pub(crate) fn stops_writes(&self) -> bool {
        !self.line("save").is_empty() && self.line("stop-writes-on-bgsave-error") == "yes"
    }

    fn parse(text: &str) -> Self {
        Server { lines: lines_of(text) }
    }

    /// The replicas that follow it.
    pub(crate) fn seen(&self) -> ReplicaCounts {
        ReplicaCounts::read(&self.lines)
    }

    pub(crate) fn line(&self, name: &str) -> &str {
        self.lines.get(name).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.line(name).parse().unwrap_or(0)
    }

    /// `Redis 7.0.15` or `Valkey 8.1.0`.
    pub(crate) fn product(&self) -> String {
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

    /// `standalone`, `sentinel` or `cluster`. Valkey has a word of its own for it.
    fn mode(&self) -> &str {
        match self.line("server_mode") {
            "" => self.line("redis_mode"),
            mode => mode,
        }
    }

    fn may_evict(&self) -> bool {
        self.number("maxmemory") > 0 && self.line("maxmemory_policy") != "noeviction"
    }

    pub(crate) fn appends(&self) -> bool {
        self.number("aof_enabled") == 1
    }

    /// Whether this server will do.
    pub(crate) fn judge(&self, settings: &Settings, visit: Visit) -> Result<()> {
        let product = self.product();
        if self.mode() == "sentinel" {
            return Err(Error::config(
                "this is a Sentinel and holds no data: add ?sentinel=NAME, the name it knows the primary by",
            ));
        }
        if !self.is_recent() {
            return Err(Error::config(format!("this is {product}; this driver needs Redis 6.2 or later, or Valkey")));
        }
        if self.mode() == "cluster" || self.number("cluster_enabled") == 1 {
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
        let mut all = BEST;
        if !self.appends() {
            all = all.without(Characteristic::HoldsAcrossRestart);
        }
        if settings.is_watched_by_sentinels() || self.number("connected_slaves") > 0 {
            // A fail-over to one of them, by hand too, may go back to before what was acknowledged.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn whatever_a_server_says_is_judged(
            text in "((redis_version|valkey_version|role|maxmemory|redis_mode|loading):[0-9a-z.]{0,22}\r\n){0,6}|\\PC{0,40}"
        ) {
            let server = Server::parse(&text);
            let _ = (server.is_recent(), server.product(), server.may_evict(), server.appends(), server.seen());
        }
    }

    #[test]
    fn versions_are_read_from_either_product() {
        assert!(Server::parse("redis_version:6.2.0\r\n").is_recent());
        assert!(!Server::parse("redis_version:6.0.16\r\n").is_recent());
        let valkey = Server::parse("redis_version:7.2.4\r\nvalkey_version:8.1.0\r\n");
        assert!(valkey.is_recent());
        assert_eq!(valkey.product(), "Valkey 8.1.0");
        let sentinel = Server::parse(
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\nserver_mode:sentinel\r\n",
        );
        assert_eq!(sentinel.mode(), "sentinel");
    }
}
