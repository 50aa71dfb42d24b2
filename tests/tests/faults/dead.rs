//! Servers that are dead, silent, elsewhere or something else: everything ends in time, and says why.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use tooz::{Coordinator, ErrorKind, Leadership, LossReason, Membership};
use tooz_testbed::{Proxy, Server};

use crate::stage::{LATE, LONG, OPERATION, Stage, blocking, cases, hold, options, soon, within};

cases! { "dead", Server, alone: false;
    closing_ends_in_time_though_the_server_is_dead,
    closing_ends_in_time_though_the_server_is_silent,
    dropping_does_not_wait_for_a_dead_server,
    a_wrong_port_is_told_in_time,
    a_wrong_host_is_told_in_time,
    a_silent_server_is_told_in_time,
    something_else_at_the_port_is_told_in_time,
}

async fn closing_ends_in_time_though_the_server_is_dead(stage: &Stage) {
    closing_ends_in_time(stage, Server::kill).await;
}

async fn closing_ends_in_time_though_the_server_is_silent(stage: &Stage) {
    closing_ends_in_time(stage, Server::pause).await;
}

async fn closing_ends_in_time(stage: &Stage, fault: fn(&Server) -> anyhow::Result<()>) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let guards = [hold(&a.lock("x").unwrap()).await, hold(&a.lock("y").unwrap()).await];
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&())).await.unwrap();
    let leadership = soon("campaigning", membership.campaign()).await.unwrap();
    let blocked = hold(&b.lock("z").unwrap()).await;
    stage.break_it(fault);

    let begun = Instant::now();
    let result = within(OPERATION + LATE, "closing", a.close()).await;
    stage.note("closing", begun.elapsed());
    // What was held there is not given back, and the caller of close is told so.
    let error = result.expect_err("there was no server to close at");
    assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Unavailable), "{error:?}");
    for guard in &guards {
        assert!(!guard.is_held());
        assert_eq!(guard.loss().reason(), Some(LossReason::Closed));
    }
    is_over(&a, &membership, &leadership).await;

    let begun = Instant::now();
    let result = blocking(|| Ok(b.close_blocking()));
    stage.note("closing without an executor", begun.elapsed());
    assert!(begun.elapsed() <= OPERATION + LATE, "closing took {:?}", begun.elapsed());
    assert!(result.is_err() && !blocked.is_held());
}

/// After closing nothing is held, and nothing more can be had.
pub(crate) async fn is_over(closed: &Coordinator, membership: &Membership, leadership: &Leadership) {
    assert!(!membership.is_member() && !leadership.is_leader());
    let error = within(LATE, "acquiring", closed.lock("x").unwrap().acquire()).await.expect_err("it is closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
}

async fn dropping_does_not_wait_for_a_dead_server(stage: &Stage) {
    let a = options(&stage.url(), "a", LONG).connect().await.unwrap();
    let guard = hold(&a.lock("x").unwrap()).await;
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&())).await.unwrap();
    stage.break_it(Server::pause);
    let begun = Instant::now();
    drop((guard, membership, a));
    assert!(begun.elapsed() < Duration::from_millis(500), "dropping took {:?}", begun.elapsed());
    stage.break_it(Server::resume);
    // It released in the background, as soon as it could.
    let lock = stage.connect("b", LONG).await.lock("x").unwrap();
    let limit = OPERATION + stage.ended_after(LONG) + LATE;
    drop(within(limit, "the dropped lock", lock.acquire()).await.unwrap());
}

/// How long connecting may take in what follows.
const CONNECTING: Duration = Duration::from_secs(1);

/// Connects to what does not answer as it should: an error in time, which names the address.
async fn is_told_in_time(stage: &Stage, host: &str) {
    let url = format!("{}://{host}", stage.backend.scheme);
    let begun = Instant::now();
    let connecting = options(&url, "a", LONG).connect_timeout(CONNECTING).connect();
    let error = within(CONNECTING + LATE, "connecting", connecting).await.expect_err("no server answers there");
    stage.note("connecting in vain", begun.elapsed());
    let text = error.to_string();
    assert!(!matches!(error.kind(), ErrorKind::Closed | ErrorKind::Lost), "{error:?}");
    assert!(text.contains(host), "the address {host} is not in {text:?}");
    assert!(text.starts_with(stage.backend.kind.name()), "the driver is not named in {text:?}");
}

async fn a_wrong_port_is_told_in_time(stage: &Stage) {
    // A port at which a server has just stopped listening.
    let proxy = stage.proxy();
    let address = proxy.address();
    drop(proxy);
    is_told_in_time(stage, &address.to_string()).await;
}

async fn a_wrong_host_is_told_in_time(stage: &Stage) {
    // By RFC 6761 there is never such a host.
    is_told_in_time(stage, "no-such-host.invalid:2379").await;
}

async fn a_silent_server_is_told_in_time(stage: &Stage) {
    let proxy = stage.proxy();
    Proxy::stall(&proxy);
    is_told_in_time(stage, &proxy.address().to_string()).await;
    stage.break_it(Server::pause);
    is_told_in_time(stage, &stage.server().address().to_string()).await;
    stage.break_it(Server::resume);
}

async fn something_else_at_the_port_is_told_in_time(stage: &Stage) {
    is_told_in_time(stage, &a_web_server().to_string()).await;
}

/// Answers all clients as an old web server would that was asked something strange.
fn a_web_server() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    // It serves for as long as this process lives.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    address
}
