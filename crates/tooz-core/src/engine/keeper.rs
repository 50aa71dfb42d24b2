//! The one task behind a membership, and its steps: update, leave, and what the backend has forgotten. `keeping` says which comes when.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::base::error::{Error, ErrorKind, Outcome, Result};
use crate::base::id::GroupId;
use crate::base::loss_reason::LossReason;
use crate::base::mutex::Mutex;
use crate::driver::group::{JoinRequest, Replace};
use crate::driver::lock::LockKey;
use crate::driver::roster::Capabilities;
use crate::driver::session::Session;
use crate::engine::hold::Hold;
use crate::engine::inner::Inner;
use crate::engine::join::{NewMembership, create, leave};
use crate::engine::live_session::{BackendMemberships, LiveSession};
use crate::engine::local_queues::LocalQueues;
use crate::engine::patience::MOMENT;
use crate::engine::standing::Standing;
use crate::engine::worry::Worry;

pub(super) type AnswerSender = oneshot::Sender<Result<()>>;

pub(crate) enum Order {
    Update(Capabilities, AnswerSender),
    Leave(AnswerSender),
}

pub(crate) struct Keeper {
    pub(super) inner: Arc<Inner>,
    pub(super) queues: Arc<LocalQueues>,
    pub(super) group: GroupId,
    pub(super) capabilities: Capabilities,
    /// Whether a group that is missing when it comes back is made again.
    pub(super) creates: bool,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) found: watch::Receiver<Arc<BackendMemberships>>,
    /// Updates under which the session ended: what they say is the first word in the next one, and their callers wait for that.
    pub(super) unfinished: Vec<AnswerSender>,
    pub(super) worry: Worry,
}

impl Keeper {
    pub(crate) fn new(
        inner: Arc<Inner>,
        queues: Arc<LocalQueues>,
        group: GroupId,
        capabilities: Capabilities,
        orders: mpsc::UnboundedReceiver<Order>,
        standing: watch::Sender<Standing>,
        found: watch::Receiver<Arc<BackendMemberships>>,
    ) -> Self {
        let worry = Worry::new(&inner, format!("be a member of group {group:?}"));
        inner.telemetry.joined(&group, true);
        let (creates, unfinished) = (false, Vec::new());
        Keeper { inner, queues, group, capabilities, creates, orders, standing, found, unfinished, worry }
    }

    /// The group is made again if it is missing when the membership comes back: it was joined like that.
    pub(crate) fn creating(mut self, creates: bool) -> Self {
        self.creates = creates;
        self
    }

    pub(super) fn request(&self, hold: &Hold) -> JoinRequest {
        JoinRequest::new(
            self.group.clone(),
            self.inner.member.clone(),
            hold.id,
            self.capabilities.clone(),
            Replace::Nobody,
        )
    }

    pub(super) fn over(&self, hold: &Arc<Hold>, reason: LossReason) {
        hold.lost.set(reason);
        let before = self.standing.send_replace(Standing::Over(Arc::clone(hold)));
        self.tell_of_end(&before, reason);
    }

    /// It does not stand, and is to stand again.
    pub(super) fn out(&self, hold: &Arc<Hold>) {
        let before = self.standing.send_replace(Standing::Out(Arc::clone(hold)));
        self.tell_of_end(&before, LossReason::SessionEnded);
    }

    fn tell_of_end(&self, before: &Standing, reason: LossReason) {
        if let Standing::In(_) = before {
            self.inner.telemetry.left(&self.group, reason);
        }
    }

    pub(super) fn over_error(&self) -> Error {
        let reason = match &*self.standing.borrow() {
            Standing::Over(hold) => hold.check(),
            Standing::In(_) | Standing::Out(_) => None,
        };
        let reason = reason.unwrap_or(LossReason::NotMember);
        let kind = if reason == LossReason::Closed { ErrorKind::Closed } else { ErrorKind::NotMember };
        Error::new(kind, format!("the membership of group {:?} is over: {reason}", self.group))
            .in_driver(self.inner.driver.name())
    }

    /// Says an update to its end. The caller has an answer after the operation timeout; a later update waits for the real one, since it
    /// must not be overtaken by this.
    pub(super) async fn update(
        &mut self,
        hold: &Arc<Hold>,
        capabilities: Capabilities,
        mut waiting: Vec<AnswerSender>,
    ) {
        let word = format!("update the capabilities in group {:?}", self.group);
        self.capabilities = capabilities;
        let request = self.request(hold);
        let live = &hold.live;
        let limit = self.inner.settings.operation_timeout;
        // No limit but that of an unknown outcome: a request that is given up would run on, and might arrive after a newer one.
        let (begin, patience) = (live.clock().now(), self.inner.patience_with(live));
        let (what, updating) = (|| word.clone(), request);
        // What an attempt has met tells more than that there was no answer in time.
        let met = Arc::new(Mutex::<Option<Error>>::default());
        let meeting = Arc::clone(&met);
        let updating = live.call_patiently(limit.max(patience), what, move |session| {
            let (request, met) = (updating.clone(), Arc::clone(&meeting));
            async move {
                let updated = session.update(&request).await;
                let before = std::mem::replace(&mut *met.lock(), updated.as_ref().err().cloned());
                drop(before);
                updated
            }
        });
        tokio::pin!(updating);
        let result = tokio::select! {
            result = &mut updating => result,
            () = tokio::time::sleep(limit.saturating_add(MOMENT / 2)) => {
                let met = met.lock().take();
                let late = || {
                    let late = format!("no answer within {limit:?}; raise operation_timeout if the backend is just slow");
                    Error::new(ErrorKind::TimedOut, late)
                };
                // It goes on, and may be done yet.
                let error = met.unwrap_or_else(late).with_outcome(Outcome::Unknown).context(&word);
                answer_all(waiting.drain(..), &Err(error.in_driver(self.inner.driver.name())));
                updating.await
            }
        };
        let unknown = matches!(&result, Err(error) if error.outcome() == Outcome::Unknown);
        if unknown && live.clock().now().since(begin) >= patience {
            // One that stays unknown for so long ends the session; the re-join says what is to be said.
            live.lose(LossReason::SessionEnded);
        }
        if matches!(&result, Err(error) if error.kind() == ErrorKind::NotMember) {
            // The session lives and the entry is gone: another has taken it away.
            live.lose_one(hold.id, LossReason::Broken);
        }
        match result {
            Err(error) if error.kind() == ErrorKind::Lost && hold.check().is_some() => self.unfinished.extend(waiting),
            result => answer_all(waiting, &result.map_err(|error| error.context(&word))),
        }
    }

    /// After a reconnect: the backend may have fallen back to before this join, or before an update of it.
    pub(super) async fn restore(&mut self, hold: &Arc<Hold>) {
        let found = Arc::clone(&self.found.borrow_and_update());
        // A membership that is over is not said again, and its end is about to be noted.
        if hold.check().is_some() {
            return;
        }
        let there = found.get(&hold.id);
        if there == Some(&self.capabilities) {
            return;
        }
        let request = self.request(hold);
        let said_again = request.clone();
        let live = &hold.live;
        let limit = self.inner.settings.operation_timeout;
        let is_listed = there.is_some();
        let what = || format!("say again what group {:?} has forgotten", self.group);
        let say_again = move |session: Arc<dyn Session>| {
            let request = request.clone();
            async move { if is_listed { session.update(&request).await } else { session.join(&request).await } }
        };
        let said = live.call_patiently(limit, what, say_again).await;
        match said {
            // It was taken away meanwhile, and is not to come back by this.
            Ok(()) if hold.check().is_some() => leave(&self.inner, live, &said_again).await,
            Ok(()) => self.worry.is_over(),
            Err(error) => match error.kind() {
                ErrorKind::AlreadyExists | ErrorKind::NotMember => live.lose_one(hold.id, LossReason::TakenOver),
                ErrorKind::NotFound if self.creates => match create(live, &self.group).await {
                    // The entry is said again in it.
                    Ok(()) => self.found.mark_changed(),
                    Err(error) => self.restore_later(live, &error).await,
                },
                ErrorKind::NotFound => live.lose_one(hold.id, LossReason::GroupDeleted),
                ErrorKind::Lost | ErrorKind::Closed => {}
                _ => self.restore_later(live, &error).await,
            },
        }
    }

    /// It is as it was found: once more, after a pause.
    async fn restore_later(&mut self, live: &Arc<LiveSession>, error: &Error) {
        self.worry.about(error);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
            _ = live.lost() => {}
        }
        self.found.mark_changed();
    }

    pub(super) async fn leave(&mut self, hold: &Arc<Hold>, answer: Option<AnswerSender>) {
        let lost_before = hold.check();
        let request = self.request(hold);
        // From here on the membership does not stand: leaderships end first, the entry goes after them.
        self.over(hold, LossReason::Released);
        self.queues.of(&LockKey::election(&self.group)).resign_all(hold).await;
        let live = &hold.live;
        let limit = self.inner.settings.operation_timeout;
        let result = if lost_before.is_some() {
            Ok(())
        } else {
            let (what, leaving) = (|| format!("leave group {:?}", self.group), request.clone());
            let leave = move |session: Arc<dyn Session>| {
                let request = leaving.clone();
                async move { session.leave(&request).await }
            };
            live.call_patiently(limit, what, leave).await
        };
        let failed = result.is_err();
        if let Some(answer) = answer {
            let _ = answer.send(result.map_err(|error| error.context(format!("leave group {:?}", self.group))));
        }
        if failed {
            leave(&self.inner, live, &request).await;
        }
    }

    /// Stands again. Updates that came while the join was under way are said now.
    pub(super) async fn stand(&mut self, NewMembership { hold, request, found }: NewMembership) {
        self.found = found;
        self.standing.send_replace(Standing::In(Arc::clone(&hold)));
        self.inner.telemetry.joined(&self.group, false);
        let unfinished = std::mem::take(&mut self.unfinished);
        if request.capabilities == self.capabilities {
            answer_all(unfinished, &Ok(()));
        } else {
            self.update(&hold, self.capabilities.clone(), unfinished).await;
        }
    }
}

pub(super) fn answer_all(waiting: impl IntoIterator<Item = AnswerSender>, result: &Result<()>) {
    for answer in waiting {
        let _ = answer.send(result.clone());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Later callers must not find a standing without a keeper.
        let standing = self.standing.borrow().clone();
        if let Standing::In(hold) | Standing::Out(hold) = standing {
            self.over(&hold, LossReason::Closed);
        }
    }
}
