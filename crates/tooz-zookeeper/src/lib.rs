#![doc = include_str!("../README.md")]

mod bulk;
mod checkup;
mod connection;
mod error;
mod gates;
mod group;
mod holdings;
mod layout;
mod link;
mod lock;
mod mailbox;
mod namespace;
mod options;
mod pulse;
mod queue;
mod record;
#[cfg(feature = "tls")]
mod relay;
mod session;
mod tls;
mod vigil;
mod watch;

use tooz_core::{Characteristic, Characteristics, Driver};

/// The card of this driver.
pub const DRIVER: Driver =
    Driver::new("zookeeper", &["zookeeper", "kazoo", "zookeeper+tls", "kazoo+tls"], session::connect)
        .about("Apache ZooKeeper, one server or an ensemble")
        .url("zookeeper://[USER:PASSWORD@]HOST:PORT,HOST:PORT/CHROOT")
        .options(options::OPTIONS)
        .characteristics(BEST);

tooz_core::register!(DRIVER);

/// What every ensemble gives. Each is defended in the README.
const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::MANY_HOSTS)
    .and(Characteristics::SEQUENTIAL)
    .with(Characteristic::HoldsAcrossRestart)
    .with(Characteristic::SameViewUnderPartitions);
