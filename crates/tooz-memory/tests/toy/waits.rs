//! Waiting for a lock: `None` only where another had it, an error only where it is the latest word, and each hears its own alone.

use std::time::{Duration, Instant};

use tooz_core::ErrorKind;

use crate::cases::Cases;
use crate::driver::{Method, Mischief};
use crate::stage::{Toy, given_up_after, soon, trial};

#[test]
fn a_try_after_a_wait_that_was_given_up_is_answered_at_once() {
    trial(async || {
        let toy = Toy::named("after-a-wait");
        let (coordinator, rival) = (toy.connect("one").await, toy.observer("rival").await);
        let _held = rival.lock("x").unwrap().acquire().await.unwrap();
        let lock = coordinator.lock("x").unwrap();
        for round in 0..300 {
            let waited = soon("a short wait", lock.acquire_within(Duration::from_millis(1))).await.unwrap();
            assert!(waited.is_none());
            let begun = Instant::now();
            let tried = soon("a try", lock.try_acquire()).await;
            assert!(matches!(tried, Ok(None)), "round {round}: {tried:?} after {:?}", begun.elapsed());
        }
    });
}

#[test]
fn a_try_while_a_wait_is_being_withdrawn_slowly_is_answered() {
    trial(async || {
        let toy = Toy::named("slow-withdrawal");
        let (coordinator, rival) = (toy.connect("one").await, toy.observer("rival").await);
        let _held = rival.lock("x").unwrap().acquire().await.unwrap();
        let lock = coordinator.lock("x").unwrap();
        for _ in 0..5 {
            toy.script.once(Method::Lock, Mischief::AnswersLate(Duration::from_millis(100)));
            assert!(soon("a wait", lock.acquire_within(Duration::from_millis(10))).await.unwrap().is_none());
            let tried = soon("a try", lock.try_acquire()).await;
            assert!(matches!(tried, Ok(None)), "{tried:?}");
        }
    });
}

#[test]
fn who_waits_does_not_get_the_error_of_a_try_that_was_given_up() {
    trial(async || {
        let toy = Toy::named("others-error");
        let coordinator = toy.connect("one").await;
        let lock = coordinator.lock("x").unwrap();
        soon("a first lock", lock.acquire()).await.unwrap().release().await.unwrap();
        for _ in 0..3 {
            toy.script.once(Method::TryLock, Mischief::FailsLate(Duration::from_millis(100), ErrorKind::Unavailable));
            assert!(given_up_after(Duration::from_millis(10), lock.try_acquire()).await.is_none());
            let guard = soon("acquire()", lock.acquire()).await.expect("what failed was another's try");
            soon("release()", guard.release()).await.unwrap();
        }
    });
}

#[test]
fn who_tries_does_not_get_the_error_of_a_wait_that_was_given_up() {
    trial(async || {
        let toy = Toy::named("waits-error");
        let coordinator = toy.connect("one").await;
        let lock = coordinator.lock("x").unwrap();
        soon("a first lock", lock.acquire()).await.unwrap().release().await.unwrap();
        toy.script.once(Method::Lock, Mischief::FailsLate(Duration::from_millis(100), ErrorKind::Unauthorized));
        assert!(given_up_after(Duration::from_millis(10), lock.acquire()).await.is_none());
        let guard = soon("a try", lock.try_acquire()).await.expect("what failed was another's wait");
        assert!(guard.is_some_and(|guard| guard.is_held()));
    });
}

#[test]
fn a_wait_that_the_backend_refused_until_its_end_is_an_error() {
    let mut cases = Cases::default();
    for kind in [ErrorKind::Backend, ErrorKind::Unavailable, ErrorKind::TimedOut] {
        for method in [Method::Lock, Method::Open] {
            cases.add(format!("{method:?} {kind}"), move || async move {
                let toy = Toy::named(&format!("refused-{method:?}-{kind}"));
                let coordinator = toy.connect("one").await;
                toy.script.always(method, Mischief::Fails(kind));
                let waited =
                    soon("a wait", coordinator.lock("x").unwrap().acquire_within(Duration::from_millis(500))).await;
                let error = waited.expect_err("no session had the lock");
                assert_eq!(error.kind(), kind, "{error:?}");
            });
        }
    }
    for mischief in [Mischief::Hangs, Mischief::PanicsLater] {
        for method in [Method::Lock, Method::Open] {
            cases.add(format!("{method:?} {mischief:?}"), move || async move {
                let toy = Toy::named(&format!("refused-{method:?}-{mischief:?}"));
                let coordinator = toy.connect("one").await;
                toy.script.always(method, mischief);
                let waited =
                    soon("a wait", coordinator.lock("x").unwrap().acquire_within(Duration::from_millis(500))).await;
                if (method, mischief) == (Method::Lock, Mischief::Hangs) {
                    // A driver that waits and one that hangs look alike.
                    assert!(matches!(waited, Ok(None) | Err(_)), "{waited:?}");
                } else {
                    waited.expect_err("no session had the lock");
                }
            });
        }
    }
    cases.judge(Duration::from_secs(20));
}

#[test]
fn a_wait_whose_trouble_is_over_says_none_where_another_has_the_lock() {
    trial(async || {
        let toy = Toy::named("old-trouble");
        let (coordinator, rival) = (toy.connect("one").await, toy.observer("rival").await);
        for kind in [ErrorKind::Unavailable, ErrorKind::Backend, ErrorKind::TimedOut] {
            // A lock of its own: a wait that is being withdrawn may be taken up by the next one, without being asked for again.
            let name = kind.name();
            let _held = rival.lock(name).unwrap().acquire().await.unwrap();
            toy.script.once(Method::Lock, Mischief::Fails(kind));
            let lock = coordinator.lock(name).unwrap();
            let waited = soon("a wait", lock.acquire_within(Duration::from_millis(900))).await;
            assert!(matches!(waited, Ok(None)), "{kind} was long over: {waited:?}");
            assert!(toy.script.is_done());
        }
    });
}

#[test]
fn refused_credentials_end_a_wait_that_has_never_stood_and_no_other() {
    let mut cases = Cases::default();
    for kind in [ErrorKind::Unauthorized, ErrorKind::Config] {
        cases.add(format!("{kind}"), move || async move {
            let toy = Toy::named(&format!("first-{kind}"));
            let coordinator = toy.connect("one").await;
            toy.script.always(Method::Lock, Mischief::Fails(kind));
            let error = soon("acquire()", coordinator.lock("x").unwrap().acquire()).await.expect_err("it is refused");
            assert_eq!(error.kind(), kind);
            toy.script.heal();
            soon("acquire()", coordinator.lock("x").unwrap().try_acquire()).await.expect("it is not refused any more");
        });
    }
    cases.judge(Duration::from_secs(20));
}

#[test]
fn hundreds_of_given_up_waits_and_tries_leave_nothing() {
    trial(async || {
        let toy = Toy::named("given-up");
        let (coordinator, rival) = (toy.connect("one").await, toy.observer("rival").await);
        let lock = coordinator.lock("x").unwrap();
        for round in 0..300_u64 {
            let pause = Duration::from_micros(round % 7 * 50);
            match round % 3 {
                0 => drop(given_up_after(pause, lock.acquire()).await),
                1 => drop(given_up_after(pause, lock.shared().acquire()).await),
                _ => drop(given_up_after(pause, lock.try_acquire()).await),
            }
        }
        let guard = soon("acquire()", rival.lock("x").unwrap().acquire()).await.unwrap();
        assert!(guard.is_held());
        assert_eq!(rival.lock("x").unwrap().holders().await.unwrap().len(), 1);
    });
}
