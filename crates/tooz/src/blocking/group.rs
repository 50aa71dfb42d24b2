//! Groups, memberships and what is divided between members.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::blocking::election::{LeaderWatch, Leadership};
use crate::blocking::lock::Loss;
use crate::blocking::wait::wait;
use crate::blocking::watch::GroupWatch;
use crate::{GroupId, JoinOptions, Leader, LossReason, MemberId, Result, RosterEntry};

/// A group by its name; as [`tooz::Group`](crate::Group). A cheap clone.
///
/// ```
/// # #[cfg(feature = "memory")]
/// # fn main() -> tooz::Result<()> {
/// # let coordinator = tooz::blocking::connect("memory://blocking-group", "worker-1")?;
/// let group = coordinator.group("workers")?;
/// let membership = group.join_or_create("ready")?;
/// assert_eq!(group.members()?.len(), 1);
/// membership.leave()?;
/// coordinator.close()
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct Group(pub(super) crate::Group);

/// Being a member of a group; as [`tooz::Membership`](crate::Membership). A drop leaves in the background.
#[must_use = "the group is left when the membership is dropped"]
#[derive(Debug)]
pub struct Membership(crate::Membership);

/// Divides keys between the members of a group; as [`tooz::Partitioner`](crate::Partitioner).
pub struct Partitioner(crate::Partitioner);

impl Group {
    /// The name.
    pub fn name(&self) -> &GroupId {
        self.0.name()
    }

    /// As [`create`](crate::Group::create).
    ///
    /// # Errors
    /// As [`create`](crate::Group::create).
    pub fn create(&self) -> Result<()> {
        wait(self.0.create())?
    }

    /// As [`delete`](crate::Group::delete).
    ///
    /// # Errors
    /// As [`delete`](crate::Group::delete).
    pub fn delete(&self) -> Result<()> {
        wait(self.0.delete())?
    }

    /// As [`join`](crate::Group::join).
    ///
    /// # Errors
    /// As [`join`](crate::Group::join).
    pub fn join(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<Membership> {
        wait(self.0.join(capabilities))?.map(Membership)
    }

    /// As [`join_or_create`](crate::Group::join_or_create).
    ///
    /// # Errors
    /// As [`join_or_create`](crate::Group::join_or_create).
    pub fn join_or_create(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<Membership> {
        wait(self.0.join_or_create(capabilities))?.map(Membership)
    }

    /// As [`join_with`](crate::Group::join_with).
    ///
    /// # Errors
    /// As [`join_with`](crate::Group::join_with).
    pub fn join_with(&self, options: JoinOptions) -> Result<Membership> {
        wait(self.0.join_with(options))?.map(Membership)
    }

    /// As [`members`](crate::Group::members).
    ///
    /// # Errors
    /// As [`members`](crate::Group::members).
    pub fn members(&self) -> Result<Vec<RosterEntry>> {
        wait(self.0.members())?
    }

    /// As [`watch`](crate::Group::watch): an iterator that waits for each change.
    ///
    /// # Errors
    /// As [`watch`](crate::Group::watch).
    pub fn watch(&self) -> Result<GroupWatch> {
        wait(self.0.watch())?.map(GroupWatch)
    }

    /// As [`leader`](crate::Group::leader).
    ///
    /// # Errors
    /// As [`leader`](crate::Group::leader).
    pub fn leader(&self) -> Result<Option<Leader>> {
        wait(self.0.leader())?
    }

    /// As [`watch_leader`](crate::Group::watch_leader): an iterator that waits for each change.
    ///
    /// # Errors
    /// As [`watch_leader`](crate::Group::watch_leader).
    pub fn watch_leader(&self) -> Result<LeaderWatch> {
        wait(self.0.watch_leader())?.map(LeaderWatch)
    }

    /// As [`partitioner`](crate::Group::partitioner).
    ///
    /// # Errors
    /// As [`partitioner`](crate::Group::partitioner).
    pub fn partitioner(&self) -> Result<Partitioner> {
        wait(self.0.partitioner())?.map(Partitioner)
    }
}

impl Membership {
    /// Of which group.
    pub fn group(&self) -> &GroupId {
        self.0.group()
    }

    /// The member that has joined.
    pub fn member(&self) -> &MemberId {
        self.0.member()
    }

    /// Whether it stands now, judged by the clock at this call.
    pub fn is_member(&self) -> bool {
        self.0.is_member()
    }

    /// How long it stands for sure without another heartbeat; zero when lost; `None`: the kernel is the judge.
    pub fn remaining(&self) -> Option<Duration> {
        self.0.remaining()
    }

    /// The loss of the present standing.
    pub fn loss(&self) -> Loss {
        Loss(self.0.loss())
    }

    /// Why it is over for ever, if it is.
    pub fn over(&self) -> Option<LossReason> {
        self.0.over()
    }

    /// As [`wait_standing`](crate::Membership::wait_standing).
    ///
    /// # Errors
    /// As [`wait_standing`](crate::Membership::wait_standing), as an [`Error`](crate::Error).
    pub fn wait_standing(&self) -> Result<()> {
        Ok(wait(self.0.wait_standing())??)
    }

    /// As [`update`](crate::Membership::update).
    ///
    /// # Errors
    /// As [`update`](crate::Membership::update).
    pub fn update(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<()> {
        wait(self.0.update(capabilities))?
    }

    /// As [`campaign`](crate::Membership::campaign): waits to be elected.
    ///
    /// # Errors
    /// As [`campaign`](crate::Membership::campaign).
    pub fn campaign(&self) -> Result<Leadership> {
        wait(self.0.campaign())?.map(Leadership)
    }

    /// As [`partitioner`](crate::Membership::partitioner).
    ///
    /// # Errors
    /// As [`partitioner`](crate::Membership::partitioner).
    pub fn partitioner(&self) -> Result<Partitioner> {
        wait(self.0.partitioner())?.map(Partitioner)
    }

    /// As [`leave`](crate::Membership::leave).
    ///
    /// # Errors
    /// As [`leave`](crate::Membership::leave).
    pub fn leave(&self) -> Result<()> {
        wait(self.0.leave())?
    }
}

impl Partitioner {
    /// The members that are responsible for a key, the first of them first of all.
    pub fn members_for(&self, key: impl AsRef<[u8]>, replicas: usize) -> Vec<MemberId> {
        self.0.members_for(key, replicas)
    }

    /// Whether this member is responsible for a key.
    pub fn belongs_to_self(&self, key: impl AsRef<[u8]>) -> bool {
        self.0.belongs_to_self(key)
    }

    /// Which member is responsible for each key.
    pub fn assign<K: AsRef<[u8]> + Ord>(&self, keys: impl IntoIterator<Item = K>) -> BTreeMap<K, MemberId> {
        self.0.assign(keys)
    }

    /// Waits for the next change; false: there will be none any more.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config): it was called inside an async runtime.
    pub fn changed(&mut self) -> Result<bool> {
        wait(self.0.changed())
    }
}
