//! What is this driver's own: processes and servers that are really killed, connections that are counted, names that share a key, and
//! databases that are not as they should be.
// Long because each case stands for itself; what they share is at the end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tooz_core::{
    ConnectOptions, Coordinator, ErrorKind, GroupEvent, LeaderEvent, LossReason, MemberId, Verdict, connect,
};
use tooz_postgres as _;
use tooz_testbed::{Kind, Provided, Proxy, Server, Setup, for_tests};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--role") {
        let given: Vec<String> = arguments.collect();
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        run(role(&given));
        return ExitCode::SUCCESS;
    }
    let missing = match for_tests(Kind::Postgres) {
        Provided::MayStart => None,
        Provided::Own(_) => Some("breaks servers of its own: TOOZ_TESTBED=1".to_owned()),
        Provided::Missing(reason) => Some(reason),
    };
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {
            vec![$(trial(stringify!($name), missing.as_deref(), |store| run($name(store)))),*]
        };
    }
    let trials = trials![
        the_lock_of_a_killed_holder_is_the_next_ones,
        a_killed_member_has_left_and_a_stopped_one_too,
        a_killed_leader_leaves_a_vacancy,
        a_terminated_back_end_is_a_loss_that_is_told_at_once,
        a_killed_server_loses_all_locks_and_tokens_grow_over_it,
        lost_replies_leave_nothing_behind,
        a_silent_cut_of_a_waiter_is_no_obstacle,
        names_that_share_a_key_are_told_apart,
        a_thousand_names_are_a_thousand_locks,
        ten_thousand_locks_live_on_one_connection,
        a_full_lock_table_names_the_setting,
        a_hundred_waiting_tasks_share_few_connections,
        who_has_no_connection_to_wait_on_still_gets_a_free_lock,
        who_has_no_connection_to_wait_on_is_not_starved_by_a_queue,
        nothing_is_left_behind,
        what_the_dead_left_is_swept,
        a_standby_is_refused,
        several_hosts_are_refused,
        a_wrong_password_is_told_as_such,
        without_rights_to_create_the_ddl_is_named_and_is_enough,
        a_schema_may_have_any_name,
        a_unix_socket_will_do,
        tls_is_checked_or_said_to_be_missing,
        a_database_that_is_not_there_is_told,
        the_check_up_tells_what_it_found,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, missing: Option<&str>, case: fn(Store)) -> Trial {
    if let Some(reason) = missing.map(str::to_owned) {
        let kind = reason.clone();
        return Trial::ignorable_test(name, move || Ok(Completion::ignored_with(reason)))
            .with_kind(kind)
            .with_ignored_flag(true);
    }
    let namespace = name.to_owned();
    Trial::test(name, move || {
        case(Store::shared(&namespace).map_err(Failed::from)?);
        Ok(())
    })
}

async fn the_lock_of_a_killed_holder_is_the_next_ones(store: Store) {
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
}

async fn a_killed_member_has_left_and_a_stopped_one_too(store: Store) {
    let ours = store.connect("ours").await;
    let group = ours.group("g").unwrap();
    group.create().await.unwrap();
    let mut watch = group.watch().await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.is_empty()));
    for how in ["KILL", "STOP"] {
        let mut member = store.start_as(how, &["join", "g"]);
        assert_eq!(member.line(), "joined");
        assert!(matches!(within(watch.next()).await, Some(GroupEvent::Joined(entry)) if entry.member.as_str() == how));
        let ended = Instant::now();
        member.signal(how);
        assert!(matches!(within(watch.next()).await, Some(GroupEvent::Left(member)) if member.as_str() == how));
        println!("{how} to Left, with a session timeout of 2 s: {:?}", ended.elapsed());
        assert!(group.members().await.unwrap().is_empty());
        member.signal("CONT");
        member.kill();
    }
    group.delete().await.unwrap();
    assert_eq!(within(watch.next()).await, Some(GroupEvent::Deleted));
}

async fn a_killed_leader_leaves_a_vacancy(store: Store) {
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

async fn a_terminated_back_end_is_a_loss_that_is_told_at_once(store: Store) {
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

async fn a_killed_server_loses_all_locks_and_tokens_grow_over_it(_shared: Store) {
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

async fn lost_replies_leave_nothing_behind(store: Store) {
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

async fn a_silent_cut_of_a_waiter_is_no_obstacle(store: Store) {
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

async fn names_that_share_a_key_are_told_apart(store: Store) {
    let (one, two) = (store.connect("one").await, store.connect("two").await);
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    assert_eq!(two.lock("x").unwrap().holders().await.unwrap().len(), 1);
    // As if one's lock were another one whose name has the same hash.
    store.sql("UPDATE tooz.grants SET name = 'y' WHERE namespace = current_setting('tooz.namespace')");
    for error in [
        within(two.lock("x").unwrap().try_acquire()).await.unwrap_err(),
        within(two.lock("x").unwrap().acquire()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("lock y") && error.to_string().contains("another name"), "{error}");
    }
    assert!(guard.is_held());
    guard.release().await.unwrap();
    drop(within(two.lock("x").unwrap().acquire()).await.unwrap());
}

async fn a_thousand_names_are_a_thousand_locks(store: Store) {
    let (one, two) = (store.connect("one").await, store.connect("two").await);
    // In the original these two are one.
    let _first = one.lock("lock-2").unwrap().try_acquire().await.unwrap().unwrap();
    let _second = two.lock("lock-137").unwrap().try_acquire().await.unwrap().unwrap();
    let mut guards = Vec::new();
    for index in 0..1000 {
        let of = if index % 2 == 0 { &one } else { &two };
        let guard = of.lock(format!("name {index}")).unwrap().try_acquire().await.unwrap();
        guards.push(guard.unwrap_or_else(|| panic!("name {index} is excluded by another")));
    }
}

async fn ten_thousand_locks_live_on_one_connection(_shared: Store) {
    // As it comes, with the lock table of an ordinary server.
    let store = Store::own(Setup::new(Kind::Postgres).argument("-c max_connections=100"));
    let ours = store.connect("ours").await;
    let mut acquires = tokio::task::JoinSet::new();
    for index in 0..10_000 {
        let lock = ours.lock(format!("lock-{index}")).unwrap();
        acquires.spawn(async move { lock.acquire().await.unwrap() });
    }
    let guards = tokio::time::timeout(Duration::from_mins(2), acquires.join_all()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(guards.iter().all(tooz_core::LockGuard::is_held));
    let held = store.sql(
        "SELECT count(*), count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'",
    );
    // One more is the session's own.
    assert_eq!(held, "10001|1");
    within(ours.close()).await.unwrap();
    assert_eq!(store.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0");
}

async fn a_full_lock_table_names_the_setting(_shared: Store) {
    let store =
        Store::own(Setup::new(Kind::Postgres).argument("-c max_locks_per_transaction=10 -c max_connections=10"));
    let ours = store.connect("ours").await;
    let mut guards = Vec::new();
    let error = loop {
        match ours.lock(format!("lock-{}", guards.len())).unwrap().try_acquire().await {
            Ok(guard) => guards.push(guard.unwrap()),
            Err(error) => break error,
        }
        assert!(guards.len() < 10_000, "the table is never full");
    };
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("max_locks_per_transaction"), "{error}");
    // Nothing of the failed one is left, and nothing of the others is lost.
    guards.pop().unwrap().release().await.unwrap();
    guards.pop().unwrap().release().await.unwrap();
    assert!(guards.iter().all(tooz_core::LockGuard::is_held));
    guards.push(ours.lock("another").unwrap().try_acquire().await.unwrap().unwrap());
}

async fn a_hundred_waiting_tasks_share_few_connections(store: Store) {
    let (holder, ours) = (store.connect("holder").await, store.connect("the-patient-one").await);
    let names: Vec<String> = (0..100).map(|index| format!("lock-{index}")).collect();
    let mut guards = Vec::new();
    for name in &names {
        guards.push(holder.lock(name).unwrap().acquire().await.unwrap());
    }
    let mut waiting = tokio::task::JoinSet::new();
    for name in &names {
        let lock = ours.lock(name).unwrap();
        waiting.spawn(async move { lock.acquire().await.unwrap().release().await.unwrap() });
    }
    let mut most = 0;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tooz:the-patient-one'";
        most = most.max(store.sql(count).parse::<usize>().unwrap());
        let idle = store.sql("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'");
        assert_eq!(idle, "0", "something sits idle in a transaction");
    }
    println!("100 waiting tasks take {most} connections");
    assert!(most <= 4 + 2, "{most} connections");
    let released = Instant::now();
    for guard in guards {
        guard.release().await.unwrap();
    }
    tokio::time::timeout(Duration::from_secs(30), waiting.join_all()).await.unwrap();
    println!("all 100 had their turn within {:?}", released.elapsed());
}

async fn who_has_no_connection_to_wait_on_still_gets_a_free_lock(store: Store) {
    let holder = store.connect("holder").await;
    let ours = store.connect_with("ours", "&waiters=1").await;
    let _long = holder.lock("long").unwrap().acquire().await.unwrap();
    let short = holder.lock("short").unwrap().acquire().await.unwrap();
    let lock = ours.lock("long").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let lock = ours.lock("short").unwrap();
    let second = tokio::spawn(async move { lock.acquire().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    short.release().await.unwrap();
    drop(within(second).await.unwrap());
    waiting.abort();
}

async fn who_has_no_connection_to_wait_on_is_not_starved_by_a_queue(store: Store) {
    let holder = store.connect("holder").await;
    let ours = store.connect_with("ours", "&waiters=1").await;
    let _long = holder.lock("long").unwrap().acquire().await.unwrap();
    let lock = ours.lock("long").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Three others hand the second lock on between them, so that it is never free without a waiter.
    let mut others = tokio::task::JoinSet::new();
    for index in 0..3 {
        let other = store.connect(&format!("other-{index}")).await;
        others.spawn(async move {
            loop {
                let guard = other.lock("busy").unwrap().acquire().await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
                guard.release().await.unwrap();
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    drop(within(ours.lock("busy").unwrap().acquire()).await.unwrap());
    println!("in a queue with one connection for two locks: {:?}", began.elapsed());
    others.abort_all();
    waiting.abort();
}

async fn nothing_is_left_behind(store: Store) {
    let ours = store.connect("ours").await;
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
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tooz:ours' AND pid IN (SELECT pid FROM pg_locks)";
    assert_eq!(store.sql(count), "0");
}

async fn what_the_dead_left_is_swept(store: Store) {
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

async fn a_standby_is_refused(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    std::fs::write(store.server.folder().join("data/standby.signal"), "").unwrap();
    let server = Arc::clone(&store.server);
    tokio::task::spawn_blocking(move || server.restart().unwrap()).await.unwrap();
    let error = within(connect(&store.url(), "ours")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("standby"), "{error}");
}

async fn several_hosts_are_refused(_store: Store) {
    let error = connect("postgresql://one,two/db", "ours").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("primary"), "{error}");
}

async fn a_wrong_password_is_told_as_such(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    store.sql("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'right'");
    let rules = "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let file = store.server.folder().join("data/pg_hba.conf");
    std::fs::write(file, rules).unwrap();
    store.sql("SELECT pg_reload_conf()");
    let url = |password: &str| format!("postgres://guarded:{password}@{}/postgres", store.server.address());
    // The server re-reads its rules in its own time.
    let error = within(async {
        loop {
            match connect(&url("wrong"), "ours").await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => break error,
            }
        }
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    let ours = connect(&url("right"), "ours").await.unwrap();
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
}

async fn without_rights_to_create_the_ddl_is_named_and_is_enough(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    store.sql("CREATE ROLE plain LOGIN");
    let url = format!("postgres://plain@{}/postgres", store.server.address());
    let ours = connect(&url, "ours").await.unwrap();
    assert!(ours.groups().await.unwrap().is_empty(), "looking needs no tables");
    assert!(ours.lock("x").unwrap().holders().await.unwrap().is_empty());
    let error = ours.lock("x").unwrap().try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(error.to_string().contains("tooz schema postgres"), "{error}");
    // What an administrator does: runs it, and the grants at its end for the role of the members.
    let ddl = tooz_postgres::ddl("tooz");
    store.sql(&ddl.replace("-- GRANT", "GRANT").replace("TO MEMBERS", "TO plain"));
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    let membership = within(ours.group("g").unwrap().join_or_create(&1)).await.unwrap();
    within(membership.campaign()).await.unwrap().resign().await.unwrap();
    membership.leave().await.unwrap();
    ours.group("g").unwrap().delete().await.unwrap();
    guard.release().await.unwrap();
}

async fn a_schema_may_have_any_name(store: Store) {
    let options =
        ConnectOptions::new(&store.url()).unwrap().option("schema", "it's \"my\" Schema, 100%").member("ours").unwrap();
    let other = ConnectOptions::new(&store.url()).unwrap().member("other").unwrap().connect().await.unwrap();
    let ours = options.connect().await.unwrap();
    let _guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    let _membership = within(ours.group("g").unwrap().join_or_create(&1)).await.unwrap();
    assert_eq!(ours.lock("x").unwrap().holders().await.unwrap().len(), 1);
    // Another schema is another store.
    assert!(other.lock("x").unwrap().try_acquire().await.unwrap().is_some());
    assert!(other.groups().await.unwrap().is_empty());
}

async fn a_unix_socket_will_do(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres).unix_socket());
    let ours = connect(&store.server.url(), "ours").await.unwrap();
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
    let folder = store.server.folder().display().to_string().replace('/', "%2F");
    let port = store.server.address().port();
    let same = connect(&format!("postgresql://postgres@{folder}:{port}/postgres"), "same").await.unwrap();
    drop(within(same.lock("x").unwrap().acquire()).await.unwrap());
}

async fn tls_is_checked_or_said_to_be_missing(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres).tls());
    let connecting = within(connect(&store.server.url(), "ours")).await;
    if cfg!(feature = "tls") {
        let ours = connecting.unwrap();
        drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
        let stranger = store.server.url().split("&sslrootcert").next().unwrap().to_owned();
        let error = within(connect(&stranger, "ours")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    } else {
        let error = connecting.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("feature \"tls\""), "{error}");
    }
}

async fn a_database_that_is_not_there_is_told(store: Store) {
    let url = format!("postgres://postgres@{}/nowhere", store.server.address());
    let error = within(connect(&url, "ours")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

async fn the_check_up_tells_what_it_found(store: Store) {
    let ours = store.connect("ours").await;
    drop(within(ours.lock("x").unwrap().acquire()).await.unwrap());
    let found = within(ours.check_up()).await.unwrap();
    assert!(found.server.starts_with("PostgreSQL "), "{found:?}");
    assert!(found.findings.len() > 5 && found.findings.iter().all(|one| one.verdict != Verdict::Wrong), "{found:?}");
}

/// What the processes do that the cases start of this program: `[url, member, what, name]`.
async fn role(arguments: &[&str]) {
    let [url, member, what, name] = arguments else { panic!("{arguments:?}") };
    let ours = ConnectOptions::new(url).unwrap().member(*member).unwrap().connect().await.unwrap();
    match *what {
        "hold" => {
            let guard = ours.lock(*name).unwrap().acquire().await.unwrap();
            say(guard.fencing_token());
            forever().await;
        }
        "join" => {
            let _membership = ours.group(*name).unwrap().join(&()).await.unwrap();
            say("joined");
            forever().await;
        }
        "lead" => {
            let membership = ours.group(*name).unwrap().join(&()).await.unwrap();
            let _leadership = membership.campaign().await.unwrap();
            say("leading");
            forever().await;
        }
        other => panic!("no role {other}"),
    }
}

async fn forever() {
    std::future::pending::<()>().await;
}

fn say(what: impl std::fmt::Display) {
    println!("{what}");
    std::io::stdout().flush().unwrap();
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future);
}

/// A server, and in it a namespace of the case's own.
struct Store {
    server: Arc<Server>,
    namespace: String,
}

impl Store {
    /// In the server that most cases share.
    fn shared(namespace: &str) -> Result<Self, String> {
        static SHARED: OnceLock<Result<Arc<Server>, String>> = OnceLock::new();
        let start = || Server::start(Kind::Postgres).map(Arc::new).map_err(|error| format!("{error:#}"));
        Ok(Store { server: SHARED.get_or_init(start).clone()?, namespace: namespace.to_owned() })
    }

    /// In a server of its own.
    fn own(setup: Setup) -> Self {
        Store { server: Arc::new(setup.start().unwrap()), namespace: "own".to_owned() }
    }

    fn url(&self) -> String {
        format!("{}?session_timeout=2s&namespace={}", self.server.url(), self.namespace)
    }

    async fn connect(&self, member: &str) -> Coordinator {
        self.connect_with(member, "").await
    }

    async fn connect_with(&self, member: &str, more: &str) -> Coordinator {
        let options = ConnectOptions::new(&format!("{}{more}", self.url())).unwrap();
        within(options.member(member.parse::<MemberId>().unwrap()).unwrap().connect()).await.unwrap()
    }

    async fn connect_through(&self, proxy: &Proxy, member: &str) -> Coordinator {
        let url = self.url().replace(&self.server.address().to_string(), &proxy.address().to_string());
        within(connect(&url, member)).await.unwrap()
    }

    /// Asks the server itself; columns are separated by `|`.
    fn sql(&self, sql: &str) -> String {
        let mut psql = self.server.tool("psql").unwrap();
        psql.args(["-d", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = psql.stdin.take().unwrap();
        write!(input, "SET tooz.namespace = '{}';\n{sql};\n", self.namespace).unwrap();
        drop(input);
        let output = psql.wait_with_output().unwrap();
        assert!(output.status.success(), "{sql}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn start(&self, role: &[&str]) -> Process {
        self.start_as("other", role)
    }

    fn start_as(&self, member: &str, role: &[&str]) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--role", &self.url(), member]).args(role).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Process { child, output }
    }
}

/// A process that was started of this program; killed at the end at the latest.
struct Process {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn kill(&mut self) {
        // It may have been killed by a signal before.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    fn signal(&self, name: &str) {
        let _ = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
