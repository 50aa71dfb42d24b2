//! MySQL and MariaDB: an operator ends connections of each kind, makes the server read-only, and changes tables under load.

use std::time::Instant;

use tokio::time::sleep;
use tooz::{ErrorKind, GroupEvent, LossReason};
use tooz_testbed::Server;

use crate::servers::is_mended;
use crate::stage::{
    LATE, LONG, MOMENT, PATIENCE, SHORT, Stage, attempt, blocking, cases, eventually, hold, names, soon,
    wait_in_background, within,
};
use crate::tool::lines;

cases! { "kills", Server, alone: false;
    a_killed_holder_is_told_at_once_and_the_next_one_has_it,
    a_killed_waiter_waits_again,
    a_killed_sentinel_is_replaced,
    a_killed_statement_of_each_kind_loses_nothing,
    a_killed_member_leaves_and_comes_back,
    a_server_that_becomes_read_only_is_left_in_time_and_used_again,
}

/// All rows but those of the layout and of the tokens.
pub(crate) const STORED: &str = "SELECT CONCAT('group ', name) FROM tooz.tooz_groups \
    UNION ALL SELECT CONCAT('session of ', member) FROM tooz.tooz_sessions \
    UNION ALL SELECT CONCAT('member ', member, ' of ', name) FROM tooz.tooz_members \
    UNION ALL SELECT CONCAT('grant of ', name) FROM tooz.tooz_grants \
    UNION ALL SELECT CONCAT('share of ', lk) FROM tooz.tooz_sharers \
    UNION ALL SELECT CONCAT('wait of ', member) FROM tooz.tooz_waits";

/// The answer of the server itself, one line for each row.
pub(crate) fn ask(server: &Server, sql: &str) -> Vec<String> {
    let mut client = server.tool("mariadb").expect("mariadb is there");
    lines(client.args(["-N", "-B", "-e", sql]))
}

fn answer(stage: &Stage, sql: &str) -> Vec<String> {
    blocking(|| Ok(ask(stage.server(), sql)))
}

/// Kills (`CONNECTION`) or interrupts (`QUERY`) the threads whose numbers this answers; there must be one at least.
fn kill(stage: &Stage, what: &str, which: &str) {
    let threads = answer(stage, which);
    assert!(!threads.is_empty(), "{which}");
    for thread in threads {
        answer(stage, &format!("KILL {what} {thread}"));
    }
}

fn session_of(member: &str) -> String {
    format!("SELECT conn FROM tooz.tooz_sessions WHERE member = '{member}' AND IS_USED_LOCK(session) = conn")
}

fn watchdog_of(member: &str) -> String {
    format!(
        "SELECT IS_USED_LOCK(CONCAT('n', SUBSTRING(session, 2))) FROM tooz.tooz_sessions \
         WHERE member = '{member}' AND IS_USED_LOCK(session) = conn HAVING 1 = 1"
    )
}

fn waiter_of(member: &str) -> String {
    format!("SELECT conn FROM tooz.tooz_waits WHERE member = '{member}' AND IS_USED_LOCK(waiter) = conn")
}

async fn a_killed_holder_is_told_at_once_and_the_next_one_has_it(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let guard = hold(&a.lock("x").unwrap()).await;
    let waiter = wait_in_background(&b.lock("x").unwrap());
    sleep(MOMENT).await;
    let loss = guard.loss();
    let telling = tokio::spawn(async move { (loss.wait().await, Instant::now()) });
    kill(stage, "CONNECTION", &session_of("a"));
    let ended = Instant::now();
    let (reason, told) = within(LATE, "the loss", telling).await.unwrap();
    let (next, granted) = within(stage.backend.slack + LATE, "the waiter's turn", waiter).await.unwrap();
    stage.note("from the end of the client to the loss", told.saturating_duration_since(ended));
    stage.note("from the end of the client to the next grant", granted.saturating_duration_since(ended));
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

async fn a_killed_waiter_waits_again(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let guard = hold(&a.lock("x").unwrap()).await;
    let own = hold(&b.lock("own").unwrap()).await;
    let waiter = wait_in_background(&b.lock("x").unwrap());
    for _ in 0..2 {
        eventually(LATE * 5, "it waits in the server", async || answer(stage, &waiter_of("b")).len() == 1).await;
        kill(stage, "CONNECTION", &waiter_of("b"));
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

async fn a_killed_sentinel_is_replaced(stage: &Stage) {
    let a = stage.connect("a", LONG).await;
    let guard = hold(&a.lock("x").unwrap()).await;
    let stands = async || answer(stage, &watchdog_of("a")).iter().any(|thread| thread != "NULL");
    for _ in 0..2 {
        eventually(LATE * 5, "a watchdog stands", stands).await;
        kill(stage, "CONNECTION", &watchdog_of("a"));
        assert!(guard.is_held());
    }
    eventually(LATE * 5, "another watchdog stands", stands).await;
    let loss = guard.loss();
    kill(stage, "CONNECTION", &session_of("a"));
    assert_eq!(within(LATE, "the loss", loss.wait()).await, LossReason::SessionEnded);
}

async fn a_killed_statement_of_each_kind_loses_nothing(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"here")).await.unwrap();
    let guard = hold(&a.lock("x").unwrap()).await;
    let waiter = wait_in_background(&b.lock("x").unwrap());
    eventually(LATE * 5, "it waits in the server", async || answer(stage, &waiter_of("b")).len() == 1).await;
    for _ in 0..20 {
        for which in [session_of("a"), watchdog_of("a"), session_of("b")] {
            kill(stage, "QUERY", &which);
        }
        for thread in answer(stage, &waiter_of("b")) {
            answer(stage, &format!("KILL QUERY {thread}"));
        }
        assert!(guard.is_held() && membership.is_member() && !waiter.is_finished());
    }
    soon("releasing", guard.release()).await.expect("releasing");
    let (next, _) = soon("the waiter's turn", waiter).await.unwrap();
    // Nothing that was interrupted has kept a lock: others come and go.
    soon("releasing", next.release()).await.expect("releasing");
    for coordinator in [&a, &b, &a] {
        soon("releasing", hold(&coordinator.lock("x").unwrap()).await.release()).await.expect("releasing");
    }
    soon("leaving", membership.leave()).await.expect("leaving");
    soon("deleting", b.group("g").unwrap().delete()).await.expect("deleting");
    stage.nothing_is_left().await;
}

async fn a_killed_member_leaves_and_comes_back(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"first")).await.unwrap();
    soon("updating", membership.update(&"latest")).await.unwrap();
    let (mut events, loss) = (a.events(), membership.loss());
    let mut watch = soon("watching", b.group("g").unwrap().watch()).await.unwrap();
    assert!(matches!(soon("the snapshot", watch.next()).await, Some(GroupEvent::Snapshot(_))));
    kill(stage, "CONNECTION", &session_of("a"));
    assert_eq!(within(LATE, "the loss", loss.wait()).await, LossReason::SessionEnded);
    is_mended(&a, &membership, &mut events).await;
    eventually(PATIENCE, "it is back", async || names(&b.group("g").unwrap()).await == ["a"]).await;
    let entry = soon("listing", b.group("g").unwrap().members()).await.unwrap().remove(0);
    assert_eq!(entry.capabilities.get::<String>().unwrap(), "latest");
}

/// A planned failover begins like that: others lock at another server soon.
async fn a_server_that_becomes_read_only_is_left_in_time_and_used_again(stage: &Stage) {
    let (a, b) = (stage.connect("a", SHORT).await, stage.connect("b", SHORT).await);
    let guard = hold(&a.lock("x").unwrap()).await;
    let loss = guard.loss();
    let waiter = wait_in_background(&b.lock("x").unwrap());
    sleep(MOMENT).await;
    answer(stage, "SET GLOBAL read_only = 1");
    let switched = Instant::now();
    within(SHORT + LATE, "the loss", loss.wait()).await;
    stage.note("from the switch to the loss", switched.elapsed());
    assert!(!guard.is_held());
    let refused = within(PATIENCE, "trying", a.lock("y").unwrap().try_acquire()).await;
    assert!(matches!(&refused, Err(error) if error.kind() != ErrorKind::Config), "{refused:?}");
    assert!(!waiter.is_finished(), "a lock was granted at a server that is read-only");
    answer(stage, "SET GLOBAL read_only = 0");
    drop(within(PATIENCE * 2, "the waiter's turn", waiter).await.unwrap());
    eventually(PATIENCE, "it is used again", async || attempt(&a.lock("y").unwrap()).await.is_some()).await;
}
