//! Servers of which there is too little.

use std::time::Duration;

use tokio::time::timeout;
use tooz_core::{ConnectOptions, SessionEvent, SessionState};
use tooz_testbed::{Kind, Setup};

use crate::bed::{Store, within};

/// It has no place in the server's queue, so that must be told, and not again with each attempt.
pub(crate) async fn a_waiter_that_gets_no_connection_says_so_once_and_tries(_shared: Store) {
    let store = Store::own(Setup::new(Kind::Postgres));
    let other = store.connect("other").await;
    within(other.lock("warm").unwrap().acquire()).await.unwrap().release().await.unwrap();
    store.sql("CREATE ROLE few LOGIN");
    store.sql(&tooz_postgres::privileges("tooz", "few"));
    let url = format!("postgres://few@{}/postgres?namespace=own&session_timeout=2s", store.server.address());
    let ours = within(ConnectOptions::new(&url).unwrap().member("ours").unwrap().connect()).await.unwrap();
    within(ours.lock("warm").unwrap().acquire()).await.unwrap().release().await.unwrap();
    let count = store.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'few'");
    store.sql(&format!("ALTER ROLE few CONNECTION LIMIT {count}"));
    let mut events = ours.events();
    let waiting = |name: &'static str| {
        let lock = ours.lock(name).unwrap();
        tokio::spawn(async move { lock.acquire().await.unwrap() })
    };
    let held = within(other.lock("x").unwrap().acquire()).await.unwrap();
    let waiter = waiting("x");
    let told = within(events.next()).await.unwrap();
    assert!(matches!(&told, SessionEvent::Troubled(error) if error.to_string().contains("connections")), "{told:?}");
    let more = timeout(Duration::from_secs(5), events.next()).await;
    assert!(more.is_err(), "{more:?}");
    assert!(matches!(ours.state(), SessionState::Troubled(_)), "{:?}", ours.state());
    held.release().await.unwrap();
    let guard = within(waiter).await.unwrap();
    assert_eq!(within(events.next()).await, Some(SessionEvent::Recovered));
    within(guard.release()).await.unwrap();

    // With room again it has its place in the queue.
    let held = within(other.lock("y").unwrap().acquire()).await.unwrap();
    let waiter = waiting("y");
    assert!(matches!(within(events.next()).await, Some(SessionEvent::Troubled(_))));
    store.sql("ALTER ROLE few CONNECTION LIMIT -1");
    assert_eq!(within(events.next()).await, Some(SessionEvent::Recovered));
    assert_eq!(within(other.lock("y").unwrap().waiters()).await.unwrap().len(), 1);
    held.release().await.unwrap();
    within(within(waiter).await.unwrap().release()).await.unwrap();
}
