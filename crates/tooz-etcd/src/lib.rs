#![doc = include_str!("../README.md")]

mod checkup;
mod client;
mod connection;
mod dispatch;
mod endpoints;
mod error;
mod group;
mod history;
mod holdings;
mod key_watch;
mod lanes;
mod layout;
mod lease;
mod lock;
mod login;
mod options;
mod proto;
mod queue;
mod record;
mod request;
mod session;
mod tls;
mod watch;
mod watch_stream;
mod withdrawal;

use tooz_core::Driver;

/// The driver's card.
pub const DRIVER: Driver = Driver::new("etcd", &["etcd", "etcd+https", "etcd3+http", "etcd3+https"], session::connect)
    .about("locks and groups on an etcd cluster, 3.4 or later")
    .url("etcd://[USER:PASSWORD@]HOST[:2379][,HOST…]")
    .options(options::OPTIONS)
    .characteristics(session::BEST);

tooz_core::register!(DRIVER);
