//! What every driver must show, on a real server that all cases share, each in a namespace of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tooz_conformance::Rig;
use tooz_core::Driver;
use tooz_testbed::{Bed, Kind, namespace_of};

/// Named, so that listing the cases does not have to make a URL, and with it a server.
static CARD: Driver = tooz_memcached::DRIVER;

tooz_testbed::conformance!(Kind::Memcached, "", rig, end_session);

fn rig(url: impl Fn(&str) -> String + Send + Sync + 'static) -> Rig {
    Rig::new("memcached", url).driver(&CARD).across_processes().hides_locks().moment(Duration::from_millis(150))
}

/// Deletes the session of the member that is named. The server's list of keys leaves out what is in use just then, so it is asked for again.
fn end_session(bed: &Bed, url: &str, member: &str) {
    for _ in 0..20 {
        if end_listed_session(bed, url, member) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Deletes, of the sessions of the namespace, the ones by which it stands in any journal that is listed. Answers whether there was one.
fn end_listed_session(bed: &Bed, url: &str, member: &str) -> bool {
    let mut was_there = false;
    let server = bed.shared().address();
    let prefix = format!("tooz:{}:", namespace_of(url));
    for key in keys(server).into_iter().filter(|key| key.starts_with(&prefix)) {
        let text = value(server, &key);
        for line in text.lines().filter(|line| line.starts_with(['A', 'J'])) {
            let fields: Vec<_> = line.split('\t').collect();
            if fields.get(5) == Some(&member) {
                ask(server, &format!("md {prefix}s:{}", fields[2]));
                was_there = true;
            }
        }
    }
    was_there
}

fn connect(server: SocketAddr) -> TcpStream {
    TcpStream::connect(server).expect("the server is there")
}

/// All keys, as the server lists them: with some letters escaped.
fn keys(server: SocketAddr) -> Vec<String> {
    let mut stream = connect(server);
    stream.write_all(b"lru_crawler metadump all\r\n").expect("it can be asked");
    let lines = BufReader::new(stream).lines().map(|line| line.expect("it answers"));
    let lines: Vec<_> = lines.take_while(|line| line != "END" && !line.starts_with("BUSY")).collect();
    if lines.is_empty() {
        // It makes one list at a time, and here there is always a key.
        std::thread::sleep(Duration::from_millis(20));
        return keys(server);
    }
    lines.iter().filter_map(|line| Some(decoded(line.strip_prefix("key=")?.split(' ').next()?))).collect()
}

fn decoded(key: &str) -> String {
    key.replace("%3A", ":").replace("%25", "%")
}

fn ask(server: SocketAddr, question: &str) -> BufReader<TcpStream> {
    let mut stream = connect(server);
    stream.write_all(format!("{question}\r\n").as_bytes()).expect("it can be asked");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("it answers");
    reader
}

fn value(server: SocketAddr, key: &str) -> String {
    let mut stream = connect(server);
    stream.write_all(format!("mg {key} v\r\n").as_bytes()).expect("it can be asked");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("it answers");
    let Some(length) = line.trim().strip_prefix("VA ") else { return String::new() };
    let mut text = vec![0; length.parse().expect("a length")];
    reader.read_exact(&mut text).expect("as much as it says");
    String::from_utf8_lossy(&text).into_owned()
}
