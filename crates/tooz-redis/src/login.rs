//! Logging in: user and password as the wire wants them, and those of the Sentinels.

use std::fmt::Write as _;
use std::path::PathBuf;

use tooz_core::driver::password_in;
use tooz_core::{Credentials, Error, ErrorKind, Result};

use crate::options::{NO_PASSWORD, SentinelPassword, Sentinels};
use crate::request::Request;

/// The longest line that a server reads, in bytes, less what stands around user and password.
const LONGEST: usize = 64 * 1024 - 256;

/// What kind of server is at the other end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// It holds data and speaks RESP3, so that pushes come on the same connection, in order with the replies.
    Data,
    /// A Sentinel is only asked where the primary is.
    Sentinel,
}

/// The user of those who name none.
const DEFAULT_USER: &str = "default";

/// A user and a password, as they are sent.
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

impl Login {
    /// For a server that holds data: `HELLO` is sent as a line of text, which may be longer than words that are sent with their lengths by one
    /// who has not logged in. The server takes it apart at blanks and ends it at a line feed, so both stand in quotes, as its own parser of
    /// such lines reads them.
    pub(crate) fn in_a_line(credentials: Credentials) -> Result<Self> {
        let Credentials { username, password, .. } = credentials;
        if username.is_some() && password.is_none() {
            return Err(Error::config(NO_PASSWORD));
        }
        let login = Login { username: username.as_deref().map(quoted), password: password.as_deref().map(quoted) };
        let length = |word: &Option<String>| word.as_ref().map_or(0, String::len);
        if length(&login.username) + length(&login.password) > LONGEST {
            return Err(Error::config("user and password are too long together for a Redis server to read them"));
        }
        Ok(login)
    }

    /// For a Sentinel, which is sent lengths and bytes.
    pub(crate) async fn of_sentinels(sentinels: &Sentinels) -> Result<Self> {
        let password = match &sentinels.password {
            SentinelPassword::None => None,
            SentinelPassword::Given(password) => Some(password.clone()),
            SentinelPassword::File(path) => Some(read_file(path.clone()).await?),
        };
        Ok(Login { username: sentinels.username.clone(), password })
    }
}

impl Login {
    /// What is said first.
    pub(crate) fn requests(&self, peer: Peer) -> Vec<Request> {
        let Login { username, password } = self;
        match (peer, password) {
            (Peer::Data, None) => vec![Request::of_line("HELLO 3")],
            (Peer::Data, Some(password)) => {
                let user = username.as_deref().unwrap_or(DEFAULT_USER);
                vec![Request::of_line(&format!("HELLO 3 AUTH {user} {password}"))]
            }
            (Peer::Sentinel, None) => Vec::new(),
            (Peer::Sentinel, Some(password)) => {
                let words = username.iter().chain([password]);
                vec![Request::of("AUTH", &words.map(|word| word.as_str().into()).collect::<Vec<_>>())]
            }
        }
    }
}

/// Only what is plain stands for itself.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' ' | b'!'..=b'~' => quoted.push(char::from(byte)),
            _ => {
                // Writing to a text never fails.
                let _ = write!(quoted, "\\x{byte:02x}");
            }
        }
    }
    quoted.push('"');
    quoted
}

async fn read_file(path: PathBuf) -> Result<String> {
    let reading = tokio::task::spawn_blocking(move || password_in("sentinel_password_file", &path));
    reading.await.map_err(|error| Error::new(ErrorKind::Backend, "reading a file failed").with_source(error))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a server reads of a text in quotes, by the rules of its documentation for lines that are typed by hand.
    fn as_the_server_reads(line: &str) -> Option<Vec<u8>> {
        let mut rest = line.strip_prefix('"')?.strip_suffix('"')?.bytes();
        let mut read = Vec::new();
        while let Some(byte) = rest.next() {
            read.push(match byte {
                b'"' => return None,
                b'\\' => match rest.next()? {
                    b'x' => {
                        let digits = [rest.next()?, rest.next()?];
                        u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                    }
                    plain @ (b'"' | b'\\') => plain,
                    _ => return None,
                },
                plain => plain,
            });
        }
        Some(read)
    }

    proptest! {
        #[test]
        fn the_server_reads_what_was_meant_and_no_second_line(text: String) {
            let line = quoted(&text);
            prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(as_the_server_reads(&line), Some(text.into_bytes()));
        }
    }

    #[test]
    fn what_the_server_would_read_as_something_else_is_escaped() {
        for (text, line) in [
            ("plain", r#""plain""#),
            ("two words", r#""two words""#),
            (r#"a"b\c'd"#, r#""a\"b\\c'd""#),
            ("x\r\nDEL k\0", r#""x\x0d\x0aDEL k\x00""#),
            ("ü", r#""\xc3\xbc""#),
            ("", r#""""#),
        ] {
            assert_eq!(quoted(text), line);
        }
    }

    #[test]
    fn a_user_needs_a_password_and_both_have_room() {
        let mut alone = Credentials::default();
        alone.username = Some("bob".to_owned());
        assert!(Login::in_a_line(alone).is_err());
        assert!(Login::in_a_line(Credentials::password("ü".repeat(10_000))).is_err());
        assert!(Login::in_a_line(Credentials::password("x".repeat(60_000))).is_ok());
    }

    #[test]
    fn each_peer_is_greeted_in_its_way() {
        let said = |login: &Login, peer| -> Vec<u8> {
            login.requests(peer).into_iter().flat_map(|request| request.bytes).collect()
        };
        let nobody = Login { username: None, password: None };
        assert_eq!(said(&nobody, Peer::Data), b"HELLO 3\r\n");
        assert!(said(&nobody, Peer::Sentinel).is_empty());
        let login = Login::in_a_line(Credentials::password("two words")).unwrap();
        assert_eq!(said(&login, Peer::Data), b"HELLO 3 AUTH default \"two words\"\r\n");
        let login = Login { username: Some("bob".to_owned()), password: Some("a b".to_owned()) };
        assert_eq!(said(&login, Peer::Sentinel), b"*3\r\n$4\r\nAUTH\r\n$3\r\nbob\r\n$3\r\na b\r\n");
    }
}
