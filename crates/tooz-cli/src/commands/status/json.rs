//! A snapshot as one JSON value.

use serde_json::{Value, json};

use super::super::watch;
use super::health::Health;
use super::snapshot::{GroupStatus, LockStatus, Snapshot};
use crate::speech::locks::{holder, waiter};
use crate::speech::utc;

pub(super) fn value(snapshot: &Snapshot, health: &Health) -> Value {
    json!({
        "at": utc(snapshot.taken),
        "driver": health.driver(),
        "member": health.member(),
        "session": health.json(),
        "groups": snapshot.groups.known().map(|groups| groups.iter().map(group).collect::<Vec<_>>()),
        "locks": snapshot.locks.known().map(|locks| locks.iter().map(lock).collect::<Vec<_>>()),
        "untold": untold(snapshot),
    })
}

fn group(group: &GroupStatus) -> Value {
    json!({
        "group": group.name.as_str(),
        "leader": watch::leader(group.leader.as_ref()),
        "members": group.members.iter().map(watch::member).collect::<Vec<_>>(),
    })
}

fn lock(lock: &LockStatus) -> Value {
    json!({
        "lock": lock.name.as_str(),
        "holders": lock.queue.holders.iter().map(holder).collect::<Vec<_>>(),
        "waiters": lock.queue.waiters.as_ref().map(|waiters| waiters.iter().map(waiter).collect::<Vec<_>>()),
    })
}

/// What the backend does not say, and why.
fn untold(snapshot: &Snapshot) -> Vec<Value> {
    let mut untold = Vec::new();
    let sections = [("groups", snapshot.groups.why()), ("locks", snapshot.locks.why())];
    untold.extend(sections.iter().filter_map(|(about, why)| Some(json!({ "about": about, "why": (*why)? }))));
    if snapshot.locks.known().into_iter().flatten().any(|lock| lock.queue.waiters.is_none()) {
        untold.push(json!({ "about": "waiters", "why": super::tables::NO_WAITERS }));
    }
    untold.push(json!({ "about": "age of members", "why": super::tables::NO_AGE }));
    untold
}
