//! What stands at the keys: JSON records of sessions, letters, requests for locks, groups, members and the layout.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tooz_core::driver::RequestId;
use tooz_core::{Capabilities, Error, GroupId, LockMode, MemberId, Result, RosterEntry};

use crate::error;

/// What stands at the key of a session.
#[derive(Serialize)]
pub(crate) struct SessionRecord<'a> {
    pub(crate) member: &'a MemberId,
    /// What is written a second time without a change leaves Consul's index where it was, and would shut nothing out.
    pub(crate) withdrawals: u64,
}

/// What one session tells another.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Letter {
    /// The grant of that request was broken.
    Broken(String),
    /// The membership of that join was taken over.
    Replaced(String),
}

/// What stands at the key of a request for a lock.
#[derive(Serialize, Deserialize)]
pub(crate) struct LockRecord {
    pub(crate) member: MemberId,
    mode: String,
    request: String,
}

impl LockRecord {
    pub(crate) fn new(member: &MemberId, mode: LockMode, request: RequestId) -> Self {
        LockRecord { member: member.clone(), mode: mode.name().to_owned(), request: request.to_string() }
    }
}

/// What stands at the key of a group.
#[derive(Serialize)]
pub(crate) struct GroupRecord<'a> {
    pub(crate) group: &'a GroupId,
    /// Another with each join, so that a deletion which has read it before fails.
    pub(crate) last: String,
}

/// What stands at the key of a member.
#[derive(Serialize, Deserialize)]
pub(crate) struct MemberRecord {
    member: MemberId,
    request: String,
    capabilities: Box<RawValue>,
}

impl MemberRecord {
    pub(crate) fn new(member: &MemberId, join: RequestId, capabilities: &Capabilities) -> Result<Self> {
        Ok(MemberRecord {
            member: member.clone(),
            request: join.to_string(),
            capabilities: RawValue::from_string(capabilities.as_json().to_owned())
                .map_err(|error| Error::config("these capabilities are no JSON").with_source(error))?,
        })
    }

    /// Reads what stands at a member's key; `None`: no driver of this kind wrote it.
    pub(crate) fn read(value: &[u8]) -> Option<RosterEntry> {
        let record: MemberRecord = read(value)?;
        let capabilities = Capabilities::from_json(record.capabilities.get()).ok()?;
        Some(RosterEntry::new(record.member, record.request.parse().ok()?, capabilities))
    }
}

/// What stands at the key of the layout.
#[derive(Serialize, Deserialize)]
pub(crate) struct LayoutRecord {
    pub(crate) layout: u32,
}

/// JSON, so that other tools can read it.
pub(crate) fn write(record: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|error| error::strange("a record that is no JSON").with_source(error))
}

/// A token that may write here may write anything: what can't be read is for the caller to pass over.
pub(crate) fn read<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_others_wrote_never_panics(value: Vec<u8>, text: String) {
            for value in [value.as_slice(), text.as_bytes()] {
                let _ = (MemberRecord::read(value), read::<LockRecord>(value), read::<LayoutRecord>(value));
                let _ = read::<Letter>(value);
            }
        }

        #[test]
        fn what_we_wrote_reads_back_the_same(name in "\\PC{1,60}", id: u128, said: Vec<String>) {
            let (member, id) = (MemberId::new(&name).unwrap(), RequestId(id));
            let said = Capabilities::new(&said).unwrap();
            let entry = MemberRecord::read(&write(&MemberRecord::new(&member, id, &said).unwrap()).unwrap());
            prop_assert_eq!(entry, Some(RosterEntry::new(member.clone(), id, said)));
            let record = write(&LockRecord::new(&member, LockMode::Shared, id)).unwrap();
            prop_assert_eq!(read::<LockRecord>(&record).map(|record| record.member), Some(member));
            let letter = Letter::Broken(id.to_string());
            prop_assert_eq!(read::<Letter>(&write(&letter).unwrap()), Some(letter));
        }
    }
}
