//! All that one can do, over and over: nothing but a few counters is left at the server.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tooz::Coordinator;

use crate::stage::{LONG, MOMENT, OPERATION, Stage, attempt, cases, hold, soon};

cases! { "churn", Server, alone: false;
    nothing_is_left_of_all_that_came_and_went,
}

const ROUNDS: usize = 40;

async fn nothing_is_left_of_all_that_came_and_went(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    soon("nothing", round(&a, &b, 0)).await;
    let before = stage.stored();
    for number in 1..=ROUNDS {
        round(&a, &b, number).await;
        if number.is_multiple_of(10) {
            // Sessions come and go too.
            let short = stage.connect("short", LONG).await;
            round(&short, &b, number).await;
            soon("closing", short.close()).await.expect("closing");
        }
    }
    let mut after = stage.stored();
    let cleared = Instant::now() + stage.backend.clearing;
    // What is withdrawn in the background may just be on its way.
    while after.len() > before.len() + 2 && Instant::now() < cleared {
        sleep(MOMENT).await;
        after = stage.stored();
    }
    assert!(after.len() <= before.len() + 2, "it grows: {before:?} became {after:?}");
    stage.nothing_is_left().await;
}

/// Everything once, with names of its own.
async fn round(a: &Coordinator, b: &Coordinator, number: usize) {
    let name = format!("lock-{number}");
    let (mine, theirs) = (a.lock(name.as_str()).unwrap(), b.lock(name.as_str()).unwrap());
    let guard = hold(&mine).await;
    assert!(attempt(&theirs).await.is_none());
    // In so short a time the server may not have answered, which is an error.
    let limited = soon("a limited wait", theirs.acquire_within(Duration::from_millis(5))).await;
    assert!(!matches!(limited, Ok(Some(_))), "{limited:?}");
    // A wait that is dropped while it is under way, and one that is dropped before it began.
    assert!(timeout(Duration::from_millis(5), theirs.acquire()).await.is_err());
    drop(theirs.acquire());
    let waiter = tokio::spawn(async move { soon("the waiter's turn", theirs.acquire()).await });
    if number.is_multiple_of(2) {
        soon("releasing", guard.release()).await.expect("releasing");
    } else {
        drop(guard);
    }
    soon("releasing", waiter.await.unwrap().expect("waiting").release()).await.expect("releasing");
    let readers = [mine.shared(), mine.shared()];
    let first = soon("reading", readers[0].acquire()).await.unwrap();
    let second = soon("reading", readers[1].acquire()).await.unwrap();
    soon("releasing", first.release()).await.expect("releasing");
    soon("releasing", second.release()).await.expect("releasing");

    let group = a.group(format!("group-{number}")).unwrap();
    let membership = soon("joining", group.join_or_create(&number)).await.unwrap();
    soon("updating", membership.update(&"new")).await.expect("updating");
    let leadership = soon("campaigning", membership.campaign()).await.unwrap();
    if number.is_multiple_of(2) {
        soon("resigning", leadership.resign()).await.expect("resigning");
    }
    soon("leaving", membership.leave()).await.expect("leaving");
    crate::stage::eventually(OPERATION, "the empty group is deleted", async || group.delete().await.is_ok()).await;
}
