//! What is wrong is told while it is kept up: once by the events, by the state for as long as it lasts; and what ends says why.

use std::time::Duration;

use tooz_core::{Error, ErrorKind, JoinOptions, LossReason, Outcome, SessionEvent, SessionState};

use crate::cases::Cases;
use crate::driver::{Method, Mischief};
use crate::stage::{Everything, SOON, Toy, comes_true, given_up_after, soon, trial};

#[test]
fn what_is_refused_is_told_with_its_error_and_so_is_its_end() {
    let mut cases = Cases::default();
    let kept_up = [Method::Connect, Method::Open, Method::Join, Method::Members, Method::WatchGroup, Method::WatchLock];
    for method in kept_up.into_iter().chain([Method::Holders, Method::Lock]) {
        for kind in [ErrorKind::Unauthorized, ErrorKind::Config, ErrorKind::Backend, ErrorKind::Unavailable] {
            cases.add(format!("{method:?} {kind}"), move || async move {
                let toy = Toy::named(&format!("told-{method:?}-{kind}"));
                let mut all = Everything::stand(&toy).await;
                toy.script.always(method, Mischief::Fails(kind));
                toy.expire("one");
                comes_true(SOON, "the state tells", async || match all.coordinator.state() {
                    SessionState::Troubled(error) if error.kind() == kind => Ok(()),
                    other => Err(format!("{other:?}")),
                })
                .await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                toy.script.heal();
                all.is_right(SOON).await;
                comes_true(SOON, "the state is as before", async || match all.coordinator.state() {
                    SessionState::Open => Ok(()),
                    other => Err(format!("{other:?}")),
                })
                .await;
                let (mut troubles, mut recovered) = (Vec::new(), false);
                while let Some(Some(event)) = given_up_after(Duration::from_millis(100), all.events.next()).await {
                    match event {
                        SessionEvent::Troubled(error) => {
                            recovered = false;
                            troubles.push(error);
                        }
                        SessionEvent::Recovered => recovered = true,
                        _ => {}
                    }
                }
                assert!(recovered, "the end of {troubles:?} is not told");
                assert!(troubles.iter().any(|error| error.kind() == kind), "{troubles:?}");
                assert!(troubles.iter().all(|error| error.to_string().contains("the toy refuses")), "{troubles:?}");
                // Several tasks may have a trouble for the same reason, and each may have it again.
                assert!(troubles.len() <= 6, "told {} times: {troubles:?}", troubles.len());
                soon("close()", all.coordinator.close()).await.unwrap();
            });
        }
    }
    cases.judge(Duration::from_secs(30));
}

#[test]
fn a_wait_that_fails_again_and_again_is_told_until_it_is_given_up() {
    trial(async || {
        let toy = Toy::named("told-waits");
        let coordinator = toy.connect("one").await;
        drop(soon("a first lock", coordinator.lock("x").unwrap().acquire()).await.unwrap());
        let mut events = coordinator.events();
        toy.script.always(Method::Lock, Mischief::Fails(ErrorKind::Backend));
        let lock = coordinator.lock("x").unwrap();
        let waiting = tokio::spawn(async move { lock.acquire().await });
        let event = soon("the event", events.next()).await;
        assert!(
            matches!(&event, Some(SessionEvent::Troubled(error)) if error.kind() == ErrorKind::Backend),
            "{event:?}"
        );
        assert!(matches!(coordinator.state(), SessionState::Troubled(_)));
        let more = given_up_after(Duration::from_secs(1), events.next()).await;
        assert!(more.is_none(), "told once, and then {more:?}");
        waiting.abort();
        let event = soon("the event", events.next()).await;
        assert_eq!(event, Some(SessionEvent::Recovered));
        assert_eq!(coordinator.state(), SessionState::Open);
    });
}

#[test]
fn one_can_wait_for_a_membership_to_stand_again() {
    trial(async || {
        let toy = Toy::named("told-standing");
        let all = Everything::stand(&toy).await;
        assert_eq!(soon("it stands", all.membership.wait_standing()).await, Ok(()));
        assert_eq!(all.membership.over(), None);
        toy.script.always(Method::Join, Mischief::Fails(ErrorKind::Unauthorized));
        toy.expire("one");
        assert!(given_up_after(Duration::from_millis(300), all.membership.wait_standing()).await.is_none());
        assert_eq!(all.membership.over(), None, "it is kept up");
        toy.script.heal();
        assert_eq!(soon("it stands again", all.membership.wait_standing()).await, Ok(()));
        assert!(all.membership.is_member());
        let namesake = toy.observer("one").await;
        toy.script.always(Method::Join, Mischief::Fails(ErrorKind::Unavailable));
        toy.expire("one");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let group = namesake.group("g").unwrap();
        let _theirs = soon("a take-over", group.join_with(JoinOptions::new().take_over())).await.unwrap();
        toy.script.heal();
        // A namesake that renews its session is not waited out for ever.
        let reason = crate::stage::within(3 * SOON, "it is over", all.membership.wait_standing()).await;
        assert_eq!(reason, Err(LossReason::TakenOver));
        assert_eq!(all.membership.over(), Some(LossReason::TakenOver));
    });
}

#[test]
fn waiting_for_a_membership_ends_with_it() {
    trial(async || {
        let toy = Toy::named("told-closed");
        let all = Everything::stand(&toy).await;
        toy.script.always(Method::Join, Mischief::Hangs);
        toy.expire("one");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (reason, closed) = tokio::join!(soon("the end", all.membership.wait_standing()), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            soon("close()", all.coordinator.close()).await
        });
        closed.ok();
        assert_eq!(reason, Err(LossReason::Closed));
        assert_eq!(all.membership.over(), Some(LossReason::Closed));
    });
}

#[test]
fn what_has_ended_says_why() {
    trial(async || {
        for deleted in [true, false] {
            let toy = Toy::named(&format!("told-end-{deleted}"));
            let rival = toy.observer("rival").await;
            let group = rival.group("g").unwrap();
            group.create().await.unwrap();
            let coordinator = toy.connect("one").await;
            let mine = coordinator.group("g").unwrap();
            let mut watch = mine.watch().await.unwrap();
            let mut leaders = mine.watch_leader().await.unwrap();
            let mut partitioner = mine.partitioner().await.unwrap();
            soon("the snapshot", watch.next()).await.unwrap();
            assert!(watch.end().is_none() && leaders.end().is_none(), "there is more to come");
            if deleted {
                group.delete().await.unwrap();
            } else {
                soon("close()", coordinator.close()).await.unwrap();
            }
            soon("the end of the watch", async { while watch.next().await.is_some() {} }).await;
            soon("the end of the leaders", async { while leaders.next().await.is_some() {} }).await;
            soon("the end of the ring", async { while partitioner.changed().await {} }).await;
            let kind = if deleted { ErrorKind::NotFound } else { ErrorKind::Closed };
            assert_eq!(watch.end().map(|error| error.kind()), Some(kind));
            assert_eq!(leaders.end().map(|error| error.kind()), Some(kind));
            assert!(!deleted || partitioner.members_for("key", 1).is_empty());
        }
    });
}

#[test]
fn a_leader_that_has_done_its_work_has_resigned_for_all() {
    trial(async || {
        let toy = Toy::named("told-led");
        let coordinator = toy.connect("one").await;
        let group = coordinator.group("g").unwrap();
        let membership = group.join_or_create(&1).await.unwrap();
        let mut kept = None;
        let work = membership.lead(|leadership| {
            kept = Some(leadership);
            std::future::ready(7)
        });
        assert_eq!(soon("the work", work).await.unwrap(), 7);
        assert!(!kept.unwrap().is_leader(), "it is still in hand");
        assert_eq!(soon("the leader", group.leader()).await.unwrap(), None);
    });
}

#[test]
fn a_membership_that_was_to_create_its_group_makes_it_again() {
    trial(async || {
        let toy = Toy::named("told-made-again");
        let rival = toy.observer("rival").await;
        let coordinator = toy.connect("one").await;
        let membership = coordinator.group("g").unwrap().join_or_create(&1).await.unwrap();
        toy.script.always(Method::Connect, Mischief::Fails(ErrorKind::Unauthorized));
        toy.expire("one");
        soon("the group goes", async {
            while rival.group("g").unwrap().delete().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        toy.script.heal();
        soon("the return", async {
            while !rival.group("g").unwrap().members().await.is_ok_and(|members| members.len() == 1) {
                assert_eq!(membership.over(), None);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(soon("the standing", membership.wait_standing()).await, Ok(()));
    });
}

#[test]
fn a_membership_whose_group_is_deleted_while_it_is_away_says_so() {
    trial(async || {
        let toy = Toy::named("told-deleted");
        let rival = toy.observer("rival").await;
        let coordinator = toy.connect("one").await;
        let group = coordinator.group("g").unwrap();
        group.create().await.unwrap();
        let membership = group.join(&1).await.unwrap();
        let mut watch = coordinator.group("g").unwrap().watch().await.unwrap();
        toy.script.always(Method::Connect, Mischief::Fails(ErrorKind::Unauthorized));
        toy.expire("one");
        soon("the group goes", async {
            while rival.group("g").unwrap().delete().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        toy.script.heal();
        assert_eq!(soon("the end", membership.wait_standing()).await, Err(LossReason::GroupDeleted));
        assert_eq!(membership.over(), Some(LossReason::GroupDeleted));
        let mut last = None;
        soon("the end of the watch", async {
            while let Some(event) = watch.next().await {
                last = Some(event);
            }
        })
        .await;
        assert_eq!(last, Some(tooz_core::GroupEvent::Deleted));
    });
}

/// The session lives on, and its application knows what is missing beside it.
#[test]
fn what_a_driver_misses_beside_its_session_is_told_until_it_is_there() {
    trial(async || {
        let toy = Toy::named("told-beside");
        let coordinator = toy.connect("one").await;
        let guard = soon("a lock", coordinator.lock("x").unwrap().acquire()).await.unwrap();
        let mut events = coordinator.events();
        let missing = |why: &str| Error::new(ErrorKind::Unavailable, format!("no watchdog: {why}"));
        for why in ["too many connections", "too many connections", "the server is full"] {
            toy.script.reporter().troubled(missing(why));
        }
        let mut told = Vec::new();
        while !told.last().is_some_and(|word: &String| word.contains("the server is full")) {
            match soon("the event", events.next()).await {
                Some(SessionEvent::Troubled(error)) => told.push(error.to_string()),
                other => panic!("{other:?}"),
            }
        }
        assert!(told.len() <= 2, "told {told:?}");
        assert!(matches!(coordinator.state(), SessionState::Troubled(_)) && guard.is_held());
        toy.script.reporter().recovered();
        assert_eq!(soon("the event", events.next()).await, Some(SessionEvent::Recovered));
        assert_eq!(coordinator.state(), SessionState::Open);
        // A trouble goes with its session.
        toy.script.reporter().troubled(missing("again"));
        assert!(matches!(soon("the event", events.next()).await, Some(SessionEvent::Troubled(_))));
        toy.expire("one");
        comes_true(SOON, "no trouble is left", async || match coordinator.state() {
            SessionState::Lost | SessionState::Open => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert!(!guard.is_held());
    });
}

/// It goes on, and its caller is told by what it is held up.
#[test]
fn an_update_that_does_not_get_through_says_what_it_has_met() {
    trial(async || {
        let toy = Toy::named("told-update");
        let coordinator = toy.connect("one").await;
        let group = coordinator.group("g").unwrap();
        let membership = soon("joining", group.join_or_create("a")).await.unwrap();
        toy.script.always(Method::Update, Mischief::Fails(ErrorKind::Unavailable));
        let error = soon("updating", membership.update("b")).await.unwrap_err();
        assert!(error.to_string().contains("the toy refuses"), "{error}");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown));
        toy.script.heal();
        comes_true(SOON, "it is said in the end", async || {
            let members = group.members().await.map_err(|error| error.to_string())?;
            let said = members.iter().all(|entry| entry.capabilities.get::<String>().is_ok_and(|said| said == "b"));
            if said { Ok(()) } else { Err(format!("{members:?}")) }
        })
        .await;
    });
}
