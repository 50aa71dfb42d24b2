//! A switch-over behind one address: the primary becomes a replica, and the address leads to the new one.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{Characteristic, ErrorKind};
use tooz_testbed::{Kind, Server, Setup};

use crate::bed::{cli, connect, soon, start, trials, try_connect};

trials! {
    a_switch_over_behind_one_address_loses_nothing
    a_replica_behind_an_address_that_led_to_a_primary_passes
    a_primary_with_replicas_promises_less
}

/// An address that leads to one server after another. Connections that were made before stay where they are.
struct ServiceAddress {
    address: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
}

impl ServiceAddress {
    fn of(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let to = Arc::new(Mutex::new(server.address()));
        let target = Arc::clone(&to);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let to = *target.lock().unwrap();
                if let Ok(server) = TcpStream::connect(to) {
                    pass_on(client.try_clone().unwrap(), server.try_clone().unwrap());
                    pass_on(server, client);
                }
            }
        });
        ServiceAddress { address, to }
    }

    fn lead_to(&self, server: &Server) {
        *self.to.lock().unwrap() = server.address();
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

async fn replica_of(primary: &Server) -> Server {
    let replica = format!("--replicaof 127.0.0.1 {} --repl-diskless-sync-delay 0", primary.address().port());
    let replica = Setup::new(Kind::Redis).argument(&replica).start().unwrap();
    while !cli(primary, &["INFO", "replication"]).contains("state=online") {
        sleep(Duration::from_millis(50)).await;
    }
    replica
}

/// Until the replica has all that the primary has by now: what is written comes in its order.
async fn has_caught_up(primary: &Server, replica: &Server) {
    cli(primary, &["SET", "mark", "1"]);
    while !cli(replica, &["EXISTS", "mark"]).contains('1') {
        sleep(Duration::from_millis(20)).await;
    }
}

fn switch_over(old: &Server, new: &Server) {
    cli(new, &["REPLICAOF", "NO", "ONE"]);
    cli(old, &["REPLICAOF", "127.0.0.1", &new.address().port().to_string()]);
}

async fn a_switch_over_behind_one_address_loses_nothing() {
    let old = start();
    let new = replica_of(&old).await;
    let service = ServiceAddress::of(&old);
    let url = format!("redis://{}?session_timeout=3s", service.address);
    let (a, looker) = (connect(&url, "a").await, connect(&url, "looker").await);
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let membership = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    assert_eq!(soon(looker.group("g").unwrap().members()).await.unwrap().len(), 1);
    has_caught_up(&old, &new).await;
    service.lead_to(&new);
    switch_over(&old, &new);
    let b = connect(&new.url(), "b").await;
    let _other = soon(b.group("g").unwrap().join(&2)).await.unwrap();
    // The old one has not caught up perhaps, and is none to be asked.
    assert_eq!(soon(looker.group("g").unwrap().members()).await.unwrap().len(), 2);
    assert_eq!(soon(looker.lock("x").unwrap().holders()).await.unwrap().len(), 1);
    soon(looker.group("new").unwrap().create()).await.unwrap();
    sleep(Duration::from_secs(6)).await;
    assert!(guard.is_held() && membership.is_member());
    assert!(soon(b.lock("x").unwrap().try_acquire()).await.unwrap().is_none());
    soon(guard.release()).await.unwrap();
    soon(membership.leave()).await.unwrap();
}

async fn a_replica_behind_an_address_that_led_to_a_primary_passes() {
    let old = start();
    let new = replica_of(&old).await;
    let service = ServiceAddress::of(&old);
    let url = format!("redis://{}?session_timeout=2s", service.address);
    let a = connect(&url, "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    switch_over(&old, &new);
    // For longer than the session lives, the address leads to what is a replica now.
    soon(guard.loss().wait()).await;
    let error = soon(a.lock("x").unwrap().try_acquire()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut), "{error}");
    let error = try_connect(&url, "b").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("replica"), "{error}");
    service.lead_to(&new);
    sleep(Duration::from_secs(1)).await;
    assert!(soon(a.lock("x").unwrap().acquire()).await.unwrap().is_held());
}

async fn a_primary_with_replicas_promises_less() {
    let primary = start();
    let _replica = replica_of(&primary).await;
    let a = connect(&primary.url(), "a").await;
    assert!(soon(a.groups()).await.unwrap().is_empty());
    assert!(!a.characteristics().has(Characteristic::Linearizable));
    assert!(!a.characteristics().has(Characteristic::DurableFencing));
    assert!(a.characteristics().has(Characteristic::HoldsAcrossRestart));
}
