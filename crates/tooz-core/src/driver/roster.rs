//! The members of a group, and what they say of themselves.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::{MemberId, RequestId};

/// What a member says of itself: any value of `serde`, kept as JSON so that other tools can read it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Capabilities(Arc<str>);

impl Capabilities {
    /// From a value.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config): the value can't be written as JSON, such as a map whose keys are no text.
    pub fn new(value: &(impl Serialize + ?Sized)) -> Result<Self> {
        match serde_json::to_string(value) {
            Ok(json) => Ok(Capabilities(json.into())),
            Err(error) => Err(Error::config("these capabilities are no JSON").with_source(error)),
        }
    }

    /// From JSON, as a driver reads it back.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config): the text is no JSON.
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
    ///
    /// # Errors
    /// [`Backend`](ErrorKind::Backend): the JSON has another shape than the value. The member that wrote it may be of another version.
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

/// A member as the backend lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RosterEntry {
    /// The member.
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
