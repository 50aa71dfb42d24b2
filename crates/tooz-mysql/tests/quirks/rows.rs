//! Rows that an operator took away, and rows that could not be taken away.

use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{Coordinator, LockGuard};
use tooz_testbed::{Kind, Setup};

use crate::bed::{Store, until, within};
use crate::tables::stays;

/// How many sessions are listed.
const LISTED: &str = "SELECT COUNT(*) FROM tooz.tooz_sessions WHERE IS_USED_LOCK(session) = conn";

/// Takes the lock and gives it back; answers its token.
async fn token_of(member: &Coordinator) -> u64 {
    let guard: LockGuard = within(member.lock("x").unwrap().acquire()).await.unwrap();
    let token = guard.fencing_token().0;
    within(guard.release()).await.unwrap();
    token
}

/// A newcomer that finds none of the living listed takes itself for the first since the server has started.
pub(crate) async fn tokens_grow_also_when_rows_of_sessions_or_of_the_fence_are_lost(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let (a, b) = (store.connect("a").await, store.connect("b").await);
    let mut last = token_of(&a).await.max(token_of(&b).await);
    for (number, deed) in [
        "DELETE FROM tooz.tooz_sessions",
        "DELETE FROM tooz.tooz_fence",
        "TRUNCATE tooz.tooz_fence",
        "UPDATE tooz.tooz_fence SET reserved = 1",
        "UPDATE tooz.tooz_fence SET sub = 0, reserved = 0",
    ]
    .into_iter()
    .enumerate()
    {
        // Those that live are listed again.
        until(&store, LISTED, "2").await;
        store.sql(deed);
        let newcomer = store.connect(&format!("new-{number}")).await;
        for member in [&newcomer, &a, &b, &newcomer, &b, &a] {
            let token = token_of(member).await;
            assert!(token > last && token < 1 << 53, "{deed}: {token} after {last}");
            last = token;
        }
        within(newcomer.close()).await.unwrap();
    }
    // Also with their heartbeats alone.
    store.sql("DELETE FROM tooz.tooz_fence");
    until(&store, "SELECT COUNT(*) FROM tooz.tooz_fence", "1").await;
    assert!(token_of(&b).await > last);
}

pub(crate) async fn grants_that_were_taken_out_of_the_table_are_written_once_more(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let (ours, other) = (store.connect("ours").await, store.connect("other").await);
    let guard = within(ours.lock("x").unwrap().acquire()).await.unwrap();
    let reader = within(ours.lock("r").unwrap().shared().acquire()).await.unwrap();
    let count = "SELECT COUNT(*) FROM tooz.tooz_grants";
    for deed in ["DELETE FROM tooz.tooz_grants", "DELETE FROM tooz.tooz_grants WHERE name = 'x'"] {
        until(&store, count, "2").await;
        store.sql(deed);
        until(&store, count, "2").await;
        let holders = within(other.lock("x").unwrap().holders()).await.unwrap();
        assert_eq!(holders.len(), 1);
        assert_eq!((holders[0].member.as_str(), holders[0].token), ("ours", guard.fencing_token()));
        assert_eq!(within(other.locks()).await.unwrap().len(), 2);
    }
    assert!(guard.is_held() && reader.is_held());
    guard.release().await.unwrap();
    reader.release().await.unwrap();
    until(&store, count, "0").await;
}

/// What another's lock on the table keeps a member from taking away, it takes away later; and what it does not know of too.
pub(crate) async fn a_grant_that_could_not_be_taken_out_of_the_table_goes_later(_: Store) {
    let store = Store::own(Setup::new(Kind::MySql));
    let (ours, other) = (store.connect("ours").await, store.connect("other").await);
    let lock = ours.lock("x").unwrap();
    let two = [within(lock.shared().acquire()).await.unwrap(), within(lock.shared().acquire()).await.unwrap()];
    let count = "SELECT COUNT(*) FROM tooz.tooz_grants";
    until(&store, count, "2").await;
    let mut keeps = stays(&store, "LOCK TABLES tooz.tooz_grants READ;");
    sleep(Duration::from_millis(500)).await;
    let [first, second] = two;
    within(first.release()).await.unwrap();
    // Longer than a statement may wait.
    sleep(Duration::from_secs(3)).await;
    assert!(second.is_held());
    drop(keeps.stdin.take());
    keeps.wait().unwrap();
    until(&store, count, "1").await;
    let holders = within(other.lock("x").unwrap().holders()).await.unwrap();
    assert_eq!(holders.iter().map(|holder| holder.token).collect::<Vec<_>>(), [second.fencing_token()]);
    // As if another connection had written one late.
    store.sql(
        "INSERT INTO tooz.tooz_grants SELECT lk, X'0123456789abcdef0123456789abcdef', session, conn, held, exclusive, token - 1, since, member, \
         namespace, space, name FROM tooz.tooz_grants",
    );
    until(&store, count, "1").await;
    assert!(second.is_held());
    second.release().await.unwrap();
}
