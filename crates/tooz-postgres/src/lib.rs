#![doc = include_str!("../README.md")]

use tooz_core::driver::{ConnectArgs, ConnectFuture, OptionSpec, OptionValue, PASSWORD_FILE};
use tooz_core::{Characteristic, Characteristics, Driver};

mod checkup;
mod error;
mod group;
mod holders;
mod holdings;
mod key;
mod layout;
mod link;
mod lock;
mod look;
mod options;
mod schema;
mod session;
mod setup;
mod sweep;
mod wait;
mod waiter;
mod watch;

pub use schema::{ddl, grants};

/// The card of this driver.
pub const DRIVER: Driver = Driver::new("postgres", &["postgres", "postgresql"], connect)
    .about("locks and groups in a PostgreSQL database, by advisory locks of a connection of its own")
    .url("postgresql://USER:PASSWORD@HOST:5432/DATABASE")
    .options(OPTIONS)
    .characteristics(BEST);

tooz_core::register!(DRIVER);

const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("schema", OptionValue::Text, "tooz", "the schema of the database that the tables are in"),
    OptionSpec::new("waiters", OptionValue::Integer, "4", "how many connections may wait for locks at a time"),
    OptionSpec::new(
        "sslmode",
        OptionValue::Text,
        "prefer",
        "disable, allow, prefer, require, verify-ca or verify-full",
    ),
    PASSWORD_FILE,
    OptionSpec::new(
        "ca",
        OptionValue::Text,
        "the system's",
        "file of the authority that signed the server; sslmode is verify-full then",
    ),
    OptionSpec::new("cert", OptionValue::Text, "none", "file of the client's certificate"),
    OptionSpec::new("key", OptionValue::Text, "none", "file of the client's key"),
    OptionSpec::new("sslrootcert", OptionValue::Text, "none", "the same as ca"),
    OptionSpec::new("sslcert", OptionValue::Text, "none", "the same as cert"),
    OptionSpec::new("sslkey", OptionValue::Text, "none", "the same as key"),
    OptionSpec::new("host", OptionValue::Text, "of the URL", "the host, or the folder of the server's Unix socket"),
    OptionSpec::new("port", OptionValue::Integer, "5432", "the port, where the URL has no host to write it behind"),
];

/// What one primary server gives. Each is defended in the README.
const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::MANY_HOSTS)
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .without(Characteristic::BreakableLocks);

fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(session::connect(args))
}
