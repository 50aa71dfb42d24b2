#![doc = include_str!("../README.md")]

mod bed;
mod faults;
mod for_tests;
mod provision;
mod server;
mod suite;

pub use crate::bed::{Bed, in_namespace, namespace_of};
pub use crate::faults::cluster::Cluster;
pub use crate::faults::pgbouncer::{PgBouncer, PoolMode};
pub use crate::faults::proxy::{Counts, Flow, Proxy, Swallow};
pub use crate::for_tests::{Provided, for_tests};
pub use crate::provision::installation::{Installation, Origin};
pub use crate::provision::kind::{Kind, UnknownKind};
pub use crate::provision::{at_hand, provision, provision_version, setting_for};
pub use crate::server::Server;
pub use crate::server::disk::Disk;
pub use crate::server::operator::Deed;
pub use crate::server::setup::Setup;
