//! Where things lie: the keys of a namespace, and the number of all that.

use tooz_core::driver::{LockKey, Space, encode_name};
use tooz_core::{GroupId, Namespace};

use crate::journal::SessionId;

/// The number of the layout. Members that look in other places do not see each other's locks: a change by which both could hold one lock
/// at once has another number, and is refused by `open` of the other version.
pub(crate) const VERSION: &str = "1";

/// A key has at most 250 bytes. A name that had to be cut ends in its SHA-256.
const LONGEST_NAMESPACE: usize = 100;
const LONGEST_NAME: usize = 120;

/// Where one namespace has everything.
#[derive(Debug)]
pub(crate) struct Layout {
    prefix: String,
}

impl Layout {
    pub(crate) fn of(namespace: &Namespace) -> Self {
        Layout { prefix: format!("tooz:{}:", encode_name(namespace.as_str(), LONGEST_NAMESPACE)) }
    }

    /// Where the number stands.
    pub(crate) fn version(&self) -> String {
        format!("{}layout", self.prefix)
    }

    /// Where the server's clock is read.
    pub(crate) fn clock(&self) -> String {
        format!("{}clock", self.prefix)
    }

    /// The session: alive as long as it is there. What others tell it stands in it.
    pub(crate) fn session(&self, id: SessionId) -> String {
        format!("{}s:{id}", self.prefix)
    }

    /// The journal of a lock or an election.
    pub(crate) fn lock(&self, key: &LockKey) -> String {
        let space = match key.space {
            Space::Lock => 'l',
            Space::Election => 'e',
        };
        format!("{}{space}:{}", self.prefix, encode_name(&key.name, LONGEST_NAME))
    }

    /// Whether that is the journal of a lock or an election.
    pub(crate) fn is_lock(&self, key: &str) -> bool {
        key.strip_prefix(&self.prefix).is_some_and(|place| place.starts_with(['l', 'e']) && place[1..].starts_with(':'))
    }

    /// The journal of a group.
    pub(crate) fn group(&self, group: &GroupId) -> String {
        format!("{}g:{}", self.prefix, encode_name(group.as_str(), LONGEST_NAME))
    }

    /// The names of groups that are or were there.
    pub(crate) fn groups(&self) -> String {
        format!("{}groups", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_longer_than_the_server_takes() {
        let layout = Layout::of(&"Ä".repeat(100).parse().unwrap());
        let lock = LockKey::lock(&"a name ".repeat(36).parse().unwrap());
        assert!(layout.lock(&lock).len() <= 250);
        assert_ne!(layout.lock(&lock), layout.lock(&LockKey::lock(&"a name ".repeat(35).parse().unwrap())));
    }

    #[test]
    fn a_lock_an_election_and_a_group_of_one_name_are_three_things() {
        let layout = Layout::of(&"tooz".parse().unwrap());
        let (lock, group): (LockKey, GroupId) = (LockKey::lock(&"x y".parse().unwrap()), "x y".parse().unwrap());
        let keys = [layout.lock(&lock), layout.lock(&LockKey::election(&group)), layout.group(&group)];
        assert_eq!(keys, ["tooz:tooz:l:x%20y", "tooz:tooz:e:x%20y", "tooz:tooz:g:x%20y"]);
    }
}
