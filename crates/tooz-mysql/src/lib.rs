#![doc = include_str!("../README.md")]

mod answer;
mod checkup;
mod client;
mod connection;
mod ddl;
mod error;
mod fence;
mod grants;
mod group;
mod holdings;
mod layout;
mod lock;
mod memberships;
mod named_lock;
mod open_session;
mod options;
mod packet;
mod pool;
mod record;
mod schema;
mod server;
mod session;
mod setup;
mod shares;
mod summons;
mod sweep;
mod testimony;
mod turn;
mod unanswered;
mod upkeep;
mod watchdog;
mod witness;

use tooz_core::Driver;

pub use ddl::{ddl, privileges};

/// The card of this driver.
pub const DRIVER: Driver = Driver::new("mysql", &["mysql", "mariadb"], session::connect)
    .about("locks and groups on a MySQL or MariaDB server, by named locks of a connection of its own")
    .url("mysql://USER:PASSWORD@HOST:3306/DATABASE")
    .options(options::OPTIONS)
    .characteristics(session::BEST);

tooz_core::register!(DRIVER);
