//! PostgreSQL: an operator ends back ends, one of them crashes and takes all others along, and nothing sits idle in a transaction.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tooz::{GroupEvent, LossReason};
use tooz_testbed::Server;

use crate::servers::is_mended;
use crate::stage::{
    LATE, LONG, MOMENT, SHORT, Stage, blocking, cases, eventually, hold, names, soon, wait_in_background, within,
};
use crate::tool::lines;

cases! { "back_ends", Server, alone: false;
    a_terminated_holder_is_told_at_once_and_the_next_one_has_it,
    a_terminated_waiter_waits_again,
    a_terminated_member_leaves_and_comes_back,
    a_crash_of_any_back_end_is_told_to_all_holders_and_mended,
    nothing_sits_idle_in_a_transaction_while_others_wait_or_after,
}

/// All rows, and all advisory locks.
pub(crate) const STORED: &str = "SELECT 'group ' || name FROM tooz.groups \
    UNION ALL SELECT 'session of ' || member FROM tooz.sessions \
    UNION ALL SELECT 'member ' || member || ' of ' || name FROM tooz.members \
    UNION ALL SELECT 'grant of ' || name FROM tooz.grants \
    UNION ALL SELECT 'advisory lock ' || classid || ' ' || objid || ' of process ' || pid FROM pg_locks \
    WHERE locktype = 'advisory'";

/// The answer of the server itself, one line for each row.
pub(crate) fn ask(server: &Server, sql: &str) -> Vec<String> {
    let mut psql = server.tool("psql").expect("psql is there");
    lines(psql.args(["-d", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", sql]))
}

fn answer(stage: &Stage, sql: &str) -> Vec<String> {
    blocking(|| Ok(ask(stage.server(), sql)))
}

/// The bytes by which a lock is named that was just shown to be written down.
pub(crate) fn key_of(stage: &Stage, lock: &str) -> [u8; 8] {
    let keys = answer(stage, &format!("SELECT key FROM tooz.grants WHERE name = '{lock}'"));
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0].parse::<i64>().expect("a key is a number").to_be_bytes()
}

/// Ends the processes of the server that this condition on `pg_stat_activity` is true of; there must be one at least.
fn terminate(stage: &Stage, which: &str) {
    let ended = answer(stage, &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {which}"));
    assert!(!ended.is_empty() && ended.iter().all(|ended| ended == "t"), "{ended:?}");
}

async fn a_terminated_holder_is_told_at_once_and_the_next_one_has_it(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let guard = hold(&a.lock("x").unwrap()).await;
    let waiter = wait_in_background(&b.lock("x").unwrap());
    sleep(MOMENT).await;
    let loss = guard.loss();
    let telling = tokio::spawn(async move { (loss.wait().await, Instant::now()) });
    terminate(stage, "pid IN (SELECT pid FROM tooz.sessions WHERE member = 'a')");
    let ended = Instant::now();
    let (reason, told) = within(LATE, "the loss", telling).await.unwrap();
    let (next, granted) = within(stage.backend.slack + LATE, "the waiter's turn", waiter).await.unwrap();
    stage.note("from the end of psql to the loss", told.saturating_duration_since(ended));
    stage.note("from the end of psql to the next grant", granted.saturating_duration_since(ended));
    assert_eq!(reason, LossReason::SessionEnded);
    assert!(!guard.is_held() && next.fencing_token() > guard.fencing_token());
    // The holder that lost it asks like all others.
    let again = wait_in_background(&a.lock("x").unwrap());
    sleep(MOMENT).await;
    assert!(next.is_held() && !again.is_finished());
    soon("releasing", next.release()).await.expect("releasing");
    drop(soon("the next turn", again).await.unwrap());
    stage.nothing_is_left().await;
}

async fn a_terminated_waiter_waits_again(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let guard = hold(&a.lock("x").unwrap()).await;
    let own = hold(&b.lock("own").unwrap()).await;
    let waiter = wait_in_background(&b.lock("x").unwrap());
    let waiting = "application_name = 'tooz:b' AND wait_event_type = 'Lock'";
    for _ in 0..2 {
        let count = format!("SELECT pid FROM pg_stat_activity WHERE {waiting}");
        eventually(LATE * 5, "it waits in the server", async || answer(stage, &count).len() == 1).await;
        terminate(stage, waiting);
    }
    sleep(MOMENT).await;
    // Only the wait was on that connection.
    assert!(own.is_held() && guard.is_held() && !waiter.is_finished());
    soon("releasing", guard.release()).await.expect("releasing");
    let (next, _) = soon("the waiter's turn", waiter).await.unwrap();
    soon("releasing", next.release()).await.expect("releasing");
    soon("releasing", own.release()).await.expect("releasing");
    stage.nothing_is_left().await;
}

async fn a_terminated_member_leaves_and_comes_back(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"first")).await.unwrap();
    soon("updating", membership.update(&"latest")).await.unwrap();
    let (mut events, loss) = (a.events(), membership.loss());
    let mut watch = soon("watching", b.group("g").unwrap().watch()).await.unwrap();
    assert!(matches!(soon("the snapshot", watch.next()).await, Some(GroupEvent::Snapshot(_))));
    terminate(stage, "pid IN (SELECT pid FROM tooz.sessions WHERE member = 'a')");
    assert_eq!(within(LATE, "the loss", loss.wait()).await, LossReason::SessionEnded);
    is_mended(&a, &membership, &mut events).await;
    assert!(matches!(soon("Left", watch.next()).await, Some(GroupEvent::Left(member)) if member.as_str() == "a"));
    let Some(GroupEvent::Joined(entry)) = soon("Joined", watch.next()).await else { panic!("it is not back") };
    assert_eq!(entry.capabilities.get::<String>().unwrap(), "latest");
    assert_eq!(names(&b.group("g").unwrap()).await, ["a"]);
}

/// The server then starts all its processes anew, and every lock of every member is free at once.
async fn a_crash_of_any_back_end_is_told_to_all_holders_and_mended(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let stranger = stage.connect("stranger", LONG).await;
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"here")).await.unwrap();
    let guards = [hold(&a.lock("x").unwrap()).await, hold(&b.lock("y").unwrap()).await];
    let other = hold(&stranger.lock("z").unwrap()).await;
    let waiter = wait_in_background(&b.lock("x").unwrap());
    sleep(MOMENT).await;
    let (mut events, membership_loss) = (a.events(), membership.loss());
    let pid = answer(stage, "SELECT pid FROM tooz.sessions WHERE member = 'stranger'");
    let crashed = Instant::now();
    kill(Pid::from_raw(pid[0].parse().expect("a process has a number")), Signal::SIGKILL).expect("it is there");
    for guard in guards.iter().chain([&other]) {
        assert_eq!(within(LATE * 2, "the loss", guard.loss().wait()).await, LossReason::SessionEnded);
        stage.note("from the crash to the loss of one", crashed.elapsed());
        assert!(!guard.is_held());
    }
    assert!(membership_loss.is_lost());
    let (next, granted) = soon("the waiter's turn", waiter).await.unwrap();
    stage.note("from the crash to the next grant", granted - crashed);
    assert!(guards.iter().chain([&other]).all(|guard| next.fencing_token() > guard.fencing_token()));
    is_mended(&a, &membership, &mut events).await;
    assert_eq!(names(&b.group("g").unwrap()).await, ["a"]);
    for (coordinator, lock) in [(&a, "y"), (&b, "z")] {
        soon("releasing", hold(&coordinator.lock(lock).unwrap()).await.release()).await.expect("releasing");
    }
}

async fn nothing_sits_idle_in_a_transaction_while_others_wait_or_after(stage: &Stage) {
    let (a, b) = (stage.connect("a", SHORT).await, stage.connect("b", SHORT).await);
    let idle = || answer(stage, "SELECT query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'");
    let mut watch = soon("watching", {
        let group = b.group("g").unwrap();
        soon("creating", group.create()).await.unwrap();
        async move { group.watch().await }
    })
    .await
    .unwrap();
    let membership = soon("joining", a.group("g").unwrap().join(&())).await.unwrap();
    let guards = [hold(&a.lock("x").unwrap()).await, hold(&a.lock("y").unwrap()).await];
    let mut turns = JoinSet::new();
    for lock in [b.lock("x").unwrap(), b.lock("y").unwrap(), a.lock("x").unwrap()] {
        turns.spawn(async move { lock.acquire().await.expect("waiting").release().await.expect("releasing") });
    }
    let until = Instant::now() + SHORT + LATE;
    while Instant::now() < until {
        assert_eq!(idle(), [""; 0]);
        sleep(Duration::from_millis(100)).await;
    }
    for guard in guards {
        soon("releasing", guard.release()).await.expect("releasing");
    }
    while let Some(turn) = soon("a turn", turns.join_next()).await {
        turn.unwrap();
    }
    soon("leaving", membership.leave()).await.expect("leaving");
    assert!(soon("the snapshot", watch.next()).await.is_some());
    assert_eq!(idle(), [""; 0]);
}
