//! What happens to a lock.

use std::time::SystemTime;

use serde_json::{Value, json};
use tooz::{Holder, LockGuard, LockName, MemberId, Waiter};

use super::event::Event;
use super::stamp;

/// Who is in the way, as far as the backend tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) holders: Vec<Holder>,
    /// First come first; `None` where the backend does not tell.
    pub(crate) waiters: Option<Vec<Waiter>>,
}

/// Who asks for a lock.
pub(crate) struct Asker<'a> {
    member: &'a MemberId,
    /// Whether this command is a part of what another `tooz` runs under that lock.
    is_under_it: bool,
}

impl<'a> Asker<'a> {
    pub(crate) fn of(lock: &LockName, member: &'a MemberId) -> Self {
        let is_under_it = std::env::var("TOOZ_LOCK").is_ok_and(|name| name == lock.as_str());
        Asker { member, is_under_it }
    }

    /// What there is to say where the holder is the one that asks.
    fn about(&self, holder: &Holder) -> &'static str {
        match self.is_under_it {
            _ if holder.member != *self.member => "",
            true => ": the tooz that this command runs under, which holds it until its CMD has ended",
            false => ": the same member as this command, by --member or TOOZ_MEMBER",
        }
    }
}

/// It was not to be had; who has it, as far as that is known.
pub(crate) fn not_acquired(lock: &LockName, holders: Vec<Holder>, asker: &Asker<'_>) -> String {
    if holders.is_empty() {
        return format!("lock {lock:?} is held by another");
    }
    format!("lock {lock:?} is {}", in_the_way(&Queue { holders, waiters: None }, asker))
}

/// It is held by others, who are named.
pub(crate) fn waiting(lock: &LockName, queue: &Queue, asker: &Asker<'_>) -> Event {
    let waiters = queue.waiters.as_ref().map(|waiters| waiters.iter().map(waiter).collect::<Vec<_>>());
    let event = Event::new("waiting", format!("waiting for lock {lock:?}, {}", in_the_way(queue, asker)));
    event
        .with("lock", lock.as_str())
        .with("holders", queue.holders.iter().map(holder).collect::<Vec<_>>())
        .with("waiters", waiters)
}

/// Who holds it and how many wait, in words.
fn in_the_way(queue: &Queue, asker: &Asker<'_>) -> String {
    let holders = match queue.holders.as_slice() {
        [] => "which had no holder when this was asked".to_owned(),
        [one] => format!("held by {}{}", holder_in_words(one), asker.about(one)),
        [one, rest @ ..] => format!("held by {} and {} more", holder_in_words(one), rest.len()),
    };
    // One of them may be this one.
    match queue.waiters.as_ref().map_or(0, Vec::len) {
        0 | 1 => holders,
        count => format!("{holders}; {count} wait for it"),
    }
}

fn holder_in_words(holder: &Holder) -> String {
    let since = holder.since.map(|since| format!(" since {}", stamp::local(since))).unwrap_or_default();
    let pid = holder.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
    format!("{:?}{since} ({}, token {}{pid})", holder.member, holder.mode.name(), holder.token)
}

pub(crate) fn acquired(lock: &LockName, guard: &LockGuard) -> Event {
    let (mode, token) = (guard.mode().name(), guard.fencing_token());
    let event = Event::new("acquired", format!("acquired lock {lock:?} ({mode}, token {token})"));
    event.with("lock", lock.as_str()).with("mode", mode).with("token", token.0)
}

pub(crate) fn released(lock: &LockName) -> Event {
    Event::new("released", format!("released lock {lock:?}")).with("lock", lock.as_str()).for_programs()
}

/// It was told when it happened, and is the reason of the command's end: no person needs it twice.
pub(crate) fn lost(lock: &LockName, why: &str) -> Event {
    let event = Event::new("lost", format!("lock {lock:?} was lost: {why}"));
    event.with("lock", lock.as_str()).with("why", why).for_programs()
}

/// A holder as it stands in lists and events.
pub(crate) fn holder(holder: &Holder) -> Value {
    json!({
        "member": holder.member.as_str(),
        "mode": holder.mode.name(),
        "token": holder.token.0,
        "since": time(holder.since),
        "pid": holder.pid,
    })
}

/// A waiter as it stands in lists and events.
pub(crate) fn waiter(waiter: &Waiter) -> Value {
    json!({ "member": waiter.member.as_str(), "mode": waiter.mode.name(), "since": time(waiter.since) })
}

fn time(time: Option<SystemTime>) -> Option<String> {
    time.map(stamp::utc)
}

#[cfg(test)]
mod tests {
    use tooz::{FencingToken, LockMode, MemberId};

    use super::*;

    fn held_by(name: &str) -> Holder {
        Holder::new(MemberId::new(name).unwrap(), LockMode::Exclusive, FencingToken(7)).pid(12)
    }

    #[test]
    fn a_waiter_is_told_who_is_in_the_way() {
        let (member, other) = (MemberId::new("a").unwrap(), MemberId::new("b").unwrap());
        let asker = |member, is_under_it| Asker { member, is_under_it };
        let alone = Queue { holders: vec![held_by("a")], waiters: None };
        assert_eq!(in_the_way(&alone, &asker(&other, true)), "held by \"a\" (exclusive, token 7, pid 12)");
        assert!(
            in_the_way(&alone, &asker(&member, true))
                .ends_with(" 12): the tooz that this command runs under, which holds it until its CMD has ended")
        );
        assert!(
            in_the_way(&alone, &asker(&member, false))
                .ends_with(" 12): the same member as this command, by --member or TOOZ_MEMBER")
        );
        let waiter = Waiter::new(MemberId::new("w").unwrap(), LockMode::Shared);
        let crowd = Queue { holders: vec![held_by("a"), held_by("b")], waiters: Some(vec![waiter.clone(), waiter]) };
        assert_eq!(
            in_the_way(&crowd, &asker(&other, false)),
            "held by \"a\" (exclusive, token 7, pid 12) and 1 more; 2 wait for it"
        );
        assert_eq!(in_the_way(&Queue::default(), &asker(&other, false)), "which had no holder when this was asked");
    }
}
