//! What a session can do and promises. Each is defended in the README.

use tooz_core::{Characteristic, Characteristics};

/// What shared memory gives.
pub(crate) const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::ONE_HOST)
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .with(Characteristic::NonTimeoutBased)
    .without(Characteristic::DurableFencing);
