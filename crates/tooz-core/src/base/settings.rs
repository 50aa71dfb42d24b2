//! What core itself reads out of the options of a URL and the builder.

use std::time::Duration;

use crate::base::id::Namespace;

/// What core itself reads out of the options.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) namespace: Namespace,
    pub(crate) session_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) stall_timeout: Option<Duration>,
}
