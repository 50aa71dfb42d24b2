//! One thing that a session holds, and how its loss is judged.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::RequestId;
use crate::base::loss_reason::LossReason;
use crate::engine::claim::{Claim, ClaimSubject};
use crate::engine::live_session::LiveSession;

/// One thing that a session holds: a grant of a lock, or a membership.
pub(crate) struct Hold {
    pub(crate) live: Arc<LiveSession>,
    claim: Arc<Claim>,
}

impl Deref for Hold {
    type Target = Claim;

    fn deref(&self) -> &Claim {
        &self.claim
    }
}

impl Hold {
    pub(crate) fn new(live: &Arc<LiveSession>, id: RequestId, what: ClaimSubject) -> Arc<Self> {
        Arc::new(Hold { live: Arc::clone(live), claim: live.claim(id, what) })
    }

    /// What is held, without the hold: the session forgets it with the hold, even while another part still has the claim.
    pub(crate) fn claim(&self) -> Arc<Claim> {
        Arc::clone(&self.claim)
    }

    /// Why the user does not hold it, judged now.
    pub(crate) fn judge(&self) -> Option<LossReason> {
        if self.live.is_ours() { self.check() } else { Some(LossReason::Forked) }
    }

    /// Why it is not held, judged now, in the process that connected.
    pub(crate) fn check(&self) -> Option<LossReason> {
        if let Some(reason) = self.lost.get() {
            return Some(reason);
        }
        if let Some(reason) = self.live.check() {
            return Some(reason);
        }
        if let ClaimSubject::Lock(request) = &self.what
            && !self.live.still_holds(request)
        {
            // The look itself may have found that the whole session is over.
            if let Some(reason) = self.live.check() {
                return Some(reason);
            }
            self.live.lose_one(self.id, LossReason::Broken);
            return Some(self.lost.get().unwrap_or(LossReason::Broken));
        }
        None
    }

    /// How long the user holds it for sure without another heartbeat; zero where it is lost; `None`: the kernel is the judge.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        match self.judge() {
            Some(_) => Some(Duration::ZERO),
            None => self.live.remaining(),
        }
    }

    /// How long until the backend may grant it to others. A hold that was taken away or given back may be another's already.
    pub(crate) fn expires_in(&self) -> Option<Duration> {
        if self.lost.get().is_some() { Some(Duration::ZERO) } else { self.live.expires_in() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.live.forget(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::Fake;

    #[test]
    fn what_a_hung_release_keeps_is_forgotten_with_its_hold() {
        let (live, _clock) = Fake::live(Duration::from_secs(10));
        let hold = Hold::new(&live, RequestId(1), ClaimSubject::Membership);
        let kept = hold.claim();
        assert!(live.knows(RequestId(1)));
        drop(hold);
        assert!(!live.knows(RequestId(1)), "the backend's grant of that request has no holder");
        assert_eq!(kept.lost.get(), None);
    }
}
