//! A few words of ZooKeeper's protocol, spoken without the driver and its client library.

// Each test uses the words that it needs.
#![allow(dead_code)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const SET_ACL: i32 = 7;
const GET_CHILDREN: i32 = 8;
const AUTH: i32 = 100;
const CLOSE: i32 = -11;

/// What may be done with a node: read, write, make nodes below it, delete nodes below it, change these rights.
const EVERYTHING: i32 = 31;
pub(crate) const MAKE_AND_DELETE: i32 = 12;

/// How long a node lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    ForEver,
    /// As long as the session that makes it.
    WithSession,
}

/// No such node.
const NO_NODE: i32 = -101;

/// A connection with a session.
pub(crate) struct Raw {
    stream: TcpStream,
    calls: i32,
}

impl Raw {
    /// A session of its own.
    pub(crate) fn connect(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut raw = Raw { stream, calls: 0 };
        raw.send(&greeting(0))?;
        let answer = raw.receive()?;
        match answer.get(8..16) {
            Some(id) if id != [0; 8] => Ok(raw),
            _ => Err(io::Error::other("the server begins no session")),
        }
    }

    /// The names below a node; none where it is not there.
    pub(crate) fn children(&mut self, path: &str) -> io::Result<Vec<String>> {
        let mut body = Vec::new();
        bytes(&mut body, path.as_bytes());
        body.push(0);
        let Some(answer) = self.call(GET_CHILDREN, &body)? else { return Ok(Vec::new()) };
        let mut rest = &answer[..];
        let count = number(&mut rest);
        Ok((0..count).map(|_| String::from_utf8(text(&mut rest)).expect("names are text")).collect())
    }

    /// What stands in a node.
    pub(crate) fn data(&mut self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        bytes(&mut body, path.as_bytes());
        body.push(0);
        Ok(self.call(GET_DATA, &body)?.map(|answer| text(&mut &answer[..])))
    }

    /// Makes a node that every user may touch; false where the one above it is missing.
    pub(crate) fn create(&mut self, path: &str) -> io::Result<bool> {
        self.create_for(path, EVERYTHING)
    }

    /// Makes a node with which every user may do that much.
    pub(crate) fn create_for(&mut self, path: &str, permissions: i32) -> io::Result<bool> {
        self.create_kept(path, b"", permissions, Kept::ForEver)
    }

    /// Makes a node with something in it.
    pub(crate) fn create_with(&mut self, path: &str, data: &[u8], kept: Kept) -> io::Result<bool> {
        self.create_kept(path, data, EVERYTHING, kept)
    }

    fn create_kept(&mut self, path: &str, data: &[u8], permissions: i32, kept: Kept) -> io::Result<bool> {
        let mut body = Vec::new();
        bytes(&mut body, path.as_bytes());
        bytes(&mut body, data);
        body.extend(1_i32.to_be_bytes());
        body.extend(permissions.to_be_bytes());
        bytes(&mut body, b"world");
        bytes(&mut body, b"anyone");
        body.extend(i32::from(kept == Kept::WithSession).to_be_bytes());
        Ok(self.call(CREATE, &body)?.is_some())
    }

    /// Writes into a node, whatever its version.
    pub(crate) fn write(&mut self, path: &str, data: &[u8]) -> io::Result<bool> {
        let mut body = Vec::new();
        bytes(&mut body, path.as_bytes());
        bytes(&mut body, data);
        body.extend((-1_i32).to_be_bytes());
        Ok(self.call(SET_DATA, &body)?.is_some())
    }

    /// Logs in as `user:password`.
    pub(crate) fn log_in(&mut self, identity: &str) -> io::Result<()> {
        let mut body = Vec::new();
        body.extend(0_i32.to_be_bytes());
        bytes(&mut body, b"digest");
        bytes(&mut body, identity.as_bytes());
        self.call(AUTH, &body).map(drop)
    }

    /// Gives a node to a user alone, `user:hash of user:password`.
    pub(crate) fn give_to(&mut self, path: &str, user: &str) -> io::Result<bool> {
        let mut body = Vec::new();
        bytes(&mut body, path.as_bytes());
        body.extend(1_i32.to_be_bytes());
        body.extend(EVERYTHING.to_be_bytes());
        bytes(&mut body, b"digest");
        bytes(&mut body, user.as_bytes());
        body.extend((-1_i32).to_be_bytes());
        Ok(self.call(SET_ACL, &body)?.is_some())
    }

    /// Deletes a node, whatever its version.
    pub(crate) fn delete(&mut self, path: &str) -> io::Result<bool> {
        let mut body = Vec::new();
        bytes(&mut body, path.as_bytes());
        body.extend((-1_i32).to_be_bytes());
        Ok(self.call(DELETE, &body)?.is_some())
    }

    /// All nodes below one, at any depth.
    pub(crate) fn tree(&mut self, path: &str) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for child in self.children(path)? {
            let below = format!("{}/{child}", path.trim_end_matches('/'));
            found.extend(self.tree(&below)?);
            found.push(below);
        }
        Ok(found)
    }

    /// Ends the session.
    pub(crate) fn close(mut self) -> io::Result<()> {
        self.call(CLOSE, &[]).map(drop)
    }

    fn call(&mut self, kind: i32, body: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.calls += 1;
        let mut message = Vec::new();
        message.extend(self.calls.to_be_bytes());
        message.extend(kind.to_be_bytes());
        message.extend(body);
        self.send(&message)?;
        let answer = self.receive()?;
        match answer.get(12..16).map(|error| i32::from_be_bytes(error.try_into().expect("four bytes"))) {
            Some(0) => Ok(Some(answer[16..].to_vec())),
            Some(NO_NODE) => Ok(None),
            error => Err(io::Error::other(format!("the server answers {error:?}"))),
        }
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut framed = Vec::new();
        bytes(&mut framed, message);
        self.stream.write_all(&framed)
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("it fits")];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }
}

/// Ends the session of that member in that namespace, as a client that knows its password could.
pub(crate) fn end_session(server: SocketAddr, namespace: &str, member: &str) -> io::Result<()> {
    let mut raw = Raw::connect(server)?;
    let branch = format!("/{namespace}/mail");
    for node in raw.children(&branch)? {
        let Ok(id) = u64::from_str_radix(&node, 16) else { continue };
        let mailbox = format!("{branch}/{node}");
        let mail = raw.data(&mailbox)?.unwrap_or_default();
        if !String::from_utf8_lossy(&mail).starts_with(&format!("{{\"member\":{member:?}")) {
            continue;
        }
        // Its owner takes it back at once, so this may need several attempts.
        while raw.data(&mailbox)?.is_some() {
            take_and_close(server, id.cast_signed())?;
        }
    }
    raw.close()
}

/// Takes a session over and closes it, in one breath.
fn take_and_close(server: SocketAddr, session: i64) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut both = Vec::new();
    bytes(&mut both, &greeting(session));
    let close: Vec<u8> = [1_i32.to_be_bytes(), CLOSE.to_be_bytes()].concat();
    bytes(&mut both, &close);
    stream.write_all(&both)?;
    // Until the server hangs up: because the session is over, or because its owner is back.
    let _ = stream.read_to_end(&mut Vec::new());
    Ok(())
}

/// Asks a server one of its four-letter words.
pub(crate) fn word(server: SocketAddr, word: &str) -> String {
    let mut stream = TcpStream::connect(server).expect("the server is there");
    stream.write_all(word.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// The first words to a server, for a new session or for one of another client: its password follows from its id.
fn greeting(session: i64) -> Vec<u8> {
    let mut hello = Vec::new();
    hello.extend(0_i32.to_be_bytes());
    hello.extend(0_i64.to_be_bytes());
    hello.extend(10_000_i32.to_be_bytes());
    hello.extend(session.to_be_bytes());
    bytes(&mut hello, &if session == 0 { [0; 16] } else { password(session) });
    hello.push(0);
    hello
}

/// The server's rule: sixteen bytes of Java's random numbers, seeded by the id.
fn password(session: i64) -> [u8; 16] {
    const SECRET: i64 = 0xB341_5C00;
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;
    let mut state = ((session ^ SECRET).cast_unsigned() ^ MULTIPLIER) & MASK;
    let mut password = [0; 16];
    for four in password.chunks_mut(4) {
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(0xB) & MASK;
        let next = u32::try_from(state >> 16).expect("32 bits are left");
        four.copy_from_slice(&next.to_le_bytes());
    }
    password
}

fn bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u32::try_from(bytes.len()).expect("short").to_be_bytes());
    to.extend(bytes);
}

fn number(from: &mut &[u8]) -> u32 {
    let (number, rest) = from.split_at(4);
    *from = rest;
    u32::from_be_bytes(number.try_into().expect("four bytes"))
}

fn text(from: &mut &[u8]) -> Vec<u8> {
    let length = usize::try_from(number(from)).expect("it fits");
    let (text, rest) = from.split_at(length);
    *from = rest;
    text.to_vec()
}
