//! One join and one leave at the backend: repeated where that is safe, and taken back where its caller has gone.

use std::sync::Arc;

use tokio::sync::watch;

use crate::base::backoff::Backoff;
use crate::base::clock::Clock;
use crate::base::error::{Error, ErrorKind, Outcome, Result};
use crate::base::id::GroupId;
use crate::base::loss_reason::LossReason;
use crate::driver::group::{JoinRequest, Replace};
use crate::driver::roster::Capabilities;
use crate::engine::claim::ClaimSubject;
use crate::engine::hold::Hold;
use crate::engine::inner::{Inner, Retry};
use crate::engine::live_session::{BackendMemberships, LiveSession};
use crate::engine::phase::Need;

/// What a join has made.
pub(crate) struct NewMembership {
    pub(crate) hold: Arc<Hold>,
    pub(super) request: JoinRequest,
    /// What the backend turns out to have after reconnects, from before the join was asked for.
    pub(crate) found: watch::Receiver<Arc<BackendMemberships>>,
}

/// The first join. If its caller has gone (`within` has given up), it leaves again.
pub(crate) async fn first_join(
    inner: Arc<Inner>,
    group: GroupId,
    capabilities: Capabilities,
    replace: Replace,
) -> Result<NewMembership> {
    let clock = Clock::boot_time();
    let limit = inner.settings.operation_timeout;
    let give_up = clock.now() + limit;
    let mut pauses = Backoff::for_reconnects();
    loop {
        let live = inner.session(Need::Session, Retry::Never).await?;
        let result = enter(&inner, &live, &group, &capabilities, replace).await;
        let late = clock.now() >= give_up;
        match result {
            Ok(NewMembership { request, .. }) if late => {
                leave(&inner, &live, &request).await;
                return Err(Error::new(ErrorKind::TimedOut, "joined too late, and left again"));
            }
            Ok(entered) => return Ok(entered),
            // The request itself may be what finds out that the session is over: the next one is asked then.
            Err(error) if !late && error.kind() == ErrorKind::Lost => {}
            Err(error) if late || !(error.is_retryable() && error.retry_after().is_none()) => return Err(error),
            Err(error) => {
                // What it has met tells more than that there was no answer in time.
                let pause = pauses.next();
                if clock.now() + pause >= give_up {
                    return Err(error);
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// One join with a fresh request id, repeated with the same id when its reply was lost, taken back if that stays unknown.
pub(super) async fn enter(
    inner: &Inner,
    live: &Arc<LiveSession>,
    group: &GroupId,
    capabilities: &Capabilities,
    replace: Replace,
) -> Result<NewMembership> {
    let request =
        JoinRequest::new(group.clone(), inner.member.clone(), inner.request_id(), capabilities.clone(), replace);
    let hold = Hold::new(live, request.id, ClaimSubject::Membership);
    let found = live.found.subscribe();
    let mut result = live.call(|session| session.join(&request)).await;
    if matches!(&result, Err(error) if error.outcome() == Outcome::Unknown) && live.check().is_none() {
        result = live.call(|session| session.join(&request)).await;
    }
    match result {
        Ok(()) => match hold.check() {
            None => Ok(NewMembership { hold, request, found }),
            Some(reason) => {
                leave(inner, live, &request).await;
                Err(live.error_of(reason))
            }
        },
        Err(error) => {
            if error.outcome() == Outcome::Unknown {
                leave(inner, live, &request).await;
            }
            Err(error)
        }
    }
}

/// Makes a group that is missing.
pub(super) async fn create(live: &LiveSession, group: &GroupId) -> Result<()> {
    match live.call(|session| session.create_group(group)).await {
        // Another member was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Leaves, and goes on trying as long as the session lives. One that stays unknown for too long ends the session, and the entry with it:
/// a member that has left is not to be listed.
pub(super) async fn leave(inner: &Inner, live: &Arc<LiveSession>, request: &JoinRequest) {
    let mut pauses = Backoff::for_reconnects();
    let mut patience = live.patience(inner.patience_with(live));
    while live.check().is_none() {
        let (what, leaving) = (|| format!("leave group {:?}", request.group), request.clone());
        let asked = live.call_in_turn(&mut patience, what, |session| async move { session.leave(&leaving).await });
        match asked.await {
            Ok(()) => return,
            Err(error) if error.outcome() == Outcome::Unknown && patience.ends_with(&error) => {
                live.lose(LossReason::SessionEnded);
            }
            Err(_) => {
                tokio::select! {
                    () = pauses.pause() => {}
                    _ = live.lost() => {}
                }
            }
        }
    }
}
