//! Where everything lies: the namespace is one node, with a branch each for locks, elections, groups and mailboxes.
//!
//! | node | what it is |
//! |---|---|
//! | `.` | the namespace; it says which layout it is kept in |
//! | `locks/NAME`, `elections/GROUP` | a container, which the server takes away when it has been empty for a while |
//! | `locks/NAME/ID MODE SEQUENCE` | one request: an ephemeral node, whose place in the sequence is its place in the queue |
//! | `groups/GROUP` | a group; its data version counts the updates of its members |
//! | `groups/GROUP/MEMBER` | a member: an ephemeral node |
//! | `mail/ID` | the mailbox of a session: an ephemeral node, by which others tell it what they took from it |
//! | `sessions` | nothing; it keeps sessions of layout 1 out, which would put their mailboxes there |
//!
//! Paths are short on purpose: a server ends a session by one record with the paths of all its nodes, and that has a limit.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tooz_core::driver::{LockKey, RequestId, Space, decode_name, encode_name};
use tooz_core::{GroupId, LockName, MemberId, Namespace};

use crate::queue;

/// Where all this lies is said by this number; it changes when members that speak the old one would look in other places.
pub(crate) const LAYOUT: u32 = 2;

/// A namespace is cut at this length.
const LONGEST_NAMESPACE: usize = 200;
/// A member is cut at this length: its node tells whose it was when it goes.
const LONGEST_MEMBER: usize = 80;
/// Names of locks and groups that are longer when they are encoded stand there as a hash.
pub(crate) const LONGEST: usize = 32;
/// So much of a hash: 160 bits, 27 letters.
const HASH: usize = 20;
/// It stands before a hash, and in no encoded name.
const HASHED: char = '~';

/// What one path takes beside its letters in the record by which a session ends.
const LENGTH: usize = 4;

/// The paths of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: String,
}

impl Layout {
    pub(crate) fn new(chroot: &str, namespace: &Namespace) -> Self {
        // As in layout 1, so that members of both find the same node and with it the record.
        Layout { root: format!("{chroot}/{}", encode_name(namespace.as_str(), LONGEST_NAMESPACE)) }
    }

    /// The node of the namespace.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// The branch of all locks, or of all elections.
    pub(crate) fn space(&self, space: Space) -> String {
        let branch = match space {
            Space::Lock => "locks",
            Space::Election => "elections",
        };
        format!("{}/{branch}", self.root)
    }

    /// The container of a lock's queue.
    pub(crate) fn queue(&self, key: &LockKey) -> String {
        format!("{}/{}", self.space(key.space), node_of(&key.name))
    }

    /// Takes the path of a request's node apart: the space, the name as it stands there, and whose request it is.
    pub(crate) fn parse_request<'a>(&self, path: &'a str) -> Option<(Space, &'a str, RequestId)> {
        for space in [Space::Lock, Space::Election] {
            let below = path.strip_prefix(&self.space(space)).and_then(|below| below.strip_prefix('/'));
            if let Some((name, node)) = below.and_then(|below| below.split_once('/')) {
                return Some((space, name, queue::parse(node)?.id));
            }
        }
        None
    }

    pub(crate) fn groups(&self) -> String {
        format!("{}/groups", self.root)
    }

    pub(crate) fn group(&self, group: &GroupId) -> String {
        format!("{}/groups/{}", self.root, node_of(group.as_str()))
    }

    pub(crate) fn member(&self, group: &GroupId, member: &MemberId) -> String {
        format!("{}/{}", self.group(group), encode_name(member.as_str(), LONGEST_MEMBER))
    }

    /// The branch of all mailboxes.
    pub(crate) fn mail(&self) -> String {
        format!("{}/mail", self.root)
    }

    /// The mailbox of the session with that id.
    pub(crate) fn mailbox(&self, session: i64) -> String {
        format!("{}/mail/{session:016x}", self.root)
    }

    /// The node that measuring writes to.
    pub(crate) fn scratch(&self, session: i64) -> String {
        format!("{}/mail/{session:016x}-probe", self.root)
    }

    /// Where sessions of layout 1 have their mailboxes. In this layout no session may make a node there.
    pub(crate) fn stop_sign(&self) -> String {
        format!("{}/sessions", self.root)
    }

    /// What the node of a request takes in the record by which its session ends.
    pub(crate) fn weight_of_request(&self, key: &LockKey) -> usize {
        weight(&self.queue(key)) + 1 + queue::LONGEST
    }
}

/// What a node with that path takes in the record by which its session ends.
pub(crate) fn weight(path: &str) -> usize {
    path.len() + LENGTH
}

/// How a name stands in a path: encoded, or where that would be long, as a hash. Then the full name stands in the node's data, or below it.
fn node_of(name: &str) -> String {
    let encoded = encode_name(name, usize::MAX);
    if encoded.len() <= LONGEST {
        return encoded.into_owned();
    }
    let hash = Sha256::digest(name.as_bytes());
    format!("{HASHED}{}", BASE64_URL_SAFE_NO_PAD.encode(&hash[..HASH]))
}

/// The name of a lock or a group that stands so in a path; `None` for a hash, and for what is none of ours.
pub(crate) fn name_at(node: &str) -> Option<String> {
    decode_name(node).filter(|_| node.len() <= LONGEST)
}

/// Whether that name of a lock or a group stands so in a path.
pub(crate) fn stands_at(name: &str, node: &str) -> bool {
    node_of(name) == node
}

/// The member that stands so in a path; `None` where the name was too long for it.
pub(crate) fn member_at(node: &str) -> Option<MemberId> {
    decode_name(node).and_then(|name| MemberId::new(name).ok())
}

/// The lock of that name; `None` where no lock can have it.
pub(crate) fn key_of(space: Space, name: String) -> Option<LockKey> {
    match space {
        Space::Lock => LockName::new(name).ok().map(|name| LockKey::lock(&name)),
        Space::Election => GroupId::new(name).ok().map(|group| LockKey::election(&group)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout() -> Layout {
        Layout::new("/a", &Namespace::new("tooz").unwrap())
    }

    #[test]
    fn the_path_of_a_request_tells_whose_it_is() {
        let layout = layout();
        let queue = layout.queue(&LockKey::lock(&LockName::new("../x").unwrap()));
        assert_eq!(queue, "/a/tooz/locks/%2e.%2fx");
        let path = format!("{queue}/{}0000000007", queue::prefix(RequestId(9), tooz_core::LockMode::Exclusive));
        assert_eq!(layout.parse_request(&path), Some((Space::Lock, "%2e.%2fx", RequestId(9))));
        assert_eq!(layout.parse_request("/a/tooz/groups/g/m"), None);
    }

    #[test]
    fn long_names_are_short_and_stay_distinct() {
        let short = "x".repeat(LONGEST);
        assert_eq!(node_of(&short), short);
        let long: Vec<String> = ["a", "b", "A"].iter().map(|end| node_of(&("x".repeat(254) + end))).collect();
        assert!(long.iter().all(|node| node.len() == 28 && node.starts_with(HASHED) && name_at(node).is_none()));
        assert!(long[0] != long[1] && long[0] != long[2] && long[1] != long[2]);
    }

    #[test]
    fn ten_thousand_locks_of_any_name_weigh_less_than_a_megabyte() {
        for name in ["x".repeat(255), "x".repeat(LONGEST), "Ä".repeat(100)] {
            let key = LockKey::lock(&LockName::new(name).unwrap());
            assert!(layout().weight_of_request(&key) * 10_000 < 1_000_000, "{}", layout().weight_of_request(&key));
        }
    }

    proptest! {
        #[test]
        fn no_path_of_others_panics(path: String, node: String) {
            let layout = layout();
            let _ = layout.parse_request(&path);
            let _ = layout.parse_request(&format!("/a/tooz/locks/{node}/{path}"));
            if let Some(name) = name_at(&node) {
                prop_assert_eq!(node_of(&name), &*node);
            }
            if let Some(member) = member_at(&node) {
                prop_assert_eq!(encode_name(member.as_str(), usize::MAX), node);
            }
        }

        #[test]
        fn a_name_reads_back_the_same_or_is_a_hash(name in "\\PC{1,60}", id: u128, sequence: i32) {
            let Ok(lock) = LockName::new(&*name) else { return Ok(()) };
            let (layout, key) = (layout(), LockKey::lock(&lock));
            let queue = layout.queue(&key);
            let node = queue.rsplit_once('/').unwrap().1;
            match name_at(node) {
                Some(read) => prop_assert_eq!(key_of(Space::Lock, read), Some(key.clone())),
                None => prop_assert!(node.starts_with(HASHED)),
            }
            let path = format!("{queue}/{}{sequence:010}", queue::prefix(RequestId(id), tooz_core::LockMode::Shared));
            prop_assert_eq!(layout.parse_request(&path), Some((Space::Lock, node, RequestId(id))));
            prop_assert!(weight(&path) <= layout.weight_of_request(&key));
        }

        #[test]
        fn a_member_reads_back_the_same_or_not_at_all(name in "\\PC{1,60}") {
            let (Ok(member), group) = (MemberId::new(&*name), GroupId::new("g").unwrap()) else { return Ok(()) };
            let path = layout().member(&group, &member);
            let read = member_at(path.rsplit_once('/').unwrap().1);
            prop_assert!(read.is_none() && name.len() * 3 > LONGEST_MEMBER || read == Some(member));
        }
    }
}
