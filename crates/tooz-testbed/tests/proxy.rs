//! Every fault of the proxy, on connections to a plain server of this process.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tooz_testbed::Proxy;

/// Long enough for what must happen.
const PATIENCE: Duration = Duration::from_secs(5);
/// Long enough to see that something does not happen.
const MOMENT: Duration = Duration::from_millis(60);

/// Answers every piece with itself, and passes on what it heard.
fn echo() -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tells, hears) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, tells) = (stream.unwrap(), tells.clone());
            thread::spawn(move || {
                let mut buffer = vec![0; 65536];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    let _ = tells.send(buffer[..length].to_vec());
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                // Nothing: the end of the connection.
                let _ = tells.send(Vec::new());
            });
        }
    });
    (address, hears)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

fn hear(stream: &mut TcpStream, length: usize) -> String {
    let mut buffer = vec![0; length];
    stream.read_exact(&mut buffer).unwrap();
    String::from_utf8(buffer).unwrap()
}

fn hears_nothing(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(MOMENT)).unwrap();
    let error = stream.read(&mut [0; 1]).expect_err("nothing must come");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
}

fn is_reset(stream: &mut TcpStream) {
    let error = stream.read(&mut [0; 1]).expect_err("the connection must be reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn everything_arrives_and_is_counted() {
    let (server, _) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut stream = connect(&proxy);
    for text in ["one", "two", "three"] {
        say(&mut stream, text);
        assert_eq!(hear(&mut stream, text.len()), text);
    }
    let counts = proxy.counts();
    assert_eq!((counts.to_server.bytes, counts.to_server.chunks, counts.connections), (11, 3, 1));
    assert_eq!(counts.to_client.bytes, 11);
    assert_eq!(proxy.url("redis"), format!("redis://{}", proxy.address()));
}

#[test]
fn much_arrives_in_order() {
    let (server, _) = echo();
    let proxy = Proxy::start(server).unwrap();
    proxy.delay(Duration::from_millis(20));
    let stream = connect(&proxy);
    let sent: Vec<u8> = (0..4_000_000_u32).map(|number| (number % 251) as u8).collect();
    let (mut writing, to_send) = (stream.try_clone().unwrap(), sent.clone());
    let writer = thread::spawn(move || writing.write_all(&to_send).unwrap());
    let mut received = vec![0; sent.len()];
    (&stream).read_exact(&mut received).unwrap();
    writer.join().unwrap();
    assert!(received == sent);
}

#[test]
fn the_end_of_a_connection_is_passed_on_either_way() {
    let (server, hears) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut stream = connect(&proxy);
    say(&mut stream, "bye");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye");
    assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), b"bye");
    assert!(hears.recv_timeout(PATIENCE).unwrap().is_empty());
}

#[test]
fn a_server_that_is_not_there_is_a_reset() {
    let closed_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::start(closed_port).unwrap();
    is_reset(&mut connect(&proxy));
}

#[test]
fn a_delay_counts_each_way_and_not_for_every_piece() {
    let (server, _) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut stream = connect(&proxy);
    say(&mut stream, "x");
    hear(&mut stream, 1);
    proxy.delay(Duration::from_millis(100));
    let began = Instant::now();
    for _ in 0..5 {
        say(&mut stream, "x");
        thread::sleep(Duration::from_millis(10));
    }
    hear(&mut stream, 5);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert!(took < Duration::from_millis(450), "{took:?}");
    proxy.heal();
    let began = Instant::now();
    say(&mut stream, "x");
    hear(&mut stream, 1);
    assert!(began.elapsed() < Duration::from_millis(100));
}

#[test]
fn a_stall_holds_everything_and_loses_nothing() {
    let (server, hears) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut old = connect(&proxy);
    say(&mut old, "a");
    hear(&mut old, 1);
    hears.recv_timeout(PATIENCE).unwrap();
    proxy.stall();
    let mut new = connect(&proxy);
    say(&mut old, "bc");
    say(&mut new, "d");
    hears_nothing(&mut old);
    hears_nothing(&mut new);
    assert!(hears.try_recv().is_err());
    proxy.heal();
    assert_eq!(hear(&mut old, 2), "bc");
    assert_eq!(hear(&mut new, 1), "d");
}

#[test]
fn the_end_of_a_stalled_connection_waits_too() {
    let (server, hears) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut stream = connect(&proxy);
    say(&mut stream, "a");
    hear(&mut stream, 1);
    hears.recv_timeout(PATIENCE).unwrap();
    proxy.stall();
    drop(stream);
    assert!(hears.recv_timeout(MOMENT).is_err());
    proxy.heal();
    assert!(hears.recv_timeout(PATIENCE).unwrap().is_empty());
}

#[test]
fn one_way_is_silent_and_the_other_is_not() {
    let (server, hears) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut stream = connect(&proxy);
    proxy.drop_to_client();
    say(&mut stream, "applied");
    assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), b"applied");
    hears_nothing(&mut stream);
    proxy.heal();
    assert_eq!(hear(&mut stream, 7), "applied");

    proxy.drop_to_server();
    say(&mut stream, "unheard");
    assert!(hears.recv_timeout(MOMENT).is_err());
    proxy.heal();
    assert_eq!(hear(&mut stream, 7), "unheard");
}

#[test]
fn a_reset_ends_what_there_is_and_what_is_held_of_it() {
    let (server, hears) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut streams: Vec<TcpStream> = (0..3).map(|_| connect(&proxy)).collect();
    for stream in &mut streams {
        say(stream, "a");
        hear(stream, 1);
        hears.recv_timeout(PATIENCE).unwrap();
    }
    proxy.drop_to_server();
    say(&mut streams[0], "never");
    proxy.reset();
    for stream in &mut streams {
        is_reset(stream);
        assert!(hears.recv_timeout(PATIENCE).unwrap().is_empty(), "the server hears of the end, and of nothing else");
    }
    proxy.heal();
    let mut new = connect(&proxy);
    say(&mut new, "b");
    assert_eq!(hear(&mut new, 1), "b");
}

#[test]
fn a_refusing_proxy_keeps_the_connections_there_are() {
    let (server, _) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut old = connect(&proxy);
    say(&mut old, "a");
    hear(&mut old, 1);
    proxy.refuse();
    is_reset(&mut connect(&proxy));
    say(&mut old, "b");
    assert_eq!(hear(&mut old, 1), "b");
    proxy.heal();
    let mut new = connect(&proxy);
    say(&mut new, "c");
    assert_eq!(hear(&mut new, 1), "c");
}

#[test]
fn a_cut_comes_after_exactly_so_many_bytes_and_once() {
    let (server, _) = echo();
    let proxy = Proxy::start(server).unwrap();
    proxy.cut_after(4);
    let mut stream = connect(&proxy);
    say(&mut stream, "abc");
    assert_eq!(hear(&mut stream, 3), "abc");
    say(&mut stream, "def");
    assert_eq!(hear(&mut stream, 1), "d");
    is_reset(&mut stream);
    let mut new = connect(&proxy);
    say(&mut new, "ghi");
    assert_eq!(hear(&mut new, 3), "ghi");
}

#[test]
fn a_swallowed_reply_was_a_request_that_arrived() {
    let (server, hears) = echo();
    let proxy = Proxy::start(server).unwrap();
    let (mut one, mut other) = (connect(&proxy), connect(&proxy));
    let swallow = proxy.swallow_reply_for(b"SET lock", MOMENT * 3);
    say(&mut one, "GET lock");
    assert_eq!(hear(&mut one, 8), "GET lock");
    hears.recv_timeout(PATIENCE).unwrap();
    assert!(!swallow.wait(Duration::ZERO));

    // In two pieces, which the server hears one after the other.
    say(&mut one, "SET ");
    assert_eq!(hear(&mut one, 4), "SET ");
    say(&mut one, "lock now");
    assert!(swallow.wait(PATIENCE));
    assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), b"SET ");
    assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), b"lock now");
    hears_nothing(&mut one);
    is_reset(&mut one);
    say(&mut other, "SET lock");
    assert_eq!(hear(&mut other, 8), "SET lock", "one reply is lost, not two");
}

#[test]
fn healing_ends_a_connection_that_misses_a_reply() {
    let (server, _) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut stream = connect(&proxy);
    let swallow = proxy.swallow_reply_for(b"", Duration::from_hours(1));
    say(&mut stream, "a");
    assert!(swallow.wait(PATIENCE));
    proxy.heal();
    is_reset(&mut stream);
}

#[test]
fn a_swallow_that_was_healed_away_does_not_happen() {
    let (server, _) = echo();
    let proxy = Proxy::start(server).unwrap();
    let mut stream = connect(&proxy);
    let swallow = proxy.swallow_reply(b"a");
    proxy.heal();
    say(&mut stream, "a");
    assert_eq!(hear(&mut stream, 1), "a");
    assert!(!swallow.wait(MOMENT));
}

#[test]
fn the_last_clone_ends_the_proxy_and_its_threads() {
    let (server, hears) = echo();
    let proxy = Proxy::start(server).unwrap();
    let clone = proxy.clone();
    let mut stream = connect(&proxy);
    drop(proxy);
    say(&mut stream, "a");
    assert_eq!(hear(&mut stream, 1), "a");
    hears.recv_timeout(PATIENCE).unwrap();
    let address = clone.address();
    clone.stall();
    drop(clone);
    is_reset(&mut stream);
    assert!(hears.recv_timeout(PATIENCE).unwrap().is_empty());
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < end, "the port is still open");
        thread::sleep(Duration::from_millis(5));
    }
}
