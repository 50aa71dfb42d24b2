//! An exchange against a server of which each test says every word.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Peer;

use tokio::task::JoinHandle;
use tooz_core::ErrorKind;

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// An exchange, and its other end.
async fn begin(limit: Duration) -> (Arc<Exchange>, Peer) {
    let (ours, peer) = Peer::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    peer.set_read_timeout(Some(LONG)).unwrap();
    let ours = tokio::net::UnixStream::from_std(ours).unwrap();
    // As one is that has just been connected.
    ours.writable().await.unwrap();
    let (source, sink) = ours.into_split();
    (Exchange::start(Source::Unix(source), Sink::Unix(sink), limit), peer)
}

fn ping(word: &str) -> Request {
    Request::of("PING", &[word.into()])
}

/// Asks now, and waits in a task.
fn ask(exchange: &Exchange, request: &Request) -> JoinHandle<Result<Replies>> {
    let answer = exchange.send(request, Instant::now() + exchange.limit);
    tokio::spawn(async move { answer?.await.unwrap() })
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

async fn first(asking: JoinHandle<Result<Replies>>) -> Value {
    asking.await.unwrap().unwrap().first.unwrap()
}

fn read(peer: &mut Peer, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    peer.read_exact(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_request_is_on_the_wire_before_any_task_runs() {
    let (exchange, mut peer) = begin(LONG).await;
    let request = ping("x");
    let _answer = exchange.send(&request, Instant::now() + LONG).unwrap();
    peer.set_nonblocking(true).unwrap();
    assert_eq!(read(&mut peer, request.bytes.len()), request.bytes);
}

#[tokio::test]
async fn each_reply_is_for_the_first_in_line() {
    let (exchange, mut peer) = begin(LONG).await;
    let mut two = ping("a");
    two.add("PING", &[]);
    let (a, b) = (ask(&exchange, &two), ask(&exchange, &ping("b")));
    // The one who asked has gone; its answer is no other's.
    drop(exchange.send(&ping("gone"), Instant::now() + LONG).unwrap());
    let c = ask(&exchange, &ping("c"));
    for byte in b"+a1\r\n-ERR a2\r\n+b\r\n+gone\r\n+c\r\n" {
        peer.write_all(&[*byte]).unwrap();
        tokio::task::yield_now().await;
    }
    let a = a.await.unwrap().unwrap();
    assert_eq!((a.first, a.others), (Some(text("a1")), vec![Value::Error("ERR a2".to_owned())]));
    assert_eq!(first(b).await, text("b"));
    assert_eq!(first(c).await, text("c"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_written_later_and_nothing_overtakes_it() {
    let (exchange, mut peer) = begin(LONG).await;
    let requests: Vec<_> = (0..40).map(|number| ping(&format!("{number} ").repeat(20_000))).collect();
    let whole: Vec<u8> = requests.iter().flat_map(|request| request.bytes.clone()).collect();
    let answers: Vec<_> = requests.iter().map(|request| ask(&exchange, request)).collect();
    assert!(exchange.state.lock().is_writing, "all of it has found room");
    let reading = std::thread::spawn(move || {
        let read = read(&mut peer, whole.len());
        peer.write_all(&b"+OK\r\n".repeat(40)).unwrap();
        // It is idle now, and the next one is written at once again.
        (read == whole, peer)
    });
    for answer in answers {
        assert_eq!(first(answer).await, text("OK"));
    }
    let (is_the_same, mut peer) = reading.join().unwrap();
    assert!(is_the_same);
    assert!(!exchange.state.lock().is_writing);
    let _answer = exchange.send(&ping("x"), Instant::now() + LONG).unwrap();
    peer.set_nonblocking(true).unwrap();
    assert_eq!(read(&mut peer, ping("x").bytes.len()), ping("x").bytes);
}

#[tokio::test]
async fn pushes_go_beside_and_answer_what_changes_the_channels() {
    let (exchange, mut peer) = begin(LONG).await;
    let mut pushes = exchange.pushes();
    let channels = ["a".to_owned(), "b".to_owned()];
    let subscribing = ask(&exchange, &Request::of_channels("SUBSCRIBE", &channels));
    let asking = ask(&exchange, &ping("x"));
    peer.write_all(b">3\r\n+subscribe\r\n+a\r\n:1\r\n>3\r\n+message\r\n+a\r\n+early\r\n>2\r\n+invalidate\r\n_\r\n")
        .unwrap();
    let early = pushes.recv().await.unwrap();
    assert_eq!((early.channel.as_str(), early.text.as_str()), ("a", "early"));
    assert!(!subscribing.is_finished(), "one channel is missing");
    // What was not asked for takes no place.
    peer.write_all(b">3\r\n+subscribe\r\n+b\r\n:2\r\n>3\r\n+unsubscribe\r\n+a\r\n:1\r\n+x\r\n").unwrap();
    assert_eq!(subscribing.await.unwrap().unwrap().others.len(), 1);
    assert_eq!(first(asking).await, text("x"));
    // Both at once are refused in one word.
    let (refused, asking) = (ask(&exchange, &Request::of_channels("SUBSCRIBE", &channels)), ask(&exchange, &ping("y")));
    peer.write_all(b"-NOPERM no\r\n+y\r\n").unwrap();
    assert_eq!(first(refused).await, Value::Error("NOPERM no".to_owned()));
    assert_eq!(first(asking).await, text("y"));
}

#[tokio::test]
async fn a_request_that_is_late_ends_all_and_says_so() {
    let (exchange, _peer) = begin(LONG).await;
    let in_time = ask(&exchange, &ping("in time"));
    // Less than the watchdog has planned for.
    let late = exchange.send(&ping("late"), Instant::now() + Duration::from_millis(50)).unwrap();
    let late = tokio::time::timeout(LONG / 2, late).await.expect("nothing ends it").unwrap().unwrap_err();
    assert_eq!((late.kind(), late.outcome()), (ErrorKind::TimedOut, Outcome::Unknown));
    let in_time = in_time.await.unwrap().unwrap_err();
    assert_eq!((in_time.kind(), in_time.outcome()), (ErrorKind::Unavailable, Outcome::Unknown));
    let after = exchange.ask(ping("after"), Instant::now() + LONG).await.unwrap_err();
    assert_eq!((after.kind(), after.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
}

#[tokio::test]
async fn what_is_idle_for_long_is_not_late() {
    let (exchange, mut peer) = begin(Duration::from_millis(20)).await;
    sleep(Duration::from_millis(100)).await;
    assert!(!exchange.has_ended());
    let asking = exchange.send(&ping("x"), Instant::now() + LONG).unwrap();
    sleep(Duration::from_millis(100)).await;
    peer.write_all(b"+x\r\n").unwrap();
    assert_eq!(asking.await.unwrap().unwrap().first, Some(text("x")));
    let late = exchange.ask(ping("late"), Instant::now() + Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn what_can_not_be_read_ends_the_connection_in_plain_words() {
    for (said, words) in [("HTTP/1.1 400 Bad Request\r\n", "can't be read"), ("+OK\r\n+OK\r\n", "understood")] {
        let (exchange, mut peer) = begin(LONG).await;
        let asking = ask(&exchange, &ping("x"));
        peer.write_all(said.as_bytes()).unwrap();
        exchange.ended().await;
        let _ = asking.await.unwrap().inspect_err(|error| assert_eq!(error.outcome(), Outcome::Unknown, "{error}"));
        let after = exchange.ask(ping("after"), Instant::now() + LONG).await.unwrap_err();
        assert_eq!((after.kind(), after.outcome()), (ErrorKind::Backend, Outcome::NotApplied));
        assert!(after.to_string().contains(words), "{after}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_the_connection_is_heard() {
    let (exchange, mut peer) = begin(LONG).await;
    peer.write_all(b"-ERR max number of clients reached\r\n").unwrap();
    drop(peer);
    exchange.ended().await;
    let error = exchange.ask(ping("x"), Instant::now() + LONG).await.unwrap_err();
    assert!(error.to_string().contains("maxclients"), "{error}");
}

#[tokio::test]
async fn the_end_is_seen_by_both_sides() {
    let (exchange, peer) = begin(LONG).await;
    let asking = ask(&exchange, &ping("x"));
    drop(peer);
    let error = asking.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown));
    let (exchange, mut peer) = begin(LONG).await;
    let asking = ask(&exchange, &ping("x"));
    exchange.end();
    assert_eq!(asking.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    let reading = tokio::task::spawn_blocking(move || peer.read_to_end(&mut Vec::new()));
    assert_eq!(
        reading.await.unwrap().unwrap(),
        ping("x").bytes.len(),
        "the socket is closed, whoever has the exchange"
    );
}
