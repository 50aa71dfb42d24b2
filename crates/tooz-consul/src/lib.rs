#![doc = include_str!("../README.md")]

mod checkup;
mod client;
mod connection;
mod crowd;
mod error;
mod group;
mod history;
mod holdings;
mod idle;
mod layout;
mod lock;
mod login;
mod mailbox;
mod options;
mod poll;
mod pool;
mod queue;
mod record;
mod release;
mod releases;
mod request;
mod rounds;
mod server_session;
mod session;
mod tls;
mod watch;
mod wire;
mod withdrawal;
mod withdrawals;

use tooz_core::Driver;

/// The driver's card.
pub const DRIVER: Driver = Driver::new("consul", &["consul", "consul+https"], session::connect)
    .about("locks and groups on Consul, 1.8 or later")
    .url("consul://HOST[:8500][,HOST…]")
    .options(options::OPTIONS)
    .characteristics(session::BEST);

tooz_core::register!(DRIVER);
