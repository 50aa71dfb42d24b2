#![doc = include_str!("../README.md")]

mod apt;
mod backend;
mod bed;
mod child;
mod cluster;
mod docker;
mod etcd;
mod family;
mod for_tests;
mod installation;
mod jar;
mod keeper;
mod kind;
mod pgbouncer;
mod ports;
mod postgres;
mod probe;
mod provision;
mod proxy;
mod redis;
mod server;
mod setup;
mod tls;
mod wait;
mod zookeeper;

pub use crate::bed::{Bed, in_namespace, namespace_of};
pub use crate::cluster::Cluster;
pub use crate::for_tests::{Provided, for_tests};
pub use crate::installation::{Installation, Source};
pub use crate::kind::{Kind, UnknownKind};
pub use crate::pgbouncer::{PgBouncer, PoolMode};
pub use crate::provision::{at_hand, provision};
pub use crate::proxy::{Counts, Flow, Proxy, Swallow};
pub use crate::server::Server;
pub use crate::setup::Setup;
