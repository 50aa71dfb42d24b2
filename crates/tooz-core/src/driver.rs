//! THE contract, and the face of this crate for authors of drivers: what a driver implements, and what passes between it and core.
//!
//! A driver is a card ([`Driver`](crate::Driver)) with a function that connects, and a [`Session`] that owns at the backend. Everything else,
//! guards, local queues, re-join, deadlines, the heart, election, partitioning, is written once in core on top of it.
//!
//! [`guide`] makes a whole driver, step by step.

mod answers;
pub(crate) mod card;
pub(crate) mod checkup;
#[cfg(feature = "rustls")]
mod client_config;
pub(crate) mod group;
pub(crate) mod lock;
pub(crate) mod push;
pub(crate) mod reporter;
pub(crate) mod roster;
pub(crate) mod session;
pub(crate) mod terms;
pub(crate) mod wanted;
pub(crate) mod watchers;

#[doc = include_str!("driver/guide.md")]
pub mod guide {
    #[cfg(doc)]
    use super::*;
}

pub use async_trait::async_trait;
pub use futures_core::Stream;

pub use crate::base::backoff::{Backoff, spread};
pub use crate::base::certificate_files::{CertificateFiles, OwnCertificate};
pub use crate::base::characteristic::CharacteristicKind;
pub use crate::base::clock::{Clock, Moment};
pub use crate::base::credentials::{CredentialSource, password_in};
pub use crate::base::id::{RequestId, decode_name, encode_name};
pub use crate::base::mutex::{Mutex, MutexGuard};
pub use crate::base::options::backend_url::{BackendUrl, Host};
pub use crate::base::options::{COMMON_OPTIONS, OptionSpec, OptionValue, Options, PASSWORD_FILE};
pub use card::{ConnectArgs, ConnectFuture};
pub use checkup::{Finding, Verdict};
#[cfg(feature = "rustls")]
pub use client_config::read_certificates;
pub use group::{Groups, JoinConflict, JoinRequest, Replace};
pub use lock::{Granted, LockKey, LockRequest, Locks, Space};
pub use push::{Change, PushStream, Pushed, Pusher, push_channel};
pub use reporter::Reporter;
pub use roster::Roster;
pub use session::Session;
pub use terms::Owned;
pub use wanted::Wanted;
pub use watchers::{FanOut, Watchers};

#[doc(hidden)]
pub use card::Registered;
