//! Leaving and updating end in time, whatever becomes of the membership meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tooz_core::ErrorKind;

use crate::cases::Cases;
use crate::driver::{Method, Mischief};
use crate::stage::{Everything, OPERATION, SOON, Toy, given_up_after, soon, trial, trial_within, within};

#[test]
fn leave_returns_in_time_while_the_membership_is_being_re_established() {
    let mut cases = Cases::default();
    for method in [Method::Connect, Method::Open, Method::Join, Method::Close, Method::Leave] {
        for mischief in
            [Mischief::Hangs, Mischief::Fails(ErrorKind::Unavailable), Mischief::Fails(ErrorKind::Unauthorized)]
        {
            cases.add(format!("{method:?} {mischief:?}"), move || async move {
                let toy = Toy::named(&format!("leave-{method:?}-{mischief:?}").replace(['(', ')'], "-"));
                let all = Everything::stand(&toy).await;
                toy.script.always(method, mischief);
                toy.expire("one");
                tokio::time::sleep(Duration::from_millis(200)).await;
                let begun = Instant::now();
                let _how_it_went = within(OPERATION + SOON, "leave()", all.membership.leave()).await;
                let took = begun.elapsed();
                assert!(took < OPERATION + Duration::from_secs(2), "leave() took {took:?}");
                toy.script.heal();
                let rival = all.rival.group("g").unwrap();
                crate::stage::comes_true(SOON, "the entry is gone", async || {
                    let members = rival.members().await.map_err(|error| error.to_string())?;
                    if members.len() == 1 { Ok(()) } else { Err(format!("{members:?}")) }
                })
                .await;
                soon("close()", all.coordinator.close()).await.ok();
            });
        }
    }
    cases.judge(Duration::from_secs(30));
}

#[test]
fn an_update_during_the_re_join_is_done_by_it() {
    let mut cases = Cases::default();
    for method in [Method::Connect, Method::Open, Method::Join] {
        cases.add(format!("{method:?}"), move || async move {
            let toy = Toy::named(&format!("update-{method:?}"));
            let mut all = Everything::stand(&toy).await;
            toy.script.always(method, Mischief::Fails(ErrorKind::Unauthorized));
            toy.expire("one");
            // Nothing of these is left but what the last one says.
            for value in 0..5 {
                given_up_after(Duration::from_millis(50), all.membership.update(&value)).await;
            }
            let (updated, ()) = tokio::join!(within(OPERATION + SOON, "update()", all.membership.update(&1)), async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                toy.script.heal();
            });
            // With the pauses in between it may take longer than the caller waits; then it goes on.
            if let Err(error) = updated {
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
            }
            all.is_right(SOON).await;
            soon("close()", all.coordinator.close()).await.unwrap();
        });
    }
    cases.judge(Duration::from_secs(20));
}

/// How often something is tried that goes wrong only now and then.
const ROUNDS: usize = 3000;

#[test]
fn leave_and_update_never_hang_when_they_race_the_end_of_the_membership() {
    trial_within(Duration::from_secs(150), async || {
        let toy = Toy::named("racing-the-end");
        let namesake = toy.observer("one").await;
        let theirs = namesake.group("g").unwrap();
        theirs.create().await.unwrap();
        let coordinator = toy.connect("one").await;
        let group = coordinator.group("g").unwrap();
        for round in 0..ROUNDS {
            let mine = tooz_core::JoinOptions::new().take_over();
            let membership = Arc::new(soon("a join", group.join_with(mine)).await.unwrap());
            let taking = tokio::spawn({
                let theirs = theirs.clone();
                async move { theirs.join_with(tooz_core::JoinOptions::new().take_over()).await }
            });
            let updating = tokio::spawn({
                let membership = Arc::clone(&membership);
                async move {
                    for _ in 0..fastrand::u8(1..6) {
                        let _ = membership.update(&round).await;
                    }
                }
            });
            for _ in 0..fastrand::u8(0..4) {
                tokio::task::yield_now().await;
            }
            soon("update()", updating).await.unwrap();
            let membership = Arc::into_inner(membership).expect("the other one has ended");
            let _ = soon(&format!("leave() in round {round}"), membership.leave()).await;
            drop(soon("the take-over", taking).await.unwrap().map(|theirs| tokio::spawn(theirs.leave())));
        }
    });
}

#[test]
fn leave_and_update_never_hang_when_they_race_the_close() {
    trial_within(Duration::from_secs(150), async || {
        let toy = Toy::named("racing-the-close");
        toy.observer("rival").await.group("g").unwrap().create().await.unwrap();
        for round in 0..ROUNDS / 3 {
            let coordinator = toy.connect("one").await;
            let membership = Arc::new(soon("a join", coordinator.group("g").unwrap().join(&1)).await.unwrap());
            let closing = tokio::spawn({
                let coordinator = coordinator.clone();
                async move { coordinator.close().await }
            });
            let updating = tokio::spawn({
                let membership = Arc::clone(&membership);
                async move { while membership.update(&round).await.is_ok() {} }
            });
            for _ in 0..fastrand::u8(0..4) {
                tokio::task::yield_now().await;
            }
            soon(&format!("update() in round {round}"), updating).await.unwrap();
            let membership = Arc::into_inner(membership).expect("the other one has ended");
            let _ = soon(&format!("leave() in round {round}"), membership.leave()).await;
            soon("close()", closing).await.unwrap().unwrap();
        }
    });
}

#[test]
fn leaving_ends_what_hangs_on_the_membership() {
    trial(async || {
        let toy = Toy::named("leaving");
        let mut all = Everything::stand(&toy).await;
        let loss = all.leadership.loss();
        soon("leave()", all.membership.leave()).await.unwrap();
        assert!(loss.is_lost() && !all.leadership.is_leader());
        assert!(!all.partitioner.belongs_to_self("key"));
        soon("the ring without it", async {
            while all.partitioner.members_for("key", 5).len() > 1 {
                all.partitioner.changed().await;
            }
        })
        .await;
        let _candidate = soon("the rival's campaign", all.rival_member.campaign()).await.unwrap();
    });
}
