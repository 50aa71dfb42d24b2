//! Groups, memberships and what is divided between members.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::blocking::election::{LeaderWatch, Leadership};
use crate::blocking::lock::Loss;
use crate::blocking::wait::wait;
use crate::blocking::watch::GroupWatch;
use tooz_core::{GroupId, JoinOptions, Leader, LossReason, MemberId, Result, RosterEntry};

/// A group by its name; as [`tooz::Group`](tooz_core::Group). A cheap clone.
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
pub struct Group(pub(super) tooz_core::Group);

/// Being a member of a group; as [`tooz::Membership`](tooz_core::Membership). A drop leaves in the background.
///
/// ```no_run
/// # fn example(group: tooz::blocking::Group) -> tooz::Result<()> {
/// let membership = group.join_or_create("starting")?;
/// membership.update("ready")?;
/// println!("{} stands: {}", membership.member(), membership.is_member());
/// membership.leave()
/// # }
/// ```
#[must_use = "the group is left when the membership is dropped"]
#[derive(Debug)]
pub struct Membership(tooz_core::Membership);

/// Divides keys between the members of a group; as [`tooz::Partitioner`](tooz_core::Partitioner).
///
/// ```no_run
/// # fn example(membership: tooz::blocking::Membership) -> tooz::Result<()> {
/// let mut partitioner = membership.partitioner()?;
/// loop {
///     for shard in (0..16u8).filter(|shard| partitioner.belongs_to_self([*shard])) {
///         println!("ours: {shard}");
///     }
///     if !partitioner.changed()? {
///         return Ok(());
///     }
/// }
/// # }
/// ```
pub struct Partitioner(tooz_core::Partitioner);

impl Group {
    /// The name.
    pub fn name(&self) -> &GroupId {
        self.0.name()
    }

    /// As [`create`](tooz_core::Group::create).
    ///
    /// # Errors
    /// As [`create`](tooz_core::Group::create).
    pub fn create(&self) -> Result<()> {
        wait(self.0.create())?
    }

    /// As [`delete`](tooz_core::Group::delete).
    ///
    /// # Errors
    /// As [`delete`](tooz_core::Group::delete).
    pub fn delete(&self) -> Result<()> {
        wait(self.0.delete())?
    }

    /// As [`join`](tooz_core::Group::join).
    ///
    /// # Errors
    /// As [`join`](tooz_core::Group::join).
    pub fn join(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<Membership> {
        wait(self.0.join(capabilities))?.map(Membership)
    }

    /// As [`join_or_create`](tooz_core::Group::join_or_create).
    ///
    /// # Errors
    /// As [`join_or_create`](tooz_core::Group::join_or_create).
    pub fn join_or_create(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<Membership> {
        wait(self.0.join_or_create(capabilities))?.map(Membership)
    }

    /// As [`join_with`](tooz_core::Group::join_with).
    ///
    /// # Errors
    /// As [`join_with`](tooz_core::Group::join_with).
    pub fn join_with(&self, options: JoinOptions) -> Result<Membership> {
        wait(self.0.join_with(options))?.map(Membership)
    }

    /// As [`members`](tooz_core::Group::members).
    ///
    /// # Errors
    /// As [`members`](tooz_core::Group::members).
    pub fn members(&self) -> Result<Vec<RosterEntry>> {
        wait(self.0.members())?
    }

    /// As [`watch`](tooz_core::Group::watch): an iterator that waits for each change.
    ///
    /// # Errors
    /// As [`watch`](tooz_core::Group::watch).
    pub fn watch(&self) -> Result<GroupWatch> {
        wait(self.0.watch())?.map(GroupWatch)
    }

    /// As [`leader`](tooz_core::Group::leader).
    ///
    /// # Errors
    /// As [`leader`](tooz_core::Group::leader).
    pub fn leader(&self) -> Result<Option<Leader>> {
        wait(self.0.leader())?
    }

    /// As [`watch_leader`](tooz_core::Group::watch_leader): an iterator that waits for each change.
    ///
    /// # Errors
    /// As [`watch_leader`](tooz_core::Group::watch_leader).
    pub fn watch_leader(&self) -> Result<LeaderWatch> {
        wait(self.0.watch_leader())?.map(LeaderWatch)
    }

    /// As [`partitioner`](tooz_core::Group::partitioner).
    ///
    /// # Errors
    /// As [`partitioner`](tooz_core::Group::partitioner).
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

    /// As [`wait_standing`](tooz_core::Membership::wait_standing).
    ///
    /// # Errors
    /// As [`wait_standing`](tooz_core::Membership::wait_standing), as an [`Error`](tooz_core::Error).
    pub fn wait_standing(&self) -> Result<()> {
        Ok(wait(self.0.wait_standing())??)
    }

    /// As [`update`](tooz_core::Membership::update).
    ///
    /// # Errors
    /// As [`update`](tooz_core::Membership::update).
    pub fn update(&self, capabilities: &(impl Serialize + ?Sized)) -> Result<()> {
        wait(self.0.update(capabilities))?
    }

    /// As [`campaign`](tooz_core::Membership::campaign): waits to be elected.
    ///
    /// # Errors
    /// As [`campaign`](tooz_core::Membership::campaign).
    pub fn campaign(&self) -> Result<Leadership> {
        wait(self.0.campaign())?.map(Leadership)
    }

    /// As [`partitioner`](tooz_core::Membership::partitioner).
    ///
    /// # Errors
    /// As [`partitioner`](tooz_core::Membership::partitioner).
    pub fn partitioner(&self) -> Result<Partitioner> {
        wait(self.0.partitioner())?.map(Partitioner)
    }

    /// As [`leave`](tooz_core::Membership::leave).
    ///
    /// # Errors
    /// As [`leave`](tooz_core::Membership::leave).
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
    /// [`Config`](tooz_core::ErrorKind::Config): it was called inside an async runtime.
    pub fn changed(&mut self) -> Result<bool> {
        wait(self.0.changed())
    }
}
