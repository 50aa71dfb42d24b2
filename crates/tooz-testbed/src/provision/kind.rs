//! The servers that there are.

use std::fmt;
use std::str::FromStr;

/// A server that the testbed can provide.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// Redis, and Redis Sentinel.
    Redis,
    /// etcd.
    Etcd,
    /// ZooKeeper.
    ZooKeeper,
    /// PostgreSQL.
    Postgres,
    /// Consul.
    Consul,
    /// memcached.
    Memcached,
    /// MariaDB, of the family of MySQL.
    MySql,
}

impl Kind {
    /// Every kind.
    pub const ALL: &[Kind] =
        &[Kind::Redis, Kind::Etcd, Kind::ZooKeeper, Kind::Postgres, Kind::Consul, Kind::Memcached, Kind::MySql];

    /// The name, as in `cargo xtask itest redis`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Redis => "redis",
            Kind::Etcd => "etcd",
            Kind::ZooKeeper => "zookeeper",
            Kind::Postgres => "postgres",
            Kind::Consul => "consul",
            Kind::Memcached => "memcached",
            Kind::MySql => "mysql",
        }
    }

    /// The variable that names another suite to take the packages from: `TOOZ_REDIS_SUITE`.
    pub fn suite_variable(self) -> &'static str {
        match self {
            Kind::Redis => "TOOZ_REDIS_SUITE",
            Kind::Etcd => "TOOZ_ETCD_SUITE",
            Kind::ZooKeeper => "TOOZ_ZOOKEEPER_SUITE",
            Kind::Postgres => "TOOZ_POSTGRES_SUITE",
            Kind::Consul => "TOOZ_CONSUL_SUITE",
            Kind::Memcached => "TOOZ_MEMCACHED_SUITE",
            Kind::MySql => "TOOZ_MYSQL_SUITE",
        }
    }

    /// The variable that names a server of the user's own: `TOOZ_REDIS_URL`.
    pub fn env_var(self) -> &'static str {
        match self {
            Kind::Redis => "TOOZ_REDIS_URL",
            Kind::Etcd => "TOOZ_ETCD_URL",
            Kind::ZooKeeper => "TOOZ_ZOOKEEPER_URL",
            Kind::Postgres => "TOOZ_POSTGRES_URL",
            Kind::Consul => "TOOZ_CONSUL_URL",
            Kind::Memcached => "TOOZ_MEMCACHED_URL",
            Kind::MySql => "TOOZ_MYSQL_URL",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Kind::ALL.iter().copied().find(|kind| kind.name() == name);
        found.ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// There is no server of that name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownKind(String);

impl fmt::Display for UnknownKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        write!(formatter, "the testbed has no server `{}`; there are: {}", self.0, names.join(", "))
    }
}

impl std::error::Error for UnknownKind {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_its_name() {
        for &kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(kind.env_var(), format!("TOOZ_{}_URL", kind.name().to_uppercase()));
            assert_eq!(kind.suite_variable(), format!("TOOZ_{}_SUITE", kind.name().to_uppercase()));
        }
        let error = "moon".parse::<Kind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the testbed has no server `moon`; there are: redis, etcd, zookeeper, postgres, consul, memcached, mysql"
        );
    }
}
