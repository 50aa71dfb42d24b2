//! Where things lie: the keys below a namespace's prefix, which `common.lua` describes, the channels, and the number of all that.

use tooz_core::driver::{LockKey, Space, decode_name, encode_name};
use tooz_core::{GroupId, MemberId, Namespace};

/// The number of the layout. Members that look in other places do not see each other's locks: a change by which both could hold one lock
/// at once has another number, is refused by `open` of the other version, and needs a way to move in the README. A namespace without a
/// number is from before it was written down, and that was layout 1.
pub(crate) const VERSION: &str = "1";

/// Names are cut by no key: percent-encoding makes at most thrice of 255 bytes.
const LONGEST_NAME: usize = 765;

/// Where one session of one namespace in one database finds everything.
#[derive(Debug)]
pub(crate) struct Layout {
    /// All keys begin with it.
    pub(crate) prefix: String,
    /// All channels begin with it. Channels know no database, so its number is in it.
    pub(crate) channels: String,
    /// The id of the session.
    pub(crate) session: String,
}

/// Whose channel it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// This session's own.
    Session,
    /// Those that watch a group.
    Group,
    /// Those that watch a lock.
    Lock,
}

impl Layout {
    /// The places of a new session.
    pub(crate) fn of_new_session(namespace: &Namespace, database: u8) -> Self {
        let namespace = encode_name(namespace.as_str(), LONGEST_NAME);
        Layout {
            prefix: format!("tooz:{{{namespace}}}:"),
            channels: format!("tooz:{{{namespace}}}@{database}:"),
            session: format!("{:032x}", fastrand::u128(..)),
        }
    }

    pub(crate) fn session_channel(&self) -> String {
        format!("{}c:{}", self.channels, self.session)
    }

    pub(crate) fn group_channel(&self, group: &GroupId) -> String {
        format!("{}g:{}", self.channels, group_name(group))
    }

    pub(crate) fn lock_channel(&self, key: &LockKey) -> String {
        format!("{}{}", self.channels, lock_place(key))
    }

    /// For what that channel is heard; `None`: it is no channel of this namespace.
    pub(crate) fn audience(&self, channel: &str) -> Option<Audience> {
        let place = channel.strip_prefix(self.channels.as_str())?;
        Some(match place.split_once(':')?.0 {
            "c" => Audience::Session,
            "g" => Audience::Group,
            _ => Audience::Lock,
        })
    }
}

/// A lock as it stands in keys: `l:NAME`, or `e:NAME` for an election.
pub(crate) fn lock_place(key: &LockKey) -> String {
    let space = match key.space {
        Space::Lock => 'l',
        Space::Election => 'e',
    };
    format!("{space}:{}", encode_name(&key.name, LONGEST_NAME))
}

/// The lock at that place; `None`: no lock of ours is there.
pub(crate) fn lock_at(place: &str) -> Option<LockKey> {
    let (space, name) = place.split_once(':')?;
    let name = decode_name(name)?;
    match space {
        "l" => Some(LockKey::lock(&name.parse().ok()?)),
        "e" => Some(LockKey::election(&name.parse().ok()?)),
        _ => None,
    }
}

/// A group's name as it stands in keys.
pub(crate) fn group_name(group: &GroupId) -> String {
    encode_name(group.as_str(), LONGEST_NAME).into_owned()
}

/// The group of that name in keys.
pub(crate) fn group_named(name: &str) -> Option<GroupId> {
    GroupId::new(decode_name(name)?).ok()
}

/// A membership as it stands in what a session owns.
pub(crate) fn membership_place(group: &GroupId, member: &MemberId) -> String {
    format!("g:{}\n{member}", group_name(group))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout() -> Layout {
        Layout::of_new_session(&"a namespace".parse().unwrap(), 3)
    }

    #[test]
    fn each_channel_has_its_audience() {
        let layout = layout();
        let group = "c:x".parse().unwrap();
        assert_eq!(layout.audience(&layout.session_channel()), Some(Audience::Session));
        assert_eq!(layout.audience(&layout.group_channel(&group)), Some(Audience::Group));
        assert_eq!(layout.audience(&layout.lock_channel(&LockKey::election(&group))), Some(Audience::Lock));
        assert_eq!(layout.audience("tooz:{other}@3:g:x"), None);
    }

    proptest! {
        #[test]
        fn what_was_named_is_found_again(name in "\\PC{1,60}") {
            if let (Ok(lock), Ok(group)) = (name.parse(), name.parse::<GroupId>()) {
                let (lock, election) = (LockKey::lock(&lock), LockKey::election(&group));
                prop_assert_eq!(lock_at(&lock_place(&lock)), Some(lock));
                prop_assert_eq!(lock_at(&lock_place(&election)), Some(election));
                prop_assert_eq!(group_named(&group_name(&group)), Some(group));
            }
        }

        #[test]
        fn only_what_we_would_write_is_read(text in "([lecg]:)?[%a-z0-9:~\\n]{0,12}|\\PC{0,12}") {
            if let Some(key) = lock_at(&text) {
                prop_assert_eq!(lock_place(&key), text.clone());
            }
            if let Some(group) = group_named(&text) {
                prop_assert_eq!(group_name(&group), text.clone());
            }
            let layout = layout();
            layout.audience(&text);
            layout.audience(&format!("{}{text}", layout.channels));
        }
    }
}
