//! Names and keys, and how many locks and waiting tasks go on how few connections.

use std::time::{Duration, Instant};

use tooz_core::{ErrorKind, LockMode};
use tooz_testbed::{Kind, Setup};

use crate::bed::{Store, within};

pub(crate) async fn names_that_share_a_key_are_told_apart(store: Store) {
    let (one, two) = (store.connect("one").await, store.connect("two").await);
    let guard = one.lock("x").unwrap().acquire().await.unwrap();
    assert_eq!(two.lock("x").unwrap().holders().await.unwrap().len(), 1);
    // As if it were another lock whose name has the same hash.
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

pub(crate) async fn a_thousand_names_are_a_thousand_locks(store: Store) {
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

pub(crate) async fn ten_thousand_locks_live_on_one_connection(_shared: Store) {
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
    for guard in &guards {
        assert_eq!(guard.loss().reason(), None);
    }
    let held = store.sql(
        "SELECT count(*), count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'",
    );
    // One more is the session's own.
    assert_eq!(held, "10001|1");
    within(ours.close()).await.unwrap();
    assert_eq!(store.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0");
}

pub(crate) async fn a_full_lock_table_names_the_setting(_shared: Store) {
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

pub(crate) async fn a_hundred_waiting_tasks_share_few_connections(store: Store) {
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
        let idle = store
            .sql("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND now() - state_change > '1 s'");
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
    assert_eq!(store.sql("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"), "0");
}

pub(crate) async fn who_has_no_connection_to_wait_on_still_gets_a_free_lock(store: Store) {
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

pub(crate) async fn who_has_no_connection_to_wait_on_is_not_starved_by_a_queue(store: Store) {
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

/// Also of a lock that never is in the same hands for long enough to be written down by itself.
pub(crate) async fn a_holder_is_shown_however_short_it_holds(store: Store) {
    let looker = store.connect("looker").await;
    let mut holders = tokio::task::JoinSet::new();
    for index in 0..2 {
        let lock = store.connect(&format!("holder-{index}")).await.lock("x").unwrap();
        // With its session open and its connection to wait on made, it takes turns without a pause.
        let first = within(lock.acquire()).await.unwrap();
        holders.spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            first.release().await.unwrap();
            loop {
                let guard = lock.acquire().await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
                guard.release().await.unwrap();
            }
        });
    }
    let mut seen = 0;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let shown = within(looker.lock("x").unwrap().holders()).await.unwrap();
        assert!(shown.len() <= 1, "{shown:?}");
        seen += shown.len();
    }
    println!("a holder of 10 ms was seen {seen} times of 50");
    assert!(seen >= 10, "a lock that is always held looked free {} times of 50", 50 - seen);
    holders.abort_all();
}

/// A try finds nothing in the way of a lock that was given back, by a waiter least of all that has just had its turn.
pub(crate) async fn a_try_after_a_turn_finds_the_gate_open(store: Store) {
    let (one, two, three) = (store.connect("one").await, store.connect("two").await, store.connect("three").await);
    for round in 0..100 {
        let guard = one.lock("x").unwrap().acquire().await.unwrap();
        let lock = two.lock("x").unwrap();
        let shared = round % 2 == 0;
        let waiting = tokio::spawn(async move {
            if shared { lock.shared().acquire().await.unwrap() } else { lock.acquire().await.unwrap() }
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        guard.release().await.unwrap();
        let guard = within(waiting).await.unwrap();
        let tried = if shared {
            three.lock("x").unwrap().shared().try_acquire().await.unwrap()
        } else {
            guard.release().await.unwrap();
            three.lock("x").unwrap().try_acquire().await.unwrap()
        };
        assert!(tried.is_some(), "round {round}: refused with nothing in the way");
    }
}

/// However long and strange its id is, and in either mode; but not without a connection, and not when it is dead.
pub(crate) async fn waiters_are_those_in_the_servers_queue(store: Store) {
    let long = format!("\u{fc}ber-{}", "x".repeat(150));
    let (holder, looker) = (store.connect("holder").await, store.connect("looker").await);
    let ours = store.connect_with(&long, "&waiters=1").await;
    let (_x, y) =
        (holder.lock("x").unwrap().acquire().await.unwrap(), holder.lock("y").unwrap().acquire().await.unwrap());
    let lock = ours.lock("x").unwrap();
    let first = tokio::spawn(async move { lock.shared().acquire().await });
    let waiting = async |name: &str| {
        let waiters = looker.lock(name).unwrap().waiters().await.unwrap();
        waiters.iter().map(|one| (one.member.to_string(), one.mode)).collect::<Vec<_>>()
    };
    within(async {
        while waiting("x").await != [(long.clone(), LockMode::Shared)] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let lock = ours.lock("y").unwrap();
    let second = tokio::spawn(async move { lock.acquire().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(waiting("y").await, [], "it has no connection to wait on");
    // The first one's turn is over when others want its connection.
    within(async {
        while waiting("y").await != [(long.clone(), LockMode::Exclusive)] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut other = store.start_as("dead", &["hold", "y"]);
    within(async {
        while waiting("y").await.last().is_none_or(|(member, _)| member != "dead") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    other.kill();
    within(async {
        while waiting("y").await.iter().any(|(member, _)| member == "dead") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    y.release().await.unwrap();
    drop(within(second).await.unwrap());
    first.abort();
}

/// Their names are asked for, also of those that are given back before the name is told.
pub(crate) async fn locks_are_listed_however_short_they_are_held(store: Store) {
    let looker = store.connect("looker").await;
    let steady = store.connect("steady").await;
    let _held = steady.lock("steady").unwrap().acquire().await.unwrap();
    let mut holders = tokio::task::JoinSet::new();
    for index in 0..3 {
        let lock = store.connect(&format!("holder-{index}")).await.lock(format!("short-{index}")).unwrap();
        holders.spawn(async move {
            loop {
                let guard = lock.acquire().await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
                guard.release().await.unwrap();
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut seen = 0;
    for _ in 0..30 {
        let locks = within(looker.locks()).await.unwrap();
        assert!(locks.iter().any(|lock| lock.as_str() == "steady"), "{locks:?}");
        seen += locks.len() - 1;
    }
    println!("three locks of 5 ms were listed {seen} times of 90");
    assert!(seen >= 10, "{seen}");
    holders.abort_all();
}

pub(crate) async fn more_than_a_member_may_say_is_refused(store: Store) {
    let one = store.connect("one").await;
    let group = one.group("g").unwrap();
    let error = within(group.join_or_create(&"x".repeat(300_000))).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("262144"), "{error}");
    let membership = within(group.join_or_create(&"x".repeat(200_000))).await.unwrap();
    assert_eq!(membership.update(&"x".repeat(300_000)).await.unwrap_err().kind(), ErrorKind::Config);
    membership.leave().await.unwrap();
}
