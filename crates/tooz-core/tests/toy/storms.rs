//! A driver with which nothing works is asked again with pauses that grow, whatever part of it does not work.

use std::time::{Duration, Instant};

use tooz_core::{Coordinator, ErrorKind};

use crate::cases::Cases;
use crate::driver::{Method, Mischief};
use crate::stage::{Everything, SOON, Toy, soon, trial};

/// So often at most in two seconds: pauses from 50 ms on that double, and some more for what one question may ask twice.
const A_HANDFUL: usize = 20;

#[test]
fn sessions_that_die_at_their_first_request_make_no_storm() {
    let mut cases = Cases::default();
    for method in [Method::Lock, Method::TryLock, Method::Open, Method::Join, Method::Members, Method::WatchLock] {
        cases.add(format!("{method:?}"), move || async move {
            let toy = Toy::named(&format!("storm-{method:?}"));
            let all = Everything::stand(&toy).await;
            toy.script.always(method, Mischief::Fails(ErrorKind::Lost));
            toy.expire("one");
            let trying = all.coordinator.lock("tried").unwrap();
            let tries = tokio::spawn(async move {
                loop {
                    if method != Method::TryLock {
                        return;
                    }
                    let _ = trying.try_acquire().await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            let before = toy.script.calls(Method::Connect);
            tokio::time::sleep(Duration::from_secs(2)).await;
            let connects = toy.script.calls(Method::Connect) - before;
            tries.abort();
            assert!(connects <= A_HANDFUL, "{connects} connects in two seconds");
            all.ends_with_close().await;
        });
    }
    cases.judge(Duration::from_secs(30));
}

#[test]
fn what_fails_again_and_again_is_asked_with_growing_pauses() {
    let mut cases = Cases::default();
    for kind in
        [ErrorKind::Backend, ErrorKind::Unavailable, ErrorKind::Unauthorized, ErrorKind::Config, ErrorKind::TimedOut]
    {
        for method in [
            Method::Connect,
            Method::Open,
            Method::Lock,
            Method::Join,
            Method::Members,
            Method::WatchGroup,
            Method::WatchLock,
            Method::Holders,
            Method::Owned,
            Method::Close,
            Method::Release,
        ] {
            cases.add(format!("{method:?} {kind}"), move || async move {
                let toy = Toy::named(&format!("pauses-{method:?}-{kind}"));
                let all = Everything::stand(&toy).await;
                toy.script.always(method, Mischief::Fails(kind));
                toy.expire("one");
                let before: Vec<_> = Method::ALL.iter().map(|one| toy.script.calls(*one)).collect();
                tokio::time::sleep(Duration::from_secs(2)).await;
                for (one, before) in Method::ALL.iter().zip(before) {
                    // A held lock is looked at, and terms are read, without asking the backend.
                    if !matches!(one, Method::Holds | Method::Terms | Method::Clock) {
                        let calls = toy.script.calls(*one) - before;
                        assert!(calls <= 3 * A_HANDFUL, "{one:?} was called {calls} times in two seconds");
                    }
                }
                all.ends_with_close().await;
            });
        }
    }
    cases.judge(Duration::from_secs(30));
}

#[test]
fn a_wait_that_is_answered_no_although_it_is_wanted_is_repeated_with_pauses() {
    trial(async || {
        let toy = Toy::named("says-no");
        let coordinator = toy.connect("one").await;
        toy.script.always(Method::Lock, Mischief::SaysNo);
        let lock = coordinator.lock("x").unwrap();
        let waiting = tokio::spawn(async move { lock.acquire().await });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let calls = toy.script.calls(Method::Lock);
        assert!((1..=A_HANDFUL).contains(&calls), "asked {calls} times in two seconds");
        if waiting.is_finished() {
            let error = soon("acquire()", waiting).await.unwrap().expect_err("it was not given");
            assert_eq!(error.kind(), ErrorKind::Backend, "{error:?}");
        } else {
            toy.script.heal();
            let guard = soon("acquire()", waiting).await.expect("it does not panic").expect("it is free");
            assert!(guard.is_held());
        }
        let other = tokio::time::timeout(SOON, coordinator.lock("y").unwrap().acquire()).await;
        assert!(other.expect("the heart lives").unwrap().is_held());
    });
}

#[test]
fn pauses_begin_anew_after_a_session_that_has_lived() {
    trial(async || {
        let toy = Toy::named("pauses-anew");
        let coordinator = toy.connect("one").await;
        let lock = coordinator.lock("x").unwrap();
        soon("a lock", lock.acquire()).await.unwrap().release().await.unwrap();
        // By then the pauses are as long as they get: one second to two.
        let grown = pause_before_attempt(&toy, &coordinator, 7).await;
        toy.script.heal();
        soon("a lock", lock.acquire()).await.unwrap().release().await.unwrap();
        // Longer than a session has to last to have lived.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let first = pause_before_attempt(&toy, &coordinator, 2).await;
        // The first is a tenth of a second at most; two of the longest differ by no more than a factor of two.
        assert!(first * 5 < grown * 2, "{first:?} after a session that has lived, {grown:?} before it");
        toy.script.heal();
    });
}

/// Ends the session, and lets a task wait for the next one, which can't be had: how long passed before that attempt.
async fn pause_before_attempt(toy: &Toy, coordinator: &Coordinator, attempt: usize) -> Duration {
    let before = toy.script.calls(Method::Connect);
    toy.script.always(Method::Connect, Mischief::Fails(ErrorKind::Unavailable));
    toy.expire("one");
    let waiting = coordinator.lock("waited for").unwrap();
    let waiting = tokio::spawn(async move { waiting.acquire().await });
    let attempts = async |count: usize| {
        while toy.script.calls(Method::Connect) < before + count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Instant::now()
    };
    let one_before = soon("an attempt", attempts(attempt - 1)).await;
    let pause = soon("the next attempt", attempts(attempt)).await - one_before;
    waiting.abort();
    pause
}
