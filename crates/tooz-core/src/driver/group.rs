//! Groups and memberships as core asks for them and a driver answers.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::{GroupId, MemberId, RequestId};

/// What a member says of itself: any value of `serde`, kept as JSON so that other tools can read it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Capabilities(Arc<str>);

impl Capabilities {
    /// From a value.
    pub fn new(value: &(impl Serialize + ?Sized)) -> Result<Self> {
        match serde_json::to_string(value) {
            Ok(json) => Ok(Capabilities(json.into())),
            Err(error) => Err(Error::config("these capabilities are no JSON").with_source(error)),
        }
    }

    /// From JSON, as a driver reads it back.
    pub fn from_json(json: impl AsRef<str>) -> Result<Self> {
        let json = json.as_ref().trim();
        match serde_json::from_str::<serde::de::IgnoredAny>(json) {
            Ok(_) => Ok(Capabilities(json.into())),
            Err(error) => Err(Error::config(format!("capabilities are JSON, but {json:.60?} is not: {error}"))),
        }
    }

    /// The JSON.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// As a value again.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.0).map_err(|error| {
            Error::new(ErrorKind::Backend, "the capabilities are JSON of another shape").with_source(error)
        })
    }
}

/// `null`: nothing to say.
impl Default for Capabilities {
    fn default() -> Self {
        Capabilities("null".into())
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whose entry a join may take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Nobody's: a living member of the same id is `AlreadyExists`.
    Nobody,
    /// An entry that this coordinator made before, with that request or a later one whose answer was lost. Another's is `AlreadyExists`.
    /// [`RequestId::is_before`] compares.
    Own(RequestId),
    /// Anybody's: the entry changes hands in one step, and the old member is told `MembershipLost`.
    Anybody,
}

/// One wish to be a member. The membership that it leads to is known by the request's id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JoinRequest {
    /// Of which group.
    pub group: GroupId,
    /// As whom.
    pub member: MemberId,
    /// The same in every repetition of this request.
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

    /// What this join means for a living member of the same name, whom the join with the id `there` has made.
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
    /// Somebody else: [`Error::namesake`].
    Refused,
}

/// A member as the backend lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RosterEntry {
    /// Who.
    pub member: MemberId,
    /// By which join: another id under the same name means that it left and came back.
    pub id: RequestId,
    /// What it says of itself.
    pub capabilities: Capabilities,
}

impl RosterEntry {
    /// A living member.
    pub const fn new(member: MemberId, id: RequestId, capabilities: Capabilities) -> Self {
        RosterEntry { member, id, capabilities }
    }
}

/// All living members of a group at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Roster {
    /// The members, in any order.
    pub members: Vec<RosterEntry>,
    /// Grows with every change, in the same count as [`Pushed::Delta`](crate::driver::Pushed::Delta); 0 for a driver that pushes no deltas.
    pub version: u64,
}

impl Roster {
    /// The members as of that version.
    pub const fn new(members: Vec<RosterEntry>, version: u64) -> Self {
        Roster { members, version }
    }
}
