//! Asking Consul by itself, past the driver.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};

/// Asks, and answers the status and the body.
#[allow(dead_code)] // Each test uses what it needs.
pub(crate) fn asked(address: SocketAddr, method: &str, path: &str, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("Consul listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit can be set");
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{head}Content-Length: {length}\r\n\r\n{body}")
        .expect("Consul reads");
    let mut text = Vec::new();
    stream.read_to_end(&mut text).expect("Consul answers");
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an answer has a status");
    (status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// Asks for what must work.
#[allow(dead_code)]
pub(crate) fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let (status, answer) = asked(address, method, path, "", body);
    assert!(status == 200 || status == 404, "{method} {path}: {status} {answer}");
    answer
}

/// All keys that begin with this, and what stands there.
#[allow(dead_code)]
pub(crate) fn entries(address: SocketAddr, prefix: &str) -> Vec<(String, String)> {
    let (status, answer) = asked(address, "GET", &format!("/v1/kv/{prefix}?recurse"), "", "");
    if status == 404 {
        return Vec::new();
    }
    let entries: Vec<serde_json::Value> = serde_json::from_str(&answer).expect("a list of entries");
    let read = |entry: &serde_json::Value| {
        let value = entry["Value"].as_str().unwrap_or_default();
        let value = BASE64_STANDARD.decode(value).expect("base64");
        (entry["Key"].as_str().expect("a key").to_owned(), String::from_utf8_lossy(&value).into_owned())
    };
    entries.iter().map(read).collect()
}
