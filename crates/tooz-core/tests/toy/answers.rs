//! A driver that answers late or does things twice: its users do not notice, and what came too late is taken back.

use std::time::Duration;

use tooz_core::ErrorKind;
use tooz_core::driver::Pushed;

use crate::cases::Cases;
use crate::driver::{Method, Mischief};
use crate::stage::{Everything, OPERATION, SOON, Toy, comes_free, comes_true, soon, trial};

#[test]
fn what_is_done_twice_or_answered_late_is_right_all_the_same() {
    let mut cases = Cases::default();
    let late = Duration::from_millis(100);
    for mischief in [Mischief::Twice, Mischief::AnswersLate(late), Mischief::ArrivesLate(late)] {
        cases.add(format!("{mischief:?}"), move || async move {
            let toy = Toy::named(&format!("slow-{mischief:?}").replace(['(', ')', '.'], "-"));
            for &method in
                Method::ALL.iter().filter(|method| !matches!(method, Method::CreateGroup | Method::DeleteGroup))
            {
                toy.script.always(method, mischief);
            }
            let mut all = Everything::stand(&toy).await;
            all.is_right(SOON).await;
            toy.expire("one");
            all.is_right(SOON).await;
            let coordinator = all.coordinator.clone();
            let lock = coordinator.lock("x").unwrap();
            for _ in 0..5 {
                let guard = soon("acquire()", lock.acquire()).await.unwrap();
                assert!(soon("a second try", lock.try_acquire()).await.unwrap().is_none());
                soon("release()", guard.release()).await.unwrap();
                let tried = soon("a try", lock.try_acquire()).await.unwrap().expect("it is free");
                let within = soon("a wait", lock.acquire_within(Duration::from_millis(250))).await.unwrap();
                assert!(within.is_none());
                drop(tried);
            }
            comes_free(&all.rival, "x", SOON).await;
            all.ends_with_close().await;
        });
    }
    cases.judge(Duration::from_secs(40));
}

#[test]
fn a_watch_that_is_told_everything_twice_tells_it_once() {
    trial(async || {
        let toy = Toy::named("pushed-twice");
        toy.script.always(Method::WatchGroup, Mischief::Twice);
        toy.script.always(Method::WatchLock, Mischief::Twice);
        let rival = toy.observer("rival").await;
        rival.group("g").unwrap().create().await.unwrap();
        let coordinator = toy.connect("one").await;
        let mut watch = coordinator.group("g").unwrap().watch().await.unwrap();
        soon("the snapshot", watch.next()).await.unwrap();
        toy.script.push(&Pushed::Ready);
        for round in 0..20 {
            let membership = rival.group("g").unwrap().join(&round).await.unwrap();
            let event = soon("the join", watch.next()).await.unwrap();
            assert!(matches!(event, tooz_core::GroupEvent::Joined(_)), "{event:?}");
            membership.leave().await.unwrap();
            let event = soon("the leave", watch.next()).await.unwrap();
            assert!(matches!(event, tooz_core::GroupEvent::Left(_)), "{event:?}");
        }
    });
}

#[test]
fn what_came_too_late_is_given_back() {
    let mut cases = Cases::default();
    let late = OPERATION + Duration::from_millis(300);
    for mischief in
        [Mischief::AnswersLate(late), Mischief::ArrivesLate(late), Mischief::FailsAfterwards(ErrorKind::TimedOut)]
    {
        cases.add(format!("{mischief:?}"), move || async move {
            let toy = Toy::named(&format!("too-late-{mischief:?}").replace(['(', ')', '.'], "-"));
            let (rival, coordinator) = (toy.observer("rival").await, toy.connect("one").await);
            rival.group("g").unwrap().create().await.unwrap();
            let lock = coordinator.lock("x").unwrap();
            toy.script.once(Method::TryLock, mischief);
            let error = soon("a try", lock.try_acquire()).await.expect_err("that is not known");
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
            // A join is asked a second time.
            toy.script.once(Method::Join, mischief);
            toy.script.once(Method::Join, mischief);
            let joined = soon("a join", coordinator.group("g").unwrap().join(&1)).await;
            if let Err(error) = &joined {
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
            }
            drop(joined);
            tokio::time::sleep(late).await;
            toy.script.heal();
            comes_free(&rival, "x", SOON).await;
            comes_true(SOON, "the group is empty", async || {
                let members = rival.group("g").unwrap().members().await.unwrap();
                if members.is_empty() { Ok(()) } else { Err(format!("{members:?}")) }
            })
            .await;
            let guard = soon("the next lock", lock.acquire()).await.unwrap();
            assert!(guard.is_held());
            let membership = soon("the next join", coordinator.group("g").unwrap().join(&2)).await.unwrap();
            assert!(membership.is_member());
        });
    }
    cases.judge(Duration::from_secs(30));
}

#[test]
fn an_update_that_was_given_up_does_not_overwrite_a_newer_one() {
    trial(async || {
        let toy = Toy::named("old-update");
        let (rival, coordinator) = (toy.observer("rival").await, toy.connect("one").await);
        let membership = coordinator.group("g").unwrap().join_or_create(&0).await.unwrap();
        let late = OPERATION + Duration::from_millis(400);
        toy.script.once(Method::Update, Mischief::ArrivesLate(late));
        let error = soon("the first update", membership.update(&1)).await.expect_err("it is late");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        // It may wait for the old one, or be refused until that is over; it may not be undone.
        comes_true(SOON, "the second update", async || membership.update(&2).await.map_err(|error| error.to_string()))
            .await;
        for _ in 0..40 {
            let members = rival.group("g").unwrap().members().await.unwrap();
            assert_eq!(members[0].capabilities.as_json(), "2", "the older one came afterwards");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    });
}
