//! Where a membership stands.

use std::sync::Arc;

use crate::engine::hold::Hold;

/// Where a membership stands.
#[derive(Clone)]
pub(crate) enum Standing {
    /// Listed; the hold tells when that ends.
    In(Arc<Hold>),
    /// Lost with its session, being re-established. The hold is the old one.
    Out(Arc<Hold>),
    /// Over for ever.
    Over(Arc<Hold>),
}

impl Standing {
    /// Judged by the clock at this call.
    pub(crate) fn is_in(&self) -> bool {
        matches!(self, Standing::In(hold) if hold.judge().is_none())
    }
}
