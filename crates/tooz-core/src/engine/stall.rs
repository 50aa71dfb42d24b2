//! Whether the user's runtime still runs, where that is watched: a dead-locked application is to lose its session.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::clock::{Clock, Moment};
use crate::base::error::{Error, Result};
use crate::engine::inner::Inner;

impl Inner {
    /// Lets a small task on the user's runtime leave its mark, by which the heart sees that the runtime still runs.
    pub(crate) fn watch_for_stalls(self: &Arc<Self>) -> Result<()> {
        let Some(limit) = self.settings.stall_timeout else { return Ok(()) };
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
            Error::config("stall_timeout watches a tokio runtime, but connect() was not called in one")
                .in_driver(self.driver.name())
        })?;
        let mark = Arc::new(AtomicU64::new(Clock::boot_time().now().as_nanos()));
        let _ = self.last_run.set(Arc::clone(&mark));
        let mut closing = self.closing.subscribe();
        runtime.spawn(async move {
            let closed = closing.wait_for(|closing| *closing);
            tokio::pin!(closed);
            loop {
                mark.store(Clock::boot_time().now().as_nanos(), Ordering::Relaxed);
                let pause = (limit / 4).max(Duration::from_millis(1));
                tokio::select! {
                    _ = &mut closed => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
        Ok(())
    }

    /// Whether the user's runtime has been stuck for longer than it may.
    pub(crate) fn is_stalled(&self) -> bool {
        match (self.settings.stall_timeout, self.last_run.get()) {
            (Some(limit), Some(mark)) => {
                let last = Moment::from_nanos(mark.load(Ordering::Relaxed));
                Clock::boot_time().now().since(last) > limit
            }
            _ => false,
        }
    }
}
