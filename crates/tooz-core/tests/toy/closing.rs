//! Closing, by several at once, and while others begin to listen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::driver::{Method, Mischief};
use crate::stage::{SOON, Toy, ends_within, soon, trial, trial_within};

#[test]
fn events_that_race_the_close_always_end() {
    trial_within(Duration::from_mins(2), async || {
        let toy = Toy::named("events-and-close");
        for round in 0..500 {
            let coordinator = toy.connect("one").await;
            let over = Arc::new(AtomicBool::new(false));
            let listening = thread::spawn({
                let (coordinator, over) = (coordinator.clone(), Arc::clone(&over));
                move || {
                    let mut all = Vec::new();
                    while !over.load(Ordering::Relaxed) && all.len() < 200 {
                        all.push(coordinator.events());
                    }
                    all
                }
            });
            // Now and then before the first of them, mostly in their midst.
            for _ in 0..fastrand::u16(0..400) {
                std::hint::spin_loop();
            }
            soon("close()", coordinator.close()).await.unwrap();
            over.store(true, Ordering::Relaxed);
            for mut events in listening.join().unwrap() {
                soon(&format!("the end of the events in round {round}"), async {
                    while events.next().await.is_some() {}
                })
                .await;
            }
        }
    });
}

#[test]
fn a_second_close_waits_for_the_first() {
    for blocking in [[true, true], [true, false], [false, true], [false, false]] {
        trial(async move || {
            let toy = Toy::named(&format!("two-closes-{blocking:?}").replace(['[', ']', ',', ' '], "-"));
            let coordinator = toy.connect("one").await;
            let guard = soon("a lock", coordinator.lock("x").unwrap().acquire()).await.unwrap();
            let late = Duration::from_millis(400);
            toy.script.always(Method::Close, Mischief::ArrivesLate(late));
            let observer = toy.observer("rival").await;
            let begun = Instant::now();
            let mut closing = Vec::new();
            for blocks in blocking {
                let coordinator = coordinator.clone();
                let runtime = tokio::runtime::Handle::current();
                closing.push(thread::spawn(move || {
                    let result =
                        if blocks { coordinator.close_blocking() } else { runtime.block_on(coordinator.close()) };
                    (result, begun.elapsed())
                }));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            for closed in closing {
                let (result, took) = ends_within(SOON, "a close", move || closed.join().unwrap());
                result.unwrap();
                assert!(took >= late, "one answers after {took:?}, and it takes {late:?}");
            }
            assert!(observer.lock("x").unwrap().holders().await.unwrap().is_empty());
            drop(guard);
        });
    }
}

#[test]
fn a_second_close_tells_the_same_error() {
    trial(async || {
        let toy = Toy::named("same-error");
        let coordinator = toy.connect("one").await;
        drop(soon("a lock", coordinator.lock("x").unwrap().acquire()).await.unwrap());
        toy.script.always(Method::Close, Mischief::Fails(tooz_core::ErrorKind::Unavailable));
        let first = soon("close()", coordinator.close()).await.expect_err("it fails");
        let again = coordinator.clone();
        let second = ends_within(SOON, "close_blocking()", move || again.close_blocking()).expect_err("it has failed");
        let third = soon("close()", coordinator.close()).await.expect_err("it has failed");
        assert_eq!([first.kind(); 2], [second.kind(), third.kind()]);
    });
}

#[test]
fn a_coordinator_that_is_closed_while_it_connects_or_opens_ends() {
    trial(async || {
        for method in [Method::Open, Method::Connect] {
            let toy = Toy::named(&format!("closed-while-{method:?}"));
            let coordinator = toy.connect("one").await;
            let lock = coordinator.lock("x").unwrap();
            toy.script.always(method, Mischief::Hangs);
            if method == Method::Connect {
                // The session in which it is asked has ended.
                toy.script.once(Method::Open, Mischief::Fails(tooz_core::ErrorKind::Lost));
            }
            let waiting = tokio::spawn(async move { lock.acquire().await });
            tokio::time::sleep(Duration::from_millis(200)).await;
            soon("close()", coordinator.close()).await.ok();
            let error = soon("acquire()", waiting).await.unwrap().expect_err("it is closed");
            assert_eq!(error.kind(), tooz_core::ErrorKind::Closed);
        }
    });
}
