//! Members and servers that are killed or stopped.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz_core::{ErrorKind, JoinOptions, LossReason};
use tooz_testbed::{Kind, Setup};

use crate::bed::{LATE, Process, Store, within};

/// What the session timeout of the cases is.
const TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) async fn the_lock_of_a_killed_holder_is_the_next_ones(store: Store) {
    let ours = store.connect("ours").await;
    let mut holder = store.start(&["hold", "x"]);
    let token: u64 = holder.line().parse().unwrap();
    let lock = ours.lock("x").unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await.unwrap() });
    sleep(Duration::from_millis(300)).await;
    let killed = Instant::now();
    holder.kill();
    let guard = within(waiter).await.unwrap();
    assert!(killed.elapsed() < LATE, "{:?}", killed.elapsed());
    assert!(guard.fencing_token().0 > token);
    ours.close().await.unwrap();
}

async fn inherits_of_the_stopped(store: &Store) {
    let ours = store.connect("ours").await;
    let mut holder = store.start(&["hold", "x"]);
    holder.line();
    let lock = ours.lock("x").unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await.unwrap() });
    sleep(Duration::from_millis(300)).await;
    let stopped = Instant::now();
    holder.signal("STOP");
    let guard = within(waiter).await.unwrap();
    let after = stopped.elapsed();
    // Its last heartbeat was a third of the timeout ago at most.
    assert!(after > TIMEOUT * 3 / 5 && after < TIMEOUT + LATE, "{after:?}");
    guard.release().await.unwrap();
    holder.signal("CONT");
    ours.close().await.unwrap();
}

pub(crate) async fn the_lock_of_a_stopped_holder_is_the_next_ones_and_not_early(store: Store) {
    inherits_of_the_stopped(&store).await;
}

pub(crate) async fn in_a_pool_of_threads_a_stopped_holder_is_ended_too(shared: Store) {
    if shared.has_no_pool_of_threads() {
        return;
    }
    let setup = Setup::new(Kind::MySql).argument("--thread-handling=pool-of-threads --thread-pool-size=4");
    let store = Store::own(setup);
    assert_eq!(store.sql("SELECT @@thread_handling"), "pool-of-threads");
    inherits_of_the_stopped(&store).await;
    // Half a packet is the read timeout's, which is the session's.
    let ours = store.connect("ours").await;
    let guard = ours.lock("x").unwrap().acquire().await.unwrap();
    guard.release().await.unwrap();
    ours.close().await.unwrap();
}

pub(crate) async fn a_stopped_waiter_holds_others_up_for_its_timeout_alone(store: Store) {
    let ours = store.connect("ours").await;
    let lock = ours.lock("x").unwrap();
    let guard = within(lock.acquire()).await.unwrap();
    let stopped = store.start(&["hold", "x"]);
    for _ in 0..100 {
        if lock.waiters().await.unwrap().len() == 1 {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    let next = store.connect("next").await.lock("x").unwrap();
    let waiter = tokio::spawn(async move { next.acquire().await.unwrap() });
    sleep(Duration::from_millis(300)).await;
    stopped.signal("STOP");
    let released = Instant::now();
    guard.release().await.unwrap();
    let next = within(waiter).await.unwrap();
    assert!(released.elapsed() < TIMEOUT + LATE, "{:?}", released.elapsed());
    next.release().await.unwrap();
    stopped.signal("CONT");
}

/// Readers hold it, so that the one that stands still is not given what it waits for: the server has to see that it lives no more.
pub(crate) async fn a_stopped_waiter_behind_readers_holds_others_up_for_little_more(store: Store) {
    let ours = store.connect("ours").await;
    let lock = ours.lock("x").unwrap();
    let reader = within(lock.shared().acquire()).await.unwrap();
    let waiter = store.start(&["hold", "x"]);
    while within(lock.waiters()).await.unwrap().is_empty() {
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_millis(300)).await;
    waiter.signal("STOP");
    let stopped = Instant::now();
    let next = store.connect("next").await.lock("x").unwrap().shared();
    let next = within(next.acquire()).await.unwrap();
    assert!(stopped.elapsed() < TIMEOUT * 3 / 2 + LATE, "{:?}", stopped.elapsed());
    next.release().await.unwrap();
    reader.release().await.unwrap();
    waiter.signal("CONT");
}

/// The watchdog of a member that stands still gets the named lock of the session that ended: its name is in use, and the session is over.
pub(crate) async fn a_sentinel_that_has_the_lock_of_the_dead_is_no_session(store: Store) {
    let ours = store.connect("ours").await;
    let group = ours.group("g").unwrap();
    // Each wait of its watchdog lasts for ten seconds: it is under way when the member is stopped.
    let url = store.url().replace("session_timeout=2s", "session_timeout=40s");
    let mut member = Process::start(&url, "stopped", &["join-and-hold", "g"]);
    assert_eq!(member.line(), "joined");
    assert_eq!(group.members().await.unwrap().len(), 1);
    member.signal("STOP");
    let number = store.session_of("stopped");
    store.sql(&format!("KILL CONNECTION {number}"));
    let ended = Instant::now();
    while !group.members().await.unwrap().is_empty() || !ours.lock("g").unwrap().holders().await.unwrap().is_empty() {
        assert!(ended.elapsed() < LATE, "a dead session counts");
        sleep(Duration::from_millis(20)).await;
    }
    let namespace = &store.namespace;
    let watchdog = format!(
        "SELECT COUNT(*) FROM tooz.tooz_sessions WHERE namespace = '{namespace}' AND member = 'stopped' AND IS_USED_LOCK(session) <> conn"
    );
    assert_eq!(store.sql(&watchdog), "1", "the watchdog has the lock, or this shows nothing");
    within(ours.lock("g").unwrap().acquire()).await.unwrap().release().await.unwrap();
    member.signal("CONT");
    member.kill();
    ours.close().await.unwrap();
}

pub(crate) async fn tokens_grow_over_restarts_within_a_second(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let mut last = 0;
    for round in 0..4 {
        let ours = store.connect("ours").await;
        let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
        let token = guard.fencing_token().0;
        assert!(token > last && token < 1 << 53, "{last} {token}");
        last = token;
        if round == 2 {
            // Even what was reserved is gone: the time is above it, which each start has left behind by a second at most.
            store.sql("UPDATE tooz.tooz_fence SET reserved = 0");
            sleep(Duration::from_secs(4)).await;
        }
        store.server.restart().unwrap();
        within(guard.loss().wait()).await;
        drop(ours);
    }
}

pub(crate) async fn a_membership_that_was_taken_over_is_told_at_once(store: Store) {
    let (a, b) = (store.connect("same").await, store.connect("same").await);
    let old = within(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let group = b.group("g").unwrap();
    let error = within(group.join(&2)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let guard = within(a.lock("x").unwrap().acquire()).await.unwrap();
    let loss = old.loss();
    let taken = Instant::now();
    let new = within(group.join_with(JoinOptions::new().take_over())).await.unwrap();
    assert_eq!(within(loss.wait()).await, LossReason::TakenOver);
    // Not only with the next heartbeat.
    assert!(taken.elapsed() < Duration::from_millis(400), "{:?}", taken.elapsed());
    assert!(guard.is_held() && new.is_member());
    a.close().await.unwrap();
    b.close().await.unwrap();
}

pub(crate) async fn nothing_is_left_behind(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let ours = store.connect("ours").await;
    let mut killed = store.start_as("killed", &["join-and-hold", "g"]);
    assert_eq!(killed.line(), "joined");
    let reader = ours.lock("r").unwrap().shared();
    within(reader.acquire()).await.unwrap().release().await.unwrap();
    sleep(Duration::from_millis(100)).await;
    killed.kill();
    within(ours.lock("g").unwrap().acquire()).await.unwrap().release().await.unwrap();
    ours.group("g").unwrap().delete().await.unwrap();
    ours.close().await.unwrap();
    for table in ["groups", "sessions", "members", "grants", "sharers", "waits"] {
        assert_eq!(store.sql(&format!("SELECT COUNT(*) FROM tooz.tooz_{table}")), "0", "{table}");
    }
}

/// The server's own way of a slow commit: it waits for a replica that is not there, and no limit of a statement ends that.
pub(crate) async fn a_commit_that_takes_longer_than_the_session_timeout_ends_no_session(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql).durable());
    let ours = store.connect("ours").await;
    let membership = within(ours.group("g").unwrap().join_or_create(&())).await.unwrap();
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let number = store.session_of("ours");
    store.slow_commits(7000);
    let slow = within(ours.lock("slow").unwrap().acquire()).await.unwrap();
    // Once it is held for a moment it is written down.
    sleep(Duration::from_millis(300)).await;
    let at_work =
        format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {number} AND COMMAND = 'Query'");
    assert_eq!(store.sql(&at_work), "1", "no commit takes long, or this shows nothing");
    sleep(TIMEOUT * 2).await;
    assert_eq!(store.sql(&at_work), "1", "no commit takes long, or this shows nothing");
    assert!(guard.is_held() && slow.is_held() && membership.is_member());
    store.quick_commits();
    within(slow.release()).await.unwrap();
    assert_eq!((guard.is_held(), store.session_of("ours")), (true, number));
    guard.release().await.unwrap();
    within(membership.leave()).await.unwrap();
}

/// As after a night in which nothing was asked, or behind a restart.
pub(crate) async fn a_group_is_made_and_deleted_by_a_connection_that_has_ended_meanwhile(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let ours = store.connect("ours").await;
    let group = ours.group("g").unwrap();
    let cut = || {
        let theirs = "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND COMMAND = 'Sleep'";
        for number in store.sql(theirs).lines() {
            store.sql(&format!("KILL {number}"));
        }
    };
    for _ in 0..3 {
        cut();
        within(group.create()).await.unwrap();
        cut();
        within(group.delete()).await.unwrap();
    }
    store.server.restart().unwrap();
    within(group.create()).await.unwrap();
    store.server.restart().unwrap();
    within(group.delete()).await.unwrap();
}
