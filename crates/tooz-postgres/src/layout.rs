//! Where things lie at the server: the version of the layout, the tables, the 64 bits by which PostgreSQL knows an advisory lock, and the channels
//! of notifications.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tooz_core::driver::{LockKey, Mutex, Space};
use tooz_core::{GroupId, LockMode};

/// The layout of the tables and of the keys of locks. Members of different layouts would not exclude each other.
pub(crate) const LAYOUT: i32 = 1;
/// What was added to the layout so far. What had no record is the first revision: its functions were those of before there were any.
pub(crate) const REVISION: i32 = 3;

/// The tables that members read and change.
pub(crate) const TABLES: [&str; 4] = ["groups", "sessions", "members", "grants"];

/// The keys of one namespace in one schema. All are hashes of 64 bits: among a million names two share one with a chance of
/// 1 in 37 million, and the stored name tells when it happens (`acquire.sql`).
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    schema: String,
    namespace: String,
    /// A lock that is asked for again is not hashed anew.
    known: Arc<Mutex<KnownDoors>>,
}

/// The doors of the locks that were asked for last: at least so many as there may be young ones, at most twice as many.
#[derive(Debug, Default)]
struct KnownDoors {
    young: HashMap<LockKey, Doors>,
    /// What was young when the last one more would have been too many.
    old: HashMap<LockKey, Doors>,
}

impl KnownDoors {
    const MOST_YOUNG: usize = 1024;

    fn find(&mut self, key: &LockKey) -> Option<Doors> {
        if let Some(doors) = self.young.get(key) {
            return Some(*doors);
        }
        // What is still asked for becomes young again.
        let (key, doors) = self.old.remove_entry(key)?;
        self.add(key, doors);
        Some(doors)
    }

    fn add(&mut self, key: LockKey, doors: Doors) {
        if self.young.len() >= Self::MOST_YOUNG {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, doors);
    }
}

/// The two advisory locks behind one lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doors {
    /// A waiting request holds this one, so that no other request passes.
    pub(crate) gate: i64,
    /// This one is the lock.
    pub(crate) lock: i64,
}

impl Layout {
    pub(crate) fn new(schema: &str, namespace: &str) -> Self {
        Layout { schema: schema.to_owned(), namespace: namespace.to_owned(), known: Arc::default() }
    }

    pub(crate) fn doors(&self, key: &LockKey) -> Doors {
        if let Some(doors) = self.known.lock().find(key) {
            return doors;
        }
        let space = space(key.space);
        let doors = Doors {
            gate: hash(&[&self.schema, "gate", &self.namespace, space, &key.name]),
            lock: hash(&[&self.schema, "lock", &self.namespace, space, &key.name]),
        };
        self.known.lock().add(key.clone(), doors);
        doors
    }

    pub(crate) fn group(&self, group: &GroupId) -> i64 {
        hash(&[&self.schema, "group", &self.namespace, group.as_str()])
    }

    /// What every open session of the schema holds in shared mode: as long as one does, the counter is high enough.
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

/// A number for a session that no other session has had before: 64 random bits.
pub(crate) fn fresh_session() -> i64 {
    RandomState::new().hash_one("session").cast_signed()
}

/// The pair of numbers that a waiting connection holds, in the other key space of advisory locks, as long as it waits: whose it is and in which mode
/// it waits. `waiters.sql` reads it: the session's number, or its complement for a shared lock.
pub(crate) fn waits(session: i64, mode: LockMode) -> (i32, i32) {
    let bits = match mode {
        LockMode::Exclusive => session,
        LockMode::Shared => !session,
    };
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    ((bits >> 32) as i32, bits as i32)
}

/// The channel on which news of that key are told; `schema.sql` makes the same name.
pub(crate) fn channel(key: i64) -> String {
    format!("tooz_{:016x}", key.cast_unsigned())
}

/// A space's name in the tables.
pub(crate) const fn space(space: Space) -> &'static str {
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

    use proptest::prelude::*;
    use tooz_core::LockName;

    use super::*;

    #[test]
    fn different_things_have_different_keys() {
        let mut seen = HashSet::new();
        for schema in ["tooz", "other"] {
            for namespace in ["a", "b"] {
                let layout = Layout::new(schema, namespace);
                for name in ["lock-2", "lock-137", "Ä", "a/b"] {
                    let lock = layout.doors(&LockKey::lock(&LockName::new(name).unwrap()));
                    let election = layout.doors(&LockKey::election(&GroupId::new(name).unwrap()));
                    for key in [lock.gate, lock.lock, election.gate, election.lock] {
                        assert!(seen.insert(key), "{name}");
                    }
                    assert!(seen.insert(layout.group(&GroupId::new(name).unwrap())), "{name}");
                }
            }
            let layout = Layout::new(schema, "");
            assert!(seen.insert(layout.lifted()) && seen.insert(layout.lifting()) && seen.insert(creating(schema)));
        }
    }

    /// Members of all versions have to agree on them.
    #[test]
    fn a_key_stays_what_it_is() {
        let doors = Layout::new("tooz", "tooz").doors(&LockKey::lock(&LockName::new("x").unwrap()));
        assert_eq!((doors.gate, doors.lock), (-2_251_314_548_438_393_366, 7_409_617_851_468_205_002));
    }

    #[test]
    fn a_lock_that_is_asked_for_again_is_known_and_few_others_are() {
        let layout = Layout::new("tooz", "tooz");
        let key = |index: usize| LockKey::lock(&LockName::new(format!("lock-{index}")).unwrap());
        let kept = layout.doors(&key(0));
        for index in 1..5 * KnownDoors::MOST_YOUNG {
            layout.doors(&key(index));
            if index % 100 == 0 {
                assert_eq!(layout.doors(&key(0)), kept);
                assert!(layout.known.lock().find(&key(0)).is_some(), "it is hashed anew");
            }
        }
        let known = layout.known.lock();
        assert!(known.young.len() + known.old.len() <= 2 * KnownDoors::MOST_YOUNG);
        assert_eq!(Layout::new("tooz", "tooz").doors(&key(0)), kept);
    }

    #[test]
    fn a_channel_is_what_the_server_makes_of_the_key() {
        assert_eq!(channel(10), "tooz_000000000000000a");
        assert_eq!(channel(-1), "tooz_ffffffffffffffff");
    }

    proptest! {
        /// As PostgreSQL shows the pair in `pg_locks`, and `waiters.sql` puts it together.
        #[test]
        fn a_wait_tells_its_session_and_its_mode(session: i64) {
            let of = |(high, low): (i32, i32)| (i64::from(high.cast_unsigned()) << 32) | i64::from(low.cast_unsigned());
            prop_assert_eq!(of(waits(session, LockMode::Exclusive)), session);
            prop_assert_eq!(!of(waits(session, LockMode::Shared)), session);
        }

        #[test]
        fn parts_of_a_name_do_not_run_into_each_other(name in ".{0,20}", at in 0_usize..20) {
            let at = name.char_indices().map(|(index, _)| index).nth(at).unwrap_or(0);
            if at > 0 {
                prop_assert_ne!(hash(&[&name[..at], &name[at..]]), hash(&[&name, ""]));
            }
        }
    }
}
