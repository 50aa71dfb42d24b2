//! How a local queue gives a grant back to the backend, and takes back what it asked for in vain.

use std::sync::Arc;

use crate::base::backoff::Backoff;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::loss_reason::LossReason;
use crate::driver::lock::LockRequest;
use crate::engine::claim::ClaimSubject;
use crate::engine::heart::FirstPoll;
use crate::engine::hold::Hold;
use crate::engine::live_session::LiveSession;
use crate::engine::local_queue::LocalQueue;

/// What is to be said beside a release that comes too late.
const UNTOUCHED: &str = "a later holder was not touched";

impl LocalQueue {
    /// Gives a grant back in the background.
    pub(crate) fn release_later(self: &Arc<Self>, hold: Arc<Hold>) {
        let queue = Arc::clone(self);
        self.inner.heart().spawn(async move {
            let _ = queue.release(hold).answer().await;
        });
    }

    /// Gives a grant back. A release that fails goes on in the background until the session ends.
    pub(crate) fn release(self: &Arc<Self>, hold: Arc<Hold>) -> FirstPoll<Result<()>> {
        let name = self.inner.driver.name();
        if let Some(reason) = hold.check() {
            // A grant that is being given back is in the way until the backend has it.
            if reason != LossReason::Released {
                self.gone(&hold);
            }
            if reason == LossReason::Broken {
                self.withdraw_the_broken(&hold);
            }
            let error = Error::new(
                if reason == LossReason::Closed { ErrorKind::Closed } else { ErrorKind::Lost },
                format!("release {}: {reason}; {UNTOUCHED}", self.key),
            );
            return FirstPoll::Done(Err(error.in_driver(name)));
        }
        hold.lost.set(LossReason::Released);
        let queue = Arc::clone(self);
        let limit = self.inner.settings.operation_timeout;
        self.inner.heart().begin(async move {
            let live = Arc::clone(&hold.live);
            // Not the hold: a driver that never answers must not keep alive what the session believes to have.
            let (what, given_back) = (|| format!("release {}", queue.key), hold.claim());
            let released = live.call_patiently(limit, what, move |session| {
                let claim = Arc::clone(&given_back);
                async move {
                    match &claim.what {
                        ClaimSubject::Lock(request) => session.release(request).await,
                        ClaimSubject::Membership => Ok(()),
                    }
                }
            });
            match released.await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    queue.gone(&hold);
                    let taken = format!("release {}: {}; {}", queue.key, LossReason::Broken, UNTOUCHED);
                    Err(Error::new(ErrorKind::Lost, taken).with_source(error).in_driver(queue.inner.driver.name()))
                }
                Err(error) if live.check().is_none() => {
                    let trying = Arc::clone(&queue);
                    tokio::spawn(async move {
                        if let ClaimSubject::Lock(request) = &hold.what {
                            trying.withdraw_at_backend(&live, request).await;
                        }
                        trying.gone(&hold);
                    });
                    Err(error.context(format!("release {} (it goes on in the background)", queue.key)))
                }
                result => {
                    queue.gone(&hold);
                    result
                }
            }
        })
    }

    /// Ends what was won as that member, before the member's entry goes.
    pub(super) async fn resign_all(self: &Arc<Self>, membership: &Arc<Hold>) {
        for leadership in self.discharge(membership) {
            let _ = self.release(leadership).answer().await;
        }
    }

    /// A driver that took a grant for lost by mistake would leave it at the backend, without a holder, for as long as the session lives. By
    /// its request it can be given back without touching another's.
    fn withdraw_the_broken(self: &Arc<Self>, hold: &Hold) {
        if let ClaimSubject::Lock(request) = &hold.what
            && hold.live.check().is_none()
        {
            let (queue, live, request) = (Arc::clone(self), Arc::clone(&hold.live), request.clone());
            self.inner.heart().spawn(async move { queue.withdraw_at_backend(&live, &request).await });
        }
    }

    fn gone(self: &Arc<Self>, hold: &Arc<Hold>) {
        let (removed, may_go_on) = self.line().gone(hold);
        drop(removed);
        if may_go_on {
            self.pump();
        }
    }

    /// Takes back a request that may or may not have been done. One that stays unknown for too long ends the
    /// session, so that no lock is left without a holder. It is asked once more only after an error: an unanswered one is still on its way,
    /// and a second one would only lengthen the driver's queue.
    pub(super) async fn withdraw_at_backend(&self, live: &Arc<LiveSession>, request: &LockRequest) {
        let mut patience = live.patience(self.inner.patience_with(live));
        let mut pauses = Backoff::for_reconnects();
        while live.check().is_none() {
            let (what, request) = (|| format!("release {}", self.key), request.clone());
            let asked =
                live.call_in_turn(&mut patience, what, |session| async move { session.release(&request).await });
            match asked.await {
                Ok(()) => return,
                Err(error) if error.kind() == ErrorKind::NotFound => return,
                Err(error) if patience.ends_with(&error) => live.lose(LossReason::SessionEnded),
                Err(_) => {
                    tokio::select! {
                        () = pauses.pause() => {}
                        _ = live.lost() => {}
                    }
                }
            }
        }
    }
}
