//! A driver that panics: its caller hears of it as of any other error, the heart lives on, and nothing is left at the backend.

use std::time::Duration;

use tooz_core::{Coordinator, Error, ErrorKind, LossReason, Outcome, Probe, Result, SessionEvent};

use crate::cases::{Cases, words};
use crate::driver::{Method, Mischief};
use crate::stage::{Everything, SESSION, SOON, Toy, comes_free, comes_true, ends_within, soon, trial};

/// Asks a question that reaches that method; `None`: no question does.
async fn ask(coordinator: &Coordinator, method: Method) -> Option<Result<()>> {
    let lock = coordinator.lock("x").unwrap();
    let group = coordinator.group("g").unwrap();
    Some(match method {
        Method::Open | Method::TryLock => lock.try_acquire().await.map(drop),
        Method::Lock => lock.acquire_within(Duration::from_millis(700)).await.map(drop),
        Method::Holders => lock.holders().await.map(drop),
        Method::BreakLock => {
            let holders = coordinator.lock("rivals").unwrap().holders().await.unwrap();
            coordinator.lock("rivals").unwrap().break_lock(&holders[0]).await
        }
        Method::CreateGroup => coordinator.group("new").unwrap().create().await,
        Method::DeleteGroup => coordinator.group("empty").unwrap().delete().await,
        Method::Groups => coordinator.groups().await.map(drop),
        Method::Join => group.join(&1).await.map(drop),
        Method::Members => group.members().await.map(drop),
        Method::WatchGroup => group.watch().await.map(drop),
        Method::WatchLock => group.watch_leader().await.map(drop),
        Method::Probe => coordinator.probe(Probe::Read).await,
        Method::CheckUp => coordinator.check_up().await.map(drop),
        _ => return None,
    })
}

fn is_the_panic(error: &Error) -> Result<(), String> {
    let text = error.to_string();
    if error.kind() != ErrorKind::Backend || error.outcome() != Outcome::Unknown {
        return Err(format!("it is told as {error:?}, and not as Backend with an unknown outcome"));
    }
    if text.contains(": :") || text.ends_with(": ") {
        return Err(format!("words are missing in {text:?}"));
    }
    Ok(())
}

/// A store with a group, an empty one, and a lock that a rival holds.
async fn prepared(name: String) -> (Toy, Coordinator, tooz_core::LockGuard) {
    let toy = Toy::named(&name);
    let rival = toy.observer("rival").await;
    let held = rival.lock("rivals").unwrap().acquire().await.unwrap();
    rival.group("g").unwrap().create().await.unwrap();
    rival.group("empty").unwrap().create().await.unwrap();
    (toy, rival, held)
}

#[test]
fn every_panic_is_an_error_of_its_caller_and_the_heart_lives_on() {
    let mut cases = Cases::default();
    for &method in Method::ALL {
        for &mischief in Mischief::PANICS {
            cases.add(format!("{method:?} {mischief:?}"), move || async move {
                let (toy, rival, _held) = prepared(format!("every-panic-{method:?}-{mischief:?}")).await;
                let coordinator = toy.connect("one").await;
                if method != Method::Open {
                    drop(soon("a first lock", coordinator.lock("first").unwrap().acquire()).await.unwrap());
                }
                toy.script.always(method, mischief);
                let asked = soon(
                    "the answer",
                    tokio::spawn({
                        let coordinator = coordinator.clone();
                        async move { ask(&coordinator, method).await }
                    }),
                );
                match asked.await {
                    Err(error) => panic!("the caller panics: {}", words(&*error.into_panic())),
                    Ok(None) => return,
                    Ok(Some(Ok(()))) => panic!("it is told as done"),
                    Ok(Some(Err(error))) => is_the_panic(&error).unwrap(),
                }
                toy.script.heal();
                comes_free(&rival, "x", SOON).await;
                let guard = soon("the next lock", coordinator.lock("x").unwrap().acquire()).await;
                let guard = guard.expect("the heart lives on");
                assert!(guard.is_held());
                soon("a release", guard.release()).await.unwrap();
                soon("close()", coordinator.close()).await.unwrap();
            });
        }
    }
    cases.judge(Duration::from_secs(30));
}

#[test]
fn a_panic_in_connect_is_the_error_of_who_connects() {
    trial(async || {
        for &mischief in Mischief::PANICS {
            let toy = Toy::named(&format!("panic-connect-{mischief:?}"));
            toy.script.always(Method::Connect, mischief);
            let connecting = tokio::spawn({
                let toy = toy.clone();
                async move { toy.try_connect("one").await.map(drop) }
            });
            let answer = soon("connect()", connecting).await.expect("the caller does not panic");
            let error = answer.expect_err("the driver panics");
            assert_eq!(is_the_panic(&error), Ok(()), "{mischief:?}");
        }
    });
}

#[test]
fn a_wait_outlives_a_panic_of_its_request() {
    trial(async || {
        for &mischief in Mischief::PANICS {
            let toy = Toy::named(&format!("panic-wait-{mischief:?}"));
            let coordinator = toy.connect("one").await;
            toy.script.once(Method::Lock, mischief);
            let lock = coordinator.lock("x").unwrap();
            let waiting = tokio::spawn(async move { lock.acquire().await });
            let guard =
                soon("acquire()", waiting).await.expect("its caller does not panic").expect("it is asked again");
            assert!(guard.is_held());
        }
    });
}

#[test]
fn a_panic_in_release_leaves_no_grant_at_the_backend() {
    let mut cases = Cases::default();
    for &mischief in Mischief::PANICS {
        for dropped in [true, false] {
            cases.add(format!("{mischief:?}, dropped: {dropped}"), move || async move {
                let toy = Toy::named(&format!("panic-release-{mischief:?}-{dropped}"));
                let (coordinator, rival) = (toy.connect("one").await, toy.observer("rival").await);
                for _ in 0..2 {
                    toy.script.once(Method::Release, mischief);
                }
                let guard = soon("a lock", coordinator.lock("x").unwrap().acquire()).await.unwrap();
                let released = tokio::spawn(async move {
                    if dropped {
                        drop(guard);
                        Ok(())
                    } else {
                        guard.release().await
                    }
                });
                match soon("release()", released).await.expect("its caller does not panic") {
                    Ok(()) => {}
                    Err(error) => is_the_panic(&error).unwrap(),
                }
                comes_free(&rival, "x", SOON).await;
                if mischief != Mischief::PanicsAfterwards {
                    assert!(toy.script.is_done(), "it was not asked again");
                }
            });
        }
    }
    cases.judge(Duration::from_secs(20));
}

#[test]
fn a_panic_in_leave_or_update_is_told_and_leaves_no_member() {
    let mut cases = Cases::default();
    for method in [Method::Leave, Method::Update] {
        for &mischief in Mischief::PANICS {
            cases.add(format!("{method:?} {mischief:?}"), move || async move {
                let (toy, rival, _held) = prepared(format!("panic-member-{method:?}-{mischief:?}")).await;
                let coordinator = toy.connect("one").await;
                let membership = coordinator.group("g").unwrap().join(&1).await.unwrap();
                toy.script.always(method, mischief);
                let asked = tokio::spawn(async move {
                    match method {
                        Method::Leave => (membership.leave().await, None),
                        _ => (membership.update(&2).await, Some(membership)),
                    }
                });
                let (answer, membership) = soon("the answer", asked).await.expect("its caller does not panic");
                is_the_panic(&answer.expect_err("the driver panics")).unwrap();
                toy.script.heal();
                if let Some(membership) = membership {
                    comes_true(SOON, "it is a member still", async || {
                        if membership.is_member() { Ok(()) } else { Err(format!("{:?}", membership.loss().reason())) }
                    })
                    .await;
                    soon("an update", membership.update(&3)).await.expect("the membership lives on");
                    soon("leave()", membership.leave()).await.unwrap();
                }
                comes_true(SOON, "no member is listed", async || {
                    let members = rival.group("g").unwrap().members().await.unwrap();
                    if members.is_empty() { Ok(()) } else { Err(format!("{members:?}")) }
                })
                .await;
            });
        }
    }
    cases.judge(Duration::from_secs(20));
}

#[test]
fn a_panic_in_the_life_of_a_session_is_its_loss_and_all_is_kept_up() {
    let mut cases = Cases::default();
    for method in [Method::Beat, Method::Terms] {
        for &mischief in Mischief::PANICS {
            cases.add(format!("{method:?} {mischief:?}"), move || async move {
                let toy = Toy::named(&format!("panic-life-{method:?}-{mischief:?}"));
                let mut all = Everything::stand(&toy).await;
                toy.script.once(method, mischief);
                let loss = all.guard.loss();
                // A beat comes every third of the timeout.
                soon("loss().wait()", loss.wait()).await;
                assert!(!all.guard.is_held());
                let mut told = Vec::new();
                soon("the event of the loss", async {
                    loop {
                        match all.events.next().await {
                            Some(SessionEvent::Lost(reason)) => break told.push(reason),
                            Some(_) => {}
                            None => panic!("the events end without a word"),
                        }
                    }
                })
                .await;
                all.is_right(SOON).await;
                all.ends_with_close().await;
            });
        }
    }
    cases.judge(Duration::from_secs(40));
}

#[test]
fn a_driver_that_panics_in_every_beat_is_not_the_end_of_the_coordinator() {
    trial(async || {
        let toy = Toy::named("panic-beats");
        let coordinator = toy.connect("one").await;
        let lock = coordinator.lock("x").unwrap();
        toy.script.always(Method::Beat, Mischief::Panics);
        for _ in 0..2 {
            let guard = soon("acquire()", lock.acquire()).await.expect("a new session is opened");
            let reason = soon("the loss", guard.loss().wait()).await;
            assert_eq!(reason, LossReason::DriverPanicked);
        }
        soon("close()", coordinator.close()).await.ok();
        soon("the events", async { assert_eq!(coordinator.events().next().await, None) }).await;
    });
}

#[test]
fn close_tells_of_a_panic_and_ends_all_the_same() {
    let mut cases = Cases::default();
    for &mischief in Mischief::PANICS {
        for blocking in [false, true] {
            cases.add(format!("{mischief:?}, blocking: {blocking}"), move || async move {
                let toy = Toy::named(&format!("panic-close-{mischief:?}-{blocking}"));
                let all = Everything::stand(&toy).await;
                toy.script.always(Method::Close, mischief);
                let losses = [all.guard.loss(), all.membership.loss(), all.leadership.loss()];
                let coordinator = all.coordinator.clone();
                let closed = if blocking {
                    ends_within(SOON, "close_blocking()", move || coordinator.close_blocking())
                } else {
                    soon("close()", coordinator.close()).await
                };
                let told = closed.map_err(|error| is_the_panic(&error));
                all.has_ended(losses).await;
                match told {
                    Ok(()) => panic!("close() says that it went well"),
                    Err(right) => right.unwrap(),
                }
            });
        }
    }
    cases.judge(Duration::from_secs(40));
}

#[test]
fn a_panic_that_no_caller_can_hear_of_is_taken_for_no() {
    trial(async || {
        let toy = Toy::named("panic-sync");
        let coordinator = toy.connect("one").await;
        let guard = soon("a lock", coordinator.lock("x").unwrap().acquire()).await.unwrap();
        toy.script.always(Method::Holds, Mischief::Panics);
        toy.script.always(Method::Descriptors, Mischief::Panics);
        toy.script.always(Method::Terms, Mischief::Panics);
        let looked = std::thread::spawn({
            let coordinator = coordinator.clone();
            move || {
                let held = guard.is_held();
                let _ = (guard.remaining(), guard.loss().is_lost(), format!("{guard:?}"));
                #[cfg(unix)]
                assert!(coordinator.descriptors().is_empty());
                let _ = (coordinator.characteristics(), coordinator.terms().is_none());
                held
            }
        });
        let held = looked.join().map_err(|panic| words(&*panic)).expect("a look does not panic");
        assert!(!held, "whether it is held is not known");
        toy.script.heal();
        let again = soon("a lock", coordinator.lock("y").unwrap().acquire()).await.expect("the coordinator lives on");
        assert!(again.is_held());
        tokio::time::sleep(SESSION / 2).await;
        assert!(again.is_held());
    });
}
