//! Servers of which there is too little: of connections, of room in a packet, of quiet.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tooz_core::{Coordinator, ErrorKind, LockGuard, LossReason, SessionEvent, SessionState, connect};
use tooz_testbed::{Kind, Proxy, Setup};

use crate::bed::{LATE, Store, until, within};

/// How many connections the user `app` has.
const CONNECTIONS: &str = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'app'";

/// A server with a user `app`, whose password is `word`.
fn with_app(setup: Setup) -> Store {
    let store = Store::own(setup);
    store.sql("CREATE USER app@'%' IDENTIFIED BY 'word'");
    store.sql(&tooz_mysql::ddl("tooz"));
    store.sql(&tooz_mysql::privileges("tooz", "app"));
    store
}

/// Lets `app` make so many connections; 0: as many as it likes.
fn limit(store: &Store, connections: u32) {
    store.sql(&format!("ALTER USER app@'%' WITH MAX_USER_CONNECTIONS {connections}; FLUSH PRIVILEGES"));
}

async fn as_app(store: &Store, member: &str, session_timeout: &str) -> Coordinator {
    let url = store.url_as("app:word").replace("session_timeout=2s", &format!("session_timeout={session_timeout}"));
    within(connect(&url, member)).await.unwrap()
}

/// Its session is not looked at by a watchdog, and the next heartbeat is far away.
pub(crate) async fn a_member_without_a_watchdog_hears_of_its_end_soon(_: Store) {
    let store = with_app(Setup::new(Kind::MySql));
    limit(&store, 1);
    let (ours, other) = (as_app(&store, "ours", "30s").await, store.connect("other").await);
    let mut events = ours.events();
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    match within(events.next()).await {
        Some(SessionEvent::Troubled(error)) => assert!(error.to_string().contains("no second connection"), "{error}"),
        other => panic!("what is missing is not told: {other:?}"),
    }
    sleep(Duration::from_secs(5)).await;
    assert!(guard.is_held() && matches!(ours.state(), SessionState::Troubled(_)), "{:?}", ours.state());
    assert_eq!(store.sql(CONNECTIONS), "1", "there is a watchdog, or this shows nothing");
    store.sql(&format!("KILL {}", store.session_of("ours")));
    let killed = Instant::now();
    within(guard.loss().wait()).await;
    assert!(killed.elapsed() < LATE * 2, "{:?}", killed.elapsed());
    within(other.lock("x").unwrap().acquire()).await.unwrap().release().await.unwrap();
    // There is room again, and the next session has its watchdog.
    limit(&store, 0);
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    until(&store, CONNECTIONS, "2").await;
    assert!(matches!(ours.state(), SessionState::Open), "{:?}", ours.state());
    within(guard.release()).await.unwrap();
}

/// Whatever keeps it from a connection: it has no place in the server's queue, so that must be told, and not again with each attempt.
pub(crate) async fn a_waiter_that_gets_no_connection_says_so_once_and_tries(_: Store) {
    let store = with_app(Setup::new(Kind::MySql));
    // Before it connects: the server does not count those that were let in without a limit.
    limit(&store, 2);
    let (ours, other) = (as_app(&store, "ours", "2s").await, store.connect("other").await);
    within(ours.lock("warm").unwrap().acquire()).await.unwrap().release().await.unwrap();
    until(&store, CONNECTIONS, "2").await;
    for (deed, is_undone) in [("", false), ("ALTER USER app@'%' IDENTIFIED BY 'changed'", true)] {
        let held = within(other.lock("x").unwrap().acquire()).await.unwrap();
        store.sql(deed);
        let mut events = ours.events();
        let lock = ours.lock("x").unwrap();
        let waiter = tokio::spawn(async move { lock.acquire().await.unwrap() });
        let told = within(events.next()).await.unwrap();
        assert!(matches!(&told, SessionEvent::Troubled(error) if error.to_string().contains("connect")), "{told:?}");
        let more = timeout(Duration::from_secs(5), events.next()).await;
        assert!(more.is_err(), "{deed}: {more:?}");
        assert!(matches!(ours.state(), SessionState::Troubled(_)), "{:?}", ours.state());
        if is_undone {
            store.sql("ALTER USER app@'%' IDENTIFIED BY 'word'");
            assert_eq!(within(events.next()).await, Some(SessionEvent::Recovered));
            let waiting = within(other.lock("x").unwrap().waiters()).await.unwrap();
            assert_eq!(waiting.len(), 1);
        }
        held.release().await.unwrap();
        let guard = within(waiter).await.unwrap();
        if !is_undone {
            assert_eq!(within(events.next()).await, Some(SessionEvent::Recovered));
            limit(&store, 0);
        }
        within(guard.release()).await.unwrap();
    }
}

/// The watchdog, which is there already, says that the server is at work for the session.
pub(crate) async fn a_slow_commit_ends_no_session_where_no_witness_is_let_in(_: Store) {
    let store = with_app(Setup::new(Kind::MySql).durable());
    limit(&store, 2);
    let ours = as_app(&store, "ours", "4s").await;
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    until(&store, CONNECTIONS, "2").await;
    sleep(Duration::from_millis(300)).await;
    let number = store.session_of("ours");
    store.slow_commits(16000);
    let slow = within(ours.lock("slow").unwrap().acquire()).await.unwrap();
    // Once it is held for a moment it is written down.
    sleep(Duration::from_secs(10)).await;
    assert!(guard.is_held() && slow.is_held());
    let at_work =
        format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {number} AND COMMAND = 'Query'");
    assert_eq!((store.sql(&at_work).as_str(), store.sql(CONNECTIONS).as_str()), ("1", "2"), "or this shows nothing");
    store.quick_commits();
    within(slow.release()).await.unwrap();
    assert_eq!((guard.is_held(), store.session_of("ours")), (true, number));
    guard.release().await.unwrap();
}

/// What is done for many at once is cut into as many packets as the server takes: it ends a connection for a longer one.
pub(crate) async fn many_long_names_go_through_small_packets(_: Store) {
    const COUNT: usize = 150;
    let setup = Setup::new(Kind::MySql).argument("--max-allowed-packet=8192 --net-buffer-length=8192");
    let store = Store::own(setup);
    let ours = store.connect("ours").await;
    let checkup = within(ours.check_up()).await.unwrap();
    assert!(checkup.findings.iter().any(|one| one.mend.contains("max_allowed_packet")), "{checkup:?}");
    let kept = within(ours.lock("kept").unwrap().acquire()).await.unwrap();
    let dead: Vec<String> = (0..60).map(|one| format!("('s{one:040}', '', 'dead', 1, 0)")).collect();
    for some in dead.chunks(30) {
        let rows = some.join(", ");
        store.sql(&format!("INSERT INTO tooz.tooz_sessions (session, namespace, member, conn, since) VALUES {rows}"));
    }
    let (mut alone, mut shared, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..COUNT {
        let lock = |kind: &str| ours.lock(format!("{kind}-{number}-{}", "x".repeat(230)).as_str()).unwrap();
        alone.push(within(lock("alone").acquire()).await.unwrap());
        shared.push(within(lock("shared").shared().acquire()).await.unwrap());
        lost.push(within(lock("lost").shared().acquire()).await.unwrap());
    }
    until(&store, "SELECT COUNT(*) FROM tooz.tooz_grants", &(3 * COUNT + 1).to_string()).await;
    assert!(alone.iter().chain(&shared).chain(&lost).all(LockGuard::is_held));
    let theirs = "SELECT lk FROM tooz.tooz_grants WHERE LEFT(name, 4) = 'lost'";
    store.sql(&format!("DELETE FROM tooz.tooz_sharers WHERE lk IN ({theirs})"));
    for guard in &lost {
        within(guard.loss().wait()).await;
    }
    assert!(kept.is_held());
    let mut releases = JoinSet::new();
    for guard in alone.into_iter().chain(shared) {
        releases.spawn(guard.release());
    }
    while let Some(released) = within(releases.join_next()).await {
        released.unwrap().unwrap();
    }
    until(&store, "SELECT COUNT(*) FROM tooz.tooz_grants", "1").await;
    until(&store, "SELECT COUNT(*) FROM tooz.tooz_sharers", "0").await;
    let other = store.connect("other").await;
    within(other.lock("y").unwrap().acquire()).await.unwrap().release().await.unwrap();
    until(&store, "SELECT COUNT(*) FROM tooz.tooz_sessions", "2").await;
    assert!(kept.is_held());
    kept.release().await.unwrap();
}

/// Statements that give back are asked again, and what an interrupted one has given back is no sign of another client. An interruption that comes just between two
/// statements of a packet leaves the client without an answer: that ends the session.
pub(crate) async fn a_storm_of_interruptions_is_outlived_or_its_end_is_told(store: Store) {
    let ours =
        within(connect(&store.url().replace("session_timeout=2s", "session_timeout=30s"), "ours")).await.unwrap();
    let kept = within(ours.lock("kept").unwrap().acquire()).await.unwrap();
    let number = store.session_of("ours");
    let all = format!("KILL QUERY {number};\n").repeat(4000);
    let mut interrupted = 0;
    for round in 0..4 {
        let mut client = store.server.tool("mariadb").unwrap();
        let mut client = client.arg("-f").stdin(Stdio::piped()).spawn().unwrap();
        let (mut input, all) = (client.stdin.take().unwrap(), all.clone());
        let raging = tokio::task::spawn_blocking(move || {
            input.write_all(all.as_bytes()).unwrap();
            drop(input);
            assert!(client.wait().unwrap().success());
        });
        let mut count = 0;
        while !raging.is_finished() {
            count += 1;
            let lock = ours.lock(format!("storm-{round}-{count}").as_str()).unwrap();
            match within(lock.try_acquire()).await {
                Ok(guard) => drop(within(guard.unwrap().release()).await),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
                    interrupted += 1;
                }
            }
            if !kept.is_held() {
                break;
            }
        }
        raging.await.unwrap();
        if let Some(reason) = kept.loss().reason() {
            return outlives_its_session(&ours, &kept, reason).await;
        }
    }
    assert!(interrupted > 0, "nothing was interrupted, or this shows nothing");
    assert_eq!((kept.is_held(), store.session_of("ours")), (true, number));
    let left = within(ours.locks()).await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    let released = within(kept.release()).await;
    let gone = async {
        while !ours.locks().await.is_ok_and(|left| left.is_empty()) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LATE * 20, gone).await.unwrap_or_else(|_| panic!("it is still held, though {released:?}"));
}

/// It had no answer to one of its questions. What it held is free, and told to be lost.
async fn outlives_its_session(ours: &Coordinator, kept: &LockGuard, reason: LossReason) {
    assert_eq!(reason, LossReason::SessionEnded);
    assert!(!kept.is_held());
    within(ours.lock("kept").unwrap().acquire()).await.unwrap().release().await.unwrap();
    let left = within(ours.locks()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// As after an interruption just between two statements of a packet: the server is done, and the client waits for an answer. The end of the timeout is far away.
pub(crate) async fn an_answer_that_will_not_come_is_not_waited_for(store: Store) {
    let proxy = Proxy::start(store.server.address()).unwrap();
    let (from, to) = (store.server.address().to_string(), proxy.address().to_string());
    let url = store.url().replace(&from, &to).replace("session_timeout=2s", "session_timeout=90s");
    let ours = within(connect(&url, "ours")).await.unwrap();
    let kept = within(ours.lock("kept").unwrap().acquire()).await.unwrap();
    let swallow = proxy.swallow_reply_for(b"/* lock orphan */", Duration::from_mins(1));
    let lock = ours.lock("orphan").unwrap();
    let trying = tokio::spawn(async move { lock.try_acquire().await.map(|guard| guard.is_some()) });
    assert_eq!(within(kept.loss().wait()).await, LossReason::SessionEnded);
    assert!(swallow.wait(Duration::ZERO), "the answer came, or this shows nothing");
    // The next session is asked once more.
    let _ = within(trying).await.unwrap();
    drop(proxy);
    let other = store.connect("other").await;
    for name in ["kept", "orphan"] {
        within(other.lock(name).unwrap().acquire()).await.unwrap().release().await.unwrap();
    }
}
