//! A record that is written anew between an entry and the look at it: the two go to the server in one piece, and others may still come between them.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tooz_core::{Coordinator, ErrorKind, LockGuard, Result};
use tooz_testbed::Server;

use crate::bed::{Raw, connect_with, lock_key, soon, start, trials, wait_in_background};

trials! {
    a_release_that_is_forgotten_before_its_look_is_no_loss
    a_break_that_is_forgotten_before_its_look_is_told
    a_release_behind_a_break_that_is_forgotten_is_a_loss
}

/// So long that a busy machine ends no session.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Passes everything on, but for what follows the first entry of one kind: that waits.
struct Parting {
    address: std::net::SocketAddr,
    door: Arc<Door>,
}

#[derive(Default)]
struct Door {
    has_parted: Notify,
    goes_on: Notify,
}

impl Parting {
    async fn before(server: &Server, entry: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, to, door) = (listener.local_addr().unwrap(), server.address(), Arc::new(Door::default()));
        let its_door = Arc::clone(&door);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // The server may be at its end.
                let Ok(server) = TcpStream::connect(to).await else { return };
                let (mut answers, questions) = server.into_split();
                let (asked, mut heard) = client.into_split();
                tokio::spawn(pass_on(asked, questions, entry, Arc::clone(&its_door)));
                tokio::spawn(async move { copy(&mut answers, &mut heard).await });
            }
        });
        Parting { address, door }
    }

    async fn connect(&self, member: &str) -> Coordinator {
        connect_with(&format!("memcached://{}", self.address), member, TIMEOUT).await
    }
}

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, entry: &str, door: Arc<Door>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        if length == 0 {
            return;
        }
        let bytes = &buffer[..length];
        // The entry stands alone in its append, and the blank line of the protocol follows it.
        let begins = format!(" MA\r\n{entry}\t");
        let place = bytes.windows(begins.len()).position(|window| window == begins.as_bytes());
        let ends = place.map(|place| place + bytes[place..].windows(3).position(|end| end == b"\n\r\n").unwrap() + 3);
        let (first, rest) = bytes.split_at(ends.unwrap_or(length));
        to.write_all(first).await.unwrap();
        if !rest.is_empty() {
            door.has_parted.notify_one();
            door.goes_on.notified().await;
            to.write_all(rest).await.unwrap();
        }
    }
}

/// Waits until the server has that entry, and has another one take the lock and give it back, behind which nothing of it is left.
async fn write_anew(server: &Server, parting: &Parting, next: JoinHandle<Result<LockGuard>>) {
    soon(parting.door.has_parted.notified()).await;
    soon(soon(next).await.unwrap().unwrap().release()).await.unwrap();
    let text = Raw::to(server).read(&lock_key("x")).unwrap();
    assert!(text.starts_with('F'), "it is not written anew: {text:?}");
    parting.door.goes_on.notify_one();
}

/// `a` holds lock `x`, `b` waits for it, and both have their places at the server.
struct Held {
    server: Server,
    b: Coordinator,
    guard: LockGuard,
    next: JoinHandle<Result<LockGuard>>,
}

impl Held {
    async fn by(a: Coordinator, server: Server) -> Self {
        let b = connect_with(&server.url(), "b", TIMEOUT).await;
        let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
        let next = wait_in_background(&b, "x");
        wait_for_places(&server, 2).await;
        Held { server, b, guard, next }
    }
}

async fn a_release_that_is_forgotten_before_its_look_is_no_loss() {
    let server = start();
    let parting = Parting::before(&server, "R").await;
    let Held { server, guard, next, b: _b } = Held::by(parting.connect("a").await, server).await;
    let released = tokio::spawn(guard.release());
    write_anew(&server, &parting, next).await;
    soon(released).await.unwrap().unwrap();
}

async fn a_break_that_is_forgotten_before_its_look_is_told() {
    let server = start();
    let parting = Parting::before(&server, "B").await;
    let a = connect_with(&server.url(), "a", TIMEOUT).await;
    let Held { server, guard, next, b: _b } = Held::by(a, server).await;
    let c = parting.connect("c").await;
    let broken = tokio::spawn(async move { break_first(&c).await });
    write_anew(&server, &parting, next).await;
    soon(broken).await.unwrap().unwrap();
    soon(guard.loss().wait()).await;
}

async fn a_release_behind_a_break_that_is_forgotten_is_a_loss() {
    let server = start();
    let parting = Parting::before(&server, "R").await;
    let Held { server, b, guard, next } = Held::by(parting.connect("a").await, server).await;
    break_first(&b).await.unwrap();
    let released = tokio::spawn(guard.release());
    write_anew(&server, &parting, next).await;
    assert_eq!(soon(released).await.unwrap().unwrap_err().kind(), ErrorKind::Lost);
}

async fn break_first(coordinator: &Coordinator) -> Result<()> {
    let lock = coordinator.lock("x").unwrap();
    let holders = soon(lock.holders()).await.unwrap();
    soon(lock.break_lock(&holders[0])).await
}

async fn wait_for_places(server: &Server, count: usize) {
    let mut raw = Raw::to(server);
    let places = |text: Option<String>| text.unwrap_or_default().lines().filter(|line| line.starts_with('A')).count();
    let all = async {
        while places(raw.read(&lock_key("x"))) < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(all).await;
}
