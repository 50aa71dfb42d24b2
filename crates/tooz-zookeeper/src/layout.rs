//! Where everything lies: the namespace is one node, with a branch each for locks, elections, groups and sessions.
//!
//! | node | what it is |
//! |---|---|
//! | `locks/NAME`, `elections/GROUP` | a container, which the server takes away when nobody has been in it for a while |
//! | `locks/NAME/ID-MODE-SEQUENCE` | one request: an ephemeral node, whose place in the sequence is its place in the queue |
//! | `groups/GROUP` | a group; its data version counts the updates of its members |
//! | `groups/GROUP/MEMBER` | a member: an ephemeral node |
//! | `sessions/ID` | the mailbox of a session: an ephemeral node, by which others tell it what they took from it |

use tooz_core::{GroupId, LockKey, MemberId, Namespace, RequestId, Space, encode_name};

use crate::queue;

/// Names are cut at this length. Nothing in ZooKeeper asks for it, but paths are sent with every request.
const LONGEST: usize = 200;

/// The paths of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: String,
}

impl Layout {
    pub(crate) fn new(chroot: &str, namespace: &Namespace) -> Self {
        Layout { root: format!("{chroot}/{}", encode_name(namespace.as_str(), LONGEST)) }
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
        format!("{}/{}", self.space(key.space), encode_name(&key.name, LONGEST))
    }

    /// Takes the path of a request's node apart: the space, the encoded name, and whose request it is.
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
        format!("{}/groups/{}", self.root, encode_name(group.as_str(), LONGEST))
    }

    pub(crate) fn member(&self, group: &GroupId, member: &MemberId) -> String {
        format!("{}/{}", self.group(group), encode_name(member.as_str(), LONGEST))
    }

    /// The mailbox of the session with that id.
    pub(crate) fn mailbox(&self, session: i64) -> String {
        format!("{}/sessions/{session:016x}", self.root)
    }

    /// The node that measuring writes to.
    pub(crate) fn scratch(&self, session: i64) -> String {
        format!("{}/sessions/{session:016x}-probe", self.root)
    }
}

#[cfg(test)]
mod tests {
    use tooz_core::LockName;

    use super::*;

    #[test]
    fn the_path_of_a_request_tells_whose_it_is() {
        let layout = Layout::new("/a", &Namespace::new("tooz").unwrap());
        let queue = layout.queue(&LockKey::lock(&LockName::new("../x").unwrap()));
        assert_eq!(queue, "/a/tooz/locks/%2e.%2fx");
        let path = format!("{queue}/{}-x-0000000007", RequestId(9));
        assert_eq!(layout.parse_request(&path), Some((Space::Lock, "%2e.%2fx", RequestId(9))));
        assert_eq!(layout.parse_request("/a/tooz/groups/g/m"), None);
    }
}
