//! Where the session of a coordinator stands, and for what it can be used.

use std::sync::Arc;

use crate::base::error::Error;
use crate::engine::live_session::LiveSession;

/// What of a session is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To read: a connection is enough, and what is asked twice is no more than once.
    Reading,
    /// To change what has no owner: a connection is enough.
    Connection,
    /// To own something: the session must be open.
    Session,
}

/// Where the session stands.
pub(crate) enum Phase {
    /// Connected; nothing is owned.
    Connected(Arc<LiveSession>),
    /// The session is open.
    Open(Arc<LiveSession>),
    /// There is no session. The attempts are counted, so that a waiter can tell a fresh failure from an old one.
    Down {
        attempt: u64,
        error: Option<Error>,
    },
    Closed,
}

impl Phase {
    /// The session, if it lives and fits the purpose.
    pub(crate) fn usable(&self, need: Need) -> Option<Arc<LiveSession>> {
        let live = match self {
            Phase::Open(live) => live,
            Phase::Connected(live) if need != Need::Session => live,
            _ => return None,
        };
        (!live.is_over()).then(|| Arc::clone(live))
    }

    pub(crate) fn live(&self) -> Option<&Arc<LiveSession>> {
        match self {
            Phase::Connected(live) | Phase::Open(live) => Some(live),
            Phase::Down { .. } | Phase::Closed => None,
        }
    }

    pub(crate) fn attempt(&self) -> u64 {
        match self {
            Phase::Down { attempt, .. } => *attempt,
            _ => 0,
        }
    }
}
