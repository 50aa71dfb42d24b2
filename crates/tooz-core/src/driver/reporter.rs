//! The way of a driver to tell core what happens between the calls.

use std::fmt;
use std::sync::Weak;

use crate::base::error::Error;
use crate::base::id::{GroupId, RequestId};

/// Core's end of a [`Reporter`].
pub(crate) trait Hears: Send + Sync {
    fn session_lost(&self, why: String);
    fn grant_lost(&self, request: RequestId);
    fn membership_lost(&self, join: RequestId);
    fn connected(&self);
    fn disconnected(&self, why: Error);
    fn troubled(&self, trouble: Option<Error>);
}

/// The way of a driver to tell core what happens between the calls: from any thread, without waiting.
#[derive(Clone)]
pub struct Reporter(Weak<dyn Hears>);

impl Reporter {
    pub(crate) fn to(hears: Weak<dyn Hears>) -> Self {
        Reporter(hears)
    }

    /// The session is over at the backend, or the connection on which it lived has ended.
    pub fn session_lost(&self, why: impl fmt::Display) {
        if let Some(core) = self.0.upgrade() {
            core.session_lost(why.to_string());
        }
    }

    /// The grant of that request is lost, the session is not: broken by force, evicted, one of several connections dead.
    pub fn grant_lost(&self, request: RequestId) {
        if let Some(core) = self.0.upgrade() {
            core.grant_lost(request);
        }
    }

    /// The membership that this join made is lost, the session is not: taken over, or removed.
    pub fn membership_lost(&self, _group: &GroupId, join: RequestId) {
        if let Some(core) = self.0.upgrade() {
            core.membership_lost(join);
        }
    }

    /// The connection is back; the session may live on. All that wait read again.
    pub fn connected(&self) {
        if let Some(core) = self.0.upgrade() {
            core.connected();
        }
    }

    /// The session lives, but something beside it that the driver keeps up can't be had just now: a second connection, by which losses are told sooner.
    /// The application is told ([`SessionEvent::Troubled`](crate::SessionEvent::Troubled)); a later word takes the place of an earlier one.
    pub fn troubled(&self, error: Error) {
        if let Some(core) = self.0.upgrade() {
            core.troubled(Some(error));
        }
    }

    /// What was told by [`troubled`](Self::troubled) is mended.
    pub fn recovered(&self) {
        if let Some(core) = self.0.upgrade() {
            core.troubled(None);
        }
    }

    /// The connection is gone, and by what; the session may live on.
    pub fn disconnected(&self, why: Error) {
        if let Some(core) = self.0.upgrade() {
            core.disconnected(why);
        }
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Reporter")
    }
}
