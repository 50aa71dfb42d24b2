//! The end of a grant, as the user waits for it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::loss_reason::LossReason;
use crate::engine::hold::Hold;

/// The end of a grant, as a value to wait for and to ask. A cheap clone that may outlive the grant, so that any task can look whether it may
/// go on, wherever the guard is.
///
/// It also ends when the grant is given back ([`LossReason::Released`]), so that no task waits for ever.
///
/// ```
/// use tooz_core::LossReason;
/// # use tooz_memory as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tooz_core::Result<()> {
/// # let coordinator = tooz_core::connect("memory://loss", "worker-1").await?;
/// let guard = coordinator.lock("nightly")?.acquire().await?;
/// let loss = guard.loss();
/// let watchman = tokio::spawn(async move { loss.wait().await });
/// guard.release().await?;
/// assert!(matches!(watchman.await, Ok(LossReason::Released)));
/// # coordinator.close().await
/// # }
/// ```
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
        // A leadership that is given back because its membership has ended says why that has.
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

    /// How long it surely does not come by the deadline, without another heartbeat; zero when it has come; `None`: the kernel is the judge.
    pub fn remaining(&self) -> Option<Duration> {
        if self.is_lost() { Some(Duration::ZERO) } else { self.hold.remaining() }
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
