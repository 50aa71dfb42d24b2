//! What runs on the heart: the session and its life, heartbeats, local queues, memberships. It knows no handle of a user.

mod acquire;
pub(crate) mod claim;
pub(crate) mod deadline;
mod ending;
pub(crate) mod errand;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod heart;
pub(crate) mod heartbeat;
pub(crate) mod held;
pub(crate) mod hold;
pub(crate) mod inner;
pub(crate) mod inside;
pub(crate) mod join;
pub(crate) mod keeper;
mod keeping;
pub(crate) mod line;
pub(crate) mod live_session;
pub(crate) mod local_queue;
pub(crate) mod local_queues;
#[cfg_attr(not(feature = "metrics"), path = "engine/no_meter.rs")]
pub(crate) mod meter;
#[cfg(feature = "metrics")]
mod metered;
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "what is not counted has no words"))]
pub(crate) mod metric;
#[cfg(test)]
mod mortal;
mod opening;
pub(crate) mod patience;
pub(crate) mod phase;
pub(crate) mod registry;
mod rejoin;
mod release;
mod stall;
pub(crate) mod standing;
pub(crate) mod supervisor;
pub(crate) mod suspension;
pub(crate) mod telemetry;
pub(crate) mod trace;
pub(crate) mod troubles;
pub(crate) mod worry;
