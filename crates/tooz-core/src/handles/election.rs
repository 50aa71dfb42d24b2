//! Leader election: a lock that only members take.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::GroupId;
use crate::base::loss_reason::LossReason;
use crate::driver::lock::{FencingToken, LockKey, LockMode};
use crate::engine::hold::Hold;
use crate::engine::line::WaitMode;
use crate::engine::standing::Standing;
use crate::handles::handle::Handle;
use crate::handles::lock::answer;
use crate::handles::lock_guard::LockGuard;
use crate::handles::loss::Loss;

/// Being the leader of a group. It ends with the session and with the membership, and is never silently taken again.
///
/// Dropping it resigns in the background.
///
/// ```no_run
/// # async fn example(membership: tooz_core::Membership) -> tooz_core::Result<()> {
/// # async fn lead(_epoch: tooz_core::FencingToken) {}
/// while membership.over().is_none() {
///     let leadership = membership.campaign().await?;
///     match leadership.while_held(lead(leadership.epoch())).await {
///         Ok(()) => return leadership.resign().await,
///         Err(reason) => eprintln!("another leads now, or soon: {reason}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "the leadership is resigned when this is dropped"]
pub struct Leadership {
    guard: LockGuard,
    membership: Arc<Hold>,
}

impl Leadership {
    pub(crate) async fn campaign(
        handle: Arc<Handle>,
        group: GroupId,
        mut standing: watch::Receiver<Standing>,
    ) -> Result<Self> {
        let key = LockKey::election(&group);
        let wait = handle.inner.telemetry.wait(&key, LockMode::Exclusive);
        let answer = Self::win(Arc::clone(&handle), group, &key, &mut standing).await;
        wait.over(answer.as_ref().map(|leadership| Some(leadership.epoch())));
        answer
    }

    async fn win(
        handle: Arc<Handle>,
        group: GroupId,
        key: &LockKey,
        standing: &mut watch::Receiver<Standing>,
    ) -> Result<Self> {
        let queue = handle.queues.of(key);
        let over = |reason: LossReason| {
            let kind = if reason == LossReason::Closed { ErrorKind::Closed } else { ErrorKind::NotMember };
            Error::new(kind, format!("campaign in group {group:?}: only members stand, and {reason}"))
                .in_driver(handle.inner.driver.name())
        };
        loop {
            let present = standing.borrow_and_update().clone();
            let membership = match &present {
                Standing::In(hold) if hold.check().is_none() => Some(Arc::clone(hold)),
                Standing::Over(hold) => return Err(over(hold.check().unwrap_or(LossReason::NotMember))),
                _ => None,
            };
            let Some(membership) = membership else {
                // The membership is being re-established.
                if standing.changed().await.is_err() && !matches!(&*standing.borrow(), Standing::Over(_)) {
                    return Err(over(LossReason::Closed));
                }
                continue;
            };
            let Some(mut place) = queue.enqueue(LockMode::Exclusive, WaitMode::Wait)? else {
                return Err(Error::new(ErrorKind::Backend, "a candidate was refused a place in the local queue"));
            };
            let ended = Loss::of(&membership);
            let grant = tokio::select! {
                grant = answer(&mut place) => grant?,
                _ = ended.wait() => continue,
            };
            let Some(grant) = grant else {
                return Err(Error::new(ErrorKind::Backend, "the driver gave up a candidature that is still wanted"));
            };
            // A member that is elected in another session than that of its membership does not lead.
            let is_of_one_session = Arc::ptr_eq(&grant.hold.live, &membership.live);
            let guard = LockGuard::new(Arc::clone(&handle), Arc::clone(&queue), grant);
            queue.enlist(&membership, guard.hold());
            // Judged after the enlisting: a membership that ends from here on ends this leadership too.
            if !is_of_one_session || membership.check().is_some() {
                let _ = guard.release().await;
                continue;
            }
            return Ok(Leadership { guard, membership });
        }
    }

    /// The fencing token of this leadership.
    pub fn epoch(&self) -> FencingToken {
        self.guard.fencing_token()
    }

    /// Whether it still leads, judged by the clock at this call.
    pub fn is_leader(&self) -> bool {
        !self.loss().is_lost()
    }

    /// How long it leads for sure without another heartbeat; zero when lost; `None`: the kernel is the judge.
    pub fn remaining(&self) -> Option<Duration> {
        if self.is_leader() { self.guard.remaining() } else { Some(Duration::ZERO) }
    }

    /// How long until the backend may let another lead; zero where it may already.
    pub fn expires_in(&self) -> Option<Duration> {
        self.guard.expires_in()
    }

    /// The loss of this leadership, to wait for.
    pub fn loss(&self) -> Loss {
        Loss { hold: Arc::clone(self.guard.hold()), under: Some(Arc::clone(&self.membership)) }
    }

    /// Runs `future` only as long as it leads; on loss it is dropped and the reason returned.
    ///
    /// # Errors
    /// The reason of the loss; then `future` was dropped before its end.
    ///
    /// # Cancel safety
    /// Dropping it drops `future`.
    pub async fn while_held<F: Future>(&self, future: F) -> Result<F::Output, LossReason> {
        self.loss().guard(future).await
    }

    /// Hands over to the next in the queue, and stays a member.
    ///
    /// # Errors
    /// [`Lost`](crate::ErrorKind::Lost): it led no more when this was called, and a new leader was not touched. [`Closed`](crate::ErrorKind::Closed): it had
    /// ended with the coordinator. After any other error the hand-over goes on in the background until the session ends.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn resign(self) -> Result<()> {
        self.guard.release().await
    }

    /// As [`resign`](Self::resign), where others may still have this in hand: for them it is lost.
    pub(crate) async fn resign_for_all(&self) -> Result<()> {
        self.guard.release_for_all().await
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Leadership")
            .field("epoch", &self.epoch())
            .field("is_leader", &self.is_leader())
            .finish()
    }
}
