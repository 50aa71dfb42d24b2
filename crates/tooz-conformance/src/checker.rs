//! The judge of histories: fencing, belief, and linearizability.
//!
//! - **L1, fencing**: tokens of a lock are unique, and a grant that was answered before a conflicting one was asked for has
//!   the smaller token.
//! - **L2, belief**: the spans in which holders believed that they held never overlap for conflicting modes.
//! - **L4, linearizability**: there is an order of all operations, each somewhere between its call and its return, in
//!   which the lock behaves like a lock. The search is Wing and Gong's with Lowe's memory of configurations seen before
//!   ("Testing for linearizability", 2017). A call without an answer may take effect at any later time, or not at all.
//!
//! L3, the guarded resource, is no matter of a history alone: the suite plays it with a [`FenceGate`](tooz_core::FenceGate).

// Long because its own tests are histories, good and bad.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use crate::history::{Attempt, Grant, Mode, Response};

/// A wait whose time is over answers on time and withdraws in the background: until then it is under way, and may even have
/// the lock for a moment. Longer than this would be a leak, in nanoseconds.
const WITHDRAWAL: u64 = 1_000_000_000;

/// How long before the first wrong answer something is still worth telling, in nanoseconds.
const NEAR: u64 = 3_000_000;

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// Judges a history by L1, L2 and L4.
pub fn check(attempts: &[Attempt]) -> Result<(), Violation> {
    fencing(attempts)?;
    belief(attempts)?;
    linearizability(attempts)
}

/// L1: tokens are unique, and grow from a grant to every later one that conflicts with it.
pub fn fencing(attempts: &[Attempt]) -> Result<(), Violation> {
    for (index, (one, grant)) in grants(attempts).enumerate() {
        for (other, later) in grants(attempts).skip(index + 1).filter(|(other, _)| other.lock == one.lock) {
            if grant.token == later.token {
                return Err(violation("L1: two grants have one token", one, other));
            }
            if !one.mode.conflicts_with(other.mode) {
                continue;
            }
            if grant.at < other.asked && grant.token > later.token {
                return Err(violation("L1: the later grant has the smaller token", one, other));
            }
            if later.at < one.asked && later.token > grant.token {
                return Err(violation("L1: the later grant has the smaller token", other, one));
            }
        }
    }
    Ok(())
}

/// L2: no two workers believe at once to hold it in conflicting modes.
pub fn belief(attempts: &[Attempt]) -> Result<(), Violation> {
    for (index, (one, grant)) in grants(attempts).enumerate() {
        for (other, second) in grants(attempts).skip(index + 1) {
            let conflict = one.lock == other.lock && one.mode.conflicts_with(other.mode);
            let until = |grant: &Grant| grant.believed_until.unwrap_or(u64::MAX);
            // A span is empty where the holder found the grant lost at the first look: it was stopped while that was on its way.
            let overlap = grant.at.max(second.at) < until(grant).min(until(second));
            if conflict && overlap {
                return Err(violation("L2: two believed to hold at once", one, other));
            }
        }
    }
    Ok(())
}

/// L4: each lock's history has a legal order.
pub fn linearizability(attempts: &[Attempt]) -> Result<(), Violation> {
    let mut locks: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in attempts {
        locks.entry(&attempt.lock).or_default().push(attempt);
    }
    // Locks do not know of each other, so each may be judged alone (Herlihy and Wing's locality).
    for (lock, attempts) in locks {
        let operations = operations(&attempts);
        if !Search::new(&operations).succeeds() {
            let count = operations.len();
            let wrong = first_wrong(&attempts, &operations);
            return Err(Violation(format!("L4: the {count} operations on {lock} have no legal order{wrong}")));
        }
    }
    Ok(())
}

fn grants(attempts: &[Attempt]) -> impl Iterator<Item = (&Attempt, &Grant)> {
    attempts.iter().filter_map(|attempt| match &attempt.answer {
        Response::Granted(grant) => Some((attempt, grant)),
        Response::NotHad { .. } | Response::Unknown => None,
    })
}

fn violation(what: &str, one: &Attempt, other: &Attempt) -> Violation {
    Violation(format!("{what}: {one:?} and {other:?}"))
}

/// The first answer that no order explains, and the attempts that were near it.
///
/// A history that is legal up to a moment is so up to each earlier one: operations that were called later are left out, and those that were
/// answered later may happen or not. So the earliest moment up to which there is no order is found by halving.
fn first_wrong(attempts: &[&Attempt], operations: &[Operation]) -> String {
    let mut replies: Vec<u64> = operations.iter().filter_map(|operation| operation.reply).collect();
    replies.sort_unstable();
    let index = replies.partition_point(|reply| Search::new(&up_to(operations, *reply)).succeeds());
    let Some(moment) = replies.get(index).copied() else { return String::new() };
    let deed = operations.iter().find(|operation| operation.reply == Some(moment)).map(|operation| operation.deed);
    let what = match deed {
        Some(OperationKind::Take(number, _)) => format!("{} was granted", attempts[number].worker),
        Some(OperationKind::Give(number, _)) => format!("{} had given back", attempts[number].worker),
        Some(OperationKind::Refuse(number, _)) => format!("{} was refused what seems free", attempts[number].worker),
        None => return String::new(),
    };
    let mut near: Vec<_> = attempts
        .iter()
        .filter(|attempt| attempt.asked <= moment && end_of(attempt).saturating_add(NEAR) >= moment)
        .collect();
    near.sort_by_key(|attempt| attempt.asked);
    let near: Vec<_> = near.into_iter().map(|attempt| told(attempt, moment)).collect();
    format!(" once {what}. Near that, in microseconds from it:\n  {}", near.join("\n  "))
}

fn end_of(attempt: &Attempt) -> u64 {
    match &attempt.answer {
        Response::Granted(grant) => grant.released.or(grant.believed_until).unwrap_or(u64::MAX),
        Response::NotHad { at, .. } => *at,
        Response::Unknown => u64::MAX,
    }
}

/// An attempt as one line, its times counted from that moment.
fn told(attempt: &Attempt, moment: u64) -> String {
    let Attempt { worker, mode, asked, answer, .. } = attempt;
    let time = |time: u64| {
        let (sign, nanos) = if time < moment { ('-', moment - time) } else { ('+', time - moment) };
        format!("{sign}{}.{:03}", nanos / 1000, nanos % 1000)
    };
    let ended = |end: Option<u64>, never: &str| end.map_or_else(|| never.to_owned(), time);
    let answer = match answer {
        Response::Unknown => "the answer is not known".to_owned(),
        Response::NotHad { at, waited: true } => format!("its time was over {}", time(*at)),
        Response::NotHad { at, waited: false } => format!("refused {}", time(*at)),
        Response::Granted(Grant { at, token, believed_until, released }) => format!(
            "granted {} with token {token}, believed until {}, given back {}",
            time(*at),
            ended(*believed_until, "the end"),
            ended(*released, "never, since it was lost or that failed")
        ),
    };
    format!("{worker} {mode:?}: asked {}, {answer}", time(*asked))
}

/// The operations as far as they were known at that moment.
fn up_to(operations: &[Operation], moment: u64) -> Vec<Operation> {
    // An operation that is called later stays, so that the numbers do not change, but may happen never.
    operations
        .iter()
        .map(|operation| Operation { reply: operation.reply.filter(|reply| *reply <= moment), ..*operation })
        .collect()
}

/// What happens to a lock. The number tells whose it is.
#[derive(Clone, Copy, Debug)]
enum OperationKind {
    Take(usize, Mode),
    Refuse(usize, Mode),
    Give(usize, Mode),
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    deed: OperationKind,
    call: u64,
    /// `None`: never answered, so it may happen at any later time, or never.
    reply: Option<u64>,
    /// Must come after this operation: a give after its take.
    after: Option<usize>,
}

fn operations(attempts: &[&Attempt]) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (number, attempt) in attempts.iter().enumerate() {
        match &attempt.answer {
            Response::Granted(grant) => {
                let take = operations.len();
                operations.push(Operation {
                    deed: OperationKind::Take(number, attempt.mode),
                    call: attempt.asked,
                    reply: Some(grant.at),
                    after: None,
                });
                // The backend may have ended a grant that was lost at any time after it gave it, also while the answer was on its
                // way. The belief of its holder is L2's matter.
                let lost = grant.released.is_none();
                let call = if lost { attempt.asked } else { grant.believed_until.unwrap_or(grant.at) };
                operations.push(Operation {
                    deed: OperationKind::Give(number, attempt.mode),
                    call,
                    reply: grant.released,
                    after: Some(take),
                });
            }
            Response::Unknown => {
                // It may have been granted, and then been withdrawn.
                let take = operations.len();
                operations.push(Operation {
                    deed: OperationKind::Take(number, attempt.mode),
                    call: attempt.asked,
                    reply: None,
                    after: None,
                });
                operations.push(Operation {
                    deed: OperationKind::Give(number, attempt.mode),
                    call: attempt.asked,
                    reply: None,
                    after: Some(take),
                });
            }
            // That it was not had in so short a time may be the way's fault as well as the lock's.
            Response::NotHad { waited: true, .. } => {}
            Response::NotHad { at, waited: false } => {
                // While another attempt is under way, a refusal needs no other reason: it may have been its turn.
                let overlaps = attempts.iter().enumerate().any(|(index, other)| {
                    let until = match &other.answer {
                        Response::Granted(grant) => grant.at,
                        Response::NotHad { at, waited: false } => *at,
                        Response::NotHad { at, waited: true } => at.saturating_add(WITHDRAWAL),
                        Response::Unknown => u64::MAX,
                    };
                    index != number && other.asked <= *at && attempt.asked <= until
                });
                if !overlaps {
                    operations.push(Operation {
                        deed: OperationKind::Refuse(number, attempt.mode),
                        call: attempt.asked,
                        reply: Some(*at),
                        after: None,
                    });
                }
            }
        }
    }
    operations
}

/// The holders of a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct LockHolders {
    writer: Option<usize>,
    readers: Vec<usize>,
}

impl LockHolders {
    fn admits(&self, mode: Mode) -> bool {
        self.writer.is_none() && (mode == Mode::Shared || self.readers.is_empty())
    }

    /// The state after the deed; `None`: a lock does not do that.
    fn after(&self, deed: OperationKind) -> Option<LockHolders> {
        let mut state = self.clone();
        match deed {
            OperationKind::Take(who, mode) => {
                if !self.admits(mode) {
                    return None;
                }
                match mode {
                    Mode::Exclusive => state.writer = Some(who),
                    Mode::Shared => {
                        let place = state.readers.partition_point(|other| *other < who);
                        state.readers.insert(place, who);
                    }
                }
            }
            OperationKind::Refuse(_, mode) => return (!self.admits(mode)).then_some(state),
            OperationKind::Give(who, Mode::Exclusive) => {
                if state.writer != Some(who) {
                    return None;
                }
                state.writer = None;
            }
            OperationKind::Give(who, Mode::Shared) => {
                let place = state.readers.binary_search(&who).ok()?;
                state.readers.remove(place);
            }
        }
        Some(state)
    }
}

/// The search for a legal order, without recursion, since histories are long.
struct Search<'a> {
    operations: &'a [Operation],
    /// By time of call.
    order: Vec<usize>,
}

/// What has been done, as bits by operation.
#[derive(Clone, PartialEq, Eq, Hash)]
struct OperationSet(Vec<u64>);

impl OperationSet {
    fn has(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    fn add(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        let mut order: Vec<usize> = (0..operations.len()).collect();
        order.sort_by_key(|index| operations[*index].call);
        Search { operations, order }
    }

    fn succeeds(&self) -> bool {
        let empty = OperationSet(vec![0; self.operations.len().div_ceil(64).max(1)]);
        let mut seen = HashSet::new();
        // Depth first: the front of the history is settled before the rest is looked at.
        let mut open = vec![(empty, LockHolders::default(), 0)];
        while let Some((done, state, first)) = open.pop() {
            let Some((candidates, first)) = self.candidates(&done, first) else { return true };
            for index in candidates.into_iter().rev() {
                let Some(next) = state.after(self.operations[index].deed) else { continue };
                let mut then = done.clone();
                then.add(index);
                if seen.insert((then.clone(), next.clone())) {
                    open.push((then, next, first));
                }
            }
        }
        false
    }

    /// The operations that may come next: those that were called before the first reply that is still missing. `None`: everything that was
    /// answered is done. Also answers from where on in the order something is left.
    fn candidates(&self, done: &OperationSet, first: usize) -> Option<(Vec<usize>, usize)> {
        let mut first = first;
        while self.order.get(first).is_some_and(|index| done.has(*index)) {
            first += 1;
        }
        let mut limit = u64::MAX;
        let mut outstanding = false;
        let mut candidates = Vec::new();
        for index in &self.order[first..] {
            let operation = &self.operations[*index];
            if operation.call > limit {
                break;
            }
            if done.has(*index) {
                continue;
            }
            if let Some(reply) = operation.reply {
                outstanding = true;
                limit = limit.min(reply);
            }
            if operation.after.is_none_or(|before| done.has(before)) {
                candidates.push(*index);
            }
        }
        // Later calls may lie before the limit that was found last; those after it are out.
        candidates.retain(|index| self.operations[*index].call <= limit);
        // The sooner the reply, the likelier the first.
        candidates.sort_by_key(|index| self.operations[*index].reply.unwrap_or(u64::MAX));
        outstanding.then_some((candidates, first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(worker: &str, mode: Mode, asked: u64, answer: Response) -> Attempt {
        Attempt { worker: worker.into(), lock: "x".into(), mode, asked, answer }
    }

    /// Asked, granted, believed until, released, token.
    fn granted(mode: Mode, times: [u64; 4], token: u64) -> Attempt {
        let grant = Grant { at: times[1], token, believed_until: Some(times[2]), released: Some(times[3]) };
        attempt(&format!("w{token}"), mode, times[0], Response::Granted(grant))
    }

    use Mode::{Exclusive, Shared};

    #[test]
    fn one_after_another_is_right() {
        let history = [
            granted(Exclusive, [0, 1, 5, 6], 1),
            granted(Exclusive, [2, 6, 8, 9], 2),
            granted(Shared, [3, 9, 20, 21], 3),
            granted(Shared, [4, 10, 12, 13], 4),
            granted(Exclusive, [11, 22, 23, 24], 5),
        ];
        check(&history).unwrap();
    }

    #[test]
    fn two_writers_at_once_are_found_by_belief_and_by_order() {
        let history = [granted(Exclusive, [0, 1, 10, 11], 1), granted(Exclusive, [2, 3, 4, 5], 2)];
        assert!(belief(&history).unwrap_err().to_string().contains("L2"));
        assert!(linearizability(&history).unwrap_err().to_string().contains("L4"));
    }

    #[test]
    fn a_reader_beside_a_writer_is_found() {
        let history = [granted(Shared, [0, 1, 10, 11], 1), granted(Exclusive, [2, 3, 4, 5], 2)];
        assert!(belief(&history).is_err());
        assert!(linearizability(&history).is_err());
    }

    #[test]
    fn tokens_that_repeat_or_shrink_are_found() {
        let repeated = [granted(Exclusive, [0, 1, 2, 3], 7), granted(Exclusive, [4, 5, 6, 7], 7)];
        assert!(fencing(&repeated).unwrap_err().to_string().contains("one token"));
        let shrinking = [granted(Shared, [0, 1, 2, 3], 7), granted(Exclusive, [4, 5, 6, 7], 6)];
        assert!(fencing(&shrinking).unwrap_err().to_string().contains("smaller"));
        // Overlapping shared grants may come in either order.
        let shared = [granted(Shared, [0, 1, 8, 9], 7), granted(Shared, [4, 5, 6, 7], 6)];
        fencing(&shared).unwrap();
        // A request made while the other was being granted may be either.
        let racing = [granted(Shared, [0, 5, 6, 7], 7), granted(Exclusive, [4, 9, 10, 11], 6)];
        fencing(&racing).unwrap();
    }

    #[test]
    fn a_refusal_of_a_free_lock_is_found_only_without_another_request() {
        let refused = attempt("r", Exclusive, 10, Response::NotHad { at: 11, waited: false });
        assert!(linearizability(std::slice::from_ref(&refused)).is_err());
        let held = [granted(Exclusive, [0, 1, 20, 21], 1), refused.clone()];
        linearizability(&held).unwrap();
        let reader_beside_reader =
            [granted(Shared, [0, 1, 20, 21], 1), attempt("r", Shared, 10, Response::NotHad { at: 11, waited: false })];
        assert!(linearizability(&reader_beside_reader).is_err());
        let withdrawing = attempt("w", Exclusive, 1, Response::NotHad { at: 8, waited: true });
        linearizability(&[granted(Exclusive, [0, 1, 6, 7], 1), withdrawing, refused.clone()]).unwrap();
        let others_turn = [granted(Exclusive, [9, 12, 13, 14], 1), refused];
        linearizability(&others_turn).unwrap();
    }

    #[test]
    fn who_found_it_lost_at_the_first_look_never_believed() {
        let other = granted(Exclusive, [0, 1, 9, 10], 2);
        let late = |until| Grant { at: 5, token: 1, believed_until: Some(until), released: None };
        let history = |until| [other.clone(), attempt("late", Exclusive, 0, Response::Granted(late(until)))];
        belief(&history(5)).unwrap();
        assert!(belief(&history(6)).is_err());
    }

    #[test]
    fn a_release_frees_only_between_its_call_and_its_reply() {
        // The second got it while the release was under way: fine.
        linearizability(&[granted(Exclusive, [0, 1, 5, 9], 1), granted(Exclusive, [2, 7, 10, 11], 2)]).unwrap();
        // Before it was asked for: not.
        assert!(
            linearizability(&[granted(Exclusive, [0, 1, 8, 9], 1), granted(Exclusive, [2, 7, 10, 11], 2)]).is_err()
        );
    }

    #[test]
    fn what_was_lost_or_unknown_may_happen_at_any_later_time() {
        let lost = Grant { at: 1, token: 1, believed_until: Some(4), released: None };
        let history = [
            attempt("a", Exclusive, 0, Response::Granted(lost)),
            attempt("b", Exclusive, 2, Response::Unknown),
            granted(Exclusive, [3, 9, 10, 11], 3),
        ];
        check(&history).unwrap();
        // But what was granted and not lost blocks a refusal-free grant before it.
        let blocked = [
            attempt("b", Exclusive, 12, Response::Unknown),
            granted(Exclusive, [3, 9, 15, 16], 3),
            granted(Exclusive, [10, 11, 13, 14], 4),
        ];
        assert!(check(&blocked).is_err());
    }

    #[test]
    fn a_grant_may_be_lost_before_its_holder_hears_of_it() {
        // So it was recorded, in microseconds: the session of `two` was ended while its grant was on its way, and `three` had the
        // lock before `two` found that it had lost it.
        let one = granted(Shared, [0, 6_122, 9_315, 9_924], 743);
        let lost = Grant { at: 9_943, token: 744, believed_until: Some(9_943), released: None };
        let two = attempt("two", Exclusive, 4_727, Response::Granted(lost.clone()));
        let three = granted(Exclusive, [6_039, 9_652, 11_953, 12_036], 745);
        let refused = attempt("four", Exclusive, 9_244, Response::NotHad { at: 9_275, waited: false });
        check(&[one.clone(), two, three.clone(), refused.clone()]).unwrap();
        // Not before it was asked for.
        let late = attempt("two", Exclusive, 9_700, Response::Granted(lost.clone()));
        assert!(linearizability(&[one.clone(), late, three.clone(), refused.clone()]).is_err());
        // And what was given back was held until then.
        let kept = Grant { released: Some(9_950), ..lost };
        let two = attempt("two", Exclusive, 4_727, Response::Granted(kept));
        assert!(linearizability(&[one, two, three, refused]).is_err());
    }

    #[test]
    fn what_is_wrong_is_told_with_what_was_near() {
        let earlier = granted(Exclusive, [1_000, 2_000, 3_000, 4_000], 1);
        let late = |times: [u64; 4], token| granted(Exclusive, times.map(|time| 20_000_000 + time), token);
        let history = [earlier, late([0, 1_000, 8_000, 9_000], 2), late([2_000, 5_500, 6_000, 7_000], 3)];
        assert_eq!(
            linearizability(&history).unwrap_err().to_string(),
            "L4: the 6 operations on x have no legal order once w3 was granted. Near that, in microseconds from it:\
             \n  w2 Exclusive: asked -5.500, granted -4.500 with token 2, believed until +2.500, given back +3.500\
             \n  w3 Exclusive: asked -3.500, granted +0.000 with token 3, believed until +0.500, given back +1.500"
        );
    }

    #[test]
    fn a_long_history_is_judged_in_time() {
        let mut history = Vec::new();
        for turn in 0..3000_u64 {
            let at = turn * 10;
            // Each asks while the one before still holds.
            let mode = if turn % 3 == 0 { Exclusive } else { Shared };
            history.push(granted(mode, [at.saturating_sub(15), at, at + 5, at + 8], turn + 1));
        }
        linearizability(&history).unwrap();
    }

    #[test]
    fn locks_are_judged_apart() {
        let mut other = granted(Exclusive, [2, 3, 4, 5], 1);
        other.lock = "y".into();
        check(&[granted(Exclusive, [0, 1, 10, 11], 1), other]).unwrap();
    }
}
