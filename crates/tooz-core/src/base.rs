//! Values that stand on nothing else: names, errors, options, clocks, pauses. Nothing here starts a task or knows of a driver.

pub(crate) mod backoff;
pub(crate) mod certificate_files;
pub(crate) mod characteristic;
#[cfg(feature = "rustls")]
mod client_config;
pub(crate) mod clock;
pub(crate) mod contain;
pub(crate) mod credentials;
pub(crate) mod error;
pub(crate) mod event_queue;
pub(crate) mod forked;
pub(crate) mod hashring;
pub(crate) mod id;
pub(crate) mod latch;
pub(crate) mod loss_reason;
pub(crate) mod mutex;
pub(crate) mod options;
pub(crate) mod session_event;
pub(crate) mod settings;
pub(crate) mod sync;
