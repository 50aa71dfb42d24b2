#![doc = include_str!("../README.md")]

mod addresses;
mod checkup;
mod client;
mod connection;
mod error;
mod group;
mod holdings;
mod journal;
mod layout;
mod listing;
mod lock;
mod options;
mod reconnection;
mod record;
mod reply;
mod server;
mod server_clock;
mod session;
mod tls;
mod upkeep;
mod waiting;
mod watch;
mod wire;

use tooz_core::Driver;

/// The card of this driver.
pub const DRIVER: Driver =
    Driver::new("memcached", &["memcached", "memcached+tls", "memcached+unix"], session::connect)
        .about("one memcached server, by journals that are only appended to")
        .url("memcached://HOST:PORT, memcached+tls://…, memcached+unix:///SOCKET")
        .options(options::OPTIONS)
        .characteristics(server::BEST);

tooz_core::register!(DRIVER);
