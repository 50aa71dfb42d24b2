//! Processes, servers and connections that are really broken, and what is left of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tooz_core::{GroupEvent, LeaderEvent, LossReason, connect};
use tooz_testbed::{Kind, Proxy, Setup};

use crate::bed::{LATE, Store, within};

pub(crate) async fn the_lock_of_a_killed_holder_is_the_next_ones(store: Store) {
    let ours = store.connect("ours").await;
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let mut holder = store.start(&["hold", "x"]);
        let held: u64 = holder.line().parse().unwrap();
        let lock = ours.lock("x").unwrap();
        assert!(lock.try_acquire().await.unwrap().is_none());
        let seen = lock.holders().await.unwrap();
        assert_eq!((seen[0].member.as_str(), seen[0].token.0), ("other", held));
        let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let killed = Instant::now();
        holder.kill();
        let guard = within(waiting).await.unwrap();
        slowest = slowest.max(killed.elapsed());
        assert!(guard.fencing_token().0 > held);
        guard.release().await.unwrap();
    }
    println!("kill -9 to the next grant: {slowest:?} at most");
    assert!(slowest <= LATE, "it took {slowest:?}");
}

pub(crate) async fn a_killed_member_has_left_and_a_stopped_one_too(store: Store) {
    let ours = store.connect("ours").await;
    let group = ours.group("g").unwrap();
    group.create().await.unwrap();
    let mut watch = group.watch().await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.is_empty()));
    for (how, limit) in [("KILL", Duration::from_secs(2)), ("STOP", Duration::from_secs(4))] {
        let mut member = store.start_as(how, &["join", "g"]);
        assert_eq!(member.line(), "joined");
        assert!(matches!(within(watch.next()).await, Some(GroupEvent::Joined(entry)) if entry.member.as_str() == how));
        let ended = Instant::now();
        member.signal(how);
        assert!(matches!(within(watch.next()).await, Some(GroupEvent::Left(member)) if member.as_str() == how));
        println!("{how} to Left, with a session timeout of 2 s: {:?}", ended.elapsed());
        assert!(ended.elapsed() <= limit + LATE, "it took {:?}", ended.elapsed());
        assert!(group.members().await.unwrap().is_empty());
        member.signal("CONT");
        member.kill();
    }
    group.delete().await.unwrap();
    assert_eq!(within(watch.next()).await, Some(GroupEvent::Deleted));
}

pub(crate) async fn a_killed_leader_leaves_a_vacancy(store: Store) {
    let ours = store.connect("ours").await;
    ours.group("g").unwrap().create().await.unwrap();
    let mut watch = ours.group("g").unwrap().watch_leader().await.unwrap();
    assert_eq!(within(watch.next()).await, Some(LeaderEvent::Vacant));
    let mut leader = store.start(&["lead", "g"]);
    assert_eq!(leader.line(), "leading");
    assert!(matches!(within(watch.next()).await, Some(LeaderEvent::Elected(_))));
    let killed = Instant::now();
    leader.kill();
    assert_eq!(within(watch.next()).await, Some(LeaderEvent::Vacant));
    println!("kill -9 of the leader to Vacant: {:?}", killed.elapsed());
}

pub(crate) async fn a_terminated_back_end_is_a_loss_that_is_told_at_once(store: Store) {
    let ours = store.connect("ours").await;
    let guard = ours.lock("x").unwrap().acquire().await.unwrap();
    let ended = Instant::now();
    store
        .sql("SELECT pg_terminate_backend(pid) FROM tooz.sessions WHERE namespace = current_setting('tooz.namespace')");
    assert_eq!(within(guard.loss().wait()).await, LossReason::SessionEnded);
    println!("pg_terminate_backend to the loss: {:?}, with the start of psql", ended.elapsed());
    let again = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    assert!(again.fencing_token() > guard.fencing_token());
}

pub(crate) async fn a_killed_server_loses_all_locks_and_tokens_grow_over_it(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    let ours = store.connect("ours").await;
    let mut last = 0;
    for _ in 0..3 {
        let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
        assert!(guard.fencing_token().0 > last, "{} after {last}", guard.fencing_token());
        last = guard.fencing_token().0;
        let membership = within(ours.group("g").unwrap().join_or_create(&1)).await.unwrap();
        let loss = membership.loss();
        let server = Arc::clone(&store.server);
        tokio::task::spawn_blocking(move || server.kill().unwrap()).await.unwrap();
        within(guard.loss().wait()).await;
        within(loss.wait()).await;
        let server = Arc::clone(&store.server);
        tokio::task::spawn_blocking(move || server.restart().unwrap()).await.unwrap();
        // The group is there, and the member is in it again by itself.
        within(async {
            while !membership.is_member() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert_eq!(within(ours.group("g").unwrap().members()).await.unwrap().len(), 1);
        within(membership.leave()).await.unwrap();
    }
}

pub(crate) async fn lost_replies_leave_nothing_behind(store: Store) {
    let other = store.connect("other").await;
    other.group("lost-group").unwrap().create().await.unwrap();
    // Once for a first statement with its text, and then for those that are prepared already.
    for round in 0..2 {
        let proxy = Proxy::start(store.server.address()).unwrap();
        let ours = store.connect_through(&proxy, "ours").await;
        let lock = ours.lock("lost-lock").unwrap();
        lock.acquire().await.unwrap().release().await.unwrap();
        let swallowed = proxy.swallow_reply_for(b"lost-lock", Duration::from_millis(500));
        let tried = within(lock.try_acquire()).await;
        assert!(swallowed.wait(Duration::from_secs(5)), "the reply was there to be swallowed");
        drop(tried);
        drop(within(other.lock("lost-lock").unwrap().acquire()).await.unwrap());

        let group = ours.group("lost-group").unwrap();
        let swallowed = proxy.swallow_reply_for(b"lost-group", Duration::from_millis(500));
        let joined = within(group.join(&round)).await;
        assert!(swallowed.wait(Duration::from_secs(5)), "the reply was there to be swallowed");
        if let Ok(membership) = joined {
            let swallowed = proxy.swallow_reply_for(b"lost-group", Duration::from_millis(500));
            let _ = within(membership.leave()).await;
            assert!(swallowed.wait(Duration::from_secs(5)), "the reply was there to be swallowed");
        }
        within(async {
            while !other.group("lost-group").unwrap().members().await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        ours.close().await.unwrap();
    }
}

pub(crate) async fn a_silent_cut_of_a_waiter_is_no_obstacle(store: Store) {
    let (one, two) = (store.connect("one").await, store.connect("two").await);
    let proxy = Proxy::start(store.server.address()).unwrap();
    let cut = store.connect_through(&proxy, "cut").await;
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    let lock = cut.lock("x").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.stall();
    let lock = two.lock("x").unwrap();
    let behind = tokio::spawn(async move { lock.acquire().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let released = Instant::now();
    guard.release().await.unwrap();
    drop(within(behind).await.unwrap());
    println!("a waiter that was cut off held up the next one for {:?}", released.elapsed());
    proxy.heal();
    drop(within(waiting).await.unwrap().unwrap());
}

pub(crate) async fn nothing_is_left_behind(store: Store) {
    let ours = store.connect("the-tidy-one").await;
    let group = ours.group("g").unwrap();
    group.create().await.unwrap();
    for index in 0..300 {
        let guard = ours.lock(format!("lock-{index}")).unwrap().acquire().await.unwrap();
        if index % 30 == 0 {
            // Long enough to be written down.
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert_eq!(ours.lock(format!("lock-{index}")).unwrap().holders().await.unwrap().len(), 1);
            let membership = group.join(&index).await.unwrap();
            membership.leave().await.unwrap();
        }
        guard.release().await.unwrap();
    }
    let rows = |store: &Store| {
        let of = |table: &str| {
            format!("(SELECT count(*) FROM tooz.{table} WHERE namespace = current_setting('tooz.namespace'))")
        };
        store.sql(&format!("SELECT {}, {}, {}", of("grants"), of("members"), of("sessions")))
    };
    assert_eq!(rows(&store), "0|0|1");
    group.delete().await.unwrap();
    ours.close().await.unwrap();
    assert_eq!(rows(&store), "0|0|0");
    // The server ends what the client closed in its own time.
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tooz:the-tidy-one'";
    within(async {
        while store.sql(count) != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

pub(crate) async fn what_the_dead_left_is_swept(store: Store) {
    let mut holder = store.start(&["hold", "x"]);
    holder.line();
    let ours = store.connect("ours").await;
    assert_eq!(ours.lock("x").unwrap().holders().await.unwrap().len(), 1);
    holder.kill();
    let count = "SELECT count(*) FROM tooz.grants WHERE namespace = current_setting('tooz.namespace')";
    within(async {
        while !ours.lock("x").unwrap().holders().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // The next one to open a session clears up.
    ours.lock("y").unwrap().acquire().await.unwrap().release().await.unwrap();
    within(async {
        while store.sql(count) != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Commits wait for a standby that does not come. Nothing of a lock's is a commit that waits, and so a dead process keeps nothing either.
pub(crate) async fn a_lost_synchronous_standby_takes_no_lock_and_keeps_none(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres).argument("-c synchronous_standby_names=ghost"));
    let ours = store.connect("ours").await;
    let kept = within(ours.lock("kept").unwrap().acquire()).await.unwrap();
    let lock = ours.lock("x").unwrap();
    for _ in 0..200 {
        within(lock.acquire()).await.unwrap().release().await.unwrap();
    }
    let group = ours.group("g").unwrap();
    within(group.create()).await.unwrap();
    for round in 0..3 {
        let membership = within(group.join(&round)).await.unwrap();
        within(membership.update(&7)).await.unwrap();
        within(within(membership.campaign()).await.unwrap().resign()).await.unwrap();
        within(membership.leave()).await.unwrap();
    }
    let mut watch = within(group.watch()).await.unwrap();
    within(watch.next()).await.unwrap();
    let mut leader = store.start(&["lead", "g"]);
    assert_eq!(leader.line(), "leading");
    let mut holder = store.start_as("holder", &["hold", "x"]);
    holder.line();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Joined(_))));
    leader.kill();
    holder.kill();
    let killed = Instant::now();
    drop(within(lock.acquire()).await.unwrap());
    assert!(killed.elapsed() <= LATE, "the dead one kept its lock for {:?}", killed.elapsed());
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Left(_))));
    within(group.delete()).await.unwrap();
    assert!(kept.is_held());
    within(ours.close()).await.unwrap();
    assert_eq!(store.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"), "0");
}

/// Another program's commit hangs with the one lock that all notifications of a server pass: locks and heartbeats go on.
pub(crate) async fn a_notification_that_hangs_takes_no_lock(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres).argument("-c synchronous_standby_names=ghost"));
    let ours = store.connect("ours").await;
    let kept = within(ours.lock("kept").unwrap().acquire()).await.unwrap();
    ours.group("g").unwrap().create().await.unwrap();
    let mut psql = store.server.tool("psql").unwrap();
    psql.args(["-d", "postgres", "-qc", "CREATE TABLE wal AS SELECT 1; NOTIFY anything"]);
    let mut stuck = psql.spawn().unwrap();
    within(async {
        while store.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let lock = ours.lock("x").unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    let mut refused = 0;
    while Instant::now() < until {
        // It tells, so it can't be done now; the answer comes, and the beats between.
        refused += usize::from(within(ours.group("g").unwrap().join(&())).await.is_err());
        within(lock.acquire()).await.unwrap().release().await.unwrap();
        assert!(kept.is_held());
    }
    assert!(refused > 0, "nothing hung");
    stuck.kill().unwrap();
    stuck.wait().unwrap();
    store.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    // The last one that hung may have been done in the end, and is being taken back.
    let membership = within(async {
        loop {
            match ours.group("g").unwrap().join(&()).await {
                Ok(membership) => break membership,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    within(membership.leave()).await.unwrap();
    assert!(kept.is_held());
}

/// The server stands still for longer than a session lives. When it goes on, it finds the connections of the lost ones closed.
pub(crate) async fn a_server_that_stood_still_frees_the_locks_of_the_lost_when_it_goes_on(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    let url = format!("{}?session_timeout=6s&namespace=own", store.server.url());
    let one = within(connect(&url, "one")).await.unwrap();
    let guard = within(one.lock("x").unwrap().acquire()).await.unwrap();
    let server = Arc::clone(&store.server);
    tokio::task::spawn_blocking(move || server.pause().unwrap()).await.unwrap();
    within(guard.loss().wait()).await;
    // Time to close.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let server = Arc::clone(&store.server);
    tokio::task::spawn_blocking(move || server.resume().unwrap()).await.unwrap();
    let resumed = Instant::now();
    drop(within(one.lock("x").unwrap().acquire()).await.unwrap());
    println!("a server that stood still goes on to the next grant: {:?}", resumed.elapsed());
    assert!(resumed.elapsed() < Duration::from_secs(4), "{:?}", resumed.elapsed());
}
