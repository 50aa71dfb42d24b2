//! What stands in a member's file: who it is, by which join, and what it says of itself.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tooz_core::driver::{JoinRequest, RequestId};
use tooz_core::{Capabilities, Error, ErrorKind, MemberId, Result, RosterEntry};

use crate::{alive, error};

/// A member as it stands in its file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MemberRecord<'a> {
    // First, since all files of the living begin with it.
    member: std::borrow::Cow<'a, str>,
    request: String,
    pid: u32,
    #[serde(borrow)]
    capabilities: &'a RawValue,
}

impl MemberRecord<'_> {
    /// The content of a member's file.
    pub(crate) fn write(request: &JoinRequest) -> Result<Vec<u8>> {
        let wrong = |error| Error::new(ErrorKind::Backend, "these capabilities can't be written").with_source(error);
        let capabilities: &RawValue = serde_json::from_str(request.capabilities.as_json()).map_err(wrong)?;
        let record = MemberRecord {
            member: request.member.as_str().into(),
            request: request.id.to_string(),
            pid: std::process::id(),
            capabilities,
        };
        let mut content = serde_json::to_vec(&record).map_err(wrong)?;
        content.push(b'\n');
        if content.len() > alive::LARGEST {
            return Err(Error::config(format!(
                "these capabilities make a file of {} bytes, and everybody who lists the group reads it: {} are the most; say where \
                 the rest can be found",
                content.len(),
                alive::LARGEST
            )));
        }
        Ok(content)
    }

    /// Reads what `write` wrote.
    pub(crate) fn read(path: &Path, content: &[u8]) -> Result<RosterEntry> {
        let strange =
            |error: &dyn std::fmt::Display| error::strange(path, format_args!("is no member's file: {error}"));
        let record: MemberRecord<'_> = serde_json::from_slice(content).map_err(|error| strange(&error))?;
        let member = MemberId::new(record.member).map_err(|error| strange(&error))?;
        let id: RequestId = record.request.parse().map_err(|error| strange(&error))?;
        Ok(RosterEntry::new(member, id, Capabilities::from_json(record.capabilities.get())?))
    }
}
