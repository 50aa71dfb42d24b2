#![doc = include_str!("../README.md")]

mod batch;
mod checkup;
mod client;
mod connection;
mod error;
mod gates;
mod group;
mod holdings;
mod layout;
mod lock;
mod login;
mod mailbox;
mod node_watch;
mod options;
mod queue;
mod record;
#[cfg(feature = "tls")]
mod relay;
mod requests;
mod roster;
mod session;
mod standstill;
mod timing;
mod tls;
mod tree;
mod tries;
mod watch;

use tooz_core::Driver;

/// The card of this driver.
pub const DRIVER: Driver =
    Driver::new("zookeeper", &["zookeeper", "kazoo", "zookeeper+tls", "kazoo+tls"], session::connect)
        .about("Apache ZooKeeper, one server or an ensemble")
        .url("zookeeper://[USER:PASSWORD@]HOST:PORT,HOST:PORT/CHROOT")
        .options(options::OPTIONS)
        .characteristics(session::BEST);

tooz_core::register!(DRIVER);
