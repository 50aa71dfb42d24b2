//! What once stood does not end in silence: refused for a while, it is kept up, and right again soon after.

use std::time::Duration;

use tooz_core::driver::Pushed;
use tooz_core::{ErrorKind, LossReason};

use crate::cases::Cases;
use crate::driver::{Method, Mischief};
use crate::stage::{Everything, OPERATION, SOON, Toy, comes_true, soon, trial};

/// How long the backend refuses: some repetitions with pauses.
const AWHILE: Duration = Duration::from_millis(600);

/// Everything by which something is kept up or made anew.
const KEPT_UP_BY: &[Method] = &[
    Method::Connect,
    Method::Open,
    Method::Join,
    Method::Members,
    Method::WatchGroup,
    Method::WatchLock,
    Method::Holders,
    Method::Lock,
    Method::Beat,
    Method::Owned,
    Method::Close,
    Method::Release,
    Method::Leave,
    Method::Update,
    Method::Terms,
];

const KINDS: &[ErrorKind] = &[
    ErrorKind::Unauthorized,
    ErrorKind::Config,
    ErrorKind::Backend,
    ErrorKind::Unavailable,
    ErrorKind::TimedOut,
    ErrorKind::Lost,
    ErrorKind::Unsupported,
];

async fn is_kept_up(toy: &Toy, mut all: Everything, refused: &[Method], mischief: Mischief, session_ends: bool) {
    for &method in refused {
        toy.script.always(method, mischief);
    }
    if session_ends {
        toy.expire("one");
    }
    // All look again.
    toy.script.push(&Pushed::Dirty);
    tokio::time::sleep(AWHILE).await;
    toy.script.heal();
    if !session_ends {
        toy.script.push(&Pushed::Dirty);
    }
    all.is_right(SOON).await;
    if session_ends {
        comes_true(SOON, "the events tell of the loss", async || match all.told().await {
            (lost, _) if !lost.is_empty() => Ok(()),
            _ => Err("they do not".to_owned()),
        })
        .await;
    }
    // The waiter has not been sent away.
    all.rivals.release().await.unwrap();
    let guard = soon("the waiter's lock", &mut all.waiting).await.expect("it does not panic its caller");
    assert!(guard.expect("what has stood in the queue is kept up").is_held());
    soon("close()", all.coordinator.close()).await.unwrap();
}

#[test]
fn what_one_method_refuses_for_a_while_is_right_again_in_the_next_session() {
    let mut cases = Cases::default();
    for &method in KEPT_UP_BY {
        for &kind in KINDS {
            cases.add(format!("{method:?} {kind}"), move || async move {
                let toy = Toy::named(&format!("silence-{method:?}-{kind}"));
                let all = Everything::stand(&toy).await;
                is_kept_up(&toy, all, &[method], Mischief::Fails(kind), true).await;
            });
        }
    }
    cases.judge(Duration::from_secs(40));
}

#[test]
fn what_all_methods_refuse_for_a_while_is_right_again() {
    let mut cases = Cases::default();
    for &kind in KINDS {
        for session_ends in [true, false] {
            cases.add(format!("{kind}, the session ends: {session_ends}"), move || async move {
                let toy = Toy::named(&format!("silence-all-{kind}-{session_ends}"));
                let all = Everything::stand(&toy).await;
                is_kept_up(&toy, all, KEPT_UP_BY, Mischief::Fails(kind), session_ends).await;
            });
        }
    }
    cases.judge(Duration::from_secs(40));
}

#[test]
fn what_a_living_session_refuses_for_a_while_ends_no_watch() {
    let mut cases = Cases::default();
    for method in [Method::Members, Method::Holders, Method::WatchGroup, Method::WatchLock] {
        for &kind in KINDS {
            cases.add(format!("{method:?} {kind}"), move || async move {
                let toy = Toy::named(&format!("silence-living-{method:?}-{kind}"));
                let all = Everything::stand(&toy).await;
                is_kept_up(&toy, all, &[method], Mischief::Fails(kind), false).await;
            });
        }
    }
    cases.judge(Duration::from_secs(40));
}

#[test]
fn what_panics_or_hangs_for_a_while_is_right_again() {
    let mut cases = Cases::default();
    for &method in KEPT_UP_BY {
        for &mischief in Mischief::PANICS.iter().chain(&[Mischief::Hangs, Mischief::HangsAfterwards]) {
            cases.add(format!("{method:?} {mischief:?}"), move || async move {
                let toy = Toy::named(&format!("silence-{method:?}-{mischief:?}"));
                let mut all = Everything::stand(&toy).await;
                toy.script.always(method, mischief);
                toy.expire("one");
                tokio::time::sleep(AWHILE).await;
                toy.script.heal();
                // What hangs is waited for as long as one request may take, and then as long again.
                all.is_right(2 * OPERATION + SOON).await;
                all.ends_with_close().await;
            });
        }
    }
    cases.judge(Duration::from_secs(40));
}

#[test]
fn a_re_join_does_not_take_its_own_unanswered_attempt_for_somebody_else() {
    let mut cases = Cases::default();
    for mischief in [Mischief::FailsAfterwards(ErrorKind::TimedOut), Mischief::HangsAfterwards] {
        cases.add(format!("{mischief:?}"), move || async move {
            let toy = Toy::named(&format!("ghost-{mischief:?}").replace(['(', ')'], "-"));
            let mut all = Everything::stand(&toy).await;
            toy.script.always(Method::Join, mischief);
            // Nothing of it can be taken back meanwhile.
            toy.script.always(Method::Leave, Mischief::Fails(ErrorKind::Unavailable));
            toy.script.always(Method::Close, Mischief::Fails(ErrorKind::Unavailable));
            toy.expire("one");
            tokio::time::sleep(AWHILE).await;
            // That session ends as well, with the attempt's entry in it.
            toy.script.once(Method::Beat, Mischief::Fails(ErrorKind::Lost));
            tokio::time::sleep(3 * AWHILE).await;
            toy.script.heal();
            all.is_right(2 * OPERATION + SOON).await;
            assert_ne!(all.membership.loss().reason(), Some(LossReason::TakenOver));
            all.ends_with_close().await;
        });
    }
    cases.judge(Duration::from_secs(40));
}

#[test]
fn a_gap_whose_reading_fails_is_told_by_the_next_reading() {
    trial(async || {
        let toy = Toy::named("gap");
        let rival = toy.observer("rival").await;
        rival.group("g").unwrap().create().await.unwrap();
        let coordinator = toy.connect("one").await;
        let mut watch = coordinator.group("g").unwrap().watch().await.unwrap();
        soon("the snapshot", watch.next()).await.unwrap();
        toy.script.once(Method::Members, Mischief::Fails(ErrorKind::Unavailable));
        toy.script.push(&Pushed::Gap);
        comes_true(SOON, "it was read", async || if toy.script.is_done() { Ok(()) } else { Err("not yet".to_owned()) })
            .await;
        let event = soon("the reset", watch.next()).await.unwrap();
        assert!(matches!(event, tooz_core::GroupEvent::Reset(_)), "{event:?}");
    });
}

#[test]
fn what_is_over_tells_why() {
    trial(async || {
        let toy = Toy::named("over");
        let all = Everything::stand(&toy).await;
        // Another of the same name takes over: that is for ever, and told as that.
        let namesake = toy.observer("one").await;
        let options = tooz_core::JoinOptions::new().take_over();
        let theirs = soon("a take-over", namesake.group("g").unwrap().join_with(options)).await.unwrap();
        assert_eq!(soon("the loss", all.membership.loss().wait()).await, LossReason::TakenOver);
        assert!(!all.membership.is_member() && !all.leadership.is_leader());
        let error = soon("a campaign", all.membership.campaign()).await.expect_err("it is over");
        assert_eq!(error.kind(), ErrorKind::NotMember);
        let error = soon("an update", all.membership.update(&3)).await.expect_err("it is over");
        assert_eq!(error.kind(), ErrorKind::NotMember);
        assert!(theirs.is_member());
        assert!(all.guard.is_held(), "its session lives on");
    });
}
