//! What a user holds: the coordinator, locks and their guards, groups, memberships, leaderships, watches.

pub(crate) mod connect;
pub(crate) mod coordinator;
pub(crate) mod election;
pub(crate) mod fence;
pub(crate) mod group;
pub(crate) mod handle;
pub(crate) mod join_options;
mod known_members;
mod lead;
pub(crate) mod leader_watch;
pub(crate) mod lock;
pub(crate) mod lock_guard;
pub(crate) mod loss;
pub(crate) mod membership;
pub(crate) mod partition;
pub(crate) mod session_events;
pub(crate) mod watch;
mod watching;
