#![doc = include_str!("../README.md")]

mod checkup;
mod cluster;
mod endpoint;
mod error;
mod feed;
mod group;
mod history;
mod keys;
mod layout;
mod lease;
mod lock;
mod login;
mod options;
mod own;
mod proto;
mod request;
mod session;
mod tls;
mod watch;
mod withdrawal;

use tooz_core::{Characteristic, Characteristics, Driver};

/// The driver's card.
pub const DRIVER: Driver = Driver::new("etcd", &["etcd", "etcd+https", "etcd3+http", "etcd3+https"], session::connect)
    .about("locks and groups on an etcd cluster, 3.4 or later")
    .url("etcd://[USER:PASSWORD@]HOST[:2379][,HOST…]")
    .options(options::OPTIONS)
    .characteristics(BEST);

tooz_core::register!(DRIVER);

/// Each is defended in the README.
const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::MANY_HOSTS)
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .with(Characteristic::Serializable)
    .with(Characteristic::HoldsAcrossRestart);
