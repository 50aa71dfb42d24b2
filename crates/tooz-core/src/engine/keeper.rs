//! The one task behind a membership: join, update, re-join after a loss and leave never overtake each other.
//!
//! | it stands | what happens | then |
//! |---|---|---|
//! | in | an update | it is said to its end, also past its time limit: a newer one must not be overtaken |
//! | in | the session is lost | out |
//! | in | taken over, the group deleted, the coordinator closed | over |
//! | out | a session, and a join in it | in |
//! | out | a refusal of whatever kind | out, tried again with pauses, and told |
//! | out | a namesake, whose session ends at a moment that the backend names | out until that moment, over after it |
//! | in or out | a leave, or the last handle dropped | over |

// Long because its branches are judged side by side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use crate::base::backoff::{A_DAY, Backoff, GRACE};
use crate::base::clock::Clock;
use crate::base::error::{Error, ErrorKind, Outcome, Result};
use crate::base::id::GroupId;
use crate::base::loss_reason::LossReason;
use crate::driver::group::{JoinRequest, Replace};
use crate::driver::lock::LockKey;
use crate::driver::roster::Capabilities;
use crate::driver::session::Session;
use crate::engine::claim::Claimed;
use crate::engine::heart::within;
use crate::engine::hold::Hold;
use crate::engine::inner::{Inner, Retry};
use crate::engine::live_session::{Found, LiveSession};
use crate::engine::local_queues::LocalQueues;
use crate::engine::phase::Need;
use crate::engine::standing::Standing;
use crate::engine::worry::Worry;

/// What a join has made.
pub(crate) struct Entered {
    pub(crate) hold: Arc<Hold>,
    request: JoinRequest,
    /// What the backend turns out to have after reconnects, from before the join was asked for.
    pub(crate) found: watch::Receiver<Arc<Found>>,
}

type Answer = oneshot::Sender<Result<()>>;

pub(crate) enum Order {
    Update(Capabilities, Answer),
    Leave(Answer),
}

pub(crate) struct Keeper {
    inner: Arc<Inner>,
    queues: Arc<LocalQueues>,
    group: GroupId,
    capabilities: Capabilities,
    orders: mpsc::UnboundedReceiver<Order>,
    standing: watch::Sender<Standing>,
    found: watch::Receiver<Arc<Found>>,
    /// Updates under which the session ended: what they say is the first word in the next one, and who asked waits for that.
    unfinished: Vec<Answer>,
    worry: Worry,
}

/// The first join. If nobody is left to hear of it (`within` has given up), it leaves again.
pub(crate) async fn first_join(
    inner: Arc<Inner>,
    group: GroupId,
    capabilities: Capabilities,
    replace: Replace,
) -> Result<Entered> {
    let clock = Clock::boot_time();
    let limit = inner.settings.operation_timeout;
    let give_up = clock.now() + limit;
    let mut pauses = Backoff::for_reconnects();
    loop {
        let live = inner.session(Need::Session, Retry::Never).await?;
        let result = enter(&inner, &live, &group, &capabilities, replace).await;
        let late = clock.now() >= give_up;
        match result {
            Ok(Entered { request, .. }) if late => {
                leave(&inner, &live, &request).await;
                return Err(Error::new(ErrorKind::TimedOut, "joined too late, and left again"));
            }
            Ok(entered) => return Ok(entered),
            // The request itself may be what finds out that the session is over: the next one is asked then.
            Err(error) if !late && error.kind() == ErrorKind::Lost => {}
            Err(error) if late || !(error.is_retryable() && error.retry_after().is_none()) => return Err(error),
            Err(_) => pauses.pause().await,
        }
    }
}

/// One join with a fresh request id, repeated with the same id when its reply was lost, taken back if that stays unknown.
async fn enter(
    inner: &Inner,
    live: &Arc<LiveSession>,
    group: &GroupId,
    capabilities: &Capabilities,
    replace: Replace,
) -> Result<Entered> {
    let request =
        JoinRequest::new(group.clone(), inner.member.clone(), inner.request_id(), capabilities.clone(), replace);
    let hold = Hold::new(live, request.id, Claimed::Membership);
    let found = live.found.subscribe();
    let mut result = live.call(|session| session.join(&request)).await;
    if matches!(&result, Err(error) if error.outcome() == Outcome::Unknown) && live.check().is_none() {
        result = live.call(|session| session.join(&request)).await;
    }
    match result {
        Ok(()) => match hold.check() {
            None => Ok(Entered { hold, request, found }),
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

/// Leaves, and goes on trying as long as the session lives. One that stays unknown for too long ends the session, and the entry with it:
/// nobody is to be listed who has left.
async fn leave(inner: &Inner, live: &Arc<LiveSession>, request: &JoinRequest) {
    let mut pauses = Backoff::for_reconnects();
    let patience = inner.patience_with(live);
    let give_up = live.clock().now() + patience;
    while live.check().is_none() {
        let (what, leaving) = (|| format!("leave group {:?}", request.group), request.clone());
        // Each has the whole of it: one that is asked after long refusals may have to wait for its turn too.
        match live.call_within(patience, what, |session| async move { session.leave(&leaving).await }).await {
            Ok(()) => return,
            Err(error) if error.outcome() == Outcome::Unknown && live.clock().now() >= give_up => {
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

impl Keeper {
    pub(crate) fn new(
        inner: Arc<Inner>,
        queues: Arc<LocalQueues>,
        group: GroupId,
        capabilities: Capabilities,
        orders: mpsc::UnboundedReceiver<Order>,
        standing: watch::Sender<Standing>,
        found: watch::Receiver<Arc<Found>>,
    ) -> Self {
        let worry = Worry::new(&inner, format!("be a member of group {group:?}"));
        Keeper { inner, queues, group, capabilities, orders, standing, found, unfinished: Vec::new(), worry }
    }

    pub(crate) async fn keep(mut self) {
        self.keep_up().await;
        // What was ordered just before the end is answered, and nothing more can be: an order that races the end must not wait for ever.
        self.orders.close();
        while let Some(order) = self.orders.recv().await {
            let (Order::Update(_, answer) | Order::Leave(answer)) = order;
            let _ = answer.send(Err(self.over_error()));
        }
        answer_all(std::mem::take(&mut self.unfinished), &Err(self.over_error()));
    }

    async fn keep_up(&mut self) {
        loop {
            let Standing::In(hold) = self.standing.borrow().clone() else { return };
            let order = tokio::select! {
                order = self.orders.recv() => Some(order),
                Ok(()) = self.found.changed() => {
                    self.restore(&hold).await;
                    continue;
                }
                () = async { tokio::select! { _ = hold.lost.wait() => {}, _ = hold.live.lost() => {} } } => None,
            };
            match order {
                // All handles of it are gone: that is a leave nobody waits for.
                Some(None) => return self.leave(&hold, None).await,
                Some(Some(Order::Leave(answer))) => return self.leave(&hold, Some(answer)).await,
                Some(Some(Order::Update(capabilities, answer))) => self.update(&hold, capabilities, vec![answer]).await,
                None => {
                    if !self.rejoin(&hold).await {
                        return;
                    }
                }
            }
        }
    }

    fn request(&self, hold: &Hold) -> JoinRequest {
        JoinRequest::new(
            self.group.clone(),
            self.inner.member.clone(),
            hold.id,
            self.capabilities.clone(),
            Replace::Nobody,
        )
    }

    fn over(&self, hold: &Arc<Hold>, reason: LossReason) {
        hold.lost.set(reason);
        self.standing.send_replace(Standing::Over(Arc::clone(hold)));
    }

    fn over_error(&self) -> Error {
        let reason = match &*self.standing.borrow() {
            Standing::Over(hold) => hold.check(),
            Standing::In(_) | Standing::Out(_) => None,
        };
        let reason = reason.unwrap_or(LossReason::NotMember);
        let kind = if reason == LossReason::Closed { ErrorKind::Closed } else { ErrorKind::NotMember };
        Error::new(kind, format!("the membership of group {:?} is over: {reason}", self.group))
            .in_driver(self.inner.driver.name())
    }

    /// Says an update to its end. Who asked has an answer after the operation timeout; a later update waits for the real one, since it must
    /// not be overtaken by this.
    async fn update(&mut self, hold: &Arc<Hold>, capabilities: Capabilities, mut waiting: Vec<Answer>) {
        let word = format!("update the capabilities in group {:?}", self.group);
        self.capabilities = capabilities;
        let request = self.request(hold);
        let live = &hold.live;
        let limit = self.inner.settings.operation_timeout;
        // No limit but that of an unknown outcome: a request that is given up would run on, and might arrive after a newer one.
        let (begin, patience) = (live.clock().now(), self.inner.patience_with(live));
        let (what, updating) = (|| word.clone(), request);
        let updating = live.call_patiently(limit.max(patience), what, move |session| {
            let request = updating.clone();
            async move { session.update(&request).await }
        });
        tokio::pin!(updating);
        let result = tokio::select! {
            result = &mut updating => result,
            () = tokio::time::sleep(limit) => {
                let late = format!("{word}: no answer within {limit:?}; raise operation_timeout if the backend is just slow");
                let error = Error::new(ErrorKind::TimedOut, late).in_driver(self.inner.driver.name());
                answer_all(waiting.drain(..), &Err(error));
                updating.await
            }
        };
        let unknown = matches!(&result, Err(error) if error.outcome() == Outcome::Unknown);
        if unknown && live.clock().now().since(begin) >= patience {
            // One that stays unknown for so long ends the session; the re-join says what is to be said.
            live.lose(LossReason::SessionEnded);
        }
        if matches!(&result, Err(error) if error.kind() == ErrorKind::NotMember) {
            // The session lives and the entry is gone: somebody has taken it away.
            live.lose_one(hold.id, LossReason::Broken);
        }
        match result {
            Err(error) if error.kind() == ErrorKind::Lost && hold.check().is_some() => self.unfinished.extend(waiting),
            result => answer_all(waiting, &result.map_err(|error| error.context(&word))),
        }
    }

    /// After a reconnect: the backend may have fallen back to before this join, or before an update of it.
    async fn restore(&mut self, hold: &Arc<Hold>) {
        let found = Arc::clone(&self.found.borrow_and_update());
        // What is over is not said again, and its end is about to be noted.
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
                ErrorKind::NotFound => live.lose_one(hold.id, LossReason::GroupDeleted),
                ErrorKind::Lost | ErrorKind::Closed => {}
                // It is as it was found: once more.
                _ => {
                    self.worry.about(&error);
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(500)) => {}
                        _ = live.lost() => {}
                    }
                    self.found.mark_changed();
                }
            },
        }
    }

    async fn leave(&mut self, hold: &Arc<Hold>, answer: Option<Answer>) {
        let lost_before = hold.check();
        let request = self.request(hold);
        // From here on nobody stands: leaderships end first, the entry goes after them.
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

    /// Joins again in a new session, and answers the updates that wait for it. False: the membership is over.
    async fn rejoin(&mut self, old: &Arc<Hold>) -> bool {
        match old.check() {
            // The session lives; the place is somebody else's now, or the group is gone.
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
        self.standing.send_replace(Standing::Out(Arc::clone(old)));
        let mut pauses = Backoff::for_reconnects();
        let mut dead_at_the_latest = None;
        let mut before: Option<Arc<LiveSession>> = None;
        loop {
            let session = self.session(old).await;
            if let Some(Ok(live)) = &session
                && before.replace(Arc::clone(live)).is_some_and(|before| !Arc::ptr_eq(&before, live))
            {
                dead_at_the_latest = None;
            }
            let entered = match session {
                None => return false,
                Some(Err(error)) => Err(error),
                Some(Ok(live)) => match self.enter_again(old, live).await {
                    (entered, Some(leaving)) => {
                        self.leave_again(old, entered, leaving).await;
                        return false;
                    }
                    (entered, None) => entered,
                },
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
                (ErrorKind::NotFound, _) => Some(LossReason::GroupDeleted),
                (ErrorKind::Closed, _) => Some(LossReason::Closed),
                _ => None,
            };
            if let Some(reason) = reason {
                self.over(old, reason);
                return false;
            }
            if error.kind() != ErrorKind::AlreadyExists {
                // What kept this from the backend may have kept its dead listed there.
                dead_at_the_latest = None;
            }
            self.worry.about(&error);
            if !self.pause(old, pauses.next()).await {
                return false;
            }
        }
    }

    /// Waits for a session, which may be dropped at any moment. `None`: the membership was left meanwhile.
    async fn session(&mut self, old: &Arc<Hold>) -> Option<Result<Arc<LiveSession>>> {
        loop {
            tokio::select! {
                session = self.worry.session_kept(Need::Session) => return Some(session),
                order = self.orders.recv() => self.note(old, order)?,
            }
        }
    }

    /// False: the membership was left meanwhile.
    async fn pause(&mut self, old: &Arc<Hold>, pause: Duration) -> bool {
        let sleep = tokio::time::sleep(pause);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return true,
                order = self.orders.recv() => if self.note(old, order).is_none() {
                    return false;
                },
            }
        }
    }

    /// Notes an order that comes while nothing of this membership is at the backend. `None`: it was a leave, and that was done by it.
    fn note(&mut self, old: &Arc<Hold>, order: Option<Order>) -> Option<()> {
        match order {
            Some(Order::Update(capabilities, answer)) => {
                self.note_update(capabilities, answer);
                Some(())
            }
            Some(Order::Leave(answer)) => {
                self.over(old, LossReason::Released);
                let _ = answer.send(Ok(()));
                None
            }
            None => {
                self.over(old, LossReason::Released);
                None
            }
        }
    }

    fn note_update(&mut self, capabilities: Capabilities, answer: Answer) {
        self.capabilities = capabilities;
        // Whoever has given up waiting is forgotten: an outage may be long.
        self.unfinished.retain(|waiting| !waiting.is_closed());
        self.unfinished.push(answer);
    }

    /// One join in that session. It is not dropped half-way: a leave that comes meanwhile is the second answer, and is done after it.
    async fn enter_again(
        &mut self,
        old: &Arc<Hold>,
        live: Arc<LiveSession>,
    ) -> (Result<Entered>, Option<Option<Answer>>) {
        let inner = Arc::clone(&self.inner);
        let (group, capabilities) = (self.group.clone(), self.capabilities.clone());
        let replace = Replace::Own(old.id);
        let limit = inner.settings.operation_timeout;
        let word = format!("join group {group:?} again");
        let entering = async move {
            let give_up = Instant::now() + limit.min(A_DAY);
            match enter(&inner, &live, &group, &capabilities, replace).await {
                // Nobody listens any more: another attempt is under way.
                Ok(Entered { request, .. }) if Instant::now() >= give_up => {
                    leave(&inner, &live, &request).await;
                    Err(Error::new(ErrorKind::TimedOut, "joined too late, and left again"))
                }
                entered => entered,
            }
        };
        let mut attempt = tokio::spawn(async move { within(limit, || word, Box::pin(entering)).await });
        let mut leaving = None;
        loop {
            tokio::select! {
                result = &mut attempt => return (result.unwrap_or_else(|_| Err(Error::closed())), leaving),
                order = self.orders.recv(), if leaving.is_none() => match order {
                    Some(Order::Update(capabilities, answer)) => {
                        self.note_update(capabilities, answer);
                    }
                    Some(Order::Leave(answer)) => leaving = Some(Some(answer)),
                    None => leaving = Some(None),
                },
            }
        }
    }

    async fn leave_again(&mut self, old: &Arc<Hold>, entered: Result<Entered>, answer: Option<Answer>) {
        match entered {
            Ok(Entered { hold, request, .. }) => {
                self.over(&hold, LossReason::Released);
                leave(&self.inner, &hold.live, &request).await;
            }
            Err(_) => self.over(old, LossReason::Released),
        }
        if let Some(answer) = answer {
            let _ = answer.send(Ok(()));
        }
    }

    /// Stands again. What was said while the join was under way is said now.
    async fn stand(&mut self, Entered { hold, request, found }: Entered) {
        self.found = found;
        self.standing.send_replace(Standing::In(Arc::clone(&hold)));
        let unfinished = std::mem::take(&mut self.unfinished);
        if request.capabilities == self.capabilities {
            answer_all(unfinished, &Ok(()));
        } else {
            self.update(&hold, self.capabilities.clone(), unfinished).await;
        }
    }
}

fn answer_all(waiting: impl IntoIterator<Item = Answer>, result: &Result<()>) {
    for answer in waiting {
        let _ = answer.send(result.clone());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Whoever still asks must not find a standing that nobody keeps.
        let standing = self.standing.borrow().clone();
        if let Standing::In(hold) | Standing::Out(hold) = standing {
            self.over(&hold, LossReason::Closed);
        }
    }
}
