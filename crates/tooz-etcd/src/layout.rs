//! Where everything lies in etcd, and how it is found again: the keys, and the version of their layout.
//!
//! ```text
//! /tooz/NAMESPACE/sessions/LEASE                  one for each open session
//! /tooz/NAMESPACE/locks/NAME/x/REQUEST            a holder of an exclusive lock, or a waiter for it
//! /tooz/NAMESPACE/locks/NAME/s/REQUEST            the same, shared
//! /tooz/NAMESPACE/elections/GROUP/x/REQUEST       the same for the election of a group
//! /tooz/NAMESPACE/groups/GROUP                    a group
//! /tooz/NAMESPACE/members/GROUP/                  the same group, where a watch of its members sees it go
//! /tooz/NAMESPACE/members/GROUP/MEMBER            a member of it
//! /tooz/NAMESPACE/probes/RANDOM                   a scratch key of a measurement
//! /tooz/NAMESPACE/layout                          which layout this is
//! ```
//!
//! Names are encoded without slashes, so that no folder of one is a part of another's. An encoded name has at most 765
//! bytes; etcd sets no limit that this would meet, so that none is cut and every name can be read back.
//!
//! The version is a record beside the keys, so that two versions of tooz never hold one lock by two layouts. It is read when a session
//! connects, written by the first session that owns something, and compared in the same transaction that makes a session or a group. A
//! namespace without one was made before there were records, and is kept in layout 1.

use std::sync::atomic::{AtomicI64, Ordering};

use tooz_core::driver::{LockKey, RequestId, Space, decode_name, encode_name};
use tooz_core::{Error, GroupId, LockMode, LockName, MemberId, Namespace, Result, RosterEntry};

use crate::proto::etcdserverpb::{Compare, RequestOp};
use crate::proto::mvccpb::KeyValue;
use crate::record::{LayoutRecord, MemberRecord, read, write};
use crate::request::{Prefix, get, one, put, written_at};

/// The version that is described above. It grows with every change by which two versions would not see each other's keys.
const SPOKEN: u32 = 1;

/// The layout of one namespace.
pub(crate) struct Layout {
    namespace: Namespace,
    root: String,
    version_key: Vec<u8>,
    version_record: Vec<u8>,
    /// The revision at which the version's record was written, as this session knows it; 0: there is none yet.
    written: AtomicI64,
}

impl Layout {
    pub(crate) fn new(namespace: &Namespace) -> Result<Self> {
        let root = format!("/tooz/{}", whole(namespace.as_str()));
        Ok(Layout {
            namespace: namespace.clone(),
            version_key: format!("{root}/layout").into(),
            version_record: write(&LayoutRecord { layout: SPOKEN })?,
            written: AtomicI64::new(0),
            root,
        })
    }

    /// By which the namespace says how it is kept.
    pub(crate) fn version_key(&self) -> &[u8] {
        &self.version_key
    }

    /// Takes note of the version that stands there, and refuses another than this one.
    pub(crate) fn learn(&self, found: Option<&KeyValue>) -> Result<()> {
        let Some(found) = found else {
            self.written.store(0, Ordering::Relaxed);
            return Ok(());
        };
        match read::<LayoutRecord>(&found.value) {
            Some(record) if record.layout == SPOKEN => {
                self.written.store(found.mod_revision, Ordering::Relaxed);
                Ok(())
            }
            Some(record) => Err(Error::foreign_layout(&self.namespace, record.layout, SPOKEN)),
            None => {
                let key = String::from_utf8_lossy(&self.version_key);
                let found = format!("that can't be read (what stands at {key} is no record of one)");
                Err(Error::foreign_layout(&self.namespace, found, SPOKEN))
            }
        }
    }

    /// That the version is as it was learned; together with [`write_version`](Self::write_version) on success and
    /// [`read_version`](Self::read_version) on failure.
    pub(crate) fn version_unchanged(&self) -> Compare {
        written_at(&self.version_key, self.written.load(Ordering::Relaxed))
    }

    /// What writes the version where there was none.
    pub(crate) fn write_version(&self) -> Option<RequestOp> {
        let is_new = self.written.load(Ordering::Relaxed) == 0;
        is_new.then(|| put(&self.version_key, self.version_record.clone(), 0))
    }

    pub(crate) fn read_version(&self) -> RequestOp {
        get(one(&self.version_key))
    }

    pub(crate) fn session(&self, lease: i64) -> Vec<u8> {
        format!("{}/sessions/{lease:016x}", self.root).into()
    }

    pub(crate) fn probe(&self, random: u64) -> Vec<u8> {
        format!("{}/probes/{random:016x}", self.root).into()
    }

    /// All locks, or all elections, that are in use.
    pub(crate) fn locks(&self, space: Space) -> Prefix {
        Prefix::below(&format!("{}/{}/", self.root, folder_of(space)))
    }

    /// The holders of a lock and those that wait for it.
    pub(crate) fn lock(&self, key: &LockKey) -> LockFolder {
        LockFolder(format!("{}/{}/{}/", self.root, folder_of(key.space), whole(&key.name)))
    }

    /// The lock that a key among its holders and waiters belongs to; `None`: not one of ours.
    pub(crate) fn lock_of(&self, key: &[u8]) -> Option<LockKey> {
        self.split(key).map(|(lock, _)| lock)
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
        let (lock, rest) = self.split(key)?;
        Some((lock, rest.split('/').nth(1)?.parse().ok()?))
    }

    /// The lock of a key, and the part of the key behind it.
    fn split<'a>(&self, key: &'a [u8]) -> Option<(LockKey, &'a str)> {
        let key = std::str::from_utf8(key).ok()?;
        let (space, rest) = key.strip_prefix(&self.root)?.strip_prefix('/')?.split_once('/')?;
        let (name, rest) = rest.split_once('/')?;
        let name = decode_name(name)?;
        let lock = match space {
            LOCKS => LockKey::lock(&LockName::new(name).ok()?),
            ELECTIONS => LockKey::election(&GroupId::new(name).ok()?),
            _ => return None,
        };
        Some((lock, rest))
    }
}

const LOCKS: &str = "locks";
const ELECTIONS: &str = "elections";

const fn folder_of(space: Space) -> &'static str {
    match space {
        Space::Lock => LOCKS,
        Space::Election => ELECTIONS,
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

    /// A name for what stands at a key that can't be read.
    pub(crate) fn stranger(&self, key: &[u8]) -> Option<MemberId> {
        let rest = String::from_utf8_lossy(key.strip_prefix(self.0.as_bytes())?);
        let name: String = rest.chars().filter(|letter| !letter.is_control()).take(50).collect();
        MemberId::new(format!("unreadable:{name}")).ok()
    }

    /// The mode of a key in this folder. What no driver wrote counts as exclusive.
    pub(crate) fn mode_of(&self, key: &[u8]) -> LockMode {
        match key.strip_prefix(self.0.as_bytes()).and_then(<[u8]>::first) {
            Some(b's') => LockMode::Shared,
            _ => LockMode::Exclusive,
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

    /// The member at a key of this folder; `None`: no member, whatever stands there.
    pub(crate) fn entry(&self, key: &[u8], value: &[u8]) -> Option<RosterEntry> {
        MemberRecord::read(value).filter(|entry| self.member_of(key).as_ref() == Some(&entry.member))
    }

    /// The member that a key in this folder stands for; `None`: the marker, or not one of ours.
    pub(crate) fn member_of(&self, key: &[u8]) -> Option<MemberId> {
        let name = std::str::from_utf8(key).ok()?.strip_prefix(&self.folder)?;
        MemberId::new(decode_name(name)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout() -> Layout {
        Layout::new(&"a/b".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_name_that_begins_like_another_is_not_among_its_keys() {
        let within = |range: &Prefix, key: &[u8]| range.has(key);
        let (keys, request) = (layout(), RequestId(7));
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
        let keys = layout();
        let name = "Ä ../%2F".repeat(20);
        let lock = LockKey::lock(&name.parse().unwrap());
        let folder = keys.lock(&lock);
        let place = folder.place(LockMode::Shared, RequestId(7));
        assert_eq!(keys.request_of(&place), Some((lock, RequestId(7))));
        assert_eq!(folder.mode_of(&place), LockMode::Shared);
        let group: GroupId = name.parse().unwrap();
        assert_eq!(keys.group_of(keys.group(&group).listed()).as_ref(), Some(&group));
        let member: MemberId = "x/y".parse().unwrap();
        let folder = keys.group(&group);
        assert_eq!(folder.member_of(&folder.member(&member)), Some(member));
        assert_eq!(folder.member_of(folder.marker()), None);
        assert_eq!(keys.request_of(&keys.session(1)), None);
    }

    #[test]
    fn only_a_record_of_this_layout_is_accepted() {
        let layout = layout();
        let there = |value: &str| KeyValue { value: value.into(), mod_revision: 7, ..KeyValue::default() };
        assert!(layout.learn(None).is_ok() && layout.write_version().is_some());
        assert!(layout.learn(Some(&there("{\"layout\": 1, \"since\": \"0.1\"}"))).is_ok());
        assert!(layout.write_version().is_none(), "it is not written twice");
        for (value, words) in [("{\"layout\":2}", "layout 2"), ("garbage", "can't be read"), ("", "can't be read")] {
            let error = layout.learn(Some(&there(value))).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("layout 1"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn keys_of_others_never_panic(key: Vec<u8>, text: String, tail: String) {
            let layout = layout();
            let lock = layout.lock(&LockKey::lock(&"l".parse().unwrap()));
            let group = layout.group(&"g".parse().unwrap());
            let below = ["", "locks/", "elections/", "groups/", "members/g/", "locks/l/", "locks/l/x/"]
                .map(|folder| format!("{}/{folder}{tail}", layout.root).into_bytes());
            for key in [key, text.into_bytes()].into_iter().chain(below) {
                let _ = (layout.request_of(&key), layout.group_of(&key), lock.mode_of(&key), lock.stranger(&key));
                let _ = (group.member_of(&key), group.entry(&key, tail.as_bytes()));
                if let Some(of) = layout.lock_of(&key) {
                    prop_assert!(layout.lock(&of).all().has(&key), "a key is in the folder of its lock");
                    prop_assert!(layout.locks(of.space).has(&key));
                }
                let value = KeyValue { key, value: tail.clone().into(), ..KeyValue::default() };
                let _ = layout.learn(Some(&value));
            }
        }

        #[test]
        fn keys_of_any_names_are_read_back(name in "\\PC{1,60}", member in "\\PC{1,60}", id: u128, shared: bool) {
            let layout = layout();
            let mode = if shared { LockMode::Shared } else { LockMode::Exclusive };
            let group: GroupId = name.parse().unwrap();
            for lock in [LockKey::lock(&name.parse().unwrap()), LockKey::election(&group)] {
                let folder = layout.lock(&lock);
                let place = folder.place(mode, RequestId(id));
                prop_assert_eq!(folder.mode_of(&place), mode);
                prop_assert_eq!(layout.lock_of(&place), Some(lock.clone()));
                prop_assert_eq!(layout.request_of(&place), Some((lock, RequestId(id))));
            }
            prop_assert_eq!(layout.group_of(layout.group(&group).listed()), Some(group.clone()));
            let (folder, member) = (layout.group(&group), MemberId::new(member).unwrap());
            prop_assert_eq!(folder.member_of(&folder.member(&member)), Some(member));
        }
    }
}
