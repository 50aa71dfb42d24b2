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
    .characteristics(Characteristics::of(&[
        Characteristic::Groups,
        Characteristic::SharedLocks,
        Characteristic::BreakableLocks,
        Characteristic::FairLocks,
        Characteristic::PushedWatches,
        Characteristic::DurableFencing,
        Characteristic::DistributedAcrossThreads,
        Characteristic::Linearizable,
        Characteristic::Sequential,
        Characteristic::Causal,
        Characteristic::Serializable,
        Characteristic::SameViewUnderPartitions,
        Characteristic::SameViewAcrossClients,
    ]));

tooz_core::register!(DRIVER);
