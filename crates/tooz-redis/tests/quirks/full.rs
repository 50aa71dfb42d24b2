//! A server without room for more: what stands goes on, and what is new is refused.

use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{ErrorKind, GroupEvent};
use tooz_testbed::Server;

use crate::bed::{cli, connect, hang_up, let_die, soon, start, trials, wait_in_background};

trials! {
    a_full_server_loses_no_held_lock_at_a_reconnect
    a_full_server_still_gives_the_locks_of_the_dead_to_who_waits
    a_full_server_refuses_places_in_queues_as_well
}

fn fill(server: &Server) {
    cli(server, &["CONFIG", "SET", "maxmemory", "1"]);
}

async fn a_full_server_loses_no_held_lock_at_a_reconnect() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let other = soon(a.lock("y").unwrap().acquire()).await.unwrap();
    let membership = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let mut watch = soon(b.group("g").unwrap().watch()).await.unwrap();
    assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Snapshot(_))));
    let waiting = wait_in_background(&b, "x");
    sleep(Duration::from_millis(200)).await;
    fill(&server);
    for _ in 0..4 {
        hang_up(&server);
        sleep(Duration::from_secs(1)).await;
    }
    assert!(guard.is_held() && other.is_held() && membership.is_member());
    soon(guard.release()).await.unwrap();
    let next = soon(waiting).await.unwrap().unwrap();
    hang_up(&server);
    soon(membership.leave()).await.unwrap();
    soon(next.release()).await.unwrap();
    soon(other.release()).await.unwrap();
    while !matches!(soon(watch.next()).await, Some(GroupEvent::Left(_))) {}
    let error = soon(a.lock("new").unwrap().try_acquire()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    soon(a.close()).await.unwrap();
}

async fn a_full_server_still_gives_the_locks_of_the_dead_to_who_waits() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&b, "x");
    sleep(Duration::from_millis(200)).await;
    fill(&server);
    let_die(&server, "a");
    assert!(soon(waiting).await.unwrap().unwrap().is_held());
    assert!(!guard.is_held() || soon(guard.release()).await.is_err());
}

async fn a_full_server_refuses_places_in_queues_as_well() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    drop(soon(b.lock("first").unwrap().acquire()).await.unwrap());
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    fill(&server);
    let waiting = wait_in_background(&b, "x");
    sleep(Duration::from_millis(300)).await;
    assert_eq!(cli(&server, &["EXISTS", "tooz:{tooz}:q:l:x"]), "0");
    assert!(!waiting.is_finished(), "it is asked for again");
    cli(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    soon(guard.release()).await.unwrap();
    assert!(soon(waiting).await.unwrap().unwrap().is_held());
}
