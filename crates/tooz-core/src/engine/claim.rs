//! What a session is asked to hold: by which request, and whether it is lost.

use crate::base::id::RequestId;
use crate::base::latch::Latch;
use crate::driver::lock::{LockMode, LockRequest};

/// One thing that a session holds or is about to.
pub(crate) struct Claim {
    pub(crate) id: RequestId,
    pub(crate) what: ClaimSubject,
    pub(crate) lost: Latch,
}

/// What is claimed.
pub(crate) enum ClaimSubject {
    /// The grant of a lock.
    Lock(LockRequest),
    /// A place in a group.
    Membership,
}

impl Claim {
    /// The mode of a lock's grant. A membership stands alone.
    pub(crate) fn mode(&self) -> LockMode {
        match &self.what {
            ClaimSubject::Lock(request) => request.mode,
            ClaimSubject::Membership => LockMode::Exclusive,
        }
    }
}
