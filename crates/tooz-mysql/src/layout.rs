//! Where things lie at the server: the version of the layout, the tables, and the names by which the server knows locks.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use tooz_core::GroupId;
use tooz_core::driver::{LockKey, Space};

/// The layout of the tables and of the names of locks. Members of different layouts would not exclude each other.
pub(crate) const LAYOUT: i64 = 1;
/// What was added to the layout so far.
pub(crate) const REVISION: i64 = 1;

/// The tables that members read and change.
pub(crate) const TABLES: [&str; 8] = ["layout", "fence", "groups", "sessions", "members", "grants", "sharers", "waits"];

/// The name of a named lock: a letter that says what it is for, and 40 hexadecimal digits. The servers of one family take names for the same
/// that differ in case or in accents, refuse what is longer than 64 characters, or characters of four bytes: these are the same everywhere.
pub(crate) type Name = Arc<str>;

/// Whether `Tooz` and `tooz` are two databases to a server, or one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cases {
    Apart,
    Alike,
}

/// The names of one namespace in one database.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// As the server quotes it.
    quoted: String,
    /// As it goes into names: the same for all spellings that the server takes for this database, and for no other database.
    database: String,
    namespace: String,
}

/// The named locks behind one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doors {
    /// A waiting request holds this one, so that no other request passes.
    pub(crate) gate: Name,
    /// The holder that has the lock alone holds this one.
    pub(crate) lock: Name,
    /// A reader holds this one that wants to know who holds the lock.
    pub(crate) attention: Name,
}

impl Layout {
    pub(crate) fn new(database: &str, namespace: &str, cases: Cases) -> Self {
        let known = match cases {
            Cases::Apart => database.to_owned(),
            Cases::Alike => database.to_lowercase(),
        };
        Layout { quoted: quoted(database), database: known, namespace: namespace.to_owned() }
    }

    /// A table as it stands in a statement.
    pub(crate) fn table(&self, name: &str) -> String {
        table(&self.quoted, name)
    }

    pub(crate) fn doors(&self, key: &LockKey) -> Doors {
        let name = |kind| hash(kind, &[&self.database, &self.namespace, space(key.space), &key.name]);
        Doors { gate: name('g'), lock: name('x'), attention: name('a') }
    }

    /// A reader holds this one that wants to know all locks of the namespace.
    pub(crate) fn attention(&self) -> Name {
        hash('b', &[&self.database, &self.namespace])
    }

    /// What keeps two sessions of a database from opening at the same moment.
    pub(crate) fn lifting(&self) -> Name {
        hash('l', &[&self.database])
    }

    /// What keeps two sessions of a database from clearing up at the same time.
    pub(crate) fn sweeping(&self) -> Name {
        hash('c', &[&self.database])
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// A name for a session that no other session has had before: it is the named lock by which the session is known to live.
pub(crate) fn fresh_session() -> Name {
    fresh('s')
}

/// A name for a connection that waits.
pub(crate) fn fresh_waiter() -> Name {
    fresh('w')
}

/// What a session holds that has the lock together with others.
pub(crate) fn share(session: &str, lock: &str) -> Name {
    hash('r', &[session, lock])
}

/// What the session's watchdog holds, so that it can be woken.
pub(crate) fn news(session: &str) -> String {
    format!("n{}", session.get(1..).unwrap_or_default())
}

fn fresh(kind: char) -> Name {
    let word = || RandomState::new().hash_one((SystemTime::now(), std::process::id(), fastrand::u64(..)));
    let digits = format!("{:016x}{:016x}{:016x}", word(), word(), word());
    format!("{kind}{}", &digits[..40]).into()
}

/// A space's name in the tables.
pub(crate) const fn space(space: Space) -> &'static str {
    match space {
        Space::Lock => "lock",
        Space::Election => "election",
    }
}

/// A group as it stands in a condition: its namespace and its name.
pub(crate) fn is_group(layout: &Layout, group: &GroupId) -> String {
    let (namespace, name) = (crate::packet::name(layout.namespace()), crate::packet::name(group.as_str()));
    format!("namespace = {namespace} AND name = {name}")
}

/// A table of a database that is quoted already, as it stands in a statement.
pub(crate) fn table(database: &str, name: &str) -> String {
    format!("{database}.`tooz_{name}`")
}

/// The name of a database or an account as it stands in SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn hash(kind: char, parts: &[&str]) -> Name {
    let mut digest = Sha256::new();
    digest.update([kind as u8]);
    for part in parts {
        // With its length in front no part can pass for the end of another.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut name = String::with_capacity(41);
    name.push(kind);
    for byte in &digest.finalize()[..20] {
        use std::fmt::Write as _;
        let _ = write!(name, "{byte:02x}");
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use tooz_core::LockName;

    use super::*;

    #[test]
    fn different_things_have_different_names() {
        let mut seen = HashSet::new();
        for database in ["tooz", "Tooz", "other"] {
            for namespace in ["a", "b"] {
                let layout = Layout::new(database, namespace, Cases::Apart);
                for name in ["abc", "Abc", "Ä", "ä", "a/b", "😀"] {
                    let lock = layout.doors(&LockKey::lock(&LockName::new(name).unwrap()));
                    let election = layout.doors(&LockKey::election(&GroupId::new(name).unwrap()));
                    for name in [lock.gate, lock.lock, lock.attention, election.gate, election.lock] {
                        assert!(name.len() == 41 && name.is_ascii() && seen.insert(name));
                    }
                }
                assert!(seen.insert(layout.attention()));
            }
            let layout = Layout::new(database, "", Cases::Apart);
            assert!(seen.insert(layout.lifting()) && seen.insert(layout.sweeping()));
        }
        assert!((0..1000).all(|_| seen.insert(fresh_session()) && seen.insert(fresh_waiter())));
    }

    /// Members of all versions have to agree on them.
    #[test]
    fn a_name_stays_what_it_is() {
        let key = LockKey::lock(&LockName::new("x").unwrap());
        for (database, cases) in [("tooz", Cases::Apart), ("tooz", Cases::Alike), ("Tooz", Cases::Alike)] {
            let doors = Layout::new(database, "tooz", cases).doors(&key);
            assert_eq!(&*doors.lock, "x737283bdbb84c74dc6f85002595f6e236e05b77b");
        }
    }

    #[test]
    fn the_news_of_a_session_have_its_digits() {
        let session = fresh_session();
        assert_eq!(news(&session)[1..], session[1..]);
    }

    proptest! {
        #[test]
        fn parts_of_a_name_do_not_run_into_each_other(name in ".{0,20}", at in 0_usize..20) {
            let at = name.char_indices().map(|(index, _)| index).nth(at).unwrap_or(0);
            if at > 0 {
                prop_assert_ne!(hash('x', &[&name[..at], &name[at..]]), hash('x', &[&name, ""]));
            }
        }

        /// As the server reads a quoted name: a doubled mark is one, and the first single one ends it.
        #[test]
        fn a_quoted_name_reads_back_the_same(name in ".{0,64}") {
            let inner = quoted(&name);
            let inner = inner.strip_prefix('`').and_then(|inner| inner.strip_suffix('`')).unwrap();
            prop_assert!(!inner.replace("``", "").contains('`'));
            prop_assert_eq!(inner.replace("``", "`"), name);
        }
    }
}
