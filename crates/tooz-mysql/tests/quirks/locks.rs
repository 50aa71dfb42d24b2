//! Locks: their names, many of them, who waits and who holds.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;
use tooz_core::{ErrorKind, LockMode};
use tooz_testbed::{Kind, Setup};

use crate::bed::{Store, within};

/// Those that servers of this kind would take for one, or refuse, among them.
pub(crate) async fn a_thousand_names_are_a_thousand_locks(store: Store) {
    let (a, b) = (store.connect("a").await, store.connect("b").await);
    let mut names: Vec<String> =
        ["abc", "Abc", "ABC", "ä", "Ä", "a", "a ", " a", "😀", "a/b", "..", "%2F", "-x", "a'b", "a\\", "a`b", "*/"]
            .map(str::to_owned)
            .into();
    names.extend(["x".repeat(255), "X".repeat(255), "é".repeat(127), "😀".repeat(63)]);
    names.extend((names.len()..1000).map(|number| format!("lock-{number}")));
    let mut guards = Vec::new();
    for name in &names {
        let guard = within(a.lock(name.as_str()).unwrap().try_acquire()).await.unwrap();
        guards.push(guard.unwrap_or_else(|| panic!("{name:?} is another lock's name too")));
    }
    for name in names.iter().step_by(7) {
        assert!(within(b.lock(name.as_str()).unwrap().try_acquire()).await.unwrap().is_none(), "{name:?}");
    }
    drop(guards);
    a.close().await.unwrap();
    b.close().await.unwrap();
}

pub(crate) async fn ten_thousand_locks_live_on_one_connection(store: Store) {
    const COUNT: usize = 10_000;
    let ours = store.connect("ours").await;
    let mut guards = Vec::new();
    for number in 0..COUNT {
        guards.push(within(ours.lock(format!("many-{number}").as_str()).unwrap().acquire()).await.unwrap());
    }
    sleep(Duration::from_secs(3)).await;
    assert!(guards.iter().all(tooz_core::LockGuard::is_held));
    let sessions =
        store.sql(&format!("SELECT COUNT(*) FROM tooz.tooz_sessions WHERE namespace = '{}'", store.namespace));
    assert_eq!(sessions, "1");
    let begun = Instant::now();
    ours.close().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    let next = store.connect("next").await;
    assert!(within(next.lock("many-9999").unwrap().try_acquire()).await.unwrap().is_some());
}

/// The server takes thirty-two waits in a row for a circle.
pub(crate) async fn forty_members_that_wait_in_a_row_all_get_their_turn(store: Store) {
    const COUNT: usize = 40;
    let mut members = Vec::new();
    for number in 0..COUNT {
        let member = store.connect_with(&format!("m{number}"), "&waiters=1").await;
        let own = within(member.lock(format!("chain-{number}").as_str()).unwrap().acquire()).await.unwrap();
        members.push((member, own));
    }
    let mut waits = JoinSet::new();
    let mut last = None;
    for (number, (member, own)) in members.into_iter().enumerate() {
        if number == COUNT - 1 {
            last = Some((member, own));
            continue;
        }
        let next = member.lock(format!("chain-{}", number + 1).as_str()).unwrap();
        waits.spawn(async move {
            let guard = next.acquire().await.unwrap();
            own.release().await.unwrap();
            guard.release().await.unwrap();
            member
        });
    }
    sleep(Duration::from_secs(1)).await;
    assert!(waits.try_join_next().is_none(), "no waiter has its turn yet");
    let (_member, own) = last.unwrap();
    own.release().await.unwrap();
    while let Some(done) = within(waits.join_next()).await {
        done.unwrap();
    }
}

pub(crate) async fn a_hundred_waiting_tasks_share_few_connections(store: Store) {
    let (holder, ours) = (store.connect("holder").await, store.connect("ours").await);
    let mut held = Vec::new();
    let mut waits = JoinSet::new();
    for number in 0..100 {
        let name = format!("wait-{number}");
        held.push(within(holder.lock(name.as_str()).unwrap().acquire()).await.unwrap());
        let lock = ours.lock(name.as_str()).unwrap();
        waits.spawn(async move { lock.acquire().await.unwrap().release().await.unwrap() });
    }
    sleep(Duration::from_secs(1)).await;
    let waiting = format!(
        "SELECT COUNT(DISTINCT conn) FROM tooz.tooz_waits WHERE member = 'ours' AND session IN \
        (SELECT session FROM tooz.tooz_sessions WHERE namespace = '{}') AND IS_USED_LOCK(waiter) = conn",
        store.namespace
    );
    assert!(store.sql(&waiting).parse::<u32>().unwrap() <= 4);
    for guard in held {
        guard.release().await.unwrap();
    }
    while let Some(done) = within(waits.join_next()).await {
        done.unwrap();
    }
}

pub(crate) async fn waiters_are_those_in_the_servers_queue(store: Store) {
    let (a, b, c) = (store.connect("a").await, store.connect("b").await, store.connect("c").await);
    let lock = a.lock("x").unwrap();
    let guard = within(lock.acquire()).await.unwrap();
    let mut waits = JoinSet::new();
    for (member, mode) in [(&b, LockMode::Shared), (&c, LockMode::Exclusive)] {
        let theirs = member.lock("x").unwrap();
        waits.spawn(async move {
            match mode {
                LockMode::Shared => drop(theirs.shared().acquire().await.unwrap().release().await),
                LockMode::Exclusive => drop(theirs.acquire().await.unwrap().release().await),
            }
        });
        sleep(Duration::from_millis(300)).await;
    }
    let found = lock.waiters().await.unwrap();
    let found: Vec<_> = found.iter().map(|one| (one.member.as_str(), one.mode)).collect();
    assert_eq!(found, [("b", LockMode::Shared), ("c", LockMode::Exclusive)]);
    guard.release().await.unwrap();
    while let Some(done) = within(waits.join_next()).await {
        done.unwrap();
    }
    sleep(Duration::from_millis(100)).await;
    assert!(lock.waiters().await.unwrap().is_empty());
}

pub(crate) async fn a_holder_is_shown_however_short_it_holds(store: Store) {
    let (a, b) = (store.connect("a").await, store.connect("b").await);
    let lock = a.lock("x").unwrap();
    let busy = tokio::spawn(async move {
        loop {
            let guard = lock.acquire().await.unwrap();
            sleep(Duration::from_millis(3)).await;
            guard.release().await.unwrap();
        }
    });
    let theirs = b.lock("x").unwrap();
    let mut seen = 0;
    for _ in 0..50 {
        match within(theirs.holders()).await {
            Ok(holders) => seen += holders.len(),
            Err(error) => panic!("{error}"),
        }
    }
    busy.abort();
    assert!(seen > 5, "only {seen} of 50 looks have seen it");
}

/// A named lock that was taken stays taken when a later statement of the packet fails.
pub(crate) async fn an_error_after_the_grant_gives_the_lock_back(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let (a, b) = (store.connect("a").await, store.connect("b").await);
    within(a.lock("warm").unwrap().acquire()).await.unwrap().release().await.unwrap();
    within(b.lock("warm").unwrap().acquire()).await.unwrap().release().await.unwrap();
    store.sql("RENAME TABLE tooz.tooz_sharers TO tooz.tooz_aside");
    let error = within(a.lock("x").unwrap().try_acquire()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Config | ErrorKind::Backend), "{error}");
    store.sql("RENAME TABLE tooz.tooz_aside TO tooz.tooz_sharers");
    let guard = within(b.lock("x").unwrap().try_acquire()).await.unwrap();
    guard.expect("it was given back").release().await.unwrap();
    let guard = within(a.lock("x").unwrap().try_acquire()).await.unwrap();
    guard.expect("and can be had again").release().await.unwrap();
}

pub(crate) async fn an_uncontended_lock_writes_nothing(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let ours = store.connect("ours").await;
    let lock = ours.lock("x").unwrap();
    within(lock.acquire()).await.unwrap().release().await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let before = store.commits();
    for _ in 0..200 {
        within(lock.acquire()).await.unwrap().release().await.unwrap();
    }
    // On a busy machine one or another is held for so long that it is written down.
    let written = store.commits() - before;
    assert!(written < 50, "{written} commits");
}

/// How many commits went into the server's log.
/// One commit for each would keep the connection, and those that wait for an answer, for as many times as the disk takes.
pub(crate) async fn thousands_that_are_given_back_at_once_are_written_off_together(_: Store) {
    const COUNT: u32 = 3000;
    let store = Store::own(Setup::new(Kind::MySql).durable());
    let ours = store.connect("ours").await;
    let mut guards = Vec::new();
    for number in 0..COUNT {
        guards.push(within(ours.lock(format!("many-{number}").as_str()).unwrap().acquire()).await.unwrap());
    }
    let kept = within(ours.lock("kept").unwrap().acquire()).await.unwrap();
    let rows = "SELECT COUNT(*) FROM tooz.tooz_grants";
    while store.sql(rows) != (COUNT + 1).to_string() {
        sleep(Duration::from_millis(50)).await;
    }
    let before = store.commits();
    let mut releases = JoinSet::new();
    for guard in guards {
        releases.spawn(guard.release());
    }
    while let Some(released) = within(releases.join_next()).await {
        released.unwrap().unwrap();
    }
    while store.sql(rows) != "1" {
        sleep(Duration::from_millis(50)).await;
    }
    let written = store.commits() - before;
    assert!(written < COUNT / 10, "{written} commits");
    assert!(kept.is_held());
    kept.release().await.unwrap();
}
