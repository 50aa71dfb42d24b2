//! A membership and the one task behind it: join, update, re-join after a loss and leave never overtake each other.

// Long because join, update, re-join and leave are one task, whose branches are judged side by side.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::election::Leadership;
use crate::group::{Group, JoinOptions};
use crate::heart::{self, within};
use crate::inner::{Handle, Inner, Persistence, Purpose, is_final};
use crate::life::{Found, Live};
use crate::lock::remaining;
use crate::loss::{Hold, Loss, LossReason};
use crate::partition::Partitioner;
use crate::session::{Capabilities, JoinRequest, Replace};
use crate::wait::Backoff;
use crate::{Error, ErrorKind, GroupId, MemberId, Outcome, Result};

/// Being a member of a group.
///
/// When its session is lost, core joins again by itself, with the latest capabilities. Each standing has a loss of its own:
/// [`loss`](Self::loss) is that of the present one. Dropping the membership leaves in the background.
#[must_use = "the group is left when the membership is dropped"]
pub struct Membership {
    orders: mpsc::UnboundedSender<Order>,
    standing: watch::Receiver<Standing>,
    group: GroupId,
    handle: Arc<Handle>,
}

/// What a join has made.
struct Entered {
    hold: Arc<Hold>,
    request: JoinRequest,
    /// What the backend turns out to have after reconnects, from before the join was asked for.
    found: watch::Receiver<Arc<Found>>,
}

/// Where a membership stands.
#[derive(Clone)]
pub(crate) enum Standing {
    /// Listed; the hold tells when that ends.
    In(Arc<Hold>),
    /// Lost with its session, being re-established. The hold is the old one.
    Out(Arc<Hold>),
    /// Over for ever.
    Over(Arc<Hold>),
}

enum Order {
    Update(Capabilities, oneshot::Sender<Result<()>>),
    Leave(oneshot::Sender<Result<()>>),
}

struct Keeper {
    inner: Arc<Inner>,
    group: GroupId,
    capabilities: Capabilities,
    orders: mpsc::UnboundedReceiver<Order>,
    standing: watch::Sender<Standing>,
    found: watch::Receiver<Arc<Found>>,
}

impl Membership {
    pub(crate) async fn join(handle: Arc<Handle>, group: GroupId, options: &JoinOptions) -> Result<Self> {
        let inner = Arc::clone(&handle.0);
        if inner.heart().is_forked() {
            return Err(heart::gone().in_driver(inner.driver.name()));
        }
        let (order_sender, orders) = mpsc::unbounded_channel();
        let (name, capabilities, take_over) = (group.clone(), options.capabilities.clone(), options.take_over);
        let member = inner.member.clone();
        let keeping = Arc::clone(&inner);
        // The task joins, so that whatever becomes of this future, somebody is there to leave again.
        let standing = inner
            .heart()
            .begin(async move {
                let replace = if take_over { Replace::Anybody } else { Replace::Nobody };
                let limit = keeping.settings.operation_timeout;
                let word = format!("join group {name:?} as {member:?}");
                let answer = within(
                    limit,
                    || word.clone(),
                    first_join(Arc::clone(&keeping), name.clone(), capabilities.clone(), replace),
                );
                let entered = answer.await.map_err(|error| error.in_driver(keeping.driver.name()).context(&word))?;
                let (sender, standing) = watch::channel(Standing::In(entered.hold));
                let found = entered.found;
                let keeper = Keeper { inner: keeping, group: name, capabilities, orders, standing: sender, found };
                tokio::spawn(keeper.keep());
                Ok(standing)
            })
            .answer()
            .await?;
        Ok(Membership { orders: order_sender, standing, group, handle })
    }

    /// Of which group.
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// As whom.
    pub fn member(&self) -> &MemberId {
        &self.handle.0.member
    }

    /// Whether it stands now, judged by the clock at this call.
    pub fn is_member(&self) -> bool {
        matches!(&*self.standing.borrow(), Standing::In(hold) if hold.judge().is_none())
    }

    /// How long it stands for sure without another heartbeat; zero when lost; `None`: the kernel is the judge.
    pub fn remaining(&self) -> Option<Duration> {
        match &*self.standing.borrow() {
            Standing::In(hold) => remaining(hold),
            Standing::Out(_) | Standing::Over(_) => Some(Duration::ZERO),
        }
    }

    /// The loss of the present standing. After a re-join ([`SessionEvent::Reopened`](crate::SessionEvent::Reopened)) ask again for the
    /// new one. `TakenOver`, `GroupDeleted` and `NotMember` are for ever: then nothing joins again.
    pub fn loss(&self) -> Loss {
        match &*self.standing.borrow() {
            Standing::In(hold) | Standing::Out(hold) | Standing::Over(hold) => Loss::of(hold),
        }
    }

    /// Says something new of oneself. While the membership is being re-established this waits for it.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn update(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Update(Capabilities::new(capabilities)?, answer), answered, "update").await
    }

    /// Waits to be elected. The leadership ends with the membership. `NotMember` when the membership is over.
    ///
    /// # Cancel safety
    /// Dropping it withdraws from the election and leaks nothing.
    pub async fn campaign(&self) -> Result<Leadership> {
        Leadership::campaign(Arc::clone(&self.handle), self.group.clone(), self.standing.clone()).await
    }

    /// Divides keys between the members, as one of them.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn partitioner(&self) -> Result<Partitioner> {
        let watch = Group::new(Arc::clone(&self.handle), self.group.clone()).watch().await?;
        Partitioner::start(watch, Some((self.member().clone(), self.standing.clone()))).await
    }

    /// Leaves and waits until the backend knows. A leadership of this membership ends before. After an error it goes on in the
    /// background until the session ends.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn leave(self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Leave(answer), answered, "leave").await
    }

    async fn order(&self, order: Order, answered: oneshot::Receiver<Result<()>>, doing: &str) -> Result<()> {
        let over = || {
            let (kind, why) = match &*self.standing.borrow() {
                Standing::Over(hold) => match hold.check() {
                    Some(LossReason::Closed) => (ErrorKind::Closed, LossReason::Closed),
                    Some(reason) => (ErrorKind::NotMember, reason),
                    None => (ErrorKind::NotMember, LossReason::NotMember),
                },
                _ => (ErrorKind::Closed, LossReason::Closed),
            };
            Err(Error::new(kind, format!("{doing} group {:?}: {why}", self.group))
                .in_driver(self.handle.0.driver.name()))
        };
        if self.handle.0.heart().is_forked() || self.orders.send(order).is_err() {
            return over();
        }
        answered.await.unwrap_or_else(|_| over())
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Membership")
            .field("group", &self.group)
            .field("member", self.member())
            .field("is_member", &self.is_member())
            .finish_non_exhaustive()
    }
}

/// The first join. If nobody is left to hear of it (`within` has given up), it leaves again.
async fn first_join(
    inner: Arc<Inner>,
    group: GroupId,
    capabilities: Capabilities,
    replace: Replace,
) -> Result<Entered> {
    let clock = crate::Clock::boot_time();
    let limit = inner.settings.operation_timeout;
    let give_up = clock.now() + limit;
    let mut pauses = Backoff::for_reconnects();
    loop {
        let live = inner.session(Purpose::Own, Persistence::OneAttempt).await?;
        let result = enter(&inner, &live, &group, &capabilities, replace).await;
        let late = clock.now() >= give_up;
        match result {
            Ok(Entered { request, .. }) if late => {
                leave(&live, &request).await;
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
    live: &Arc<Live>,
    group: &GroupId,
    capabilities: &Capabilities,
    replace: Replace,
) -> Result<Entered> {
    let request =
        JoinRequest::new(group.clone(), inner.member.clone(), inner.request_id(), capabilities.clone(), replace);
    let hold = live.hold(request.id, None);
    let found = live.found.subscribe();
    let mut result = live.call(live.session().join(&request)).await;
    if matches!(&result, Err(error) if error.outcome() == Outcome::Unknown) && live.check().is_none() {
        result = live.call(live.session().join(&request)).await;
    }
    match result {
        Ok(()) => match hold.check() {
            None => Ok(Entered { hold, request, found }),
            Some(reason) => {
                leave(live, &request).await;
                Err(live.error_of(reason))
            }
        },
        Err(error) => {
            if error.outcome() == Outcome::Unknown {
                leave(live, &request).await;
            }
            Err(error)
        }
    }
}

/// Leaves, and goes on trying as long as the session lives.
async fn leave(live: &Arc<Live>, request: &JoinRequest) {
    let mut pauses = Backoff::for_reconnects();
    while live.check().is_none() {
        match live.call(live.session().leave(request)).await {
            Ok(()) => return,
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
    async fn keep(mut self) {
        // Updates under which the session ended: what they say is the first word in the next one, and who asked waits for that.
        let mut unfinished = Vec::new();
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
                Some(Some(Order::Update(capabilities, answer))) => match self.update(&hold, capabilities).await {
                    Err(error) if error.kind() == ErrorKind::Lost && hold.check().is_some() => unfinished.push(answer),
                    result => drop(answer.send(result)),
                },
                None => {
                    if !self.rejoin(&hold, std::mem::take(&mut unfinished)).await {
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

    async fn update(&mut self, hold: &Arc<Hold>, capabilities: Capabilities) -> Result<()> {
        let word = format!("update the capabilities in group {:?}", self.group);
        self.capabilities = capabilities;
        let request = self.request(hold);
        let live = Arc::clone(&hold.live);
        let limit = self.inner.settings.operation_timeout;
        let doing = async move { live.call_patiently(limit, || live.session().update(&request)).await };
        let result = within(limit, || word.clone(), doing).await;
        result.map_err(|error| error.in_driver(self.inner.driver.name()).context(word))
    }

    /// After a reconnect: the backend may have fallen back to before this join, or before an update of it.
    async fn restore(&mut self, hold: &Arc<Hold>) {
        let found = Arc::clone(&self.found.borrow_and_update());
        let there = found.get(&hold.id);
        if there == Some(&self.capabilities) {
            return;
        }
        let request = self.request(hold);
        let (live, session) = (&hold.live, hold.live.session());
        let limit = self.inner.settings.operation_timeout;
        let said = match there {
            Some(_) => live.call_patiently(limit, || session.update(&request)).await,
            None => live.call_patiently(limit, || session.join(&request)).await,
        };
        match said {
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotMember) => {
                live.lose_one(hold.id, LossReason::TakenOver);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => live.lose_one(hold.id, LossReason::GroupDeleted),
            // It is as it was found: once more.
            Err(error) if error.is_retryable() => self.found.mark_changed(),
            _ => {}
        }
    }

    async fn leave(self, hold: &Arc<Hold>, answer: Option<oneshot::Sender<Result<()>>>) {
        let lost_before = hold.check();
        let request = self.request(hold);
        // From here on nobody stands: leaderships end first, the entry goes after them.
        self.over(hold, LossReason::Released);
        self.inner.desk(crate::LockKey::election(&self.group)).resign_all(hold).await;
        let live = Arc::clone(&hold.live);
        let limit = self.inner.settings.operation_timeout;
        let result = match lost_before {
            Some(_) => Ok(()),
            None => live.call_patiently(limit, || live.session().leave(&request)).await,
        };
        let failed = result.is_err();
        if let Some(answer) = answer {
            let _ = answer.send(result.map_err(|error| error.context(format!("leave group {:?}", self.group))));
        }
        if failed {
            leave(&live, &request).await;
        }
    }

    /// Joins again in a new session, and answers the updates that wait for it. False: the membership is over.
    async fn rejoin(&mut self, old: &Arc<Hold>, mut updates: Vec<oneshot::Sender<Result<()>>>) -> bool {
        match old.check() {
            // The session lives; the place is somebody else's now, or the group is gone.
            Some(reason @ (LossReason::TakenOver | LossReason::GroupDeleted | LossReason::Broken)) => {
                self.over(old, reason);
                self.inner.desk(crate::LockKey::election(&self.group)).resign_all(old).await;
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
        loop {
            let inner = Arc::clone(&self.inner);
            let (group, capabilities) = (self.group.clone(), self.capabilities.clone());
            let replace = Replace::Own(old.id);
            // Not dropped half-way: a join that is under way ends before a leave is heard.
            let mut attempt = tokio::spawn(async move {
                let live = inner.session(Purpose::Own, Persistence::UntilItWorks).await?;
                enter(&inner, &live, &group, &capabilities, replace).await
            });
            let mut leaving = None;
            let result = loop {
                tokio::select! {
                    result = &mut attempt => break result.unwrap_or_else(|_| Err(heart::gone())),
                    order = self.orders.recv(), if leaving.is_none() => match order {
                        Some(Order::Update(capabilities, answer)) => {
                            self.capabilities = capabilities;
                            updates.push(answer);
                        }
                        Some(Order::Leave(answer)) => leaving = Some(Some(answer)),
                        None => leaving = Some(None),
                    },
                }
            };
            match result {
                Ok(Entered { hold, request, found }) => {
                    self.found = found;
                    if let Some(answer) = leaving {
                        self.over(&hold, LossReason::Released);
                        leave(&hold.live, &request).await;
                        answer.map(|answer| answer.send(Ok(())));
                        return false;
                    }
                    self.standing.send_replace(Standing::In(Arc::clone(&hold)));
                    let newer = (request.capabilities != self.capabilities).then(|| self.capabilities.clone());
                    let mut result = Ok(());
                    if let Some(capabilities) = newer {
                        result = self.update(&hold, capabilities).await;
                    }
                    for answer in updates {
                        let _ = answer.send(match &result {
                            Ok(()) => Ok(()),
                            Err(error) => Err(error.duplicate()),
                        });
                    }
                    return true;
                }
                Err(error) => {
                    let reason = match error.kind() {
                        ErrorKind::AlreadyExists => Some(LossReason::TakenOver),
                        ErrorKind::NotFound => Some(LossReason::GroupDeleted),
                        ErrorKind::Closed => Some(LossReason::Closed),
                        _ if is_final(&error) => Some(LossReason::SessionEnded),
                        _ => None,
                    };
                    if leaving.is_some() || reason.is_some() {
                        self.over(old, reason.unwrap_or(LossReason::Released));
                        if let Some(Some(answer)) = leaving {
                            let _ = answer.send(Ok(()));
                        }
                        return false;
                    }
                    pauses.pause().await;
                }
            }
        }
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
