//! What is held just now, for the words about a session that may be lost: until when it is sure.

use std::time::{Duration, SystemTime};

use tooz::Loss;
use tooz::driver::Mutex;

static HELD: Mutex<Option<Loss>> = Mutex::new(None);

/// Something is held until this is dropped.
pub(crate) struct Holding(());

/// Remembers what is held.
pub(crate) fn hold(loss: Loss) -> Holding {
    *HELD.lock() = Some(loss);
    Holding(())
}

impl Drop for Holding {
    fn drop(&mut self) {
        HELD.lock().take();
    }
}

/// How long what is held is sure without another heartbeat; `None` where nothing is held, or where that has no end.
pub(super) fn remaining() -> Option<Duration> {
    HELD.lock().as_ref()?.remaining()
}

/// The moment until which it is sure, by the wall clock.
pub(super) fn until() -> Option<SystemTime> {
    remaining().and_then(|remaining| SystemTime::now().checked_add(remaining))
}
