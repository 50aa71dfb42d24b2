//! The tables: changed, dropped, or of another layout.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz_core::{ErrorKind, connect};
use tooz_testbed::{Kind, Setup};

use crate::bed::{LATE, Store, within};

/// A client of the server's own, which does this and stays.
pub(crate) fn stays(store: &Store, sql: &str) -> Child {
    let mut client = store.server.tool("mariadb").unwrap();
    let mut child = client.args(["-N", "-B", "-n"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    writeln!(child.stdin.as_mut().unwrap(), "{sql}").unwrap();
    child
}

/// An `ALTER` behind some reader keeps all later readers waiting, by default for a day.
pub(crate) async fn a_change_of_a_table_ends_no_session_and_keeps_no_request_waiting_for_long(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let ours = store.connect("ours").await;
    let calm = within(connect(&store.url().replace("session_timeout=2s&", ""), "calm")).await.unwrap();
    within(calm.lock("free").unwrap().acquire()).await.unwrap().release().await.unwrap();
    let membership = within(ours.group("g").unwrap().join_or_create(&())).await.unwrap();
    let guard = within(ours.lock("held").unwrap().acquire()).await.unwrap();
    let tables = ["members", "sharers"];
    let reads: Vec<String> = tables.map(|table| format!("SELECT COUNT(*) FROM tooz.tooz_{table};")).into();
    let mut reader = stays(&store, &format!("START TRANSACTION; {}", reads.concat()));
    sleep(Duration::from_millis(300)).await;
    let mut changes = tables.map(|table| stays(&store, &format!("ALTER TABLE tooz.tooz_{table} COMMENT = 'changed';")));
    sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    let tried = within(ours.lock("free").unwrap().try_acquire()).await;
    assert!(tried.is_err() && begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // The limit of a statement is longer where the session timeout is.
    let begun = Instant::now();
    let tried = within(calm.lock("free").unwrap().try_acquire()).await;
    assert!(tried.is_err() && begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    // Longer than the session timeout.
    sleep(Duration::from_secs(4)).await;
    assert!(guard.is_held() && membership.is_member());
    let _ = reader.kill();
    let _ = reader.wait();
    for change in &mut changes {
        drop(change.stdin.take());
        assert!(change.wait().unwrap().success());
    }
    within(ours.lock("free").unwrap().acquire()).await.unwrap().release().await.unwrap();
    guard.release().await.unwrap();
    membership.leave().await.unwrap();
}

pub(crate) async fn another_layout_is_refused_before_anything_is_owned(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let (before, ours) = (store.connect("before").await, store.connect("ours").await);
    let guard = within(before.lock("x").unwrap().acquire()).await.unwrap();
    store.sql("UPDATE tooz.tooz_layout SET layout = 7; INSERT INTO tooz.tooz_groups VALUES ('own', 'zz', 5)");
    let group = ours.group("zz").unwrap();
    // A session that only looks, or deletes, is refused as well.
    for refused in [
        within(ours.lock("x").unwrap().try_acquire()).await.map(drop),
        within(store.connect("other").await.lock("x").unwrap().try_acquire()).await.map(drop),
        within(group.join(&1)).await.map(drop),
        within(ours.lock("x").unwrap().holders()).await.map(drop),
        within(ours.lock("x").unwrap().waiters()).await.map(drop),
        within(ours.locks()).await.map(drop),
        within(ours.groups()).await.map(drop),
        within(group.members()).await.map(drop),
        within(group.leader()).await.map(drop),
        within(group.watch()).await.map(drop),
        within(ours.group("new").unwrap().create()).await,
        within(group.delete()).await,
    ] {
        let error = refused.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("layout 7"), "{error}");
    }
    assert_eq!(store.sql("SELECT COUNT(*) FROM tooz.tooz_groups"), "1");
    let found = within(store.connect("looker").await.check_up()).await.unwrap();
    assert!(found.findings.iter().any(|one| one.what.contains("layout 7")), "{found:?}");
    // A member that has a session keeps it, and gets no second one.
    assert!(guard.is_held());
    assert_eq!(store.sql("SELECT COUNT(*) FROM tooz.tooz_sessions"), "1");
    store.sql(&format!("KILL {}", store.session_of("before")));
    within(guard.loss().wait()).await;
    let error = within(before.lock("x").unwrap().try_acquire()).await.unwrap_err();
    assert!(error.to_string().contains("layout 7"), "{error}");
    store.sql("UPDATE tooz.tooz_layout SET layout = 1");
    within(ours.lock("x").unwrap().acquire()).await.unwrap().release().await.unwrap();
    assert_eq!(ours.groups().await.unwrap().len(), 1);
}

pub(crate) async fn tables_that_were_dropped_are_made_again(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let ours = store.connect("ours").await;
    ours.group("g").unwrap().create().await.unwrap();
    let held = within(ours.lock("held").unwrap().acquire()).await.unwrap();
    store.sql("DROP DATABASE tooz");
    let error = within(ours.lock("held").unwrap().holders()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("held"), "{error}");
    assert!(within(ours.lock("free").unwrap().holders()).await.unwrap().is_empty());
    held.release().await.unwrap();
    assert!(ours.groups().await.unwrap().is_empty());
    ours.group("g").unwrap().create().await.unwrap();
    store.sql("DROP TABLE tooz.tooz_grants");
    within(ours.lock("x").unwrap().acquire()).await.unwrap().release().await.unwrap();
    assert_eq!(ours.groups().await.unwrap().len(), 1);
}

/// A request for a lock alone finds those that share it by their rows only.
pub(crate) async fn a_share_whose_row_is_gone_is_lost(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let (ours, other) = (store.connect("ours").await, store.connect("other").await);
    for deed in ["DROP TABLE tooz.tooz_sharers", "DELETE FROM tooz.tooz_sharers WHERE 1", "DROP DATABASE tooz"] {
        let (lock, kept) = (ours.lock("x").unwrap(), within(ours.lock("kept").unwrap().acquire()).await.unwrap());
        let two = [
            within(lock.shared().acquire()).await.unwrap(),
            within(ours.lock("x").unwrap().shared().acquire()).await.unwrap(),
        ];
        // Longer than a heartbeat: what stands there is not lost.
        sleep(Duration::from_secs(3)).await;
        assert!(two.iter().all(tooz_core::LockGuard::is_held));
        store.sql(deed);
        // A newcomer makes the tables again, without a word.
        let newcomer = store.connect("newcomer").await;
        within(newcomer.lock("new").unwrap().acquire()).await.unwrap().release().await.unwrap();
        for guard in &two {
            within(guard.loss().wait()).await;
        }
        assert!(kept.is_held() && two.iter().all(|guard| !guard.is_held()), "{deed}");
        // The lock is free, and is a lock as before, for the same session too.
        let theirs = other.lock("x").unwrap();
        within(theirs.acquire()).await.unwrap().release().await.unwrap();
        let again = within(lock.shared().acquire()).await.unwrap();
        assert!(within(theirs.try_acquire()).await.unwrap().is_none(), "{deed}");
        drop(two);
        sleep(Duration::from_millis(300)).await;
        assert!(again.is_held() && within(theirs.try_acquire()).await.unwrap().is_none(), "{deed}");
        again.release().await.unwrap();
        kept.release().await.unwrap();
    }
}

/// More than are given up in one step.
pub(crate) async fn of_many_shares_all_whose_rows_are_gone_are_lost(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let (ours, other) = (store.connect("ours").await, store.connect("other").await);
    let mut guards = Vec::new();
    for number in 0..700 {
        let lock = ours.lock(format!("many-{number}").as_str()).unwrap();
        guards.push(within(lock.shared().acquire()).await.unwrap());
    }
    let stays = within(ours.lock("stays").unwrap().shared().acquire()).await.unwrap();
    let row = "SELECT lk FROM tooz.tooz_grants WHERE name = 'stays'";
    while store.sql(row).is_empty() {
        sleep(Duration::from_millis(20)).await;
    }
    store.sql(&format!("DELETE FROM tooz.tooz_sharers WHERE lk <> ({row})"));
    for guard in &guards {
        within(guard.loss().wait()).await;
    }
    assert!(stays.is_held());
    for number in [0, 1, 350, 698, 699] {
        let lock = other.lock(format!("many-{number}").as_str()).unwrap();
        within(lock.acquire()).await.unwrap().release().await.unwrap();
    }
    assert!(within(other.lock("stays").unwrap().try_acquire()).await.unwrap().is_none());
}

pub(crate) async fn a_group_deleted_by_hand_ends_its_memberships(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let (ours, other) = (store.connect("ours").await, store.connect("other").await);
    for deed in ["DELETE FROM tooz.tooz_groups WHERE name = 'g'", "DROP TABLE tooz.tooz_groups"] {
        let stays = within(other.group("stays").unwrap().join_or_create(&1)).await.unwrap();
        let membership = within(ours.group("g").unwrap().join_or_create(&1)).await.unwrap();
        let leadership = within(membership.campaign()).await.unwrap();
        let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        assert!(membership.is_member() && leadership.is_leader());
        store.sql(deed);
        let begun = Instant::now();
        while membership.is_member() || leadership.is_leader() {
            assert!(begun.elapsed() < LATE * 5, "{deed}");
            sleep(Duration::from_millis(20)).await;
        }
        assert!(guard.is_held(), "{deed}");
        // The lock behind the leadership is given back a moment after that was told.
        while within(other.group("g").unwrap().leader()).await.is_ok() {
            assert!(begun.elapsed() < LATE * 10, "{deed}");
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(within(other.group("g").unwrap().leader()).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(within(other.group("g").unwrap().members()).await.unwrap_err().kind(), ErrorKind::NotFound);
        guard.release().await.unwrap();
        assert!(stays.is_member() || deed.starts_with("DROP"));
        let _ = within(stays.leave()).await;
    }
}

/// The server ends a connection that sends a longer packet than it takes.
pub(crate) async fn capabilities_that_no_packet_holds_are_refused_and_end_no_session(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql).argument("--max-allowed-packet=256K"));
    let ours = store.connect("ours").await;
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    let group = ours.group("g").unwrap();
    group.create().await.unwrap();
    for (length, words) in [(300_000, "262144"), (200_000, "max_allowed_packet")] {
        let error = within(group.join(&"x".repeat(length))).await.err().unwrap();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(words), "{error}");
    }
    let membership = within(group.join(&"x".repeat(100_000))).await.unwrap();
    assert!(guard.is_held());
    assert_eq!(group.members().await.unwrap()[0].capabilities.get::<String>().unwrap().len(), 100_000);
    membership.leave().await.unwrap();
}

/// Whether they are two is the server's to say.
pub(crate) async fn databases_that_differ_in_case_are_what_the_server_takes_them_for(store: Store) {
    let folding = Store::own(Setup::new(Kind::MySql).argument("--lower-case-table-names=1"));
    for (store, are_one) in [(&store, false), (&folding, true)] {
        let other = store.url().replace("/tooz?", "/Tooz?");
        let (a, b) = (store.connect("a").await, within(connect(&other, "b")).await.unwrap());
        let guard = within(a.lock("x").unwrap().acquire()).await.unwrap();
        let tried = within(b.lock("x").unwrap().try_acquire()).await.unwrap();
        let holders = within(b.lock("x").unwrap().holders()).await.unwrap();
        assert_eq!((tried.is_none(), holders.iter().any(|holder| holder.member.as_str() == "a")), (are_one, are_one));
        guard.release().await.unwrap();
    }
}

pub(crate) async fn a_database_may_have_any_name(store: Store) {
    let url = store.url().replace("/tooz?", "/it's%20%60a%60%20{layout}?");
    let (a, b) = (within(connect(&url, "a")).await.unwrap(), store.connect("b").await);
    let begun = Instant::now();
    let guard = within(a.lock("x").unwrap().acquire()).await.unwrap();
    // Another database, other locks.
    within(b.lock("x").unwrap().acquire()).await.unwrap().release().await.unwrap();
    guard.release().await.unwrap();
    assert!(begun.elapsed() < LATE * 5);
    assert!(store.sql("SHOW DATABASES").contains("it's `a` {layout}"));
}
