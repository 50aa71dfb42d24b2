#![doc = include_str!("../README.md")]

mod error;
mod fault;
mod group;
mod lock;
mod options;
mod record;
mod session;
mod state;
mod store;

use tooz_core::Driver;

pub use fault::{Effect, Fault, Operation};
pub use store::{Census, Store};

/// The driver's card.
pub const DRIVER: Driver = Driver::new("memory", &["memory", "zake"], session::connect)
    .about("one process; the reference model and a test double")
    .url("memory://NAME")
    .characteristics(session::BEST);

tooz_core::register!(DRIVER);
