//! The server's clock, which stands still while the server does.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tooz_core::SessionEvent;
use tooz_testbed::Proxy;

use crate::bed::{Raw, connect, connect_with, soon, start, trials, wait_in_background};

trials! {
    a_beat_that_waited_in_a_stopped_server_is_never_believed_for_longer_than_the_server_keeps_it
    a_session_that_was_opened_in_a_stopped_server_is_never_believed_for_longer_than_the_server_keeps_it
    beats_are_never_refused_while_the_server_runs
    a_slow_network_is_no_server_that_stands_still
}

async fn a_beat_that_waited_in_a_stopped_server_is_never_believed_for_longer_than_the_server_keeps_it() {
    let server = start();
    for round in 0..3 {
        let proxy = Proxy::start(server.address()).unwrap();
        let member = format!("a{round}");
        let a = connect_with(&proxy.url("memcached"), &member, Duration::from_secs(9)).await;
        let guard = soon(a.lock(member.as_str()).unwrap().acquire()).await.unwrap();
        let session = Raw::to(&server).session_of_holder(&member);
        // Beats come every three seconds: one at least is sent while the server stands still, and served in the moment in which it goes on.
        server.pause().unwrap();
        sleep(Duration::from_secs(6)).await;
        server.resume().unwrap();
        sleep(Duration::from_millis(30)).await;
        // Nothing comes after it.
        proxy.stall();
        let mut raw = Raw::to(&server);
        let begun = Instant::now();
        while raw.number(&session, 't').is_some() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the server keeps it for ever");
            sleep(Duration::from_millis(10)).await;
        }
        assert!(!guard.is_held(), "the server has dropped the session after {:?}, and it is believed", begun.elapsed());
        proxy.reset();
        drop(guard);
        proxy.heal();
        let _ = soon(a.close()).await;
    }
}

/// Asked for just before the server goes on, the session may be made before its clock ticks.
async fn a_session_that_was_opened_in_a_stopped_server_is_never_believed_for_longer_than_the_server_keeps_it() {
    let server = start();
    for round in 0..4 {
        let proxy = Proxy::start(server.address()).unwrap();
        let member = format!("a{round}");
        let a = connect_with(&proxy.url("memcached"), &member, Duration::from_secs(8)).await;
        server.pause().unwrap();
        sleep(Duration::from_secs(6)).await;
        let waiting = wait_in_background(&a, &member);
        sleep(Duration::from_millis(200)).await;
        server.resume().unwrap();
        let guard = soon(waiting).await.unwrap().unwrap();
        proxy.stall();
        let mut raw = Raw::to(&server);
        let session = raw.session_of_holder(&member);
        let begun = Instant::now();
        while raw.number(&session, 't').is_some() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the server keeps it for ever");
            sleep(Duration::from_millis(10)).await;
        }
        assert!(!guard.is_held(), "the server has dropped the session after {:?}, and it is believed", begun.elapsed());
        proxy.reset();
        drop(guard);
        proxy.heal();
        let _ = soon(a.close()).await;
    }
}

async fn beats_are_never_refused_while_the_server_runs() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let mut events = a.events();
    let told = timeout(Duration::from_secs(12), async {
        loop {
            match events.next().await {
                Some(SessionEvent::Suspended(_)) => return "a beat was refused",
                Some(_) => {}
                None => return "the coordinator has ended",
            }
        }
    });
    assert!(told.await.is_err(), "a beat was refused");
    assert!(guard.is_held());
    soon(a.close()).await.unwrap();
}

async fn a_slow_network_is_no_server_that_stands_still() {
    let server = start();
    let proxy = Proxy::start(server.address()).unwrap();
    let a = connect_with(&proxy.url("memcached"), "a", Duration::from_secs(9)).await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    for delay in [700, 0, 700, 0] {
        proxy.delay(Duration::from_millis(delay));
        sleep(Duration::from_secs(10)).await;
        assert!(guard.is_held(), "after a delay of {delay} ms each way: {:?}", guard.loss().reason());
    }
    soon(guard.release()).await.unwrap();
}
