//! What stands in the nodes: JSON, so that other tools can read it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tooz_core::driver::{JoinRequest, LockKey, RequestId};
use tooz_core::{Capabilities, MemberId, Result, RosterEntry};

use crate::error;

/// In the node of a namespace.
#[derive(Serialize, Deserialize)]
pub(crate) struct NamespaceRecord {
    /// Which layout it is kept in.
    pub(crate) layout: u32,
}

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

/// Reads a record, which another program may have spoiled.
pub(crate) fn read<'a, T: Deserialize<'a>>(what: &str, data: &'a [u8]) -> Result<T> {
    serde_json::from_slice(data).map_err(|why| error::unreadable(what, why))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// Bytes of any kind, and such as are nearly records.
    fn spoiled() -> impl Strategy<Value = Vec<u8>> {
        let near = r#"\{("(member|name|join|capabilities|layout|locks|group|overflowed)":(\[("[a-z0-9-]*",?)*\]|"\PC{0,8}"|-?[0-9e.]{1,12}|null|true),?){0,5}\}?"#;
        prop_oneof![any::<Vec<u8>>(), near.prop_map(String::into_bytes)]
    }

    proptest! {
        #[test]
        fn nothing_that_others_write_panics(data in spoiled()) {
            let _ = read::<NamespaceRecord>("", &data);
            let _ = read::<LockRecord>("", &data);
            let _ = read::<GroupRecord>("", &data);
            let _ = read::<MailRecord>("", &data);
            if let Ok(record) = read::<MemberRecord>("", &data) {
                let _ = (record.join(), record.entry());
            }
        }

        #[test]
        fn what_is_written_reads_back_the_same(
            (member, name, layout, overflowed) in any::<(String, String, u32, bool)>(),
            (locks, memberships) in any::<(Vec<String>, Vec<String>)>(),
        ) {
            let lock = write(&LockRecord { member: member.clone(), name: name.clone() }).unwrap();
            let lock = read::<LockRecord>("", &lock).unwrap();
            prop_assert_eq!((&lock.member, &lock.name), (&member, &name));
            let group = write(&GroupRecord { group: name.clone() }).unwrap();
            prop_assert_eq!(read::<GroupRecord>("", &group).unwrap().group, name);
            let namespace = write(&NamespaceRecord { layout }).unwrap();
            prop_assert_eq!(read::<NamespaceRecord>("", &namespace).unwrap().layout, layout);
            let mail = MailRecord { member: member.clone(), overflowed, locks: locks.clone(), memberships: memberships.clone() };
            let mail = write(&mail).unwrap();
            let mail = read::<MailRecord>("", &mail).unwrap();
            prop_assert_eq!((mail.member, mail.overflowed), (member, overflowed));
            prop_assert_eq!((mail.locks, mail.memberships), (locks, memberships));
        }

        #[test]
        fn a_member_reads_back_the_same(member in "[a-z]{1,20}", join: u128, value: String) {
            let capabilities = serde_json::to_string(&value).unwrap();
            let record = MemberRecord {
                member: member.clone(),
                join: RequestId(join).to_string(),
                capabilities: RawValue::from_string(capabilities).unwrap(),
            };
            let data = write(&record).unwrap();
            let entry = read::<MemberRecord>("", &data).unwrap().entry().unwrap();
            prop_assert_eq!((entry.member.as_str(), entry.id), (&*member, RequestId(join)));
            prop_assert_eq!(entry.capabilities.get::<String>().unwrap(), value);
        }
    }
}
