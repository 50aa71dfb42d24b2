#![doc = include_str!("../README.md")]

mod base;
pub mod driver;
mod engine;
mod handles;
#[cfg(all(test, shuttle))]
mod interleavings;

pub use base::characteristic::{Characteristic, Characteristics};
pub use base::credentials::Credentials;
pub use base::error::{Error, ErrorKind, Outcome, Result};
pub use base::hashring::HashRing;
pub use base::id::{GroupId, LockName, MemberId, Namespace};
pub use base::loss_reason::LossReason;
pub use base::session_event::{SessionEvent, SessionState};
pub use driver::card::{Driver, drivers};
pub use driver::checkup::{Checkup, Probe};
pub use driver::lock::{FencingToken, Holder, LockMode, Waiter};
pub use driver::roster::{Capabilities, RosterEntry};
pub use driver::terms::Terms;
pub use handles::connect::{ConnectOptions, connect};
pub use handles::coordinator::Coordinator;
pub use handles::election::Leadership;
pub use handles::fence::FenceGate;
pub use handles::group::Group;
pub use handles::join_options::JoinOptions;
pub use handles::leader_watch::{Leader, LeaderEvent, LeaderWatch};
pub use handles::lock::{Lock, SharedLock};
pub use handles::lock_guard::LockGuard;
pub use handles::loss::Loss;
pub use handles::membership::Membership;
pub use handles::partition::Partitioner;
pub use handles::session_events::SessionEvents;
pub use handles::watch::{GroupEvent, GroupWatch};

#[doc(hidden)]
pub use inventory as __inventory;
