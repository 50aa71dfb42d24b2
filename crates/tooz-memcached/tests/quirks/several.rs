//! One address, or one name, that leads to several servers: two members could hold one lock at once.

use std::collections::BTreeSet;
use std::io::copy;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use tooz_core::ErrorKind;
use tooz_testbed::Server;

use crate::bed::{connect, options, refusal, soon, start, start_as, trials};

trials! {
    a_balancer_is_refused
    a_balancer_that_is_found_late_opens_no_session
    a_name_of_several_servers_is_refused
    a_name_whose_other_server_stands_still_is_refused
}

/// Spreads connections over these servers, in that order, again and again.
fn balance(order: &[&Server]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("memcached://{}", listener.local_addr().unwrap());
    let order: Vec<_> = order.iter().map(|server| server.address()).collect();
    std::thread::spawn(move || {
        for (client, server) in listener.incoming().flatten().zip(order.iter().cycle()) {
            // The server may be at its end.
            let Ok(server) = TcpStream::connect(server) else { return };
            pass_on(client.try_clone().unwrap(), server.try_clone().unwrap());
            pass_on(server, client);
        }
    });
    url
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let _ = to.set_nodelay(true);
    std::thread::spawn(move || {
        let _ = copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

async fn a_balancer_is_refused() {
    let (one, other) = (start(), start());
    let (kind, text) = refusal(&balance(&[&one, &other])).await;
    assert_eq!(kind, ErrorKind::Config, "{text}");
    assert!(text.contains("several servers"), "{text}");
    soon(connect(&balance(&[&one]), "a").await.close()).await.unwrap();
}

/// The connection for requests and the one by which it is checked come to one server, and that for heartbeats to the other.
async fn a_balancer_that_is_found_late_opens_no_session() {
    let (one, other) = (start(), start());
    let a = connect(&balance(&[&one, &one, &other, &other]), "a").await;
    let error = soon(a.lock("x").unwrap().acquire_within(Duration::from_secs(4))).await.expect_err("it is refused");
    assert!(error.to_string().contains("several servers"), "{error}");
}

/// The addresses of `localhost`, in the order in which they are tried; `None`: it does not have one of either kind, and elsewhere there is no name with
/// two addresses to try.
fn both() -> Option<[SocketAddr; 2]> {
    let all: Vec<_> = "localhost:1".to_socket_addrs().unwrap().collect();
    let kinds: BTreeSet<_> = all.iter().map(SocketAddr::is_ipv6).collect();
    if kinds.len() < 2 { None } else { Some([all[0], *all.iter().find(|one| one.is_ipv6() != all[0].is_ipv6())?]) }
}

fn by_name(server: &Server) -> String {
    format!("memcached://localhost:{}", server.address().port())
}

async fn a_name_of_several_servers_is_refused() {
    if both().is_none() {
        return;
    }
    let one = start_as("-l ::1");
    soon(connect(&by_name(&one), "a").await.close()).await.unwrap();
    let first = start();
    let second = start_as(&format!("-l [::1]:{}", first.address().port()));
    let (kind, text) = refusal(&by_name(&first)).await;
    assert_eq!(kind, ErrorKind::Config, "{text}");
    assert!(text.contains("several servers") && text.contains(&first.address().to_string()), "{text}");
    drop(second);
    soon(connect(&by_name(&first), "a").await.close()).await.unwrap();
}

/// It can't be asked which server it is, and it is one: others may hold locks there.
async fn a_name_whose_other_server_stands_still_is_refused() {
    let Some([first, _]) = both() else { return };
    let four = start();
    let six = start_as(&format!("-l [::1]:{}", four.address().port()));
    let stopped = if first.is_ipv6() { &four } else { &six };
    stopped.pause().unwrap();
    let error = soon(options(&by_name(&four), "a").unwrap().connect()).await.expect_err("it is refused");
    stopped.resume().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("takes connections"), "{error}");
}
