//! The order of a lock's queue, read off the names of its nodes. Nothing here asks the server.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tooz_core::LockMode;
use tooz_core::driver::RequestId;

/// The letters of a request id: its sixteen bytes by base64.
const ID: usize = 22;

/// The longest name of a request's node: a sequence has ten digits, and a sign once it has wrapped around.
pub(crate) const LONGEST: usize = ID + 1 + 11;

/// One request's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueNode<'a> {
    pub(crate) id: RequestId,
    pub(crate) mode: LockMode,
    sequence: i64,
    pub(crate) name: &'a str,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position<'a> {
    /// Nothing is in its way.
    Mine,
    /// It has to wait until this node is gone.
    After(&'a str),
    /// It is not in the queue.
    Absent,
}

/// The name of a request's node, without the sequence that the server appends.
pub(crate) fn prefix(id: RequestId, mode: LockMode) -> String {
    let letter = match mode {
        LockMode::Exclusive => 'x',
        LockMode::Shared => 's',
    };
    format!("{}{letter}", BASE64_URL_SAFE_NO_PAD.encode(id.0.to_be_bytes()))
}

/// Reads the name of a node; `None` for what is no request of ours.
pub(crate) fn parse(name: &str) -> Option<QueueNode<'_>> {
    let (id, rest) = name.split_at_checked(ID)?;
    let mode = match rest.get(..1)? {
        "x" => LockMode::Exclusive,
        "s" => LockMode::Shared,
        _ => return None,
    };
    let id = BASE64_URL_SAFE_NO_PAD.decode(id).ok()?.try_into().ok()?;
    Some(QueueNode { id: RequestId(u128::from_be_bytes(id)), mode, sequence: rest[1..].parse().ok()?, name })
}

/// The requests among the children of a queue, first come first.
pub(crate) fn sorted(children: &[String]) -> Vec<QueueNode<'_>> {
    let mut entries: Vec<_> = children.iter().filter_map(|name| parse(name)).collect();
    if let Some(base) = entries.first().map(|entry| entry.sequence) {
        entries.sort_by_key(|entry| distance(base, entry.sequence));
    }
    entries
}

/// How far behind `base` a sequence is. It is a signed 32-bit count, which begins again at its lowest value after the highest;
/// requests that wait at the same time are never half of it apart.
fn distance(base: i64, sequence: i64) -> i64 {
    match (i32::try_from(base), i32::try_from(sequence)) {
        (Ok(base), Ok(sequence)) => i64::from(sequence.wrapping_sub(base)),
        _ => sequence.wrapping_sub(base),
    }
}

/// Whose turn it is from the view of the node `own`: an exclusive request waits for the one just before it, a shared one
/// for the nearest exclusive one before it.
pub(crate) fn position<'a>(children: &'a [String], own: &str) -> Position<'a> {
    let entries = sorted(children);
    let Some(at) = entries.iter().position(|entry| entry.name == own) else { return Position::Absent };
    let mode = entries[at].mode;
    match entries[..at].iter().rev().find(|before| before.mode.conflicts_with(mode)) {
        Some(before) => Position::After(before.name),
        None => Position::Mine,
    }
}

/// The requests that hold the lock: the first, and if it is shared, the shared ones right behind it.
pub(crate) fn holders(children: &[String]) -> Vec<QueueNode<'_>> {
    let mut entries = sorted(children);
    entries.truncate(count_holders(&entries));
    entries
}

/// The requests behind those, first come first.
pub(crate) fn waiters(children: &[String]) -> Vec<QueueNode<'_>> {
    let mut entries = sorted(children);
    entries.drain(..count_holders(&entries));
    entries
}

fn count_holders(entries: &[QueueNode<'_>]) -> usize {
    let shared = entries.iter().take_while(|entry| entry.mode == LockMode::Shared).count();
    shared.max(1).min(entries.len())
}

/// The node of the one request that holds the lock exclusively: until it is gone, no other request holds anything.
pub(crate) fn only_holder(children: &[String]) -> Option<&str> {
    let first = sorted(children).into_iter().next()?;
    (first.mode == LockMode::Exclusive).then_some(first.name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(id: u128, mode: LockMode, sequence: i64) -> String {
        format!("{}{sequence:010}", prefix(RequestId(id), mode))
    }

    #[test]
    fn each_waits_for_the_nearest_one_in_its_way() {
        use LockMode::{Exclusive, Shared};
        let queue = [
            node(5, Exclusive, 9),
            node(1, Shared, 4),
            node(2, Shared, 5),
            node(3, Exclusive, 6),
            node(4, Shared, 8),
            "a stranger's".to_owned(),
        ];
        assert_eq!(position(&queue, &queue[1]), Position::Mine);
        assert_eq!(position(&queue, &queue[2]), Position::Mine);
        assert_eq!(position(&queue, &queue[3]), Position::After(&queue[2]));
        assert_eq!(position(&queue, &queue[4]), Position::After(&queue[3]));
        assert_eq!(position(&queue, &queue[0]), Position::After(&queue[4]));
        assert_eq!(position(&queue, &node(9, Exclusive, 99)), Position::Absent);
        assert_eq!(holders(&queue).iter().map(|entry| entry.id.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(waiters(&queue).iter().map(|entry| entry.id.0).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!((only_holder(&queue), only_holder(&queue[3..])), (None, Some(&*queue[3])));
        assert_eq!(holders(&queue[3..]).iter().map(|entry| entry.id.0).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn the_sequence_wraps_around() {
        let last = node(1, LockMode::Exclusive, i64::from(i32::MAX));
        let first = node(2, LockMode::Exclusive, i64::from(i32::MIN));
        assert!(first.ends_with("x-2147483648") && first.len() == LONGEST);
        for queue in [[last.clone(), first.clone()], [first.clone(), last.clone()]] {
            assert_eq!(position(&queue, &last), Position::Mine);
            assert_eq!(position(&queue, &first), Position::After(&last));
        }
    }

    #[test]
    fn a_strange_node_is_no_request() {
        for name in ["", "x", "lock-0000000001", &"Ä".repeat(20), &node(1, LockMode::Shared, 1).replace('s', "y")] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_children_of_others_panic(children in prop::collection::vec("[A-Za-z0-9_-]{22}[xs]?[+-]?[0-9]{0,20}|\\PC{0,30}", 0..8)) {
            let own = children.first().cloned().unwrap_or_default();
            let _ = (position(&children, &own), only_holder(&children));
            let (held, waiting) = (holders(&children), waiters(&children));
            prop_assert_eq!(held.into_iter().chain(waiting).collect::<Vec<_>>(), sorted(&children));
        }

        #[test]
        fn a_request_reads_back_the_same(id: u128, shared: bool, sequence: i32) {
            let mode = if shared { LockMode::Shared } else { LockMode::Exclusive };
            let name = node(id, mode, i64::from(sequence));
            prop_assert!(name.len() <= LONGEST);
            let expected = QueueNode { id: RequestId(id), mode, sequence: i64::from(sequence), name: &name };
            prop_assert_eq!(parse(&name), Some(expected));
        }

        #[test]
        fn requests_are_in_the_order_in_which_they_came(start: i32, count in 1usize..20, turned in 0usize..20) {
            let came: Vec<_> = (0..count)
                .map(|behind| i64::from(start.wrapping_add(i32::try_from(behind).unwrap())))
                .map(|sequence| node(1, LockMode::Exclusive, sequence))
                .collect();
            let mut children = came.clone();
            children.rotate_left(turned % count);
            prop_assert_eq!(sorted(&children).iter().map(|entry| entry.name.to_owned()).collect::<Vec<_>>(), came);
        }
    }
}
