//! Groups as the user sees them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::election::{self, Leader, LeaderWatch};
use crate::inner::{Handle, Purpose};
use crate::membership::Membership;
use crate::partition::Partitioner;
use crate::session::{Capabilities, RosterEntry, Session};
use crate::wait::{A_DAY, Backoff};
use crate::watch::GroupWatch;
use crate::{ErrorKind, GroupId, Result};

/// A group by its name. A cheap clone; the group need not exist.
#[derive(Clone)]
pub struct Group {
    pub(crate) handle: Arc<Handle>,
    name: GroupId,
}

/// How often a join makes its group, which others delete.
const CREATIONS: u32 = 16;

/// How much later than it said a backend may end a session.
const GRACE: Duration = Duration::from_secs(1);

/// How to join.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct JoinOptions {
    pub(crate) capabilities: Capabilities,
    pub(crate) take_over: bool,
    pub(crate) create: bool,
    pub(crate) wait: bool,
}

impl JoinOptions {
    /// Without capabilities, into a group that exists, in nobody's place.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the member says of itself.
    pub fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Takes the place of a living member of the same id, in one step. The old membership reports its loss; its session and
    /// its locks live on to their own end.
    pub fn take_over(mut self) -> Self {
        self.take_over = true;
        self
    }

    /// Waits for the end of a living member of the same id, such as this service before its crash: at most as long as the backend says at
    /// first ([`Error::retry_after`](crate::Error::retry_after), at most the session timeout). One that lives on after that is
    /// `AlreadyExists`.
    pub fn wait(mut self) -> Self {
        self.wait = true;
        self
    }

    /// Creates the group if it is missing.
    pub fn create(mut self) -> Self {
        self.create = true;
        self
    }
}

impl Group {
    pub(crate) fn new(handle: Arc<Handle>, name: GroupId) -> Self {
        Group { handle, name }
    }

    /// The name.
    pub fn name(&self) -> &GroupId {
        &self.name
    }

    /// Creates the group; `AlreadyExists` if there is one.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn create(&self) -> Result<()> {
        self.ask("create", |session, group| async move { session.create_group(&group).await }).await
    }

    /// Deletes the group; `NotEmpty` while it has living members, `NotFound` if there is none.
    ///
    /// # Cancel safety
    /// Once begun it goes on, also when this future is dropped.
    pub async fn delete(&self) -> Result<()> {
        self.ask("delete", |session, group| async move { session.delete_group(&group).await }).await
    }

    /// Joins with these capabilities: any value of `serde`. `NotFound`: there is no such group; `AlreadyExists`: a living
    /// member has this id, [`retry_after`](crate::Error::retry_after) says when it is dead at the latest.
    ///
    /// # Cancel safety
    /// Dropping it leaves again in the background.
    pub async fn join(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<Membership> {
        let options = JoinOptions::new().capabilities(Capabilities::new(capabilities)?);
        self.join_with(options).await
    }

    /// As [`join`](Self::join), and creates the group if it is missing.
    ///
    /// # Cancel safety
    /// Dropping it leaves again in the background; a group that was created stays.
    pub async fn join_or_create(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<Membership> {
        let options = JoinOptions::new().capabilities(Capabilities::new(capabilities)?).create();
        self.join_with(options).await
    }

    /// Joins as the options say.
    ///
    /// # Cancel safety
    /// Dropping it leaves again in the background.
    pub async fn join_with(&self, options: JoinOptions) -> Result<Membership> {
        let mut dead_at_the_latest = None;
        let mut creations = 0;
        let mut pauses = Backoff::for_reconnects();
        loop {
            match Membership::join(Arc::clone(&self.handle), self.name.clone(), &options).await {
                // Somebody may delete it in between, but not for ever.
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
                    self.handle.0.heart().pause(pauses.next().min(left)).await;
                }
                result => return result,
            }
        }
    }

    /// The living members with their capabilities, sorted by id. One request.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn members(&self) -> Result<Vec<RosterEntry>> {
        let roster =
            self.ask("list the members of", |session, group| async move { session.members(&group).await }).await?;
        let mut members = roster.members;
        members.sort_by(|one, other| one.member.cmp(&other.member));
        Ok(members)
    }

    /// Watches the members: a snapshot first, then every change without a gap. `NotFound` if there is no such group.
    ///
    /// # Cancel safety
    /// Dropping it ends the watch.
    pub async fn watch(&self) -> Result<GroupWatch> {
        GroupWatch::start(Arc::clone(&self.handle), self.name.clone()).await
    }

    /// Who leads now, if anybody.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn leader(&self) -> Result<Option<Leader>> {
        self.ask("read the leader of", |session, group| async move { election::leader(&*session, &group).await }).await
    }

    /// Watches who leads: the present state first, then every change, vacancy included.
    ///
    /// # Cancel safety
    /// Dropping it ends the watch.
    pub async fn watch_leader(&self) -> Result<LeaderWatch> {
        LeaderWatch::start(Arc::clone(&self.handle), self.name.clone()).await
    }

    /// Divides keys between the members, from outside.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn partitioner(&self) -> Result<Partitioner> {
        Partitioner::start(self.watch().await?, None).await
    }

    async fn ask<T, F>(
        &self,
        doing: &'static str,
        question: impl Fn(Arc<dyn Session>, GroupId) -> F + Send + Sync + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (name, word) = (self.name.clone(), self.name.clone());
        self.handle
            .0
            .ask(
                Purpose::Look,
                move || format!("{doing} group {word:?}"),
                move |session| question(session, name.clone()),
            )
            .await
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Group").field(&self.name).finish()
    }
}
