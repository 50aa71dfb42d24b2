//! How a membership comes back in a new session, and what is ordered of it meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::backoff::{A_DAY, Backoff, GRACE};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::loss_reason::LossReason;
use crate::driver::group::Replace;
use crate::driver::lock::LockKey;
use crate::driver::roster::Capabilities;
use crate::engine::heart::within;
use crate::engine::hold::Hold;
use crate::engine::join::{NewMembership, create, enter, leave};
use crate::engine::keeper::{AnswerSender, Keeper, Order};
use crate::engine::live_session::LiveSession;
use crate::engine::phase::Need;

/// What was ordered of a membership while a join of it was under way.
enum PendingOrder {
    /// It stays a membership.
    Stays,
    /// It is to be left, and a caller waits for the answer.
    Leaves(AnswerSender),
    /// It is to be left, since its handle was dropped.
    Dropped,
}

/// The membership was left while nothing of it was at the backend.
struct Departure;

/// Why a membership that is out has no session to join in.
enum NoSession {
    /// The membership was left meanwhile.
    Left,
    /// There will be none.
    Failed(Error),
}

impl From<Departure> for NoSession {
    fn from(_: Departure) -> Self {
        NoSession::Left
    }
}

impl Keeper {
    /// Joins again in a new session, and answers the updates that wait for it. False: the membership is over.
    pub(super) async fn rejoin(&mut self, old: &Arc<Hold>) -> bool {
        match old.check() {
            // The session lives; the place is another's now, or the group is gone.
            Some(reason @ (LossReason::TakenOver | LossReason::GroupDeleted | LossReason::Broken)) => {
                self.over(old, reason);
                self.queues.of(&LockKey::election(&self.group)).resign_all(old).await;
                return false;
            }
            Some(LossReason::Closed) => {
                self.over(old, LossReason::Closed);
                return false;
            }
            _ => {}
        }
        self.out(old);
        let mut pauses = Backoff::for_reconnects();
        let mut dead_at_the_latest = None;
        let mut before: Option<Arc<LiveSession>> = None;
        loop {
            let entered = match self.session(old).await {
                Err(NoSession::Left) => return false,
                Err(NoSession::Failed(error)) => Err(error),
                Ok(live) => {
                    let is_another = |before: Arc<LiveSession>| !Arc::ptr_eq(&before, &live);
                    if before.replace(Arc::clone(&live)).is_some_and(is_another) {
                        dead_at_the_latest = None;
                    }
                    match self.enter_again(old, live).await {
                        (entered, PendingOrder::Stays) => entered,
                        (entered, PendingOrder::Leaves(answer)) => {
                            self.leave_again(old, entered, Some(answer)).await;
                            return false;
                        }
                        (entered, PendingOrder::Dropped) => {
                            self.leave_again(old, entered, None).await;
                            return false;
                        }
                    }
                }
            };
            let error = match entered {
                Ok(entered) => {
                    self.worry.is_over();
                    self.stand(entered).await;
                    return true;
                }
                Err(error) => error,
            };
            let reason = match (error.kind(), error.retry_after()) {
                (ErrorKind::AlreadyExists, Some(after)) => {
                    // It may be this member's own entry of a session that could not be ended. One that renews its session is another's.
                    let end = *dead_at_the_latest.get_or_insert(Instant::now() + after.min(A_DAY) + GRACE);
                    (Instant::now() >= end).then_some(LossReason::TakenOver)
                }
                (ErrorKind::AlreadyExists, None) => Some(LossReason::TakenOver),
                // Where it is made again, another may have deleted it in between.
                (ErrorKind::NotFound, _) if !self.creates => Some(LossReason::GroupDeleted),
                (ErrorKind::Closed, _) => Some(LossReason::Closed),
                _ => None,
            };
            if let Some(reason) = reason {
                self.over(old, reason);
                return false;
            }
            if error.kind() != ErrorKind::AlreadyExists {
                // This trouble may also be why the backend still lists the dead.
                dead_at_the_latest = None;
            }
            self.worry.about(&error);
            if let Err(Departure) = self.pause(old, pauses.next()).await {
                return false;
            }
        }
    }

    /// Waits for a session. That wait may be dropped at any moment.
    async fn session(&mut self, old: &Arc<Hold>) -> Result<Arc<LiveSession>, NoSession> {
        loop {
            tokio::select! {
                session = self.worry.session_kept(Need::Session) => return session.map_err(NoSession::Failed),
                order = self.orders.recv() => self.note(old, order)?,
            }
        }
    }

    /// Waits so long, and notes what is ordered meanwhile.
    async fn pause(&mut self, old: &Arc<Hold>, pause: Duration) -> Result<(), Departure> {
        let sleep = tokio::time::sleep(pause);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return Ok(()),
                order = self.orders.recv() => self.note(old, order)?,
            }
        }
    }

    /// Notes an order that comes while nothing of this membership is at the backend: a leave is done by that.
    fn note(&mut self, old: &Arc<Hold>, order: Option<Order>) -> Result<(), Departure> {
        match order {
            Some(Order::Update(capabilities, answer)) => {
                self.note_update(capabilities, answer);
                Ok(())
            }
            Some(Order::Leave(answer)) => {
                self.over(old, LossReason::Released);
                let _ = answer.send(Ok(()));
                Err(Departure)
            }
            None => {
                self.over(old, LossReason::Released);
                Err(Departure)
            }
        }
    }

    fn note_update(&mut self, capabilities: Capabilities, answer: AnswerSender) {
        self.capabilities = capabilities;
        // Callers that have given up waiting are forgotten: an outage may be long.
        self.unfinished.retain(|waiting| !waiting.is_closed());
        self.unfinished.push(answer);
    }

    /// One join in that session. It is not dropped half-way: a leave that comes meanwhile is told beside its result, and is done after it.
    async fn enter_again(&mut self, old: &Arc<Hold>, live: Arc<LiveSession>) -> (Result<NewMembership>, PendingOrder) {
        let inner = Arc::clone(&self.inner);
        let (group, capabilities) = (self.group.clone(), self.capabilities.clone());
        let (replace, creates) = (Replace::Own(old.id), self.creates);
        let limit = inner.settings.operation_timeout;
        let word = format!("join group {group:?} again");
        let entering = async move {
            let give_up = Instant::now() + limit.min(A_DAY);
            let mut entered = enter(&inner, &live, &group, &capabilities, replace).await;
            // The backend has forgotten the group as well.
            if creates && matches!(&entered, Err(error) if error.kind() == ErrorKind::NotFound) {
                create(&live, &group).await?;
                entered = enter(&inner, &live, &group, &capabilities, replace).await;
            }
            match entered {
                // The answer is not awaited any more: another attempt is under way.
                Ok(NewMembership { request, .. }) if Instant::now() >= give_up => {
                    leave(&inner, &live, &request).await;
                    Err(Error::new(ErrorKind::TimedOut, "joined too late, and left again"))
                }
                entered => entered,
            }
        };
        let mut attempt = tokio::spawn(async move { within(limit, || word, Box::pin(entering)).await });
        let mut meanwhile = PendingOrder::Stays;
        loop {
            tokio::select! {
                result = &mut attempt => return (result.unwrap_or_else(|_| Err(Error::closed())), meanwhile),
                order = self.orders.recv(), if matches!(meanwhile, PendingOrder::Stays) => match order {
                    Some(Order::Update(capabilities, answer)) => {
                        self.note_update(capabilities, answer);
                    }
                    Some(Order::Leave(answer)) => meanwhile = PendingOrder::Leaves(answer),
                    None => meanwhile = PendingOrder::Dropped,
                },
            }
        }
    }

    async fn leave_again(&mut self, old: &Arc<Hold>, entered: Result<NewMembership>, answer: Option<AnswerSender>) {
        match entered {
            Ok(NewMembership { hold, request, .. }) => {
                self.over(&hold, LossReason::Released);
                leave(&self.inner, &hold.live, &request).await;
            }
            Err(_) => self.over(old, LossReason::Released),
        }
        if let Some(answer) = answer {
            let _ = answer.send(Ok(()));
        }
    }
}
