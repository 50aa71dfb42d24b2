//! What stands in the nodes: JSON, so that other tools can read it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tooz_core::driver::{JoinRequest, LockKey, RequestId};
use tooz_core::{Capabilities, MemberId, Result, RosterEntry};

use crate::error;

/// In the node of a lock request.
#[derive(Serialize, Deserialize)]
pub(crate) struct LockRecord {
    pub(crate) member: String,
    /// The full name of the lock; the container's name may be a hash.
    pub(crate) name: String,
}

/// In the node of a group.
#[derive(Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    pub(crate) group: String,
}

/// In the node of a member.
#[derive(Serialize, Deserialize)]
pub(crate) struct MemberRecord {
    pub(crate) member: String,
    pub(crate) join: String,
    pub(crate) capabilities: Box<RawValue>,
}

/// In the mailbox of a session: what others took from it.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct MailRecord {
    pub(crate) member: String,
    /// More was taken than is listed: everything is to be compared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) overflowed: bool,
    /// Requests whose grants were broken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) locks: Vec<String>,
    /// Joins whose entries were taken over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) memberships: Vec<String>,
}

impl LockRecord {
    pub(crate) fn new(member: &MemberId, key: &LockKey) -> Self {
        LockRecord { member: member.as_str().to_owned(), name: key.name.as_ref().to_owned() }
    }
}

impl MemberRecord {
    pub(crate) fn new(request: &JoinRequest) -> Result<Self> {
        let json = request.capabilities.as_json().to_owned();
        let capabilities = RawValue::from_string(json).map_err(|why| error::unreadable("capabilities", why))?;
        Ok(MemberRecord { member: request.member.as_str().to_owned(), join: request.id.to_string(), capabilities })
    }

    pub(crate) fn join(&self) -> Option<RequestId> {
        self.join.parse().ok()
    }

    pub(crate) fn entry(&self) -> Result<RosterEntry> {
        let capabilities = Capabilities::from_json(self.capabilities.get())?;
        let join = self.join().ok_or_else(|| error::unreadable("a member", "its join is no request id"))?;
        Ok(RosterEntry::new(MemberId::new(&self.member)?, join, capabilities))
    }
}

/// A record as bytes.
pub(crate) fn write(record: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|why| error::unreadable("a record", why))
}

/// Reads a record, which somebody else may have spoiled.
pub(crate) fn read<'a, T: Deserialize<'a>>(what: &str, data: &'a [u8]) -> Result<T> {
    serde_json::from_slice(data).map_err(|why| error::unreadable(what, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_with_nothing_in_it_is_short() {
        let mail = MailRecord { member: "m".to_owned(), ..MailRecord::default() };
        let bytes = write(&mail).unwrap();
        assert_eq!(bytes, br#"{"member":"m"}"#);
        let mail = read::<MailRecord>("mail", &bytes).unwrap();
        assert!(mail.locks.is_empty() && !mail.overflowed);
        assert!(read::<MailRecord>("mail", b"spoiled").is_err());
    }
}
