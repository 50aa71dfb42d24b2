#![doc = include_str!("../README.md")]

#[cfg(feature = "blocking")]
pub mod blocking;
#[cfg(any(doc, doctest))]
pub mod guide;

pub use tooz_core::*;

#[cfg(feature = "consul")]
pub use tooz_consul as consul;
#[cfg(feature = "etcd")]
pub use tooz_etcd as etcd;
#[cfg(feature = "file")]
pub use tooz_file as file;
#[cfg(feature = "ipc")]
pub use tooz_ipc as ipc;
#[cfg(feature = "memcached")]
pub use tooz_memcached as memcached;
#[cfg(feature = "memory")]
pub use tooz_memory as memory;
#[cfg(feature = "mysql")]
pub use tooz_mysql as mysql;
#[cfg(feature = "postgres")]
pub use tooz_postgres as postgres;
#[cfg(feature = "redis")]
pub use tooz_redis as redis;
#[cfg(feature = "zookeeper")]
pub use tooz_zookeeper as zookeeper;
