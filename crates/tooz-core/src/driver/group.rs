//! Groups and memberships as core asks for them and a driver answers: the second room of the contract, and the values that pass through it.

use async_trait::async_trait;

use crate::base::error::{Error, Result};
use crate::base::id::{GroupId, MemberId, RequestId};
use crate::driver::push::PushStream;
use crate::driver::roster::{Capabilities, Roster};

/// What is asked of a session about groups. A backend without groups leaves it empty.
#[async_trait]
pub trait Groups: Send + Sync + 'static {
    /// Makes a group; `AlreadyExists` if there is one.
    async fn create_group(&self, _group: &GroupId) -> Result<()> {
        Err(Error::unsupported("creating a group"))
    }

    /// Deletes a group without members; `NotFound`, `NotEmpty`.
    async fn delete_group(&self, _group: &GroupId) -> Result<()> {
        Err(Error::unsupported("deleting a group"))
    }

    /// The groups of the namespace.
    async fn groups(&self) -> Result<Vec<GroupId>> {
        Err(Error::unsupported("listing groups"))
    }

    /// Enters the member. `NotFound`: no such group; `AlreadyExists` with `retry_after`: another living member of that id, see
    /// [`Replace`](crate::driver::Replace). A repetition with the same id finds its own entry and is `Ok`.
    async fn join(&self, _request: &JoinRequest) -> Result<()> {
        Err(Error::unsupported("joining a group"))
    }

    /// New capabilities for the membership of that join; `NotMember` if it is not there any more.
    async fn update(&self, _request: &JoinRequest) -> Result<()> {
        Err(Error::unsupported("updating capabilities"))
    }

    /// Ends the membership of that join, also if it arrives only later. May be repeated; nothing to end is `Ok`.
    async fn leave(&self, _request: &JoinRequest) -> Result<()> {
        Err(Error::unsupported("leaving a group"))
    }

    /// The living members with their capabilities; `NotFound`.
    async fn members(&self, _group: &GroupId) -> Result<Roster> {
        Err(Error::unsupported("listing members"))
    }

    /// Watches a group; `None`: core polls. The stream ends with `Gone`, with the session, or when it is dropped.
    async fn watch_group(&self, _group: &GroupId) -> Result<Option<PushStream>> {
        Ok(None)
    }
}

/// Whose entry a join may take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// No entry: a living member of the same id is `AlreadyExists`.
    Nobody,
    /// An entry that this coordinator made before, with that request or a later one whose answer was lost. Another's is `AlreadyExists`.
    /// [`RequestId::is_before`] compares.
    Own(RequestId),
    /// Any entry: it changes hands in one step, and the old member is told `MembershipLost`.
    Anybody,
}

/// One wish to be a member. The membership that it leads to is known by the request's id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JoinRequest {
    /// Of which group.
    pub group: GroupId,
    /// The member that joins.
    pub member: MemberId,
    /// Names the request: each repetition of it has this id.
    pub id: RequestId,
    /// What the member says of itself.
    pub capabilities: Capabilities,
    /// Whose entry it may take the place of.
    pub replace: Replace,
}

impl JoinRequest {
    pub(crate) fn new(
        group: GroupId,
        member: MemberId,
        id: RequestId,
        capabilities: Capabilities,
        replace: Replace,
    ) -> Self {
        JoinRequest { group, member, id, capabilities, replace }
    }

    /// Refuses capabilities that are longer than so many bytes: a reader of a group reads what all its members say of themselves, and so
    /// every backend has its limit.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), with both numbers.
    pub fn refuse_more_than(&self, most: usize) -> Result<()> {
        match self.capabilities.as_json().len() {
            length if length > most => Err(Error::config(format!(
                "capabilities of {length} bytes are more than a member may have here: {most}"
            ))),
            _ => Ok(()),
        }
    }

    /// What this join means for a living member of the same name, which the join with the id `there` has made.
    pub fn meets(&self, there: RequestId) -> JoinConflict {
        match self.replace {
            _ if there == self.id => JoinConflict::Itself,
            Replace::Own(_) if there.is_before(self.id) => JoinConflict::Replaces,
            Replace::Anybody => JoinConflict::Replaces,
            Replace::Nobody | Replace::Own(_) => JoinConflict::Refused,
        }
    }
}

/// What a join finds where a living member has its name; see [`JoinRequest::meets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinConflict {
    /// Its own entry: the join was done before, and its reply was lost.
    Itself,
    /// An entry that it takes the place of. The old member is told by [`Reporter::membership_lost`](crate::driver::Reporter::membership_lost).
    Replaces,
    /// Another member: [`Error::namesake`].
    Refused,
}
