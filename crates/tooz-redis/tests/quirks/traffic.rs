//! What goes over the wire, as `MONITOR` sees it: heartbeats that cost the same whatever is held, and no waiter that polls.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use tooz_testbed::Server;

use crate::bed::{cli, connect, soon, start, trials};

trials! {
    a_thousand_locks_have_one_heartbeat
    fifty_waiters_send_their_heartbeats_alone
    a_release_sends_the_same_for_any_waiter
    acquire_release_join_and_list_are_one_request_each
}

/// A running `redis-cli MONITOR`.
struct Monitor {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Monitor {
    fn start(server: &Server) -> Self {
        let mut command = server.tool("redis-cli").expect("redis-cli is there");
        let mut child = command.arg("MONITOR").stdout(Stdio::piped()).spawn().expect("redis-cli runs");
        let output = BufReader::new(child.stdout.take().expect("it was asked for"));
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                seen.lock().unwrap().push(line);
            }
        });
        while lines.lock().unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Monitor { child, lines }
    }

    /// What clients sent since the last time; what scripts do of themselves is not sent.
    fn requests(&self) -> Vec<String> {
        let lines = std::mem::take(&mut *self.lines.lock().unwrap());
        lines.into_iter().filter(|line| line.contains("[0 ") && !line.contains("[0 lua]")).collect()
    }

    fn forget(&self) {
        std::thread::sleep(Duration::from_millis(100));
        self.lines.lock().unwrap().clear();
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn a_thousand_locks_have_one_heartbeat() {
    let server = start();
    let a = connect(&format!("{}?session_timeout=3s", server.url()), "a").await;
    let mut held = Vec::new();
    for index in 0..1000 {
        held.push(soon(a.lock(format!("lock {index}")).unwrap().acquire()).await.unwrap());
    }
    let monitor = Monitor::start(&server);
    monitor.forget();
    sleep(Duration::from_secs(5)).await;
    let requests = monitor.requests();
    assert!((4..=6).contains(&requests.len()), "one each second: {requests:#?}");
    assert!(held.iter().all(tooz_core::LockGuard::is_held));
}

async fn fifty_waiters_send_their_heartbeats_alone() {
    let server = start();
    let url = format!("{}?session_timeout=3s", server.url());
    let holder = connect(&url, "holder").await;
    let guard = soon(holder.lock("x").unwrap().acquire()).await.unwrap();
    let mut waiters = Vec::new();
    for index in 0..50 {
        let waiter = connect(&url, &format!("waiter {index}")).await;
        let lock = waiter.lock("x").unwrap();
        waiters.push((waiter, tokio::spawn(async move { lock.acquire().await.map(drop) })));
    }
    sleep(Duration::from_millis(500)).await;
    let monitor = Monitor::start(&server);
    monitor.forget();
    sleep(Duration::from_secs(4)).await;
    let requests = monitor.requests();
    // 51 sessions, a beat each second, for four seconds.
    assert!(requests.len() <= 51 * 5, "{} requests", requests.len());
    assert!(requests.iter().all(|line| line.contains("EVALSHA")), "{requests:#?}");
    drop(guard);
    for (_, waiting) in waiters {
        soon(waiting).await.unwrap().unwrap();
    }
}

async fn a_release_sends_the_same_for_any_waiter() {
    let server = start();
    let url = format!("{}?session_timeout=60s", server.url());
    let holder = connect(&url, "holder").await;
    let mut counts = Vec::new();
    for crowd in [1, 40] {
        let lock = format!("lock of {crowd}");
        let guard = soon(holder.lock(&lock).unwrap().acquire()).await.unwrap();
        let mut waiters = Vec::new();
        for index in 0..crowd {
            let waiter = connect(&url, &format!("waiter {index}")).await;
            let waiting = waiter.lock(&lock).unwrap();
            waiters.push((waiter, tokio::spawn(async move { waiting.acquire().await })));
            // One after the other, so that it is known who is next.
            sleep(Duration::from_millis(20)).await;
        }
        let monitor = Monitor::start(&server);
        let published = || cli(&server, &["INFO", "commandstats"]);
        let calls = |stats: &str| -> u64 {
            let line = stats.lines().find(|line| line.starts_with("cmdstat_publish"));
            line.and_then(|line| line.split("calls=").nth(1)?.split(',').next()?.parse().ok()).unwrap_or(0)
        };
        let before = calls(&published());
        monitor.forget();
        soon(guard.release()).await.unwrap();
        let (_first, next) = waiters.remove(0);
        let _next = soon(next).await.unwrap().unwrap();
        sleep(Duration::from_millis(100)).await;
        let requests = monitor.requests().len();
        counts.push((requests, calls(&published()) - before));
        for (waiter, waiting) in waiters {
            waiting.abort();
            soon(waiter.close()).await.unwrap();
        }
    }
    assert_eq!(counts[0], counts[1], "requests and messages with 1 and with 40 waiters");
    assert_eq!(counts[0].0, 1, "the release itself");
}

async fn acquire_release_join_and_list_are_one_request_each() {
    let server = start();
    let a = connect(&format!("{}?session_timeout=60s", server.url()), "a").await;
    soon(soon(a.lock("first").unwrap().acquire()).await.unwrap().release()).await.unwrap();
    let group = a.group("g").unwrap();
    soon(group.create()).await.unwrap();
    let monitor = Monitor::start(&server);
    let one = |what: &str| {
        std::thread::sleep(Duration::from_millis(50));
        let requests = monitor.requests();
        assert_eq!(requests.len(), 1, "{what}: {requests:#?}");
    };
    monitor.forget();
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    one("acquire");
    soon(guard.release()).await.unwrap();
    one("release");
    let membership = soon(group.join(&1)).await.unwrap();
    one("join");
    assert_eq!(soon(group.members()).await.unwrap().len(), 1);
    one("list");
    soon(membership.leave()).await.unwrap();
    one("leave");
}
