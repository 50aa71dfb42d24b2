//! From a name to the 64 bits by which PostgreSQL knows an advisory lock, and to the channel of its news.

use std::hash::{BuildHasher as _, RandomState};

use sha2::{Digest as _, Sha256};
use tooz_core::GroupId;
use tooz_core::driver::{LockKey, Space};

/// The keys of one namespace in one schema. All are hashes of 64 bits: among a million names two share one with a chance of
/// 1 in 37 million, and the stored name tells when it happens (`acquire.sql`).
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    schema: String,
    namespace: String,
}

/// The two advisory locks behind one lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doors {
    /// Who waits holds this one, so that nobody passes.
    pub(crate) gate: i64,
    /// This one is the lock.
    pub(crate) lock: i64,
}

impl Keys {
    pub(crate) fn new(schema: &str, namespace: &str) -> Self {
        Keys { schema: schema.to_owned(), namespace: namespace.to_owned() }
    }

    pub(crate) fn doors(&self, key: &LockKey) -> Doors {
        let space = space(key.space);
        Doors {
            gate: hash(&[&self.schema, "gate", &self.namespace, space, &key.name]),
            lock: hash(&[&self.schema, "lock", &self.namespace, space, &key.name]),
        }
    }

    pub(crate) fn group(&self, group: &GroupId) -> i64 {
        hash(&[&self.schema, "group", &self.namespace, group.as_str()])
    }

    /// What every open session of the schema holds in shared mode: as long as anybody does, the counter is high enough.
    pub(crate) fn lifted(&self) -> i64 {
        hash(&[&self.schema, "lifted"])
    }

    /// What keeps two sessions from opening at the same moment.
    pub(crate) fn lifting(&self) -> i64 {
        hash(&[&self.schema, "lifting"])
    }
}

/// What keeps two sessions from creating the same tables at the same moment.
pub(crate) fn creating(schema: &str) -> i64 {
    hash(&[schema, "creating"])
}

/// A number for a session that nobody has had before: 64 random bits.
pub(crate) fn fresh_session() -> i64 {
    RandomState::new().hash_one("session").cast_signed()
}

/// The channel on which news of that key are told; `schema.sql` makes the same name.
pub(crate) fn channel(key: i64) -> String {
    format!("tooz_{:016x}", key.cast_unsigned())
}

/// A space's name in the tables.
pub(crate) fn space(space: Space) -> &'static str {
    match space {
        Space::Lock => "lock",
        Space::Election => "election",
    }
}

fn hash(parts: &[&str]) -> i64 {
    let mut digest = Sha256::new();
    for part in parts {
        // With its length in front no part can pass for the end of another.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let bytes = digest.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    i64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tooz_core::LockName;

    use super::*;

    #[test]
    fn different_things_have_different_keys() {
        let mut seen = HashSet::new();
        for schema in ["tooz", "other"] {
            for namespace in ["a", "b"] {
                let keys = Keys::new(schema, namespace);
                for name in ["lock-2", "lock-137", "Ä", "a/b"] {
                    let lock = keys.doors(&LockKey::lock(&LockName::new(name).unwrap()));
                    let election = keys.doors(&LockKey::election(&GroupId::new(name).unwrap()));
                    for key in [lock.gate, lock.lock, election.gate, election.lock] {
                        assert!(seen.insert(key), "{name}");
                    }
                    assert!(seen.insert(keys.group(&GroupId::new(name).unwrap())), "{name}");
                }
            }
            let keys = Keys::new(schema, "");
            assert!(seen.insert(keys.lifted()) && seen.insert(keys.lifting()) && seen.insert(creating(schema)));
        }
    }

    #[test]
    fn a_channel_is_what_the_server_makes_of_the_key() {
        assert_eq!(channel(10), "tooz_000000000000000a");
        assert_eq!(channel(-1), "tooz_ffffffffffffffff");
    }
}
