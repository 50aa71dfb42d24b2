//! The line before a lock while the backend is in trouble: its waiters are kept up, and its callers are told the truth.

use std::time::{Duration, Instant};

use tooz_core::{ErrorKind, GroupEvent};

use crate::driver::{Method, Mischief};
use crate::stage::{OPERATION, SESSION, SOON, Toy, comes_true, soon, trial, within};

#[test]
fn a_wait_behind_a_release_that_does_not_get_through_is_an_error() {
    trial(async || {
        let toy = Toy::named("behind-a-release");
        let coordinator = toy.connect("one").await;
        let lock = coordinator.lock("x").unwrap();
        let guard = soon("a lock", lock.acquire()).await.unwrap();
        toy.script.always(Method::Release, Mischief::Hangs);
        let releasing = tokio::spawn(guard.release());
        tokio::time::sleep(Duration::from_millis(50)).await;
        let waited = soon("a wait", lock.acquire_within(Duration::from_millis(200))).await;
        assert!(waited.is_err(), "it has no holder: {waited:?}");
        toy.script.heal();
        drop(within(SOON, "the release", releasing).await);
    });
}

#[test]
fn a_try_behind_one_who_waits_for_a_server_that_is_gone_is_an_error() {
    trial(async || {
        let toy = Toy::named("behind-a-waiter");
        let coordinator = toy.connect("one").await;
        let lock = coordinator.lock("x").unwrap();
        soon("a first lock", lock.acquire()).await.unwrap().release().await.unwrap();
        toy.script.always(Method::Connect, Mischief::Fails(ErrorKind::Unavailable));
        toy.expire("one");
        let waiting = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let tried = soon("a try", lock.try_acquire()).await;
        assert!(tried.is_err(), "it has no holder: {tried:?}");
        toy.script.heal();
        let guard = soon("the waiter", waiting).await.unwrap().expect("it is kept up");
        let tried = soon("a try", lock.try_acquire()).await;
        assert!(matches!(tried, Ok(None)), "another has it: {tried:?}");
        drop(guard);
    });
}

#[test]
fn who_queued_while_the_first_grant_was_on_its_way_has_stood() {
    trial(async || {
        let toy = Toy::named("first-grant");
        let coordinator = toy.connect("one").await;
        let lock = coordinator.lock("x").unwrap();
        soon("a first lock", lock.acquire()).await.unwrap().release().await.unwrap();
        toy.script.once(Method::Lock, Mischief::AnswersLate(Duration::from_millis(100)));
        let wait = || {
            let lock = lock.clone();
            tokio::spawn(async move { lock.acquire().await })
        };
        let first = wait();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let second = wait();
        let guard = soon("the first", first).await.unwrap().unwrap();
        toy.script.always(Method::Lock, Mischief::Fails(ErrorKind::Unauthorized));
        soon("a release", guard.release()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!second.is_finished(), "it stood in the line while the first had the lock");
        toy.script.heal();
        assert!(soon("the second", second).await.unwrap().unwrap().is_held());
    });
}

#[test]
fn what_a_driver_calls_closed_is_not_the_end() {
    trial(async || {
        let toy = Toy::named("closed-by-word");
        let coordinator = toy.connect("one").await;
        let group = coordinator.group("g").unwrap();
        let membership = group.join_or_create(&1).await.unwrap();
        let mut watch = group.watch().await.unwrap();
        assert!(matches!(soon("the snapshot", watch.next()).await, Some(GroupEvent::Snapshot(_))));
        for method in [Method::Connect, Method::Open, Method::Join, Method::Members] {
            toy.script.always(method, Mischief::Fails(ErrorKind::Closed));
            toy.expire("one");
            tokio::time::sleep(Duration::from_millis(300)).await;
            toy.script.heal();
            let stands = within(SOON, "the membership", membership.wait_standing()).await;
            assert_eq!(stands, Ok(()), "{method:?}");
            assert!(watch.end().is_none(), "{method:?}: {:?}", watch.end());
        }
    });
}

#[test]
fn a_key_has_no_owner_after_the_close() {
    trial(async || {
        let toy = Toy::named("rings");
        let coordinator = toy.connect("one").await;
        let membership = coordinator.group("g").unwrap().join_or_create(&1).await.unwrap();
        let partitioner = membership.partitioner().await.unwrap();
        assert!(partitioner.belongs_to_self("key"));
        soon("close()", coordinator.close()).await.unwrap();
        comes_true(SOON, "the key has no owner", async || match partitioner.members_for("key", 1) {
            owners if owners.is_empty() => Ok(()),
            owners => Err(format!("{owners:?}")),
        })
        .await;
        assert!(!partitioner.belongs_to_self("key"));
    });
}

#[test]
fn a_withdrawal_that_waits_long_for_its_turn_ends_no_session() {
    trial(async || {
        let toy = Toy::named("late-withdrawal");
        let coordinator = toy.connect("one").await;
        let kept = soon("another lock", coordinator.lock("kept").unwrap().acquire()).await.unwrap();
        // Thousands of requests stand before the withdrawal: it is done, but long after the time that one operation takes.
        toy.script.once(Method::Lock, Mischief::FailsAfterwards(ErrorKind::TimedOut));
        toy.script.always(Method::Release, Mischief::ArrivesLate(OPERATION + OPERATION / 2));
        let guard = soon("a lock", coordinator.lock("x").unwrap().acquire()).await.unwrap();
        assert_eq!(kept.loss().reason(), None);
        toy.script.heal();
        guard.release().await.unwrap();
        kept.release().await.unwrap();
    });
}

#[test]
fn a_withdrawal_among_others_that_get_done_waits_for_its_turn() {
    trial(async || {
        let toy = Toy::named("withdrawal-in-a-crowd");
        let coordinator = toy.connect("one").await;
        let kept = soon("another lock", coordinator.lock("kept").unwrap().acquire()).await.unwrap();
        toy.script.once(Method::Lock, Mischief::FailsAfterwards(ErrorKind::TimedOut));
        // Later than twice the session timeout, after which a session ends of which nothing gets done.
        toy.script.once(Method::Release, Mischief::ArrivesLate(SESSION * 3));
        let begun = Instant::now();
        let waiting = tokio::spawn({
            let lock = coordinator.lock("x").unwrap();
            async move { lock.acquire().await }
        });
        while begun.elapsed() < SESSION * 3 {
            tokio::time::sleep(SESSION / 3).await;
            let other = soon("a lock", coordinator.lock("other").unwrap().acquire()).await.unwrap();
            soon("a release", other.release()).await.unwrap();
        }
        let guard = soon("a lock", waiting).await.unwrap().unwrap();
        assert_eq!(kept.loss().reason(), None);
        guard.release().await.unwrap();
        kept.release().await.unwrap();
    });
}

#[test]
fn a_withdrawal_that_the_backend_can_not_do_now_ends_no_session() {
    trial(async || {
        let toy = Toy::named("busy-withdrawal");
        let coordinator = toy.connect("one").await;
        let kept = soon("another lock", coordinator.lock("kept").unwrap().acquire()).await.unwrap();
        let guard = soon("a lock", coordinator.lock("x").unwrap().acquire()).await.unwrap();
        toy.script.always(Method::Release, Mischief::Fails(ErrorKind::Unavailable));
        assert!(soon("a release", guard.release()).await.is_err());
        tokio::time::sleep(SESSION * 2 + SESSION / 2).await;
        assert_eq!(kept.loss().reason(), None);
        toy.script.heal();
        let guard = soon("a lock", coordinator.lock("x").unwrap().acquire()).await.unwrap();
        guard.release().await.unwrap();
        kept.release().await.unwrap();
    });
}

#[test]
fn a_leave_that_waits_long_for_its_turn_ends_no_session() {
    trial(async || {
        let toy = Toy::named("late-leave");
        let coordinator = toy.connect("one").await;
        let kept = soon("a lock", coordinator.lock("kept").unwrap().acquire()).await.unwrap();
        let membership = soon("a join", coordinator.group("g").unwrap().join_or_create(&())).await.unwrap();
        toy.script.always(Method::Leave, Mischief::ArrivesLate(OPERATION + OPERATION / 2));
        drop(soon("a leave", membership.leave()).await);
        comes_true(SOON, "it has left", async || {
            let members = coordinator.group("g").unwrap().members().await.map_err(|error| error.to_string())?;
            if members.is_empty() { Ok(()) } else { Err(format!("{members:?}")) }
        })
        .await;
        // The same once more, for as long as it would take to end the session.
        tokio::time::sleep(SESSION + OPERATION).await;
        assert_eq!(kept.loss().reason(), None);
        toy.script.heal();
        kept.release().await.unwrap();
    });
}

#[test]
fn a_leave_that_was_refused_for_long_and_then_waits_for_its_turn_ends_no_session() {
    trial(async || {
        let toy = Toy::named("refused-leave");
        let coordinator = toy.connect("one").await;
        let kept = soon("a lock", coordinator.lock("kept").unwrap().acquire()).await.unwrap();
        let membership = soon("a join", coordinator.group("g").unwrap().join_or_create(&())).await.unwrap();
        toy.script.always(Method::Leave, Mischief::Fails(ErrorKind::Unauthorized));
        assert!(soon("a leave", membership.leave()).await.is_err());
        // For longer than an unknown outcome is borne: a refusal says that nothing was done.
        tokio::time::sleep(SESSION * 2 + SESSION / 2).await;
        assert_eq!(kept.loss().reason(), None);
        toy.script.always(Method::Leave, Mischief::ArrivesLate(OPERATION / 4));
        comes_true(SOON, "it has left", async || {
            let members = coordinator.group("g").unwrap().members().await.map_err(|error| error.to_string())?;
            if members.is_empty() { Ok(()) } else { Err(format!("{members:?}")) }
        })
        .await;
        assert_eq!(kept.loss().reason(), None);
        toy.script.heal();
        kept.release().await.unwrap();
    });
}
