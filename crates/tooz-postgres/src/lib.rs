#![doc = include_str!("../README.md")]

mod advisory_lock;
mod asking;
mod checkup;
mod client;
mod connection;
mod ddl;
mod dispatch;
mod error;
mod grants;
mod group;
mod holdings;
mod hung;
mod job;
mod lanes;
mod layout;
mod lock;
mod open_session;
mod options;
mod pool;
mod record;
mod schema;
mod session;
mod setup;
mod sweep;
mod turn;
mod watch;
mod wire;

use tooz_core::Driver;

pub use ddl::{ddl, privileges};

/// The card of this driver.
pub const DRIVER: Driver = Driver::new("postgres", &["postgres", "postgresql"], session::connect)
    .about("locks and groups in a PostgreSQL database, by advisory locks of a connection of its own")
    .url("postgresql://USER:PASSWORD@HOST:5432/DATABASE")
    .options(options::OPTIONS)
    .characteristics(session::BEST);

tooz_core::register!(DRIVER);
