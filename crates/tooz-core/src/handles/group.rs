//! Groups as the user sees them.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::base::backoff::{A_DAY, Backoff, GRACE};
use crate::base::error::{ErrorKind, Result};
use crate::base::id::GroupId;
use crate::driver::roster::{Capabilities, RosterEntry};
use crate::driver::session::Session;
use crate::engine::phase::Need;
use crate::handles::handle::Handle;
use crate::handles::join_options::JoinOptions;
use crate::handles::leader_watch::{Leader, LeaderWatch, leader};
use crate::handles::membership::Membership;
use crate::handles::partition::Partitioner;
use crate::handles::watch::GroupWatch;

/// A group by its name. A cheap clone; the group need not exist.
///
/// ```no_run
/// # async fn example(coordinator: tooz_core::Coordinator) -> tooz_core::Result<()> {
/// let group = coordinator.group("workers")?;
/// let _membership = group.join_or_create(&"ready").await?;
/// for entry in group.members().await? {
///     println!("{} says {}", entry.member, entry.capabilities.get::<String>()?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Group {
    pub(crate) handle: Arc<Handle>,
    name: GroupId,
}

/// How often a join makes its group, which others delete.
const CREATIONS: u32 = 16;

impl Group {
    pub(crate) fn new(handle: Arc<Handle>, name: GroupId) -> Self {
        Group { handle, name }
    }

    /// The name.
    pub fn name(&self) -> &GroupId {
        &self.name
    }

    /// Creates the group.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if there is one.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn create(&self) -> Result<()> {
        self.ask(Need::Connection, "create", |session, group| async move { session.create_group(&group).await }).await
    }

    /// Deletes the group.
    ///
    /// # Errors
    /// [`NotEmpty`](crate::ErrorKind::NotEmpty) while it has living members, [`NotFound`](crate::ErrorKind::NotFound) if there is none.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn delete(&self) -> Result<()> {
        self.ask(Need::Connection, "delete", |session, group| async move { session.delete_group(&group).await }).await
    }

    /// Joins with these capabilities: any value of `serde`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound): there is no such group. [`AlreadyExists`](crate::ErrorKind::AlreadyExists): a living member has this id, and
    /// [`retry_after`](crate::Error::retry_after) says when it is dead at the latest. [`Config`](crate::ErrorKind::Config): the capabilities are no
    /// JSON, or more than the backend takes.
    ///
    /// # Cancel safety
    /// Dropping it leaves again in the background.
    pub async fn join(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<Membership> {
        let options = JoinOptions::new().capabilities(Capabilities::new(capabilities)?);
        self.join_with(options).await
    }

    /// As [`join`](Self::join), and creates the group if it is missing.
    ///
    /// # Errors
    /// As [`join`](Self::join). [`NotFound`](crate::ErrorKind::NotFound) only where others delete the group again and again.
    ///
    /// # Cancel safety
    /// Dropping it leaves again in the background; a group that was created stays.
    pub async fn join_or_create(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<Membership> {
        let options = JoinOptions::new().capabilities(Capabilities::new(capabilities)?).create();
        self.join_with(options).await
    }

    /// Joins as the options say.
    ///
    /// # Errors
    /// As [`join`](Self::join). [`AlreadyExists`](crate::ErrorKind::AlreadyExists) not with [`take_over`](JoinOptions::take_over), and with
    /// [`wait`](JoinOptions::wait) only where the other member still lives when its session should have ended.
    ///
    /// # Cancel safety
    /// Dropping it leaves again in the background.
    pub async fn join_with(&self, options: JoinOptions) -> Result<Membership> {
        let mut dead_at_the_latest = None;
        let mut creations = 0;
        let mut pauses = Backoff::for_reconnects();
        loop {
            match Membership::join(Arc::clone(&self.handle), self.name.clone(), &options).await {
                // Another may delete it in between, but not for ever.
                Err(error) if error.kind() == ErrorKind::NotFound && options.create && creations < CREATIONS => {
                    creations += 1;
                    match self.create().await {
                        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                        _ => {}
                    }
                }
                Err(error) if options.wait && error.retry_after().is_some() => {
                    let after = error.retry_after().unwrap_or_default();
                    let end = *dead_at_the_latest.get_or_insert(Instant::now() + after.min(A_DAY) + GRACE);
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(error);
                    }
                    self.handle.inner.heart().pause(pauses.next().min(left)).await;
                }
                result => return result,
            }
        }
    }

    /// The living members with their capabilities, sorted by id. One request.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such group.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn members(&self) -> Result<Vec<RosterEntry>> {
        let members = |session: Arc<dyn Session>, group| async move { session.members(&group).await };
        let roster = self.ask(Need::Reading, "list the members of", members).await?;
        let mut members = roster.members;
        members.sort_by(|one, other| one.member.cmp(&other.member));
        Ok(members)
    }

    /// Watches the members: a snapshot first, then every change without a gap.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such group; [`TimedOut`](crate::ErrorKind::TimedOut) where the snapshot has not
    /// come within the operation timeout. After the beginning the watch mends itself.
    ///
    /// # Cancel safety
    /// Dropping it ends the watch.
    pub async fn watch(&self) -> Result<GroupWatch> {
        GroupWatch::start(Arc::clone(&self.handle), self.name.clone()).await
    }

    /// The present leader, if there is one.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such group: that is not the same as a group without a leader.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn leader(&self) -> Result<Option<Leader>> {
        self.ask(Need::Reading, "read the leader of", |session, group| async move { leader(&*session, &group).await })
            .await
    }

    /// Watches the leader: the present state first, then every change, vacancy included.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    ///
    /// # Cancel safety
    /// Dropping it ends the watch.
    pub async fn watch_leader(&self) -> Result<LeaderWatch> {
        LeaderWatch::start(Arc::clone(&self.handle), self.name.clone()).await
    }

    /// Divides keys between the members, from outside.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn partitioner(&self) -> Result<Partitioner> {
        Partitioner::start(Arc::clone(&self.handle), self.name.clone(), None).await
    }

    async fn ask<T, F>(
        &self,
        need: Need,
        doing: &'static str,
        question: impl Fn(Arc<dyn Session>, GroupId) -> F + Send + Sync + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (name, word) = (self.name.clone(), self.name.clone());
        self.handle
            .inner
            .ask(need, move || format!("{doing} group {word:?}"), move |session| question(session, name.clone()))
            .await
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Group").field(&self.name).finish()
    }
}
