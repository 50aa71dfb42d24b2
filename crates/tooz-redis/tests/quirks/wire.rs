//! What goes over the wire when it has no room, is cut in the middle of a request, or leads to something that is no Redis server.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tooz_core::{Coordinator, ErrorKind, Membership, Result};
use tooz_testbed::Proxy;

use crate::bed::{connect, soon, start, trials, try_connect};

trials! {
    what_found_no_room_at_a_paused_server_is_done_later
    requests_that_are_cut_in_the_middle_are_done
    what_is_no_redis_server_is_said_in_time
}

/// How many memberships write at once. All of it is more than fits between two ends that do not read.
const MEMBERSHIPS: usize = 100;

fn large(number: usize) -> String {
    format!("{number} ").repeat(12_000)
}

async fn memberships(coordinator: &Coordinator) -> Vec<Membership> {
    let mut all = Vec::new();
    for number in 0..MEMBERSHIPS {
        all.push(soon(coordinator.group(format!("g{number}")).unwrap().join_or_create(&"small")).await.unwrap());
    }
    all
}

fn write_all(memberships: Vec<Membership>) -> Vec<JoinHandle<Result<Membership>>> {
    let each = memberships.into_iter().enumerate();
    each.map(|(number, membership)| {
        tokio::spawn(async move { membership.update(&large(number)).await.map(|()| membership) })
    })
    .collect()
}

/// All have written what they wanted, and none has written another's.
async fn all_is_written(writing: Vec<JoinHandle<Result<Membership>>>, looker: &Coordinator) {
    for (number, writing) in writing.into_iter().enumerate() {
        let membership = soon(writing).await.unwrap().unwrap();
        let members = soon(looker.group(format!("g{number}")).unwrap().members()).await.unwrap();
        assert_eq!(members.len(), 1);
        assert_eq!(members[0].capabilities.as_json(), format!("{:?}", large(number)));
        soon(membership.leave()).await.unwrap();
    }
}

async fn what_found_no_room_at_a_paused_server_is_done_later() {
    let server = start();
    let a = connect(&format!("{}?session_timeout=60s&operation_timeout=15s", server.url()), "a").await;
    let b = connect(&server.url(), "b").await;
    let memberships = memberships(&a).await;
    server.pause().unwrap();
    let writing = write_all(memberships);
    sleep(Duration::from_millis(300)).await;
    let locking = tokio::spawn({
        let lock = a.lock("x").unwrap();
        async move { lock.try_acquire().await }
    });
    sleep(Duration::from_millis(300)).await;
    server.resume().unwrap();
    assert!(soon(locking).await.unwrap().unwrap().is_some(), "what comes behind all of it is done as well");
    all_is_written(writing, &b).await;
}

async fn requests_that_are_cut_in_the_middle_are_done() {
    let server = start();
    let proxy = Proxy::start(server.address()).unwrap();
    let a = connect(&format!("{}?session_timeout=60s&operation_timeout=15s", proxy.url("redis")), "a").await;
    let b = connect(&server.url(), "b").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let memberships = memberships(&a).await;
    proxy.stall();
    let writing = write_all(memberships);
    sleep(Duration::from_millis(300)).await;
    proxy.reset();
    proxy.heal();
    all_is_written(writing, &b).await;
    assert!(guard.is_held());
    soon(guard.release()).await.unwrap();
}

/// A server that says that to each who comes, and listens until the other side goes.
fn server_that_says(words: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(std::result::Result::ok) {
            let words = words.clone();
            std::thread::spawn(move || {
                let _ = client.write_all(&words);
                let _ = client.read_to_end(&mut Vec::new());
            });
        }
    });
    format!("redis://{address}?connect_timeout=10s")
}

async fn what_is_no_redis_server_is_said_in_time() {
    for (words, said) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "can't be read"),
        (b"220 mail ESMTP\r\n".to_vec(), "can't be read"),
        (b"*1\r\n".repeat(1_000_000), "levels"),
        (b"$999999999999\r\n".to_vec(), "bytes"),
        (b"*1000000000\r\n".to_vec(), "parts"),
        (vec![0; 10_000], "can't be read"),
        (b"-ERR max number of clients reached\r\n".to_vec(), "maxclients"),
    ] {
        let begun = Instant::now();
        let error = try_connect(&server_that_says(words), "a").await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Backend | ErrorKind::Unavailable), "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(9), "{error}");
    }
}
