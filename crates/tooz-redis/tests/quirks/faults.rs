//! Replies that are lost: each request is done once, whatever becomes of its answer.

use std::time::Duration;

use tooz_core::{Coordinator, ErrorKind};
use tooz_testbed::{Proxy, Server, Swallow};

use crate::bed::{connect, soon, start, trials, wait_in_background};

trials! {
    a_lost_reply_to_an_acquire_leaves_one_owner
    a_lost_reply_to_a_try_leaves_no_lock_without_a_holder
    a_lost_reply_to_a_release_frees_it_once
    a_lost_reply_to_a_join_makes_one_member
    a_lost_reply_to_a_leave_leaves
    a_grant_that_is_pushed_into_a_dead_connection_is_heard_of
    a_reset_connection_loses_nothing
}

struct Bed {
    _server: Server,
    proxy: Proxy,
    /// Behind the proxy.
    a: Coordinator,
    /// In front of nothing.
    b: Coordinator,
}

async fn bed() -> Bed {
    bed_with("").await
}

/// `options` are those of `a`.
async fn bed_with(options: &str) -> Bed {
    let server = start();
    let proxy = Proxy::start(server.address()).unwrap();
    let a = connect(&format!("{}{options}", proxy.url("redis")), "a").await;
    let b = connect(&server.url(), "b").await;
    // The session is open, and its beats are none of the requests below.
    drop(soon(a.lock("first").unwrap().acquire()).await.unwrap());
    Bed { _server: server, proxy, a, b }
}

async fn happens(swallow: Swallow) {
    let happened = tokio::task::spawn_blocking(move || swallow.wait(Duration::from_secs(10))).await.unwrap();
    assert!(happened, "the reply was not swallowed");
}

async fn a_lost_reply_to_an_acquire_leaves_one_owner() {
    let bed = bed().await;
    let swallow = bed.proxy.swallow_reply(b"l:precious");
    let guard = soon(bed.a.lock("precious").unwrap().acquire()).await.unwrap();
    happens(swallow).await;
    let lock = bed.b.lock("precious").unwrap();
    assert_eq!(soon(lock.holders()).await.unwrap().len(), 1);
    assert!(guard.is_held());
    soon(guard.release()).await.unwrap();
    assert!(soon(lock.try_acquire()).await.unwrap().is_some());
}

async fn a_lost_reply_to_a_try_leaves_no_lock_without_a_holder() {
    let bed = bed().await;
    let swallow = bed.proxy.swallow_reply(b"l:precious");
    match soon(bed.a.lock("precious").unwrap().try_acquire()).await {
        Ok(guard) => drop(guard.expect("it was free")),
        Err(error) => assert!(error.is_retryable(), "{error}"),
    }
    happens(swallow).await;
    assert!(soon(bed.b.lock("precious").unwrap().acquire()).await.unwrap().is_held());
}

async fn a_lost_reply_to_a_release_frees_it_once() {
    let bed = bed().await;
    let guard = soon(bed.a.lock("precious").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&bed.b, "precious");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let swallow = bed.proxy.swallow_reply(b"l:precious");
    soon(guard.release()).await.unwrap();
    happens(swallow).await;
    let next = soon(waiting).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(next.is_held(), "the repeated release touched the next holder");
    assert_eq!(soon(next_holders(&bed)).await, 1);
    soon(next.release()).await.unwrap();
}

async fn next_holders(bed: &Bed) -> usize {
    bed.b.lock("precious").unwrap().holders().await.unwrap().len()
}

async fn a_lost_reply_to_a_join_makes_one_member() {
    let bed = bed().await;
    let group = bed.b.group("precious").unwrap();
    soon(group.create()).await.unwrap();
    let swallow = bed.proxy.swallow_reply(b"precious");
    let membership = soon(bed.a.group("precious").unwrap().join(&1)).await;
    happens(swallow).await;
    let members = soon(group.members()).await.unwrap();
    match membership {
        Ok(membership) => {
            assert_eq!(members.len(), 1);
            soon(membership.leave()).await.unwrap();
        }
        Err(error) => assert!(error.is_retryable(), "{error}"),
    }
    assert!(soon(group.members()).await.unwrap().is_empty());
}

async fn a_lost_reply_to_a_leave_leaves() {
    let bed = bed().await;
    let group = bed.b.group("precious").unwrap();
    soon(group.create()).await.unwrap();
    let membership = soon(bed.a.group("precious").unwrap().join(&1)).await.unwrap();
    let swallow = bed.proxy.swallow_reply(b"precious");
    soon(membership.leave()).await.unwrap();
    happens(swallow).await;
    assert!(soon(group.members()).await.unwrap().is_empty());
    soon(group.delete()).await.unwrap();
}

async fn a_grant_that_is_pushed_into_a_dead_connection_is_heard_of() {
    let bed = bed().await;
    let guard = soon(bed.b.lock("precious").unwrap().acquire()).await.unwrap();
    let waiting = wait_in_background(&bed.a, "precious");
    tokio::time::sleep(Duration::from_millis(100)).await;
    bed.proxy.drop_to_client();
    soon(guard.release()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    bed.proxy.reset();
    bed.proxy.heal();
    assert!(soon(waiting).await.unwrap().unwrap().is_held());
}

async fn a_reset_connection_loses_nothing() {
    // Several connections and a refused one have to fit into the session's time, on a busy machine too.
    let bed = bed_with("?session_timeout=6s").await;
    let guard = soon(bed.a.lock("precious").unwrap().acquire()).await.unwrap();
    for _ in 0..5 {
        bed.proxy.reset();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(guard.is_held());
    assert!(soon(bed.b.lock("precious").unwrap().try_acquire()).await.unwrap().is_none());
    bed.proxy.refuse();
    bed.proxy.reset();
    let error = soon(bed.a.lock("other").unwrap().try_acquire()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut), "{error}");
    bed.proxy.heal();
    soon(guard.release()).await.unwrap();
}
