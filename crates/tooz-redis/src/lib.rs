#![doc = include_str!("../README.md")]

mod checkup;
mod client;
mod connection;
mod dispatch;
mod error;
mod exchange;
mod group;
mod holdings;
mod layout;
mod lock;
mod login;
mod options;
mod reconnection;
mod record;
mod replicas;
mod reply;
mod request;
mod script;
mod sentinel;
mod server;
mod session;
mod tls;
mod upkeep;
mod value;
mod watch;
mod wire;

use tooz_core::Driver;

/// The card of this driver.
pub const DRIVER: Driver = Driver::new("redis", &["redis", "rediss", "redis+unix"], session::connect)
    .about("Redis, Valkey, and Redis behind Sentinels")
    .url("redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://…, redis+unix:///SOCKET?db=DB, redis://SENTINEL,…/DB?sentinel=NAME")
    .options(options::OPTIONS)
    .characteristics(server::BEST);

tooz_core::register!(DRIVER);
