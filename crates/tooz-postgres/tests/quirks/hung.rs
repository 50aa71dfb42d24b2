//! Clients that stand still, and what of the server waits for them: by a Unix socket, where no timeout of the kernel's helps.

use std::time::{Duration, Instant};

use tooz_core::driver::Verdict;
use tooz_core::{ConnectOptions, Coordinator, ErrorKind, connect};
use tooz_testbed::{Kind, Setup};

use crate::bed::{LATE, Process, Store, within};

const TIMEOUT: Duration = Duration::from_secs(4);

/// A server that is reached by its Unix socket, and the URL.
fn by_socket() -> (Store, String) {
    let store = Store::own(Setup::new(Kind::Postgres).unix_socket());
    let (url, separator) = (store.server.url(), if store.server.url().contains('?') { '&' } else { '?' });
    let url = format!("{url}{separator}session_timeout={}s&namespace=own", TIMEOUT.as_secs());
    (store, url)
}

/// A process that does that and was stopped before it has written it down.
fn stopped_young(store: &Store, url: &str, role: &[&str]) -> Process {
    for round in 0..20 {
        let member = format!("stopped-{round}");
        let mut holder = Process::start(url, &member, role);
        holder.line();
        holder.signal("STOP");
        let written =
            format!("SELECT count(*) FROM tooz.grants JOIN tooz.sessions USING (session) WHERE member = '{member}'");
        if store.sql(&written) == "0" {
            return holder;
        }
        holder.kill();
    }
    panic!("it was never stopped in time");
}

/// Readers ask a holder that stands still for its token: that must not fill its socket, where the server sees no timeout.
pub(crate) async fn readers_keep_no_stopped_holder_alive(_shared: Store) {
    let (store, url) = by_socket();
    let other = within(connect(&url, "other")).await.unwrap();
    within(other.lock("y").unwrap().acquire()).await.unwrap().release().await.unwrap();
    let _holder = stopped_young(&store, &url, &["hold", "x"]);
    let stopped = Instant::now();
    let mut readers = tokio::task::JoinSet::new();
    for index in 0..10 {
        let reader = within(connect(&url, format!("reader-{index}").as_str())).await.unwrap();
        readers.spawn(async move {
            loop {
                let _ = reader.lock("x").unwrap().holders().await;
            }
        });
    }
    drop(tokio::time::timeout(Duration::from_secs(40), other.lock("x").unwrap().acquire()).await.unwrap().unwrap());
    println!("a stopped holder with 10 readers, to the next grant: {:?}", stopped.elapsed());
    assert!(stopped.elapsed() < TIMEOUT + LATE * 2, "{:?}", stopped.elapsed());
}

async fn is_hung(store: &Store, wanted: bool, limit: Duration) -> Duration {
    let began = Instant::now();
    while (store.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'") != "0") != wanted {
        assert!(began.elapsed() < limit, "hung: {}", !wanted);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    began.elapsed()
}

async fn fill(ours: &Coordinator) {
    let membership = within(ours.group("g").unwrap().join(&"")).await.unwrap();
    for index in 0..1000 {
        within(membership.update(&format!("{index:0>500}"))).await.unwrap();
    }
}

pub(crate) async fn the_back_end_of_a_stopped_watcher_is_ended(_shared: Store) {
    let (store, url) = by_socket();
    let ours = within(connect(&url, "ours")).await.unwrap();
    ours.group("g").unwrap().create().await.unwrap();
    let mut watcher = Process::start(&url, "stopped", &["watch", "g"]);
    watcher.line();
    watcher.signal("STOP");
    fill(&ours).await;
    is_hung(&store, true, Duration::from_secs(5)).await;
    // Seldom enough to cost nothing, and twice as long by chance.
    let took = is_hung(&store, false, TIMEOUT * 13).await;
    println!(
        "a watcher that stands still had its back end ended after {took:?}, with a session timeout of {TIMEOUT:?}"
    );
}

/// A waiter at the head of the queue keeps those behind it waiting, and it has stopped.
pub(crate) async fn a_stopped_waiter_is_no_obstacle_for_a_minute(store: Store) {
    let (one, two) = (store.connect("one").await, store.connect("two").await);
    let _read = within(one.lock("x").unwrap().shared().acquire()).await.unwrap();
    // It has a session by the time it waits.
    let mut waiter = store.start(&["hold", "x"]);
    within(async {
        while one.lock("x").unwrap().waiters().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    waiter.signal("STOP");
    let stopped = Instant::now();
    drop(within(two.lock("x").unwrap().shared().acquire()).await.unwrap());
    println!("a stopped waiter held up a reader for {:?}, with a session timeout of 2 s", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(3) + LATE, "{:?}", stopped.elapsed());
    waiter.kill();
}

/// A holder that was stopped before it wrote down what it has keeps no reader from hearing of the others.
pub(crate) async fn a_stopped_young_holder_hides_no_other(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    let url = format!("{}?session_timeout=30s&namespace=own", store.server.url());
    let ours = within(connect(&url, "ours")).await.unwrap();
    let _read = within(ours.lock("x").unwrap().shared().acquire()).await.unwrap();
    assert_eq!(within(ours.lock("x").unwrap().holders()).await.unwrap().len(), 1);
    // It is attentive for a while, and the other one is not asked meanwhile.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _holder = stopped_young(&store, &url, &["read", "x"]);
    for _ in 0..3 {
        let held = within(ours.lock("x").unwrap().holders()).await.unwrap();
        assert_eq!(
            held.iter().map(|one| one.member.as_str()).collect::<Vec<_>>(),
            ["ours"],
            "the other has told no token"
        );
        assert_eq!(within(ours.locks()).await.unwrap().len(), 1);
    }
}

/// Another program writes into the tables what no member would write.
pub(crate) async fn what_can_not_be_read_is_left_out(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    let ours = store.connect("ours").await;
    let group = ours.group("g").unwrap();
    let _membership = within(group.join_or_create(&1)).await.unwrap();
    let _read = within(ours.lock("x").unwrap().shared().acquire()).await.unwrap();
    let session = store.sql("SELECT session FROM tooz.sessions");
    for (member, request, capabilities) in [
        ("", "\\x00000000000000000000000000000001", "1"),
        ("short", "\\x01", "1"),
        ("strange", "\\x00000000000000000000000000000002", "{"),
    ] {
        store.sql(&format!(
            "INSERT INTO tooz.members VALUES ('own', 'g', '{member}', '{request}', {session}, '{capabilities}')"
        ));
    }
    store.sql("INSERT INTO tooz.groups VALUES ('own', '', 5, 1)");
    let members = within(group.members()).await.unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
    assert_eq!(within(ours.groups()).await.unwrap().len(), 1);
    // A lock that is held must not look free.
    store.sql("UPDATE tooz.sessions SET member = ''");
    assert!(within(ours.lock("x").unwrap().holders()).await.is_err());
}

/// A user who has too few connections, or lacks a piece of the schema, is told so.
pub(crate) async fn the_check_up_sees_what_is_wrong(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    drop(within(store.connect("first").await.lock("x").unwrap().acquire()).await.unwrap());
    store.sql("CREATE ROLE few LOGIN CONNECTION LIMIT 2");
    store.sql(&tooz_postgres::privileges("tooz", "few"));
    let url = format!("postgres://few@{}/postgres?namespace=own", store.server.address());
    let few = within(connect(&url, "few")).await.unwrap();
    let findings = async |member: &Coordinator, verdict: Verdict, word: &str| {
        let found = within(member.check_up()).await.unwrap();
        found.findings.iter().any(|one| one.verdict == verdict && format!("{} {}", one.what, one.mend).contains(word))
    };
    assert!(findings(&few, Verdict::Warning, "ALTER ROLE \"few\"").await);
    let second = within(connect(&url, "second")).await.unwrap();
    let third = ConnectOptions::new(&url).unwrap().member("third").unwrap();
    let error = within(third.connect()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("CONNECTION LIMIT"), "{error}");
    drop((few, second));
    store.sql("ALTER DATABASE postgres CONNECTION LIMIT 50; CREATE ROLE many LOGIN");
    store.sql(&tooz_postgres::privileges("tooz", "many"));
    let many = within(connect(&url.replace("few@", "many@"), "many")).await.unwrap();
    assert!(findings(&many, Verdict::Good, "50 of the connections of database").await);

    let looker = store.connect("looker").await;
    store.sql("ALTER SEQUENCE tooz.fence MAXVALUE 9000000000000000000 CYCLE");
    assert!(findings(&looker, Verdict::Wrong, "ALTER SEQUENCE").await);
    store.sql("ALTER SEQUENCE tooz.fence NO MAXVALUE NO CYCLE");
    store.sql("SET client_min_messages = error; DROP TABLE tooz.sweeps");
    assert!(findings(&looker, Verdict::Warning, "dropped").await);
    drop(within(store.connect("next").await.lock("y").unwrap().acquire()).await.unwrap());
    assert_eq!(store.sql("SELECT to_regclass('tooz.sweeps') IS NOT NULL"), "t");
    assert!(findings(&looker, Verdict::Good, "has all privileges").await);
    store.sql("CREATE ROLE nologin");
    let error = within(connect(&url.replace("few@", "nologin@"), "late")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unauthorized && error.to_string().contains("may it log in"), "{error}");
    assert!(std::error::Error::source(&error).is_none(), "it would be told twice: {error:?}");
}
