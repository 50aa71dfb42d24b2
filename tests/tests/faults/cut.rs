//! A client is cut off by a broken network, while the server and the others go on: within the timeout, and beyond.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz::{SessionEvent, SessionState};
use tooz_testbed::Proxy;

use crate::stage::{
    Belief, LATE, LONG, OPERATION, PATIENCE, SHORT, Stage, cases, eventually, hold, soon, wait_in_background, within,
};

cases! { "cut", Server, alone: false;
    a_stall_within_the_timeout_loses_nothing,
    a_reset_within_the_timeout_loses_nothing,
    a_stalled_client_knows_its_loss_before_another_is_granted,
    a_refused_client_knows_its_loss_before_another_is_granted,
    a_client_that_is_not_heard_knows_its_loss_before_another_is_granted,
    a_client_that_hears_nothing_knows_its_loss_before_another_is_granted,
    resets_in_the_middle_of_everything_lose_nothing,
}

async fn a_stall_within_the_timeout_loses_nothing(stage: &Stage) {
    loses_nothing(stage, Proxy::stall).await;
}

async fn a_reset_within_the_timeout_loses_nothing(stage: &Stage) {
    loses_nothing(stage, refuse_all).await;
}

/// Breaks what there is, and lets nothing new come up.
pub(crate) fn refuse_all(proxy: &Proxy) {
    proxy.refuse();
    proxy.reset();
}

async fn loses_nothing(stage: &Stage, fault: fn(&Proxy)) {
    let proxy = stage.proxy();
    let (a, b) = (stage.connect_to(&stage.url_by(&proxy), "a", LONG).await, stage.connect("b", LONG).await);
    let mut events = a.events();
    let guard = hold(&a.lock("x").unwrap()).await;
    let waiter = wait_in_background(&b.lock("x").unwrap());
    // It waits at the other end of the broken way.
    let held = hold(&b.lock("y").unwrap()).await;
    let far_waiter = wait_in_background(&a.lock("y").unwrap());
    sleep(Duration::from_millis(200)).await;

    fault(&proxy);
    // Released while the waiter can't hear of it.
    soon("releasing", held.release()).await.unwrap();
    sleep(LONG / 3).await;
    proxy.heal();
    drop(soon("the turn of the waiter that was cut off", far_waiter).await.unwrap());
    sleep(LONG).await;
    assert!(guard.is_held(), "a short cut lost the lock: {:?}", guard.loss().reason());
    assert!(!waiter.is_finished(), "the lock was given to two");
    assert_eq!(a.state(), SessionState::Open);
    soon("releasing", guard.release()).await.expect("releasing");
    drop(soon("the waiter's turn", waiter).await.unwrap());
    // Whether a beat was due meanwhile or not: nothing else may have been told.
    soon("closing", a.close()).await.unwrap();
    while let Some(event) = events.next().await {
        assert!(matches!(event, SessionEvent::Suspended(_) | SessionEvent::Resumed), "{event:?} was told");
    }
}

async fn a_stalled_client_knows_its_loss_before_another_is_granted(stage: &Stage) {
    knows_its_loss_first(stage, Proxy::stall).await;
}

async fn a_refused_client_knows_its_loss_before_another_is_granted(stage: &Stage) {
    knows_its_loss_first(stage, refuse_all).await;
}

async fn a_client_that_is_not_heard_knows_its_loss_before_another_is_granted(stage: &Stage) {
    knows_its_loss_first(stage, Proxy::drop_to_server).await;
}

/// The server hears every beat, and keeps the session as long as they come: only the client can know that it is over.
async fn a_client_that_hears_nothing_knows_its_loss_before_another_is_granted(stage: &Stage) {
    knows_its_loss_first(stage, Proxy::drop_to_client).await;
}

async fn knows_its_loss_first(stage: &Stage, fault: fn(&Proxy)) {
    let proxy = stage.proxy();
    let (a, b) = (stage.connect_to(&stage.url_by(&proxy), "a", SHORT).await, stage.connect("b", SHORT).await);
    let guard = hold(&a.lock("x").unwrap()).await;
    let token = guard.fencing_token();
    let waiter = wait_in_background(&b.lock("x").unwrap());
    sleep(Duration::from_millis(200)).await;
    let loss = guard.loss();
    let belief = Belief::of(guard);
    let telling = tokio::spawn(async move { (loss.wait().await, Instant::now()) });

    fault(&proxy);
    let cut = Instant::now();
    // The server may have heard one more beat, and one whole wait of the client's for its answers.
    let limit = SHORT + OPERATION + stage.ended_after(SHORT) + LATE;
    let (next, granted) = within(limit, "the waiter's turn", waiter).await.unwrap();
    stage.note("from the cut to the next grant", granted - cut);
    let believed = belief.guard().is_held();
    assert!(!believed, "two believed to hold at once");
    let (last, guard) = belief.end().await;
    assert!(last < granted, "it was held for {:?} after another had it", last - granted);
    let (_, told) = soon("the loss", telling).await.unwrap();
    assert!(told <= granted + LATE, "the loss was told {:?} after another had the lock", told - granted);
    stage.note("from the loss told to the next grant", granted.saturating_duration_since(told));
    assert!(next.fencing_token() > token, "the token did not grow");

    proxy.heal();
    let again = wait_in_background(&a.lock("x").unwrap());
    sleep(SHORT).await;
    assert!(next.is_held() && !again.is_finished(), "healing took the lock from its new holder");
    assert!(!guard.is_held(), "healing brought a lost lock back");
    soon("releasing", next.release()).await.expect("releasing");
    let (again, _) = within(PATIENCE, "acquiring after healing", again).await.unwrap();
    eventually(PATIENCE, "the session is open again", async || a.state() == SessionState::Open).await;
    soon("releasing", again.release()).await.expect("releasing");
}

/// Breaks the connections all the time, in the middle of requests.
pub(crate) fn resets(proxy: &Proxy) -> tokio::task::JoinHandle<()> {
    let proxy = proxy.clone();
    tokio::spawn(async move {
        for _ in 0..12 {
            sleep(Duration::from_millis(150)).await;
            proxy.reset();
        }
    })
}

/// Connections that break all the time while two clients take turns.
async fn resets_in_the_middle_of_everything_lose_nothing(stage: &Stage) {
    let proxy = stage.proxy();
    let url = stage.url_by(&proxy);
    let (a, b) = (stage.connect_to(&url, "a", LONG).await, stage.connect_to(&url, "b", LONG).await);
    let resets = resets(&proxy);
    let turns = |lock: tooz::Lock| async move {
        let mut tokens = Vec::new();
        for _ in 0..12 {
            let guard = soon("acquiring", lock.acquire()).await.expect("acquiring goes on until it is granted");
            tokens.push(guard.fencing_token());
            sleep(Duration::from_millis(20)).await;
            assert!(guard.is_held(), "lost by a reset: {:?}", guard.loss().reason());
            // It may fail, and then goes on in the background.
            if let Err(error) = soon("releasing", guard.release()).await {
                assert!(error.is_retryable(), "{error:?}");
            }
        }
        tokens
    };
    let limit = PATIENCE * 2;
    let both = async { tokio::join!(turns(a.lock("x").unwrap()), turns(b.lock("x").unwrap())) };
    let (mut tokens, others) = within(limit, "the turns", both).await;
    for own in [&tokens, &others] {
        assert!(own.is_sorted(), "the tokens of one did not grow: {own:?}");
    }
    tokens.extend(others);
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 24, "a token was given twice");
    resets.await.unwrap();
}
