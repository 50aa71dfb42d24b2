//! Asking a server a question without any client library.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// A server on the same machine that answers at all does so long before. One that is starting may take the connection
/// and never answer it, so it is asked anew.
const PATIENCE: Duration = Duration::from_millis(500);

/// Sends the question and reads until the answer is long enough to judge, or the server ends it.
pub(crate) fn ask(address: SocketAddr, question: &[u8], enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("no server at {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    exchange(stream, question, enough).with_context(|| format!("no answer from {address}"))
}

/// Sends the question through a Unix socket and reads until the answer is long enough to judge, or the server ends it.
pub(crate) fn ask_at(socket: &Path, question: &[u8], enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    let stream = UnixStream::connect(socket).with_context(|| format!("no server at {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    exchange(stream, question, enough).with_context(|| format!("no answer from {}", socket.display()))
}

fn exchange(mut stream: impl Read + Write, question: &[u8], enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    stream.write_all(question)?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !enough(&answer) {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..length]);
    }
    Ok(answer)
}

/// `GET` of a path over plain HTTP; the answer with its head.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<String> {
    http(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// `POST` of a text to a path over plain HTTP; the answer with its head.
pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> Result<String> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}");
    http(address, &format!("{head}\r\n\r\n{body}"))
}

fn http(address: SocketAddr, question: &str) -> Result<String> {
    let answer = ask(address, question.as_bytes(), |_| false)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
