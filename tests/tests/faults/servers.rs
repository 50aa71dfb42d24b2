//! The server is killed and started again, or stands still: within the session timeout, and beyond.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz::{Coordinator, ErrorKind, LossReason, Membership, SessionEvent, SessionEvents, SessionState};
use tooz_testbed::Server;

use crate::stage::{
    Belief, LATE, LONG, OPERATION, PATIENCE, SHORT, Stage, attempt, cases, eventually, hold, names, soon,
    wait_in_background, within,
};

cases! { "servers", Server, alone: false;
    a_restart_within_the_timeout_loses_nothing,
    a_pause_within_the_timeout_loses_nothing,
    a_restart_beyond_the_timeout_is_told_in_time_and_mended,
    a_pause_beyond_the_timeout_is_told_in_time_and_mended,
    a_try_without_a_server_is_an_error_and_leaks_nothing,
    tokens_grow_over_restarts,
}

/// What is done to the server.
pub(crate) type Deed = fn(&Server) -> anyhow::Result<()>;

/// How long the server is away in the cases within the timeout, besides its own start.
const SHORT_ABSENCE: Duration = Duration::from_millis(700);

async fn a_restart_within_the_timeout_loses_nothing(stage: &Stage) {
    loses_nothing(stage, Server::kill, Server::restart).await;
}

async fn a_pause_within_the_timeout_loses_nothing(stage: &Stage) {
    loses_nothing(stage, Server::pause, Server::resume).await;
}

async fn loses_nothing(stage: &Stage, away: Deed, back: Deed) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let group = b.group("g").unwrap();
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"here")).await.unwrap();
    let guard = hold(&a.lock("x").unwrap()).await;
    let token = guard.fencing_token();
    // It waits through it all, and its place in the queue is kept.
    let waiter = wait_in_background(&b.lock("x").unwrap());
    sleep(Duration::from_millis(200)).await;
    let (loss, membership_loss) = (guard.loss(), membership.loss());

    stage.break_it(away);
    sleep(SHORT_ABSENCE).await;
    stage.break_it(back);
    // Longer than the timeout: nothing of what was before the fault can still carry the session.
    sleep(LONG + LATE).await;
    assert!(guard.is_held() && !loss.is_lost(), "the lock was lost: {:?}", loss.reason());
    assert!(membership.is_member() && !membership_loss.is_lost(), "the membership was lost");
    assert!(!waiter.is_finished(), "the lock was given to two");
    assert_eq!(names(&group).await, ["a"]);

    within(PATIENCE, "releasing", guard.release()).await.expect("releasing");
    let (next, _) = soon("the waiter's turn", waiter).await.unwrap();
    assert!(next.fencing_token() > token, "the token did not grow");
    soon("releasing", next.release()).await.expect("releasing");
    soon("leaving", membership.leave()).await.expect("leaving");
    assert!(names(&group).await.is_empty(), "who left is still listed");
}

async fn a_restart_beyond_the_timeout_is_told_in_time_and_mended(stage: &Stage) {
    is_told_and_mended(stage, (Server::kill, Server::restart), SHORT, LossReason::Expired).await;
}

async fn a_pause_beyond_the_timeout_is_told_in_time_and_mended(stage: &Stage) {
    is_told_and_mended(stage, (Server::pause, Server::resume), SHORT, LossReason::Expired).await;
}

/// What sessions of that timeout are told when the server goes away, and what comes back by itself when it does.
pub(crate) async fn is_told_and_mended(stage: &Stage, (away, back): (Deed, Deed), session: Duration, why: LossReason) {
    let (a, b) = (stage.connect("a", session).await, stage.connect("b", session).await);
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"first")).await.unwrap();
    soon("updating", membership.update(&"latest")).await.unwrap();
    let guard = hold(&a.lock("x").unwrap()).await;
    let token = guard.fencing_token();
    let mut events = a.events();
    let waiter = wait_in_background(&b.lock("x").unwrap());
    sleep(Duration::from_millis(200)).await;
    let (loss, membership_loss) = (guard.loss(), membership.loss());

    stage.break_it(away);
    // Nothing that is sent from here on can prolong the session.
    let expires_in = guard.expires_in().expect("a server is the judge");
    // The belief begins now, also where the end of a connection is known already, after which nothing has to expire.
    let belief = Belief::of(guard);
    let expiry = Instant::now() + expires_in;
    // The end of a connection tells itself; that of a timeout has to be waited for.
    let limit = if why == LossReason::Expired { session } else { Duration::ZERO };
    let reason = within(limit + LATE, "the loss", loss.wait()).await;
    let told = Instant::now();
    assert_eq!(reason, why);
    let (last, guard) = belief.end().await;
    assert!(last <= expiry, "it was held for {:?} after its expiry", last - expiry);
    assert!(told <= expiry + LATE, "the loss was told {:?} after the expiry", told - expiry);
    assert!(membership_loss.is_lost() && !membership.is_member(), "the membership outlived its session");
    assert!(!waiter.is_finished(), "a server that was away granted something");

    sleep(Duration::from_millis(500)).await;
    stage.break_it(back);
    let begun = Instant::now();
    // The waiter queues again in a session of its own, and the dead session's lock is free when the server ends it.
    let limit = stage.ended_after(session) + PATIENCE;
    let (next, _) = within(limit, "the waiter's turn", waiter).await.unwrap();
    stage.note("from the server's return to the next grant", begun.elapsed());
    assert!(next.fencing_token() > token, "the token did not grow");
    is_mended(&a, &membership, &mut events).await;
    assert!(membership_loss.is_lost(), "the loss of the first standing is for ever");
    assert!(!guard.is_held(), "a lost lock was taken again without a word");
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(next.is_held(), "a lost lock's release freed the next one's");

    let members = soon("listing", b.group("g").unwrap().members()).await.unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
    assert_eq!(members[0].capabilities.get::<String>().unwrap(), "latest");
}

pub(crate) async fn is_mended(coordinator: &Coordinator, membership: &Membership, events: &mut SessionEvents) {
    let mut lost = false;
    loop {
        match soon("Reopened", events.next()).await.expect("the events go on") {
            SessionEvent::Lost(_) => lost = true,
            SessionEvent::Reopened => break,
            _ => {}
        }
    }
    assert!(lost, "a session was opened anew that was never told to be lost");
    eventually(PATIENCE, "the membership is back", async || membership.is_member()).await;
    eventually(PATIENCE, "the session is open", async || coordinator.state() == SessionState::Open).await;
}

async fn a_try_without_a_server_is_an_error_and_leaks_nothing(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let lock = a.lock("x").unwrap();
    soon("releasing", hold(&lock).await.release()).await.unwrap();
    stage.break_it(Server::pause);
    // The paused server will read all of this when it goes on.
    let limit = OPERATION + LATE;
    let error =
        within(limit, "a try", lock.try_acquire()).await.expect_err("a try reached no server, but was answered");
    assert!(error.is_retryable(), "{error:?}");
    let other = a.lock("y").unwrap();
    // Longer than one request may take: by then it is known that no server was reached.
    let waited = within(limit * 2, "a limited wait", other.acquire_within(OPERATION + LATE)).await;
    let error = waited.expect_err("a wait that reached no server was plainly refused");
    assert!(error.is_retryable(), "{error:?}");
    let error = within(limit, "a list", a.groups()).await.expect_err("a list reached no server, but was answered");
    assert!(error.is_retryable(), "{error:?}");
    stage.break_it(Server::resume);
    // What was given up there is withdrawn, though it may have been granted for a moment.
    for name in ["x", "y"] {
        let lock = b.lock(name).unwrap();
        eventually(PATIENCE, "a lock without a holder is free", async || attempt(&lock).await.is_some()).await;
    }
}

async fn tokens_grow_over_restarts(stage: &Stage) {
    let lock = stage.connect("a", LONG).await.lock("x").unwrap();
    let mut last = None;
    for round in 0..3 {
        for _ in 0..3 {
            let guard = within(PATIENCE + LONG, "acquiring", lock.acquire()).await.unwrap();
            assert!(Some(guard.fencing_token()) > last, "round {round}: {:?} after {last:?}", guard.fencing_token());
            last = Some(guard.fencing_token());
            soon("releasing", guard.release()).await.unwrap();
        }
        stage.break_it(Server::restart);
    }
}
