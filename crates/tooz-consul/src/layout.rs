//! Where everything lies in Consul, and how it is found again: the keys, and the version of their layout.
//!
//! ```text
//! tooz/NAMESPACE/sessions/SESSION/                one for each open session
//! tooz/NAMESPACE/sessions/SESSION/m-RANDOM        a letter to that session
//! tooz/NAMESPACE/stamps/SESSION/NUMBER            one of them written with each change of a key of that session: see `history.rs`
//! tooz/NAMESPACE/locks/NAME/x-REQUEST             a holder of an exclusive lock, or a waiter for it
//! tooz/NAMESPACE/locks/NAME/s-REQUEST             the same, shared
//! tooz/NAMESPACE/elections/GROUP/x-REQUEST        the same for the election of a group
//! tooz/NAMESPACE/groups/GROUP/                    a group
//! tooz/NAMESPACE/groups/GROUP/m-MEMBER            a member of it
//! tooz/NAMESPACE/probes/RANDOM                    a scratch key of a measurement
//! tooz/NAMESPACE/layout                           which layout this is
//! ```
//!
//! A part of a path that is empty or made of dots would be cleaned away by a redirect, also where it is percent-encoded, and another key be
//! read. So names are encoded with `=` in place of `%`, and nothing but letters, digits, `-` and `_` stands for itself.
//!
//! The version is a record beside the keys, so that two versions of tooz never hold one lock by two layouts. It is read when a session
//! connects, written by the first session that owns something, and compared in the same transaction that makes a session or a group.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use tooz_core::driver::{LockKey, RequestId, Space};
use tooz_core::{Error, GroupId, LockMode, LockName, MemberId, Namespace, Result, RosterEntry};

use crate::record::{LayoutRecord, MemberRecord, read, write};
use crate::request::{KeyEntry, Op, check_absent, check_index, set};

/// The version that is described above. It grows with every change by which two versions would not see each other's keys.
const SPOKEN: u32 = 1;

/// The layout of one namespace.
pub(crate) struct Layout {
    namespace: Namespace,
    root: String,
    version_key: String,
    version_record: Vec<u8>,
    /// The index at which the version's record was written, as this session knows it; 0: there is none yet.
    written: AtomicU64,
}

impl Layout {
    pub(crate) fn new(namespace: &Namespace) -> Result<Self> {
        let root = format!("tooz/{}", encode(namespace.as_str()));
        Ok(Layout {
            namespace: namespace.clone(),
            version_key: format!("{root}/layout"),
            version_record: write(&LayoutRecord { layout: SPOKEN })?,
            written: AtomicU64::new(0),
            root,
        })
    }

    /// By which the namespace says how it is kept.
    pub(crate) fn version_key(&self) -> &str {
        &self.version_key
    }

    /// Takes note of the version that stands there, and refuses another than this one.
    pub(crate) fn learn(&self, found: Option<&KeyEntry>) -> Result<()> {
        let Some(found) = found else {
            self.written.store(0, Ordering::Relaxed);
            return Ok(());
        };
        match read::<LayoutRecord>(&found.value) {
            Some(record) if record.layout == SPOKEN => {
                self.written.store(found.modified, Ordering::Relaxed);
                Ok(())
            }
            Some(record) => Err(Error::foreign_layout(&self.namespace, record.layout, SPOKEN)),
            None => {
                let key = &self.version_key;
                let found = format!("that can't be read (what stands at {key} is no record of one)");
                Err(Error::foreign_layout(&self.namespace, found, SPOKEN))
            }
        }
    }

    /// That the version is as it was learned; where there was none it is written. What fails of this has to be learned anew.
    pub(crate) fn version_unchanged(&self) -> Vec<Op> {
        match self.written.load(Ordering::Relaxed) {
            0 => vec![check_absent(&self.version_key), set(&self.version_key, &self.version_record)],
            written => vec![check_index(&self.version_key, written)],
        }
    }

    pub(crate) fn session(&self, id: &str) -> String {
        format!("{}/sessions/{id}/", self.root)
    }

    /// In which the stamps of a session lie.
    pub(crate) fn stamps(&self, id: &str) -> String {
        format!("{}/stamps/{id}/", self.root)
    }

    pub(crate) fn probe(&self, random: u64) -> String {
        format!("{}/probes/{random:016x}", self.root)
    }

    /// All locks, or all elections, that are in use.
    pub(crate) fn locks(&self, space: Space) -> String {
        format!("{}/{}/", self.root, folder_of(space))
    }

    /// The holders of a lock and those that wait for it.
    pub(crate) fn lock(&self, key: &LockKey) -> LockFolder {
        LockFolder(format!("{}{}/", self.locks(key.space), encode(&key.name)))
    }

    /// The lock whose folder that is; `None`: not one of ours.
    pub(crate) fn lock_of(&self, space: Space, folder: &str) -> Option<LockKey> {
        let name = decode(folder.strip_prefix(&self.locks(space))?.strip_suffix('/')?)?;
        Some(match space {
            Space::Lock => LockKey::lock(&LockName::new(name).ok()?),
            Space::Election => LockKey::election(&GroupId::new(name).ok()?),
        })
    }

    /// The request that a key among all locks stands for; `None`: not one of ours.
    pub(crate) fn request_of(&self, space: Space, key: &str) -> Option<(LockKey, RequestId)> {
        let end = key.rfind('/')? + 1;
        let lock = self.lock_of(space, &key[..end])?;
        let request = self.lock(&lock).request_of(key)?;
        Some((lock, request))
    }

    /// The membership that an entry among all groups stands for; `None`: not one of ours.
    pub(crate) fn membership_of(&self, found: &KeyEntry) -> Option<(GroupId, RosterEntry)> {
        let end = found.key.rfind('/')? + 1;
        let group = self.group_of(&found.key[..end])?;
        let entry = self.group(&group).entry(found)?;
        Some((group, entry))
    }

    pub(crate) fn groups(&self) -> String {
        format!("{}/groups/", self.root)
    }

    pub(crate) fn group(&self, group: &GroupId) -> GroupFolder {
        GroupFolder(format!("{}{}/", self.groups(), encode(group.as_str())))
    }

    /// The group whose folder that is; `None`: not one of ours.
    pub(crate) fn group_of(&self, folder: &str) -> Option<GroupId> {
        GroupId::new(decode(folder.strip_prefix(&self.groups())?.strip_suffix('/')?)?).ok()
    }
}

const fn folder_of(space: Space) -> &'static str {
    match space {
        Space::Lock => "locks",
        Space::Election => "elections",
    }
}

/// The key of a letter to the session of that id.
pub(crate) fn letter(session_key: &str, random: u64) -> String {
    format!("{session_key}m-{random:016x}")
}

/// Whether that is the key of a letter to the session with this key.
pub(crate) fn is_letter(session_key: &str, key: &str) -> bool {
    key.strip_prefix(session_key).is_some_and(|rest| rest.starts_with("m-"))
}

/// All the keys of one lock.
#[derive(Clone)]
pub(crate) struct LockFolder(String);

impl LockFolder {
    /// What the keys of every holder and every waiter begin with.
    pub(crate) fn all(&self) -> &str {
        &self.0
    }

    /// The key of one request.
    pub(crate) fn place(&self, mode: LockMode, request: RequestId) -> String {
        let letter = match mode {
            LockMode::Exclusive => 'x',
            LockMode::Shared => 's',
        };
        format!("{}{letter}-{request}", self.0)
    }

    /// The request that a key in this folder stands for; `None`: not one of ours.
    pub(crate) fn request_of(&self, key: &str) -> Option<RequestId> {
        key.strip_prefix(&self.0)?.strip_prefix(['x', 's'])?.strip_prefix('-')?.parse().ok()
    }

    /// A name for what stands at a key that can't be read.
    pub(crate) fn stranger(&self, key: &str) -> Option<MemberId> {
        let rest = key.strip_prefix(&self.0)?;
        let name: String = rest.chars().filter(|letter| !letter.is_control()).take(50).collect();
        MemberId::new(format!("unreadable:{name}")).ok()
    }

    /// The mode of a key in this folder. What no driver wrote counts as exclusive.
    pub(crate) fn mode_of(&self, key: &str) -> LockMode {
        match key.strip_prefix(&self.0) {
            Some(rest) if rest.starts_with("s-") => LockMode::Shared,
            _ => LockMode::Exclusive,
        }
    }
}

/// How many at the head of a queue of these modes hold the lock: the first writer, or all readers before it.
pub(crate) fn count_holders(queue: impl IntoIterator<Item = LockMode>) -> usize {
    let mut queue = queue.into_iter();
    match queue.next() {
        None => 0,
        Some(LockMode::Exclusive) => 1,
        Some(LockMode::Shared) => 1 + queue.take_while(|mode| *mode == LockMode::Shared).count(),
    }
}

/// All the keys of one group.
#[derive(Clone)]
pub(crate) struct GroupFolder(String);

impl GroupFolder {
    /// By which it exists, and with which the keys of its members begin.
    pub(crate) fn marker(&self) -> &str {
        &self.0
    }

    pub(crate) fn member(&self, member: &MemberId) -> String {
        format!("{}m-{}", self.0, encode(member.as_str()))
    }

    /// The member at a key of this folder; `None`: no member, whatever stands there.
    pub(crate) fn entry(&self, found: &KeyEntry) -> Option<RosterEntry> {
        found.session.as_ref()?;
        MemberRecord::read(&found.value).filter(|entry| self.member(&entry.member) == found.key)
    }
}

/// A name as a part of a path.
fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len() + 8);
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "={byte:02X}");
        }
    }
    encoded
}

/// Reads what [`encode`] wrote; `None` for anything else.
fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let [first, after @ ..] = rest {
        rest = if *first == b'=' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            &after[2..]
        } else {
            bytes.push(*first);
            after
        };
    }
    let name = String::from_utf8(bytes).ok()?;
    // Only the canonical form counts.
    (encode(&name) == encoded).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout() -> Layout {
        Layout::new(&"a/b".parse().unwrap()).unwrap()
    }

    fn entry(key: &str, value: &str) -> KeyEntry {
        KeyEntry { key: key.to_owned(), value: value.into(), session: Some("s".to_owned()), created: 3, modified: 7 }
    }

    const X: LockMode = LockMode::Exclusive;
    const S: LockMode = LockMode::Shared;

    #[test]
    fn the_first_writer_or_all_readers_before_it_hold() {
        for (queue, holders) in [(&[][..], 0), (&[X, X], 1), (&[X, S], 1), (&[S, S, X, S], 2), (&[S, S], 2)] {
            assert_eq!(count_holders(queue.iter().copied()), holders, "{queue:?}");
        }
    }

    #[test]
    fn no_part_of_a_path_is_cleaned_away_or_decoded() {
        let folder = layout();
        for name in ["..", ".", "a/b", "//", "%2F", "a b", "?", "#", "Ä", "="] {
            let place = folder.lock(&LockKey::lock(&name.parse().unwrap())).place(LockMode::Shared, RequestId(1));
            assert!(place.split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "{place}");
            let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=/".contains(&byte);
            assert!(place.bytes().all(is_safe), "{place}");
        }
    }

    #[test]
    fn only_a_record_of_this_layout_is_accepted() {
        let layout = layout();
        assert!(layout.learn(None).is_ok() && layout.version_unchanged().len() == 2);
        assert!(layout.learn(Some(&entry("k", "{\"layout\": 1, \"since\": \"0.1\"}"))).is_ok());
        assert_eq!(layout.version_unchanged().len(), 1, "it is not written twice");
        for (value, words) in [("{\"layout\":2}", "layout 2"), ("garbage", "can't be read"), ("", "can't be read")] {
            let error = layout.learn(Some(&entry("k", value))).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("layout 1"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn keys_of_others_never_panic(text: String, tail: String) {
            let layout = layout();
            let lock = layout.lock(&LockKey::lock(&"l".parse().unwrap()));
            let group = layout.group(&"g".parse().unwrap());
            let below = ["", "locks/", "elections/", "groups/g/m-", "locks/l/", "locks/l/x-"]
                .map(|folder| format!("{}/{folder}{tail}", layout.root));
            for key in below.into_iter().chain([text, tail.clone()]) {
                let _ = (lock.request_of(&key), layout.group_of(&key), lock.mode_of(&key), lock.stranger(&key));
                let _ = (group.entry(&entry(&key, &tail)), layout.lock_of(Space::Lock, &key), decode(&key));
                let _ = layout.learn(Some(&entry(&key, &tail)));
            }
        }

        #[test]
        fn keys_of_any_names_are_read_back(name in "\\PC{1,60}", other in "\\PC{1,60}", id: u128, shared: bool) {
            let layout = layout();
            let mode = if shared { LockMode::Shared } else { LockMode::Exclusive };
            let group: GroupId = name.parse().unwrap();
            for lock in [LockKey::lock(&name.parse().unwrap()), LockKey::election(&group)] {
                let folder = layout.lock(&lock);
                let place = folder.place(mode, RequestId(id));
                prop_assert_eq!(folder.mode_of(&place), mode);
                prop_assert_eq!(folder.request_of(&place), Some(RequestId(id)));
                prop_assert_eq!(layout.lock_of(lock.space, folder.all()), Some(lock));
            }
            prop_assert_eq!(layout.group_of(layout.group(&group).marker()), Some(group.clone()));
            prop_assert_eq!(encode(&name) == encode(&other), name == other);
        }
    }
}
