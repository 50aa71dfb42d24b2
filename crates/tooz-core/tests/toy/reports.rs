//! What a driver reports between the calls: at the worst moment, twice, or of what is not known.

use std::time::Duration;

use tooz_core::driver::RequestId;
use tooz_core::{Error, ErrorKind, GroupId, LossReason};

use crate::cases::Cases;
use crate::driver::{Method, Mischief};
use crate::stage::{Everything, SOON, Toy, comes_free, comes_true, soon, trial};

#[test]
fn a_grant_that_is_lost_on_its_way_is_given_back_and_asked_for_again() {
    trial(async || {
        let toy = Toy::named("lost-on-the-way");
        let (coordinator, rival) = (toy.connect("one").await, toy.observer("rival").await);
        let lock = coordinator.lock("x").unwrap();
        toy.script.once(Method::Lock, Mischief::LosesTheGrant);
        let guard = soon("acquire()", lock.acquire()).await.unwrap();
        assert!(guard.is_held());
        assert_eq!(rival.lock("x").unwrap().holders().await.unwrap().len(), 1);
        soon("release()", guard.release()).await.unwrap();
        toy.script.once(Method::TryLock, Mischief::LosesTheGrant);
        match soon("a try", lock.try_acquire()).await {
            Ok(None) => {}
            Ok(Some(guard)) => assert!(guard.is_held()),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Lost | ErrorKind::Unavailable), "{error:?}"),
        }
        comes_free(&rival, "x", SOON).await;
        let guard = soon("acquire()", lock.acquire()).await.unwrap();
        assert!(guard.is_held());
    });
}

#[test]
fn a_membership_that_is_lost_on_its_way_leaves_no_member_behind() {
    trial(async || {
        let toy = Toy::named("member-on-the-way");
        let coordinator = toy.connect("one").await;
        let group = coordinator.group("g").unwrap();
        group.create().await.unwrap();
        toy.script.once(Method::Join, Mischief::LosesTheGrant);
        match soon("join()", group.join(&1)).await {
            Ok(membership) => {
                assert!(membership.is_member() || membership.loss().reason() == Some(LossReason::TakenOver));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Lost, "{error:?}"),
        }
        comes_true(SOON, "no member is listed", async || {
            let members = group.members().await.map_err(|error| error.to_string())?;
            if members.is_empty() { Ok(()) } else { Err(format!("{members:?}")) }
        })
        .await;
        assert!(soon("the next join", group.join(&2)).await.unwrap().is_member());
    });
}

#[test]
fn a_session_that_is_lost_before_any_answer_is_replaced() {
    let mut cases = Cases::default();
    for &method in Method::ALL {
        cases.add(format!("{method:?}"), move || async move {
            let toy = Toy::named(&format!("reported-{method:?}"));
            let mut all = Everything::stand(&toy).await;
            toy.script.once(method, Mischief::LosesTheSession);
            toy.expire("one");
            let lock = all.coordinator.lock("x").unwrap();
            let _ = soon("a try", lock.try_acquire()).await;
            let _ = soon("the holders", lock.holders()).await;
            let guard = soon("acquire()", lock.acquire()).await.unwrap();
            let _ = soon("release()", guard.release()).await;
            all.is_right(SOON).await;
            all.ends_with_close().await;
        });
    }
    cases.judge(Duration::from_secs(30));
}

#[test]
fn reports_of_unknown_requests_harm_nothing() {
    trial(async || {
        let toy = Toy::named("nonsense");
        let mut all = Everything::stand(&toy).await;
        let reporter = toy.script.reporter();
        let group: GroupId = "g".parse().unwrap();
        let talking = std::thread::spawn(move || {
            for count in 0..20_000 {
                reporter.grant_lost(RequestId(count));
                reporter.membership_lost(&group, RequestId(count));
                if count % 100 == 0 {
                    reporter.disconnected(Error::new(ErrorKind::Unavailable, "cut"));
                    reporter.connected();
                    reporter.connected();
                }
            }
        });
        let lock = all.coordinator.lock("x").unwrap();
        for _ in 0..50 {
            soon("acquire()", lock.acquire()).await.unwrap().release().await.unwrap();
        }
        talking.join().unwrap();
        assert!(all.guard.is_held() && all.leadership.is_leader());
        all.is_right(SOON).await;
        let reporter = toy.script.reporter();
        all.ends_with_close().await;
        // A report after the end has no meaning.
        reporter.session_lost("too late");
        reporter.connected();
    });
}

#[test]
fn the_heart_does_not_lock_itself_out_when_what_it_looks_at_goes() {
    trial(async || {
        let toy = Toy::named("stands");
        let coordinator = toy.connect("one").await;
        let group = coordinator.group("g").unwrap();
        group.create().await.unwrap();
        drop(soon("a lock", coordinator.lock("x").unwrap().acquire()).await.unwrap());
        toy.script.owns_members(group.name());
        let reporter = toy.script.reporter();
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let ended = std::sync::Arc::clone(&over);
        let talking = std::thread::spawn(move || {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                reporter.connected();
                std::thread::yield_now();
            }
        });
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            let membership = soon("join()", group.join(&1)).await.unwrap();
            soon("leave()", membership.leave()).await.unwrap();
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        talking.join().unwrap();
        soon("close()", coordinator.close()).await.unwrap();
    });
}
