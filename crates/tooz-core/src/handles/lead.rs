//! Work that runs while something is held, and again whenever it is: under a lock, or as the leader.

use std::sync::Arc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::handles::election::Leadership;
use crate::handles::group::Group;
use crate::handles::lock::Lock;
use crate::handles::lock_guard::LockGuard;
use crate::handles::membership::Membership;

impl Membership {
    /// Runs `work` as the leader: waits to be elected, runs it, and resigns when it has ended. When the leadership is lost before, what runs is
    /// dropped, and `work` begins anew with the next leadership. What ends a service ends `work`, or drops this.
    ///
    /// Every call of `work` has a leadership of its own, which other tasks may have too, to ask it.
    ///
    /// ```
    /// use tooz_core::Membership;
    ///
    /// async fn serve(membership: &Membership, shutdown: impl AsyncFn()) -> tooz_core::Result<()> {
    ///     membership
    ///         .lead(|leadership| {
    ///             println!("elected, with token {}", leadership.epoch());
    ///             // Until the service is to end; the loss of the leadership ends it before.
    ///             shutdown()
    ///         })
    ///         .await
    /// }
    /// # use tooz_memory as _;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tooz_core::Result<()> {
    /// # let coordinator = tooz_core::connect("memory://lead", "worker-1").await?;
    /// # let membership = coordinator.group("workers")?.join_or_create("ready").await?;
    /// # serve(&membership, async || {}).await?;
    /// # coordinator.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`campaign`](Self::campaign): the membership is over for ever, or the coordinator closed. What the resignation has met is told by
    /// [`Coordinator::events`](crate::Coordinator::events) where it matters, and does not take away what `work` has answered.
    ///
    /// # Cancel safety
    /// Dropping it drops what runs, and resigns in the background.
    pub async fn lead<T, F: Future<Output = T>>(&self, mut work: impl FnMut(Arc<Leadership>) -> F) -> Result<T> {
        loop {
            let leadership = Arc::new(self.campaign().await?);
            if let Ok(answer) = leadership.while_held(work(Arc::clone(&leadership))).await {
                let _ = leadership.resign_for_all().await;
                return Ok(answer);
            }
        }
    }
}

impl Group {
    /// Joins the group, creating it if it is missing, runs `work` [as the leader](Membership::lead), and leaves.
    ///
    /// ```
    /// # use tooz_memory as _;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tooz_core::Result<()> {
    /// # let coordinator = tooz_core::connect("memory://group-lead", "worker-1").await?;
    /// let epoch = coordinator.group("billing")?.lead(|leadership| async move { leadership.epoch() }).await?;
    /// println!("has led with token {epoch}");
    /// # coordinator.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`join_or_create`](Self::join_or_create) and [`Membership::lead`].
    ///
    /// # Cancel safety
    /// Dropping it drops what runs, and resigns and leaves in the background.
    pub async fn lead<T, F: Future<Output = T>>(&self, work: impl FnMut(Arc<Leadership>) -> F) -> Result<T> {
        let membership = self.join_or_create(&()).await.map_err(told_of_its_own)?;
        let answer = membership.lead(work).await?;
        let _ = membership.leave().await;
        Ok(answer)
    }
}

/// A member that has joined by itself finds itself in the way.
fn told_of_its_own(error: Error) -> Error {
    match error.kind() {
        ErrorKind::AlreadyExists => error.context(
            "Group::lead joins by itself, and a member that has joined before leads by Membership::lead, or leaves first",
        ),
        _ => error,
    }
}

impl Lock {
    /// Runs `work` while the lock is held: waits for it, runs the work, and gives the lock back. When the lock is lost before the end, what runs is
    /// dropped, and `work` begins anew with the next grant: for work that goes on as long as the service. What must not begin twice asks
    /// [`acquire`](Self::acquire) and [`LockGuard::while_held`].
    ///
    /// ```
    /// # use tooz_memory as _;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tooz_core::Result<()> {
    /// # let coordinator = tooz_core::connect("memory://lock-hold", "worker-1").await?;
    /// let token = coordinator.lock("mailer")?.hold(|guard| async move { guard.fencing_token() }).await?;
    /// println!("was held under token {token}");
    /// # coordinator.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// Dropping it drops what runs, and gives the lock back in the background.
    pub async fn hold<T, F: Future<Output = T>>(&self, mut work: impl FnMut(Arc<LockGuard>) -> F) -> Result<T> {
        loop {
            let guard = Arc::new(self.acquire().await?);
            if let Ok(answer) = guard.while_held(work(Arc::clone(&guard))).await {
                let _ = guard.release_for_all().await;
                return Ok(answer);
            }
        }
    }
}
