//! Where everything lies in etcd, and how it is found again: the layout of the keys and their values.
//!
//! ```text
//! /tooz/NAMESPACE/sessions/LEASE                  one for each open session
//! /tooz/NAMESPACE/locks/NAME/x/REQUEST            a holder of an exclusive lock, or one who waits for it
//! /tooz/NAMESPACE/locks/NAME/s/REQUEST            the same, shared
//! /tooz/NAMESPACE/elections/GROUP/x/REQUEST       the same for the election of a group
//! /tooz/NAMESPACE/groups/GROUP                    a group
//! /tooz/NAMESPACE/members/GROUP/                  the same group, where whoever watches its members sees it go
//! /tooz/NAMESPACE/members/GROUP/MEMBER            a member of it
//! /tooz/NAMESPACE/probes/RANDOM                   a scratch key of a measurement
//! /tooz/NAMESPACE/layout                          which layout this is
//! ```
//!
//! Names are encoded without slashes, so that no folder of one is a part of another's. An encoded name has at most 765
//! bytes; etcd sets no limit that this would meet, so that none is cut and every name can be read back.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tooz_core::driver::{JoinRequest, LockKey, LockRequest, RequestId, Space, decode_name, encode_name};
use tooz_core::{Capabilities, Error, GroupId, LockMode, LockName, MemberId, Namespace, Result, RosterEntry};

use crate::error;
use crate::request::Prefix;

/// The keys of one namespace.
#[derive(Clone)]
pub(crate) struct Keys {
    root: String,
}

impl Keys {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        Keys { root: format!("/tooz/{}", whole(namespace.as_str())) }
    }

    pub(crate) fn session(&self, lease: i64) -> Vec<u8> {
        format!("{}/sessions/{lease:016x}", self.root).into()
    }

    /// By which the namespace says how it is kept.
    pub(crate) fn layout(&self) -> Vec<u8> {
        format!("{}/layout", self.root).into()
    }

    pub(crate) fn probe(&self, random: u64) -> Vec<u8> {
        format!("{}/probes/{random:016x}", self.root).into()
    }

    /// Who holds a lock and who waits for it.
    pub(crate) fn lock(&self, key: &LockKey) -> LockFolder {
        let space = match key.space {
            Space::Lock => "locks",
            Space::Election => "elections",
        };
        LockFolder(format!("{}/{space}/{}/", self.root, whole(&key.name)))
    }

    pub(crate) fn groups(&self) -> Prefix {
        Prefix::below(&format!("{}/groups/", self.root))
    }

    pub(crate) fn group(&self, group: &GroupId) -> GroupFolder {
        let name = whole(group.as_str());
        GroupFolder { listed: format!("{}/groups/{name}", self.root), folder: format!("{}/members/{name}/", self.root) }
    }

    /// The group that a key among [`groups`](Self::groups) stands for; `None`: not one of ours.
    pub(crate) fn group_of(&self, key: &[u8]) -> Option<GroupId> {
        let key = std::str::from_utf8(key).ok()?;
        let name = key.strip_prefix(&self.root)?.strip_prefix("/groups/")?;
        GroupId::new(decode_name(name)?).ok()
    }

    /// The request that a key among a lock's stands for; `None`: not one of ours.
    pub(crate) fn request_of(&self, key: &[u8]) -> Option<(LockKey, RequestId)> {
        let key = std::str::from_utf8(key).ok()?;
        let mut parts = key.strip_prefix(&self.root)?.strip_prefix('/')?.split('/');
        let (space, name, _mode, request) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let name = decode_name(name)?;
        let key = match space {
            "locks" => LockKey::lock(&LockName::new(name).ok()?),
            "elections" => LockKey::election(&GroupId::new(name).ok()?),
            _ => return None,
        };
        Some((key, request.parse().ok()?))
    }
}

/// A name that is never cut.
fn whole(name: &str) -> std::borrow::Cow<'_, str> {
    encode_name(name, usize::MAX)
}

/// All the keys of one lock.
#[derive(Clone)]
pub(crate) struct LockFolder(String);

impl LockFolder {
    /// Every holder and every waiter.
    pub(crate) fn all(&self) -> Prefix {
        Prefix::below(&self.0)
    }

    /// Those of one mode: the mode is in the key, so that a reader finds the nearest writer without reading the readers.
    pub(crate) fn of(&self, mode: LockMode) -> Prefix {
        Prefix::below(&format!("{}{}/", self.0, letter(mode)))
    }

    /// Those that a request of this mode must not stand beside.
    pub(crate) fn conflicting(&self, mode: LockMode) -> Prefix {
        match mode {
            LockMode::Exclusive => Prefix { from: self.of(LockMode::Shared).from, to: self.of(mode).to },
            LockMode::Shared => self.of(LockMode::Exclusive),
        }
    }

    /// Keys between those of both modes: no driver makes them, but they stand in the way of an exclusive request.
    pub(crate) fn strays(&self) -> Prefix {
        Prefix { from: self.of(LockMode::Shared).to, to: self.of(LockMode::Exclusive).from }
    }

    /// The key of one request.
    pub(crate) fn place(&self, mode: LockMode, request: RequestId) -> Vec<u8> {
        format!("{}{}/{request}", self.0, letter(mode)).into()
    }

    /// A name for whoever stands at a key that can't be read.
    pub(crate) fn stranger(&self, key: &[u8]) -> Option<MemberId> {
        let rest = String::from_utf8_lossy(key.strip_prefix(self.0.as_bytes())?);
        let name: String = rest.chars().filter(|letter| !letter.is_control()).take(50).collect();
        MemberId::new(format!("unreadable:{name}")).ok()
    }

    /// The mode of a key in this folder.
    pub(crate) fn mode_of(&self, key: &[u8]) -> Option<LockMode> {
        match key.strip_prefix(self.0.as_bytes())?.first()? {
            b'x' => Some(LockMode::Exclusive),
            b's' => Some(LockMode::Shared),
            _ => None,
        }
    }
}

const fn letter(mode: LockMode) -> char {
    match mode {
        LockMode::Exclusive => 'x',
        LockMode::Shared => 's',
    }
}

/// All the keys of one group.
#[derive(Clone)]
pub(crate) struct GroupFolder {
    listed: String,
    folder: String,
}

impl GroupFolder {
    /// By which it is listed.
    pub(crate) fn listed(&self) -> &[u8] {
        self.listed.as_bytes()
    }

    /// By which it exists.
    pub(crate) fn marker(&self) -> &[u8] {
        self.folder.as_bytes()
    }

    /// Its members.
    pub(crate) fn members(&self) -> Prefix {
        Prefix::inside(&self.folder)
    }

    /// Its members and the marker: all that a watch of the group must see, in one order.
    pub(crate) fn everything(&self) -> Prefix {
        Prefix::below(&self.folder)
    }

    pub(crate) fn member(&self, member: &MemberId) -> Vec<u8> {
        format!("{}{}", self.folder, whole(member.as_str())).into()
    }

    /// The member at a key of this folder; `None`: nobody, whatever stands there.
    pub(crate) fn entry(&self, key: &[u8], value: &[u8]) -> Option<RosterEntry> {
        MemberRecord::read(value).filter(|entry| self.member_of(key).as_ref() == Some(&entry.member))
    }

    /// The member that a key in this folder stands for; `None`: the marker, or not one of ours.
    pub(crate) fn member_of(&self, key: &[u8]) -> Option<MemberId> {
        let name = std::str::from_utf8(key).ok()?.strip_prefix(&self.folder)?;
        MemberId::new(decode_name(name)?).ok()
    }
}

/// What stands at the key of a session.
#[derive(Serialize)]
pub(crate) struct SessionRecord<'a> {
    pub(crate) member: &'a MemberId,
}

/// What stands at the key of a request for a lock.
#[derive(Serialize, Deserialize)]
pub(crate) struct LockRecord {
    pub(crate) member: MemberId,
    mode: String,
    request: String,
    session: String,
}

impl LockRecord {
    pub(crate) fn new(member: &MemberId, request: &LockRequest, lease: i64) -> Self {
        LockRecord {
            member: member.clone(),
            mode: request.mode.name().to_owned(),
            request: request.id.to_string(),
            session: format!("{lease:016x}"),
        }
    }
}

/// What stands at the key of a group, to tell its maker from another who makes it at the same time.
#[derive(Serialize)]
pub(crate) struct GroupRecord<'a> {
    pub(crate) group: &'a GroupId,
    pub(crate) made: String,
}

/// What stands at the key of a member.
#[derive(Serialize, Deserialize)]
pub(crate) struct MemberRecord {
    member: MemberId,
    request: String,
    session: String,
    capabilities: Box<RawValue>,
}

impl MemberRecord {
    pub(crate) fn new(request: &JoinRequest, lease: i64) -> Result<Self> {
        Ok(MemberRecord {
            member: request.member.clone(),
            request: request.id.to_string(),
            session: format!("{lease:016x}"),
            capabilities: RawValue::from_string(request.capabilities.as_json().to_owned())
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

/// JSON, so that other tools can read it.
pub(crate) fn write(record: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|error| error::strange("a record that is no JSON").with_source(error))
}

/// Whoever may write here may write anything: what can't be read is for the caller to pass over.
pub(crate) fn read<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(&"a/b".parse().unwrap())
    }

    #[test]
    fn a_name_that_begins_like_another_is_not_among_its_keys() {
        let within = |range: &Prefix, key: &[u8]| key >= range.from.as_slice() && key < range.to.as_slice();
        let (keys, request) = (keys(), RequestId(7));
        let folder = |name: &str| keys.lock(&LockKey::lock(&name.parse().unwrap()));
        for other in ["a/x", "ab", "a-", "a.", "a%", "A", "a/", "a0"] {
            let key = folder(other).place(LockMode::Exclusive, request);
            assert!(!within(&folder("a").all(), &key), "{other}");
            let group = keys.group(&"a".parse().unwrap()).everything();
            assert!(!within(&group, keys.group(&other.parse().unwrap()).marker()), "{other}");
        }
        let place = folder("a").place(LockMode::Shared, request);
        assert!(within(&folder("a").all(), &place) && within(&folder("a").of(LockMode::Shared), &place));
        assert!(!within(&folder("a").of(LockMode::Exclusive), &place));
    }

    #[test]
    fn keys_are_read_back() {
        let keys = keys();
        let name = "Ä ../%2F".repeat(20);
        let lock = LockKey::lock(&name.parse().unwrap());
        let folder = keys.lock(&lock);
        let place = folder.place(LockMode::Shared, RequestId(7));
        assert_eq!(keys.request_of(&place), Some((lock, RequestId(7))));
        assert_eq!(folder.mode_of(&place), Some(LockMode::Shared));
        let group: GroupId = name.parse().unwrap();
        assert_eq!(keys.group_of(keys.group(&group).listed()).as_ref(), Some(&group));
        let member: MemberId = "x/y".parse().unwrap();
        let folder = keys.group(&group);
        assert_eq!(folder.member_of(&folder.member(&member)), Some(member));
        assert_eq!(folder.member_of(folder.marker()), None);
        assert_eq!(keys.request_of(&keys.session(1)), None);
    }
}
