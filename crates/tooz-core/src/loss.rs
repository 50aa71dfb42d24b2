//! What is held and how its loss is told: the reasons, a latch that is set once, and the user's `Loss`.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;

use crate::RequestId;
use crate::life::Live;
use crate::session::LockRequest;

/// Why something is not held any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossReason {
    /// The deadline passed without a heartbeat that counts.
    Expired,
    /// The backend ended the session, or the connection on which it lives.
    SessionEnded,
    /// This grant was taken away: broken by force, evicted, its file deleted.
    Broken,
    /// Another process took the membership over.
    TakenOver,
    /// The group is gone.
    GroupDeleted,
    /// The membership that this depends on has ended.
    NotMember,
    /// Not a loss: the holder gave it back.
    Released,
    /// The driver panicked in the life of the session, which is over by that.
    DriverPanicked,
    /// The coordinator was closed.
    Closed,
    /// This is a forked child; what the parent holds is the parent's.
    Forked,
}

impl fmt::Display for LossReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            LossReason::Expired => "the deadline passed without a heartbeat",
            LossReason::SessionEnded => "the backend ended the session",
            LossReason::Broken => "the grant was taken away",
            LossReason::TakenOver => "another process took the membership over",
            LossReason::GroupDeleted => "the group was deleted",
            LossReason::NotMember => "the membership has ended",
            LossReason::Released => "it was given back",
            LossReason::DriverPanicked => "the driver panicked",
            LossReason::Closed => "the coordinator was closed",
            LossReason::Forked => "this is a forked process",
        })
    }
}

/// A reason that is set once and for all, and can be waited for under any executor.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    reason: OnceLock<LossReason>,
    told: Notify,
}

impl Latch {
    /// Whether this was the first reason.
    pub(crate) fn set(&self, reason: LossReason) -> bool {
        let first = self.reason.set(reason).is_ok();
        self.told.notify_waiters();
        first
    }

    pub(crate) fn get(&self) -> Option<LossReason> {
        self.reason.get().copied()
    }

    pub(crate) async fn wait(&self) -> LossReason {
        loop {
            // Listening begins before the look, so that nothing is missed in between.
            let told = self.told.notified();
            if let Some(reason) = self.get() {
                return reason;
            }
            told.await;
        }
    }
}

/// One thing that a session holds: a grant of a lock, or a membership.
pub(crate) struct Hold {
    pub(crate) live: Arc<Live>,
    pub(crate) id: RequestId,
    /// The lock's request; `None` for a membership.
    pub(crate) request: Option<LockRequest>,
    pub(crate) lost: Latch,
}

impl Hold {
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
        if let Some(request) = &self.request
            && !self.live.still_holds(request)
        {
            self.live.lose_one(self.id, LossReason::Broken);
            return Some(self.lost.get().unwrap_or(LossReason::Broken));
        }
        None
    }

    /// How long until the backend may grant it to others. What was taken away or given back may be another's already.
    pub(crate) fn expires_in(&self) -> Option<Duration> {
        if self.lost.get().is_some() { Some(Duration::ZERO) } else { self.live.expires_in() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.live.forget(self.id);
    }
}

/// The end of a grant, as a value to wait for. A cheap clone that may outlive the grant.
///
/// It also ends when the grant is given back ([`LossReason::Released`]), so that nobody waits for ever.
#[derive(Clone)]
pub struct Loss {
    pub(crate) hold: Arc<Hold>,
    /// What it depends on: a leadership ends with its membership.
    pub(crate) under: Option<Arc<Hold>>,
}

impl Loss {
    pub(crate) fn of(hold: &Arc<Hold>) -> Self {
        Loss { hold: Arc::clone(hold), under: None }
    }

    /// Whether it has come, judged by the clock at this call.
    pub fn is_lost(&self) -> bool {
        self.reason().is_some()
    }

    /// Why, if it has come.
    pub fn reason(&self) -> Option<LossReason> {
        let own = self.hold.judge();
        // What is given back because its membership has ended says why that has.
        if !matches!(own, None | Some(LossReason::Released)) {
            return own;
        }
        let under = self.under.as_ref().and_then(|under| under.check()).map(|reason| match reason {
            LossReason::Released => LossReason::NotMember,
            other => other,
        });
        match (own, under) {
            (Some(LossReason::Released), Some(LossReason::NotMember) | None) => own,
            (_, under) => under,
        }
    }

    /// Waits until it comes: at the deadline, or as soon as the backend tells. Works under any executor.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn wait(&self) -> LossReason {
        let under = async {
            match &self.under {
                Some(under) => tokio::select! {
                    _ = under.lost.wait() => {}
                    _ = under.live.lost() => {}
                },
                None => std::future::pending().await,
            }
        };
        tokio::pin!(under);
        if let Some(reason) = self.reason() {
            return reason;
        }
        tokio::select! {
            _ = self.hold.lost.wait() => {}
            _ = self.hold.live.lost() => {}
            () = &mut under => {}
        }
        self.reason().unwrap_or(LossReason::SessionEnded)
    }

    /// Runs `future` only as long as nothing is lost; the clock is read before each step of it.
    pub(crate) async fn guard<F: Future>(&self, future: F) -> Result<F::Output, LossReason> {
        let lost = self.wait();
        tokio::pin!(future, lost);
        std::future::poll_fn(|context| {
            use std::task::Poll;
            if let Some(reason) = self.reason() {
                return Poll::Ready(Err(reason));
            }
            if let Poll::Ready(reason) = lost.as_mut().poll(context) {
                return Poll::Ready(Err(reason));
            }
            future.as_mut().poll(context).map(Ok)
        })
        .await
    }

    /// A token that is cancelled when the loss comes. Needs a tokio runtime around it, which runs the small task that waits.
    #[cfg(feature = "tokio-util")]
    pub fn cancellation_token(&self) -> tokio_util::sync::CancellationToken {
        let token = tokio_util::sync::CancellationToken::new();
        let (child, loss) = (token.clone(), self.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = loss.wait() => child.cancel(),
                () = child.cancelled() => {}
            }
        });
        token
    }
}

impl fmt::Debug for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Loss").field(&self.reason()).finish()
    }
}
