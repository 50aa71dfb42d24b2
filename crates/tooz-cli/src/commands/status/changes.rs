//! What changed from one look to the next, and since when a member has been seen.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use tooz::driver::RequestId;

use super::snapshot::{GroupStatus, LockStatus, Snapshot};

/// So many changes are remembered.
const REMEMBERED: usize = 200;

/// Which membership: one that left and came back is another.
type Seen = (String, String, RequestId);

#[derive(Default)]
pub(super) struct History {
    /// The newest first.
    changes: VecDeque<(SystemTime, String)>,
    first_seen: BTreeMap<String, Vec<(Seen, SystemTime)>>,
    facts: Option<Facts>,
}

/// That something is there, where there is no more to say of it.
type Presence = bool;

/// What can change, each under its name.
#[derive(Default, PartialEq)]
struct Facts {
    groups: BTreeMap<String, Presence>,
    members: BTreeMap<(String, String), String>,
    leaders: BTreeMap<String, String>,
    holders: BTreeMap<(String, String), String>,
    waiters: BTreeMap<(String, String), Presence>,
}

impl History {
    /// Takes note of a snapshot, and of what is another than in the one before.
    pub(super) fn note(&mut self, snapshot: &Snapshot) {
        let (Some(groups), locks) = (snapshot.groups.known(), snapshot.locks.known().unwrap_or_default()) else {
            return;
        };
        self.see(groups, snapshot.taken);
        let facts = Facts::of(groups, locks);
        if let Some(before) = self.facts.replace(facts) {
            let now = self.facts.as_ref().map(|now| now.changes_since(&before)).unwrap_or_default();
            for change in now {
                self.changes.push_front((snapshot.taken, change));
            }
            self.changes.truncate(REMEMBERED);
        }
    }

    /// Takes note of something that was said.
    pub(super) fn add(&mut self, moment: SystemTime, words: String) {
        self.changes.push_front((moment, words));
        self.changes.truncate(REMEMBERED);
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = &(SystemTime, String)> {
        self.changes.iter()
    }

    /// Since when this membership has been seen.
    pub(super) fn first_seen(&self, group: &str, member: &str) -> Option<SystemTime> {
        let of_group = self.first_seen.get(group)?;
        of_group.iter().find(|((_, name, _), _)| name == member).map(|(_, since)| *since)
    }

    fn see(&mut self, groups: &[GroupStatus], now: SystemTime) {
        let mut seen = BTreeMap::new();
        for group in groups {
            let name = group.name.to_string();
            let before = self.first_seen.remove(&name).unwrap_or_default();
            let since = |key: &Seen| before.iter().find(|(one, _)| one == key).map_or(now, |(_, since)| *since);
            let members = group.members.iter().map(|entry| (name.clone(), entry.member.to_string(), entry.id));
            seen.insert(name.clone(), members.map(|key| (key.clone(), since(&key))).collect());
        }
        self.first_seen = seen;
    }
}

impl Facts {
    fn of(groups: &[GroupStatus], locks: &[LockStatus]) -> Self {
        let mut facts = Facts::default();
        for group in groups {
            let name = group.name.to_string();
            for entry in &group.members {
                facts.members.insert((name.clone(), entry.member.to_string()), entry.capabilities.as_json().to_owned());
            }
            if let Some(leader) = &group.leader {
                facts.leaders.insert(name.clone(), format!("{} (epoch {})", leader.member, leader.epoch));
            }
            facts.groups.insert(name, true);
        }
        for lock in locks {
            let name = lock.name.to_string();
            for holder in &lock.queue.holders {
                let key = (name.clone(), holder.member.to_string());
                facts.holders.insert(key, format!("{}, token {}", holder.mode.name(), holder.token));
            }
            for waiter in lock.queue.waiters.iter().flatten() {
                facts.waiters.insert((name.clone(), waiter.member.to_string()), true);
            }
        }
        facts
    }

    /// In the order in which they mostly follow from each other.
    fn changes_since(&self, before: &Facts) -> Vec<String> {
        let mut changes = Vec::new();
        compare(&before.groups, &self.groups, |group, before, now| match (before, now) {
            (None, Some(_)) => changes.push(format!("group {group} was created")),
            (Some(_), None) => changes.push(format!("group {group} was deleted")),
            _ => {}
        });
        compare(&before.members, &self.members, |(group, member), before, now| match (before, now) {
            (None, Some(_)) => changes.push(format!("{member} joined {group}")),
            (Some(_), None) => changes.push(format!("{member} left {group}")),
            (_, Some(now)) => changes.push(format!("{member} in {group} says {now}")),
            _ => {}
        });
        compare(&before.leaders, &self.leaders, |group, _, now| match now {
            Some(leader) => changes.push(format!("{leader} leads {group}")),
            None => changes.push(format!("{group} has no leader")),
        });
        compare(&before.waiters, &self.waiters, |(lock, member), _, now| {
            if now.is_some() {
                changes.push(format!("{member} waits for {lock}"));
            }
        });
        compare(&before.holders, &self.holders, |(lock, member), _, now| match now {
            Some(grant) => changes.push(format!("{member} has {lock} ({grant})")),
            None => changes.push(format!("{member} has {lock} no more")),
        });
        changes
    }
}

/// Calls for each name that has another value than before.
fn compare<K: Ord + Clone, V: PartialEq>(
    before: &BTreeMap<K, V>,
    now: &BTreeMap<K, V>,
    mut differs: impl FnMut(&K, Option<&V>, Option<&V>),
) {
    let gone = before.keys().filter(|name| !now.contains_key(name));
    for name in gone.chain(now.keys()) {
        let (then, now) = (before.get(name), now.get(name));
        if then != now {
            differs(name, then, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(members: &[(&str, &str)], leader: Option<&str>) -> Facts {
        let mut facts = Facts::default();
        facts.groups.insert("g".to_owned(), true);
        for (member, capabilities) in members {
            facts.members.insert(("g".to_owned(), (*member).to_owned()), (*capabilities).to_owned());
        }
        facts.leaders.extend(leader.map(|leader| ("g".to_owned(), leader.to_owned())));
        facts
    }

    #[test]
    fn what_changed_is_told_in_words() {
        let before = facts(&[("a", "null"), ("b", "1")], Some("a (epoch 1)"));
        let now = facts(&[("b", "2"), ("c", "null")], None);
        assert_eq!(now.changes_since(&before), ["a left g", "b in g says 2", "c joined g", "g has no leader"]);
        assert!(now.changes_since(&now).is_empty());
        assert_eq!(Facts::default().changes_since(&facts(&[], None)), ["group g was deleted"]);
    }
}
