#![doc = include_str!("../README.md")]

mod connection;
mod error;
mod feed;
mod group;
mod holdings;
mod keeper;
mod layout;
mod link;
mod lock;
mod login;
mod options;
mod owned;
mod replicas;
mod reply;
mod script;
mod sentinel;
mod server;
mod session;
mod tend;
mod tls;
mod watch;

use tooz_core::{Characteristic, Characteristics, Driver};

/// The card of this driver.
pub const DRIVER: Driver = Driver::new("redis", &["redis", "rediss", "redis+unix"], session::connect)
    .about("Redis, Valkey, and Redis behind Sentinels")
    .url("redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://…, redis+unix:///SOCKET?db=DB, redis://SENTINEL,…/DB?sentinel=NAME")
    .options(options::OPTIONS)
    .characteristics(BEST);

tooz_core::register!(DRIVER);

/// What one server with an append-only file gives. Each is defended in the README.
const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::MANY_HOSTS)
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .with(Characteristic::Serializable)
    .with(Characteristic::HoldsAcrossRestart);
