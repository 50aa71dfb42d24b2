//! A loss that is known once and for all.

use crate::base::loss_reason::LossReason;
use crate::base::sync::{Notify, OnceLock};

/// A reason that is set once and for all, and can be waited for under any executor.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    reason: OnceLock<LossReason>,
    told: Notify,
}

impl Latch {
    /// Whether this was the first reason.
    pub(crate) fn set(&self, reason: LossReason) -> bool {
        let first = self.reason.set(reason).is_ok();
        self.told.notify_waiters();
        first
    }

    pub(crate) fn get(&self) -> Option<LossReason> {
        self.reason.get().copied()
    }

    pub(crate) async fn wait(&self) -> LossReason {
        loop {
            // Listening begins before the look, so that nothing is missed in between.
            let told = self.told.notified();
            if let Some(reason) = self.get() {
                return reason;
            }
            told.await;
        }
    }
}
