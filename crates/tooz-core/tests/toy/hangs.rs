//! Whatever a driver does in whatever method: every call ends in time, and closing ends everything that waits for something.

use std::time::{Duration, Instant};

use tooz_core::{ErrorKind, Outcome};

use crate::cases::Cases;
use crate::driver::{Method, Mischief};
use crate::stage::{Everything, OPERATION, SESSION, SOON, Toy, ends_within, soon, trial, within};

#[test]
fn closing_ends_everything_whatever_the_driver_does_meanwhile() {
    let mut cases = Cases::default();
    for &method in Method::ALL {
        for &mischief in Mischief::ALL {
            cases.add(format!("{method:?} {mischief:?}"), move || async move {
                let toy = Toy::named(&format!("any-{method:?}-{mischief:?}").replace(['(', ')', '.'], "-"));
                let all = Everything::stand(&toy).await;
                toy.script.always(method, mischief);
                // Something for each method to do: a new session is needed, and the old one's watches too.
                toy.expire("one");
                tokio::time::sleep(Duration::from_millis(150)).await;
                all.ends_with_close().await;
            });
        }
    }
    cases.judge(Duration::from_secs(40));
}

#[test]
fn closing_ends_everything_when_all_methods_hang() {
    for blocking in [false, true] {
        trial(async move || {
            let toy = Toy::named(&format!("all-hang-{blocking}"));
            let all = Everything::stand(&toy).await;
            for &method in Method::ALL {
                toy.script.always(method, Mischief::Hangs);
            }
            let losses = [all.guard.loss(), all.membership.loss(), all.leadership.loss()];
            let coordinator = all.coordinator.clone();
            let begun = Instant::now();
            let closed = if blocking {
                ends_within(SOON, "close_blocking()", move || coordinator.close_blocking())
            } else {
                soon("close()", coordinator.close()).await
            };
            assert_eq!(closed.expect_err("nothing answers").kind(), ErrorKind::TimedOut);
            assert!(begun.elapsed() < OPERATION + Duration::from_secs(2), "{:?}", begun.elapsed());
            all.has_ended(losses).await;
        });
    }
}

#[test]
fn every_call_ends_in_time_when_all_methods_hang_and_says_what_was_asked() {
    trial(async || {
        let toy = Toy::named("calls-hang");
        let all = Everything::stand(&toy).await;
        for &method in Method::ALL {
            toy.script.always(method, Mischief::Hangs);
        }
        let coordinator = &all.coordinator;
        let lock = coordinator.lock("free").unwrap();
        let group = coordinator.group("g").unwrap();
        let holder = soon("the rival looks", all.rival.lock("waited for").unwrap().holders()).await.unwrap().remove(0);
        let limit = OPERATION + Duration::from_secs(2);
        let other = coordinator.group("h").unwrap();
        // All at once: together they take no longer than the session lives.
        let (tried, held, broken, created, deleted, listed, joined, asked) = tokio::join!(
            within(limit, "try", lock.try_acquire()),
            within(limit, "holders", lock.holders()),
            within(limit, "break", lock.break_lock(&holder)),
            within(limit, "create", group.create()),
            within(limit, "delete", group.delete()),
            within(limit, "groups", coordinator.groups()),
            within(limit, "join", other.join(&1)),
            within(limit, "members", group.members()),
        );
        let (led, updated, watched, followed, probed, looked, released, resigned) = tokio::join!(
            within(limit, "leader", group.leader()),
            within(limit, "update", all.membership.update(&2)),
            within(limit, "watch", group.watch()),
            within(limit, "watch_leader", group.watch_leader()),
            within(limit, "probe", coordinator.probe(tooz_core::Probe::Read)),
            within(limit, "check_up", coordinator.check_up()),
            within(limit, "release", all.guard.release()),
            within(limit, "resign", all.leadership.resign()),
        );
        let left = within(limit, "leave", all.membership.leave()).await;
        let timed_out = [
            ("try", tried.map(drop)),
            ("holders", held.map(drop)),
            ("break", broken),
            ("create", created),
            ("delete", deleted),
            ("list the groups", listed.map(drop)),
            ("join", joined.map(drop)),
            ("members", asked.map(drop)),
            ("leader", led.map(drop)),
            ("update", updated),
            ("watch", watched.map(drop)),
            ("watch", followed.map(drop)),
            ("round trip", probed),
            ("look at", looked.map(drop)),
            ("release", released),
            ("release", resigned),
            ("leave", left),
        ];
        let mut wrong = Vec::new();
        for (word, answer) in timed_out {
            match answer {
                Ok(()) => wrong.push(format!("{word}: Ok")),
                Err(error) if error.kind() != ErrorKind::TimedOut => wrong.push(format!("{word}: {error:?}")),
                Err(error) if error.outcome() == Outcome::NotApplied => wrong.push(format!("{word}: {error:?}")),
                Err(error) if !error.to_string().contains(word) => wrong.push(format!("{word} is not in {error}")),
                Err(_) => {}
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn dropping_everything_ends_the_heart_whatever_hangs() {
    let mut cases = Cases::default();
    for &method in Method::ALL {
        cases.add(format!("{method:?}"), move || async move {
            let toy = Toy::named(&format!("dropped-{method:?}"));
            let all = Everything::stand(&toy).await;
            toy.script.always(method, Mischief::Hangs);
            let loss = all.guard.loss();
            let Everything {
                guard,
                coordinator,
                membership,
                leadership,
                watch,
                leaders,
                partitioner,
                events,
                waiting,
                ..
            } = all;
            waiting.abort();
            drop((guard, coordinator, membership, leadership, watch, leaders, partitioner));
            soon("the loss", loss.wait()).await;
            let mut events = events;
            within(SESSION + SOON, "the end of the events", async { while events.next().await.is_some() {} }).await;
        });
    }
    cases.judge(Duration::from_secs(30));
}
