//! Histories of locks, good and bad, by hand.

use crate::checker::{Law, Terms, Violation, belief, check, fencing, judge_by, linearizability};
use crate::history::{Attempt, Grant, History, Listing, Mode, Queue, Response, Temptation, TemptationKind};

fn attempt(worker: &str, mode: Mode, asked: u64, answer: Response) -> Attempt {
    Attempt { worker: worker.into(), lock: "x".into(), mode, asked, answer }
}

/// Asked, granted, believed until, released, token.
fn granted(mode: Mode, times: [u64; 4], token: u64) -> Attempt {
    let grant = Grant { at: times[1], token, believed_until: Some(times[2]), released: Some(times[3]), lost: None };
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
    let late = |until| Grant { at: 5, token: 1, believed_until: Some(until), released: None, lost: None };
    let history = |until| [other.clone(), attempt("late", Exclusive, 0, Response::Granted(late(until)))];
    belief(&history(5)).unwrap();
    assert!(belief(&history(6)).is_err());
}

#[test]
fn a_release_frees_only_between_its_call_and_its_reply() {
    // The second got it while the release was under way: fine.
    linearizability(&[granted(Exclusive, [0, 1, 5, 9], 1), granted(Exclusive, [2, 7, 10, 11], 2)]).unwrap();
    // Before it was asked for: not.
    assert!(linearizability(&[granted(Exclusive, [0, 1, 8, 9], 1), granted(Exclusive, [2, 7, 10, 11], 2)]).is_err());
}

#[test]
fn what_was_lost_or_unknown_may_happen_at_any_later_time() {
    let lost = Grant { at: 1, token: 1, believed_until: Some(4), released: None, lost: None };
    let history = [
        attempt("a", Exclusive, 0, Response::Granted(lost)),
        attempt("b", Exclusive, 2, Response::Unknown { until: None }),
        granted(Exclusive, [3, 9, 10, 11], 3),
    ];
    check(&history).unwrap();
    // But what was granted and not lost blocks a refusal-free grant before it.
    let blocked = [
        attempt("b", Exclusive, 12, Response::Unknown { until: None }),
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
    let lost = Grant { at: 9_943, token: 744, believed_until: Some(9_943), released: None, lost: None };
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

fn lists(attempts: &[Attempt], change: impl FnOnce(&mut History)) -> Result<(), Violation> {
    let mut history = History { attempts: attempts.to_vec(), ..History::default() };
    change(&mut history);
    judge_by(Law::Lists, &history, &Terms::strict())
}

fn listed(asked: u64, locks: &[&str]) -> impl FnOnce(&mut History) {
    let locks = locks.iter().map(|lock| (*lock).to_owned()).collect();
    move |history| history.listings.push(Listing { worker: "l".into(), asked, at: asked + 1, locks })
}

#[test]
fn a_lock_is_listed_while_it_is_held_and_no_longer() {
    let held = [granted(Exclusive, [0, 1, 10, 11], 1)];
    lists(&held, listed(5, &["x"])).unwrap();
    lists(&held, listed(12, &[])).unwrap();
    assert!(lists(&held, listed(12, &["x"])).unwrap_err().to_string().contains("which is free"));
    assert!(lists(&held, listed(5, &[])).unwrap_err().to_string().contains("which is held"));
    assert!(lists(&held, listed(5, &["x", "y"])).is_err());
}

#[test]
fn a_holder_is_no_waiter() {
    let held = [granted(Exclusive, [0, 3, 10, 11], 1)];
    let queue = |asked| {
        let waiters = vec![("w1".to_owned(), Exclusive)];
        move |history: &mut History| {
            history.queues.push(Queue { worker: "l".into(), lock: "x".into(), asked, at: asked + 1, waiters });
        }
    };
    lists(&held, queue(1)).unwrap();
    assert!(lists(&held, queue(5)).unwrap_err().to_string().contains("wait for x"));
}

#[test]
fn a_group_with_a_member_is_not_made_again() {
    let tempted = |done| {
        let (worker, group, kind) = ("w".to_owned(), "g".to_owned(), TemptationKind::Create);
        move |history: &mut History| {
            history.temptations.push(Temptation { worker, group, kind, asked: 0, at: 1, done });
        }
    };
    lists(&[], tempted(false)).unwrap();
    assert!(lists(&[], tempted(true)).is_err());
}
