#![doc = include_str!("../README.md")]

mod beat;
mod characteristic;
mod checkup;
mod clock;
mod connect;
mod contain;
mod coordinator;
mod credentials;
mod desk;
mod driver;
mod election;
mod errand;
mod error;
mod events;
#[cfg(test)]
mod fake;
mod fence;
mod forked;
mod group;
mod hashring;
mod heart;
mod held;
mod id;
mod inner;
mod keeper;
mod life;
mod lock;
mod loss;
mod mailbox;
mod membership;
#[cfg(test)]
mod mortal;
mod options;
mod partition;
mod session;
mod supervisor;
mod trace;
mod trouble;
mod wait;
mod watch;

pub use async_trait::async_trait;
pub use characteristic::{Characteristic, CharacteristicKind, Characteristics};
pub use checkup::{Checkup, Finding, Probe, Verdict};
pub use clock::{Clock, Moment};
pub use connect::{ConnectOptions, connect};
pub use coordinator::Coordinator;
pub use credentials::{CredentialSource, Credentials, PASSWORD_FILE};
pub use driver::{ConnectArgs, ConnectFuture, Driver, drivers};
pub use election::{Leader, LeaderEvent, LeaderWatch, Leadership};
pub use error::{Error, ErrorKind, Outcome, Result};
pub use events::{SessionEvent, SessionEvents, SessionState};
pub use fence::FenceGate;
pub use futures_core::Stream;
pub use group::{Group, JoinOptions};
pub use hashring::HashRing;
pub use id::{GroupId, LockName, MemberId, Namespace, RequestId, decode_name, encode_name};
pub use life::Reporter;
pub use lock::{Lock, LockGuard, SharedLock};
pub use loss::{Loss, LossReason};
pub use mailbox::{PushStream, Pusher, push_channel};
pub use membership::Membership;
pub use options::{BackendUrl, COMMON_OPTIONS, Host, OptionSpec, OptionValue, Options};
pub use partition::Partitioner;
pub use session::{
    Capabilities, Change, FencingToken, Granted, Holder, JoinRequest, LockKey, LockMode, LockRequest, Meeting, Owned,
    Pushed, Replace, Roster, RosterEntry, Session, Space, Terms, Wanted,
};
pub use watch::{GroupEvent, GroupWatch};

#[doc(hidden)]
pub use driver::Registered;
#[doc(hidden)]
pub use inventory as __inventory;
