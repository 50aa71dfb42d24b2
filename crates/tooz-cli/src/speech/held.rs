//! What is held just now, for the words about a session that may be lost: until when it is sure, and whether a heartbeat is late.

use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::sleep;
use tooz::Loss;
use tooz::driver::Mutex;

/// How often is looked whether a late heartbeat has come after all.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

static HELD: Mutex<Option<Held>> = Mutex::new(None);

/// Told when something is held that was not.
static TAKEN: Notify = Notify::const_new();

struct Held {
    loss: Loss,
    /// With so little left a heartbeat is late.
    late: Duration,
}

/// Something is held until this is dropped.
pub(crate) struct Holding(());

/// Remembers what is held, and with how little left of it a heartbeat is late.
pub(crate) fn hold(loss: Loss, late: Duration) -> Holding {
    *HELD.lock() = Some(Held { loss, late });
    TAKEN.notify_one();
    Holding(())
}

impl Drop for Holding {
    fn drop(&mut self) {
        HELD.lock().take();
    }
}

/// The moment until which what is held is sure without another heartbeat, by the wall clock; `None` where nothing is held, or where that has no end.
pub(super) fn until() -> Option<SystemTime> {
    let remaining = HELD.lock().as_ref()?.loss.remaining()?;
    SystemTime::now().checked_add(remaining)
}

/// How long until a heartbeat is late, unless one comes; zero, where it is. `None`: there is nothing to be lost, or it is lost already.
fn until_late() -> Option<Duration> {
    let held = HELD.lock();
    let held = held.as_ref()?;
    let remaining = held.loss.remaining().filter(|remaining| !remaining.is_zero())?;
    Some(remaining.saturating_sub(held.late))
}

/// Waits until a heartbeat is late.
pub(crate) async fn heartbeat_is_late() {
    loop {
        match until_late() {
            Some(Duration::ZERO) => return,
            Some(left) => sleep(left).await,
            // What was lost is not had again: another thing is.
            None => TAKEN.notified().await,
        }
    }
}

/// Waits until a heartbeat has come.
pub(crate) async fn heartbeat_has_come() {
    while until_late().is_none_or(|left| left.is_zero()) {
        sleep(LOOK_AGAIN).await;
    }
}
