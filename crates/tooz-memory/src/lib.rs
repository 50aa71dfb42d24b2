#![doc = include_str!("../README.md")]

mod error;
mod fault;
mod group;
mod lock;
mod options;
mod session;
mod store;

use tooz_core::{Characteristic, Characteristics, Driver};

pub use fault::{Effect, Fault, Operation};
pub use store::{Census, Store};

/// The driver's card.
pub const DRIVER: Driver = Driver::new("memory", &["memory", "zake"], session::connect)
    .about("one process; the reference model and a test double")
    .url("memory://NAME")
    .characteristics(BEST);

tooz_core::register!(DRIVER);

/// What one process gives.
const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .with(Characteristic::DistributedAcrossThreads)
    .with(Characteristic::Serializable);
