//! What a session can do and promises: at its best, and on a network file system.

use tooz_core::{Characteristic, Characteristics};

/// What a folder on a local file system gives. Each is defended in the README.
pub(crate) const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::ONE_HOST)
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .with(Characteristic::NonTimeoutBased)
    .without(Characteristic::BreakableLocks);

/// What is left of it on a network file system.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) const REMOTE: Characteristics =
    Characteristics::ONE_HOST.with(Characteristic::Groups).with(Characteristic::SharedLocks);
