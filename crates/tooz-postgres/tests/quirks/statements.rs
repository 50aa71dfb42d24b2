//! Statements on one connection, one after the other: what becomes of those whose askers wait no longer, and of what the server tells meanwhile.

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tooz_core::{ConnectOptions, Coordinator, GroupEvent, connect};
use tooz_testbed::{Kind, Proxy, Setup};

use crate::bed::{LATE, Store, within};

/// The server's process on which the one session of the case lives.
fn process(store: &Store) -> String {
    store.sql("SELECT pid FROM tooz.sessions WHERE namespace = current_setting('tooz.namespace') AND member = 'ours'")
}

async fn connect_slowly(store: &Store, proxy: &Proxy) -> Coordinator {
    let url = store.url().replace(&store.server.address().to_string(), &proxy.address().to_string());
    let url = url.replace("session_timeout=2s", "session_timeout=8s&operation_timeout=1s");
    within(connect(&url, "ours")).await.unwrap()
}

/// What is late is ended by the heart, and then the others have their turns: the connection and all that is held by it stay.
pub(crate) async fn what_is_late_is_ended_and_the_session_lives(store: Store) {
    let proxy = Proxy::start(store.server.address()).unwrap();
    let (ours, other) = (connect_slowly(&store, &proxy).await, store.connect("other").await);
    let kept = within(ours.lock("kept").unwrap().acquire()).await.unwrap();
    let before = process(&store);
    for round in 0..3 {
        if round % 2 == 0 {
            proxy.stall();
        } else {
            proxy.drop_to_client();
        }
        let asking: Vec<_> = (0..8)
            .map(|index| {
                let lock = ours.lock(format!("late-{index}")).unwrap();
                tokio::spawn(async move { lock.try_acquire().await.map(drop) })
            })
            .collect();
        let mut late = 0;
        for one in asking {
            late += usize::from(within(one).await.unwrap().is_err());
        }
        assert!(late > 0, "nothing was late");
        proxy.heal();
        for index in 0..8 {
            // What was granted too late is given back.
            drop(within(other.lock(format!("late-{index}")).unwrap().acquire()).await.unwrap());
            drop(within(ours.lock(format!("late-{index}")).unwrap().acquire()).await.unwrap());
        }
    }
    assert!(kept.is_held());
    assert_eq!(process(&store), before, "the session is another one");
}

/// Callers come and go at any moment of a statement: none of them leaves the connection half-way, or a lock without a holder.
pub(crate) async fn callers_that_go_away_leave_the_connection_as_it_was(store: Store) {
    let proxy = Proxy::start(store.server.address()).unwrap();
    let (ours, other) = (store.connect_through(&proxy, "ours").await, store.connect("other").await);
    let kept = within(ours.lock("kept").unwrap().acquire()).await.unwrap();
    let before = process(&store);
    let until = Instant::now() + Duration::from_secs(3);
    let asking: Vec<_> = (0..8_u64)
        .map(|index| {
            // Some have a lock each, and some want the same one.
            let lock = ours.lock(format!("gone-{}", index.min(5))).unwrap();
            tokio::spawn(async move {
                let (mut done, mut gone) = (0, 0);
                let mut patience = 97 * (index + 1);
                while Instant::now() < until {
                    patience = (patience * 31 + 7) % 12_007;
                    let pair = async { lock.acquire().await.unwrap().release().await.unwrap() };
                    match tokio::time::timeout(Duration::from_micros(patience), pair).await {
                        Ok(()) => done += 1,
                        Err(_) => gone += 1,
                    }
                }
                (done, gone)
            })
        })
        .collect();
    let (mut done, mut gone) = (0, 0);
    for one in asking {
        let of_one: (u64, u64) = within(one).await.unwrap();
        (done, gone) = (done + of_one.0, gone + of_one.1);
    }
    println!("{done} pairs were done, and {gone} callers went away");
    assert!(gone > 100, "hardly one has gone");
    for index in 0..6 {
        drop(within(other.lock(format!("gone-{index}")).unwrap().acquire()).await.unwrap());
    }
    assert!(kept.is_held());
    assert_eq!(process(&store), before, "the session is another one");
}

/// A caller's thread asks, and then does something else for longer than a session lives: the heart ends what it has begun, and the beats and the
/// others go on.
pub(crate) async fn a_caller_that_blocks_after_it_has_asked_is_in_no_way(store: Store) {
    let proxy = Proxy::start(store.server.address()).unwrap();
    let (ours, other) = (store.connect_through(&proxy, "ours").await, store.connect("other").await);
    let kept = within(ours.lock("kept").unwrap().acquire()).await.unwrap();
    let before = process(&store);
    // Long enough for the answer to come when the caller is gone.
    proxy.delay(Duration::from_millis(50));
    let lock = ours.lock("blocked").unwrap();
    let blocked = std::thread::spawn(move || {
        let mut asking = pin!(lock.acquire());
        let is_waiting = asking.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        std::thread::sleep(Duration::from_secs(4));
        is_waiting
    });
    let (mut pairs, lock) = (0, ours.lock("free").unwrap());
    while !blocked.is_finished() {
        within(lock.acquire()).await.unwrap().release().await.unwrap();
        pairs += 1;
        assert!(kept.is_held());
    }
    assert!(blocked.join().unwrap() && pairs > 5, "{pairs} pairs beside it");
    drop(within(other.lock("blocked").unwrap().acquire()).await.unwrap());
    assert_eq!(process(&store), before, "the session is another one");
}

/// A connection that is cut at any byte of an answer, with others behind it, is the end of its session, and of no more.
pub(crate) async fn a_cut_at_any_byte_of_an_answer_keeps_no_lock(store: Store) {
    let proxy = Proxy::start(store.server.address()).unwrap();
    let (ours, other) = (store.connect_through(&proxy, "ours").await, store.connect("other").await);
    for round in 0..10_u64 {
        drop(within(ours.lock("mine").unwrap().acquire()).await.unwrap());
        proxy.cut_after(1 + (round * 211) % 900);
        let asking: Vec<_> = (0..6)
            .map(|index| {
                let lock = ours.lock(format!("cut-{}", index % 4)).unwrap();
                tokio::spawn(async move {
                    for _ in 0..8 {
                        if let Ok(guard) = lock.acquire().await {
                            let _ = guard.release().await;
                        }
                    }
                })
            })
            .collect();
        for one in asking {
            within(one).await.unwrap();
        }
        for index in 0..4 {
            drop(within(other.lock(format!("cut-{index}")).unwrap().acquire()).await.unwrap());
        }
    }
    within(ours.close()).await.unwrap();
}

/// The server tells a watcher while that waits for another answer on the same connection: it is told with that answer, and not at its next reading.
pub(crate) async fn what_is_told_during_a_statement_is_heard_with_its_end(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    let url = store.url().replace("session_timeout=2s", "session_timeout=60s");
    let ours = within(ConnectOptions::new(&url).unwrap().member("ours").unwrap().connect()).await.unwrap();
    let other = within(connect(&url, "other")).await.unwrap();
    let group = ours.group("g").unwrap();
    group.create().await.unwrap();
    within(within(other.group("g").unwrap().join(&0)).await.unwrap().leave()).await.unwrap();
    let mut watch = group.watch().await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.is_empty()));
    for round in 0..3 {
        let mut psql = store.server.tool("psql").unwrap();
        let hold = "BEGIN; LOCK TABLE tooz.grants IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1.5); COMMIT";
        psql.args(["-d", "postgres", "-qAtc", hold]);
        let mut holding = psql.stdout(std::process::Stdio::null()).spawn().unwrap();
        let blocked =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'tooz:ours'";
        let asking = ours.clone();
        let listing = tokio::spawn(async move {
            let mut begun = Instant::now();
            // Until it is one of those that had to wait.
            while begun.elapsed() < Duration::from_millis(400) {
                begun = Instant::now();
                asking.locks().await.unwrap();
            }
            Instant::now()
        });
        within(async {
            while store.sql(blocked) == "0" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let membership = within(other.group("g").unwrap().join(&round)).await.unwrap();
        assert!(matches!(within(watch.next()).await, Some(GroupEvent::Joined(_))));
        let (heard, listed) = (Instant::now(), within(listing).await.unwrap());
        println!("told {:?} after the end of the statement", heard.saturating_duration_since(listed));
        assert!(heard.saturating_duration_since(listed) <= LATE);
        within(membership.leave()).await.unwrap();
        assert!(matches!(within(watch.next()).await, Some(GroupEvent::Left(_))));
        holding.wait().unwrap();
    }
}
