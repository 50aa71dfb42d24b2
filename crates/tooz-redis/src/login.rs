//! Logging in: user and password as the wire wants them, and those of the Sentinels.

use std::fmt::Write as _;
use std::path::PathBuf;

use tooz_core::driver::password_in;
use tooz_core::{Credentials, Error, ErrorKind, Result};

use crate::options::{NO_PASSWORD, SentinelPassword, Sentinels};

/// The longest line that a server reads, in bytes, less what stands around user and password.
const LONGEST: usize = 64 * 1024 - 256;

/// A user and a password, as they stand in `HELLO`.
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

impl Login {
    /// For a server that holds data: the client sends `HELLO` as a line of text, which the server takes apart at blanks and ends at a
    /// line feed. So both stand in quotes, as the server's own parser of such lines reads them.
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
}
