//! A membership as the user sees it. The one task behind it is in `keeper`.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::forked::Ours;
use crate::base::id::{GroupId, MemberId};
use crate::base::loss_reason::LossReason;
use crate::driver::group::Replace;
use crate::driver::roster::Capabilities;
use crate::engine::heart::within;
use crate::engine::join::{NewMembership, first_join};
use crate::engine::keeper::{Keeper, Order};
use crate::engine::patience::MOMENT;
use crate::engine::standing::Standing;
use crate::handles::election::Leadership;
use crate::handles::handle::Handle;
use crate::handles::join_options::JoinOptions;
use crate::handles::loss::Loss;
use crate::handles::partition::Partitioner;

/// Being a member of a group.
///
/// When its session is lost, core joins again by itself, with the latest capabilities, and makes the group again if the backend has forgotten it and
/// the join was to [create](JoinOptions::create) it. It goes on trying as long as the coordinator lives, also where the backend refuses for a while: [`wait_standing`](Self::wait_standing) waits for that, and [`over`](Self::over) says
/// whether it is over for ever. Each standing has a loss of its own: [`loss`](Self::loss) is that of the present one. Dropping the
/// membership leaves in the background.
///
/// ```no_run
/// # async fn example(group: tooz_core::Group) -> tooz_core::Result<()> {
/// let membership = group.join(&serde_json::json!({ "weight": 2 })).await?;
/// membership.update(&serde_json::json!({ "weight": 0 })).await?; // takes no new work
/// assert!(membership.is_member(), "judged by the clock, at this call");
/// membership.leave().await
/// # }
/// ```
#[must_use = "the group is left when the membership is dropped"]
pub struct Membership {
    orders: Ours<mpsc::UnboundedSender<Order>>,
    standing: Ours<watch::Receiver<Standing>>,
    group: GroupId,
    handle: Arc<Handle>,
}

impl Membership {
    pub(crate) async fn join(handle: Arc<Handle>, group: GroupId, options: &JoinOptions) -> Result<Self> {
        let inner = Arc::clone(&handle.inner);
        if inner.heart().is_forked() {
            return Err(Error::closed().in_driver(inner.driver.name()));
        }
        let (order_sender, orders) = mpsc::unbounded_channel();
        let (name, capabilities) = (group.clone(), options.capabilities.clone());
        let (take_over, creates) = (options.take_over, options.create);
        let member = inner.member.clone();
        let (keeping, queues) = (Arc::clone(&inner), Arc::clone(&handle.queues));
        // The task joins, so that whatever becomes of this future, the task is there to leave again.
        let standing =
            inner
                .heart()
                .begin(async move {
                    let replace = if take_over { Replace::Anybody } else { Replace::Nobody };
                    let limit = keeping.settings.operation_timeout;
                    let word = format!("join group {name:?} as {member:?}");
                    let joining = {
                        let (inner, word) = (Arc::clone(&keeping), word.clone());
                        let (name, capabilities) = (name.clone(), capabilities.clone());
                        async move {
                            first_join(inner, name, capabilities, replace).await.map_err(|error| error.context(word))
                        }
                    };
                    let NewMembership { hold, found, .. } = within(limit, || word, Box::pin(joining)).await?;
                    let (sender, standing) = watch::channel(Standing::In(hold));
                    let keeper = Keeper::new(keeping, queues, name, capabilities, orders, sender, found);
                    tokio::spawn(keeper.creating(creates).keep());
                    Ok(standing)
                })
                .answer()
                .await
                .map_err(|error| error.in_driver(handle.inner.driver.name()))?;
        Ok(Membership { orders: Ours::new(order_sender), standing: Ours::new(standing), group, handle })
    }

    /// Of which group.
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// The member that has joined.
    pub fn member(&self) -> &MemberId {
        &self.handle.inner.member
    }

    /// Whether it stands now, judged by the clock at this call.
    pub fn is_member(&self) -> bool {
        self.standing().is_in()
    }

    /// A copy: what is judged may wake a task, which is not to happen while it is borrowed.
    fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// How long it stands for sure without another heartbeat; zero when lost; `None`: the kernel is the judge.
    pub fn remaining(&self) -> Option<Duration> {
        match &self.standing() {
            Standing::In(hold) => hold.remaining(),
            Standing::Out(_) | Standing::Over(_) => Some(Duration::ZERO),
        }
    }

    /// The loss of the present standing. After a re-join ([`SessionEvent::Reopened`](crate::SessionEvent::Reopened)) ask again for the
    /// new one. `TakenOver`, `GroupDeleted` and `NotMember` are for ever: then nothing joins again.
    pub fn loss(&self) -> Loss {
        match &self.standing() {
            Standing::In(hold) | Standing::Out(hold) | Standing::Over(hold) => Loss::of(hold),
        }
    }

    /// Why it is over for ever, if it is: left, taken over, its group deleted, the coordinator closed. `None` also while it is being
    /// re-established.
    pub fn over(&self) -> Option<LossReason> {
        match &self.standing() {
            Standing::Over(hold) => Some(hold.judge().unwrap_or(LossReason::NotMember)),
            Standing::In(_) | Standing::Out(_) => None,
        }
    }

    /// Waits until it stands, which it may do already.
    ///
    /// ```no_run
    /// # async fn example(membership: tooz_core::Membership) {
    /// while membership.wait_standing().await.is_ok() {
    ///     println!("a member again");
    ///     let reason = membership.loss().wait().await;
    ///     println!("not listed any more, {reason}; it joins again by itself");
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// The reason why it never will stand again: it was left or taken over, its group was deleted, or the coordinator closed.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn wait_standing(&self) -> Result<(), LossReason> {
        let mut standing = (*self.standing).clone();
        loop {
            let present = standing.borrow_and_update().clone();
            match &present {
                Standing::In(hold) if hold.judge().is_none() => return Ok(()),
                Standing::Over(hold) => return Err(hold.judge().unwrap_or(LossReason::NotMember)),
                Standing::In(_) | Standing::Out(_) => {}
            }
            // Its keeper says at last that it is over.
            if standing.changed().await.is_err() && self.over().is_none() {
                return Err(LossReason::Closed);
            }
        }
    }

    /// Says something new of oneself. While the membership is being re-established this waits for it, at most for the operation timeout;
    /// what was said is said with the re-join all the same.
    ///
    /// # Errors
    /// [`NotMember`](crate::ErrorKind::NotMember) when the membership is over for ever, [`Closed`](crate::ErrorKind::Closed) when the coordinator is. [`Config`](crate::ErrorKind::Config): the
    /// capabilities are no JSON, or more than the backend takes. [`TimedOut`](crate::ErrorKind::TimedOut): no answer within the operation timeout; it
    /// is said all the same as soon as it can be.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn update(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Update(Capabilities::new(capabilities)?, answer), answered, "update").await
    }

    /// Waits to be elected. The leadership ends with the membership.
    ///
    /// # Errors
    /// [`NotMember`](crate::ErrorKind::NotMember) when the membership is over for ever, [`Closed`](crate::ErrorKind::Closed) when the coordinator is closed.
    ///
    /// # Cancel safety
    /// Dropping it withdraws from the election and leaks nothing.
    pub async fn campaign(&self) -> Result<Leadership> {
        Leadership::campaign(Arc::clone(&self.handle), self.group.clone(), (*self.standing).clone()).await
    }

    /// Divides keys between the members, as one of them.
    ///
    /// # Errors
    /// As [`Group::watch`](crate::Group::watch).
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn partitioner(&self) -> Result<Partitioner> {
        let own = (self.member().clone(), (*self.standing).clone());
        Partitioner::start(Arc::clone(&self.handle), self.group.clone(), Some(own)).await
    }

    /// Leaves, for all that share this, and waits until the backend knows, at most for the operation timeout. A leadership of this membership ends before. After an
    /// error it goes on in the background until the session ends. One that is being re-established is left at once.
    ///
    /// # Errors
    /// [`NotMember`](crate::ErrorKind::NotMember) when the membership was over for ever before, [`Closed`](crate::ErrorKind::Closed) when it had ended with the
    /// coordinator. [`TimedOut`](crate::ErrorKind::TimedOut): no answer within the operation timeout.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub fn leave(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let this = self.share();
        async move {
            let (answer, answered) = oneshot::channel();
            this.order(Order::Leave(answer), answered, "leave").await
        }
    }

    /// The same membership once more: it is left in the background when the last is dropped.
    fn share(&self) -> Self {
        Membership {
            orders: self.orders.clone(),
            standing: self.standing.clone(),
            group: self.group.clone(),
            handle: Arc::clone(&self.handle),
        }
    }

    /// Orders something of the task behind it. In any case there is an answer after the operation timeout.
    async fn order(&self, order: Order, mut answered: oneshot::Receiver<Result<()>>, doing: &str) -> Result<()> {
        let name = self.handle.inner.driver.name();
        let over = || {
            let reason = self.over().unwrap_or(LossReason::Closed);
            let kind = if reason == LossReason::Closed { ErrorKind::Closed } else { ErrorKind::NotMember };
            Err(Error::new(kind, format!("{doing} group {:?}: {reason}", self.group)).in_driver(name))
        };
        if self.handle.inner.is_forked() || self.orders.send(order).is_err() {
            return over();
        }
        let limit = self.handle.inner.settings.operation_timeout;
        let mut timer = self.handle.inner.heart().timer(limit.saturating_add(MOMENT));
        poll_fn(|context| {
            if let Poll::Ready(answer) = Pin::new(&mut answered).poll(context) {
                return Poll::Ready(answer.unwrap_or_else(|_| over()));
            }
            timer.poll(context).map(|()| {
                // The timer ends with the heart too, a moment before the keeper of the membership.
                if self.handle.inner.heart().is_stopped() || self.over().is_some_and(|why| why != LossReason::Released)
                {
                    return over();
                }
                let late =
                    format!("{doing} group {:?}: not done within {limit:?}; it goes on in the background", self.group);
                Err(Error::new(ErrorKind::TimedOut, late).in_driver(name))
            })
        })
        .await
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
