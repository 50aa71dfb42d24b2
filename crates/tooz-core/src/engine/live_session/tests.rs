//! The life of a session under a clock that the test moves.

use std::sync::atomic::Ordering;

use super::*;
use crate::engine::fake::Fake;
use crate::engine::hold::Hold;
use crate::handles::loss::Loss;

const TIMEOUT: Duration = Duration::from_secs(10);
const MARGIN: Duration = Duration::from_secs(1);

#[test]
fn a_beat_that_comes_too_late_brings_nothing_back() {
    let (live, clock) = Fake::live(TIMEOUT);
    let opened = clock.now();
    assert!(live.credit(opened, TIMEOUT, MARGIN));
    let sent = clock.now();
    // The reply is swallowed until the deadline has passed; it was not looked at in between.
    clock.advance(TIMEOUT);
    assert!(!live.credit(sent, TIMEOUT, MARGIN));
    assert_eq!(live.check(), Some(LossReason::Expired));
    assert!(!live.credit(clock.now(), TIMEOUT, MARGIN), "not even a fresh one");
}

#[test]
fn the_deadline_counts_from_the_sending_and_never_moves_back() {
    let (live, clock) = Fake::live(TIMEOUT);
    let early = clock.now();
    clock.advance(Duration::from_secs(3));
    let late = clock.now();
    assert!(live.credit(late, TIMEOUT, MARGIN));
    let deadline = live.deadline();
    assert_eq!(deadline, (late + TIMEOUT).before(MARGIN));
    assert!(live.credit(early, TIMEOUT, MARGIN));
    assert_eq!(live.deadline(), deadline);
    assert!(live.expires_in() > live.remaining());
}

#[test]
fn a_timeout_that_shrinks_pulls_the_deadline_in() {
    let (live, clock) = Fake::live(TIMEOUT);
    assert!(live.credit(clock.now(), TIMEOUT, MARGIN));
    clock.advance(Duration::from_secs(3));
    let sent = clock.now();
    assert!(live.credit(sent, TIMEOUT / 5, MARGIN));
    assert_eq!(live.deadline(), (sent + TIMEOUT / 5).before(MARGIN));
    clock.advance(TIMEOUT / 5);
    assert_eq!(live.check(), Some(LossReason::Expired));
}

#[test]
fn what_the_backend_has_ended_expires_at_once() {
    let (live, clock) = Fake::live(TIMEOUT);
    assert!(live.credit(clock.now(), TIMEOUT, MARGIN));
    live.reporter().session_lost("the server said so");
    assert_eq!(live.expires_in(), Some(Duration::ZERO));
    let (live, clock) = Fake::live(TIMEOUT);
    assert!(live.credit(clock.now(), TIMEOUT, MARGIN));
    clock.advance(Duration::from_secs(9));
    assert_eq!(live.check(), Some(LossReason::Expired));
    assert!(live.expires_in() > Some(Duration::ZERO), "the margin is left");
}

#[test]
fn the_last_hold_of_a_membership_may_go_while_it_is_asked_for() {
    let (live, _clock) = Fake::live(TIMEOUT);
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        let asking = (Arc::clone(&live), Arc::clone(&done));
        scope.spawn(move || {
            while !asking.1.load(Ordering::Relaxed) {
                asking.0.stands(RequestId(1));
            }
        });
        for _ in 0..20_000 {
            drop(Hold::new(&live, RequestId(1), ClaimSubject::Membership));
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn one_lost_grant_is_not_the_others_loss() {
    let (live, _clock) = Fake::live(TIMEOUT);
    let (one, other) = (
        Hold::new(&live, RequestId(1), ClaimSubject::Membership),
        Hold::new(&live, RequestId(2), ClaimSubject::Membership),
    );
    live.reporter().grant_lost(RequestId(1));
    assert_eq!(one.judge(), Some(LossReason::Broken));
    assert_eq!(other.judge(), None);
    drop(other);
    assert!(!live.knows(RequestId(2)), "what is dropped is forgotten");
}

#[tokio::test]
async fn who_is_told_of_a_loss_finds_it_lost() {
    let (live, _clock) = Fake::live(TIMEOUT);
    let hold = Hold::new(&live, RequestId(1), ClaimSubject::Membership);
    let loss = Loss::of(&hold);
    let waiting = tokio::spawn(async move { (loss.wait().await, loss.is_lost()) });
    tokio::task::yield_now().await;
    live.reporter().session_lost("the server said so");
    assert_eq!(waiting.await.unwrap(), (LossReason::SessionEnded, true));
}

#[tokio::test]
async fn a_guarded_future_is_not_polled_past_the_deadline() {
    let (live, clock) = Fake::live(TIMEOUT);
    assert!(live.credit(clock.now(), TIMEOUT, MARGIN));
    let hold = Hold::new(&live, RequestId(1), ClaimSubject::Membership);
    assert_eq!(Loss::of(&hold).guard(async { 7 }).await, Ok(7));
    clock.advance(TIMEOUT);
    let polled = std::cell::Cell::new(false);
    assert_eq!(Loss::of(&hold).guard(async { polled.set(true) }).await, Err(LossReason::Expired));
    assert!(!polled.get());
}

#[tokio::test]
async fn a_guarded_future_that_has_begun_is_not_polled_past_the_deadline_either() {
    let (live, clock) = Fake::live(TIMEOUT);
    assert!(live.credit(clock.now(), TIMEOUT, MARGIN));
    let hold = Hold::new(&live, RequestId(1), ClaimSubject::Membership);
    let loss = Loss::of(&hold);
    let polls = std::cell::Cell::new(0);
    let counting = std::future::poll_fn(|_| {
        polls.set(polls.get() + 1);
        std::task::Poll::<()>::Pending
    });
    let mut guarded = Box::pin(loss.guard(counting));
    let mut poll =
        async || std::future::poll_fn(|context| std::task::Poll::Ready(guarded.as_mut().poll(context))).await;
    assert!(poll().await.is_pending());
    clock.advance(TIMEOUT);
    assert_eq!(poll().await, std::task::Poll::Ready(Err(LossReason::Expired)));
    assert_eq!(polls.get(), 1, "the clock alone has ended it");
}
