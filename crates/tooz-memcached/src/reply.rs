//! Commands as they are written, several at once, and what the server answers to each.

use std::fmt::Write as _;

use tooz_core::Result;

use crate::error::{of_server, strange};

/// How long the server keeps what is looked after, in seconds: as long as it can count.
pub(crate) const KEPT: u32 = 30 * 24 * 3600;

/// Commands for one write.
#[derive(Clone, Default)]
pub(crate) struct Batch {
    pub(crate) text: Vec<u8>,
    pub(crate) commands: usize,
}

/// What is answered to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `HD`: done, or there.
    Done(Flags),
    /// `VA`.
    Value(Vec<u8>, Flags),
    /// `EN`, `NF`: there is no such key.
    Missing,
    /// `NS`: not stored, for one of several reasons.
    NotStored,
    /// `EX`: another has changed it.
    Changed,
    /// `MN`.
    Nothing,
    /// Lines of `stats`.
    Stats(Vec<(String, String)>),
    /// The server did not do it.
    Refused(String),
}

/// What is told beside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// The number of this version of the value. It is unique on one connection alone: a server that was restarted begins anew.
    pub(crate) cas: u64,
    /// How many seconds are left, by the server's clock; -1: no limit.
    pub(crate) left: i64,
}

/// Which version of a value: it counts on the connection alone by which it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) epoch: u64,
    pub(crate) cas: u64,
}

impl Batch {
    fn line(mut self, line: std::fmt::Arguments<'_>, data: Option<&[u8]>) -> Self {
        let mut text = String::with_capacity(64);
        // Writing to a text never fails.
        let _ = text.write_fmt(line);
        self.text.extend_from_slice(text.as_bytes());
        self.text.extend_from_slice(b"\r\n");
        if let Some(data) = data {
            self.text.extend_from_slice(data);
            self.text.extend_from_slice(b"\r\n");
        }
        self.commands += 1;
        self
    }

    /// The value, its version, and what is left of its time.
    pub(crate) fn get(self, key: &str) -> Self {
        self.line(format_args!("mg {key} v c t"), None)
    }

    /// The value and its version. It is kept for so many seconds from now on; 0: for ever.
    pub(crate) fn get_and_keep(self, key: &str, seconds: u32) -> Self {
        self.line(format_args!("mg {key} v c T{seconds}"), None)
    }

    /// Its version alone.
    pub(crate) fn look(self, key: &str) -> Self {
        self.line(format_args!("mg {key} c t"), None)
    }

    /// Gives it that many seconds from now; 0: for ever. Answers its version.
    pub(crate) fn touch(self, key: &str, seconds: u32) -> Self {
        self.line(format_args!("mg {key} c T{seconds}"), None)
    }

    /// Makes it, if it is not there.
    pub(crate) fn add(self, key: &str, value: &str, seconds: u32) -> Self {
        self.line(format_args!("ms {key} {} ME T{seconds} c", value.len()), Some(value.as_bytes()))
    }

    /// Makes it, or replaces whatever is there.
    pub(crate) fn set(self, key: &str, value: &str, seconds: u32) -> Self {
        self.line(format_args!("ms {key} {} T{seconds}", value.len()), Some(value.as_bytes()))
    }

    /// Adds to its end, if it is there.
    pub(crate) fn append(self, key: &str, value: &str) -> Self {
        self.line(format_args!("ms {key} {} MA", value.len()), Some(value.as_bytes()))
    }

    /// Replaces that version of it.
    pub(crate) fn swap(self, key: &str, cas: u64, value: &str, seconds: u32) -> Self {
        self.line(format_args!("ms {key} {} C{cas} T{seconds} c", value.len()), Some(value.as_bytes()))
    }

    /// Deletes that version of it.
    pub(crate) fn delete_version(self, key: &str, cas: u64) -> Self {
        self.line(format_args!("md {key} C{cas}"), None)
    }

    /// Deletes it.
    pub(crate) fn delete(self, key: &str) -> Self {
        self.line(format_args!("md {key}"), None)
    }

    pub(crate) fn stats(self) -> Self {
        self.line(format_args!("stats"), None)
    }

    pub(crate) fn settings(self) -> Self {
        self.line(format_args!("stats settings"), None)
    }

    pub(crate) fn slabs(self) -> Self {
        self.line(format_args!("stats slabs"), None)
    }

    pub(crate) fn nothing(self) -> Self {
        self.line(format_args!("mn"), None)
    }
}

impl Reply {
    /// The value with its flags; `None`: there is no such key.
    pub(crate) fn value(self) -> Result<Option<(Vec<u8>, Flags)>> {
        match self {
            Reply::Value(value, flags) => Ok(Some((value, flags))),
            Reply::Missing => Ok(None),
            other => Err(other.unexpected()),
        }
    }

    /// Whether the key is there.
    pub(crate) fn found(self) -> Result<bool> {
        match self {
            Reply::Done(_) | Reply::Value(..) => Ok(true),
            Reply::Missing => Ok(false),
            other => Err(other.unexpected()),
        }
    }

    /// What the flags say where the key is there.
    pub(crate) fn flags(self) -> Result<Option<Flags>> {
        match self {
            Reply::Done(flags) | Reply::Value(_, flags) => Ok(Some(flags)),
            Reply::Missing => Ok(None),
            other => Err(other.unexpected()),
        }
    }

    /// Of a write that depends on what is there: whether it was done.
    pub(crate) fn was_done(self) -> Result<Option<Flags>> {
        match self {
            Reply::Done(flags) => Ok(Some(flags)),
            Reply::Missing | Reply::NotStored | Reply::Changed => Ok(None),
            other => Err(other.unexpected()),
        }
    }

    pub(crate) fn unexpected(self) -> tooz_core::Error {
        match self {
            Reply::Refused(said) => of_server(&said),
            other => strange(other),
        }
    }
}

/// Reads replies out of what comes, however it is cut.
#[derive(Default)]
pub(crate) struct Parser {
    bytes: Vec<u8>,
    /// Where the next line begins.
    at: usize,
    stats: Vec<(String, String)>,
}

impl Parser {
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        if self.at > 0 && self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        } else if self.at > 64 * 1024 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next reply that is there as a whole.
    pub(crate) fn next(&mut self) -> Result<Option<Reply>> {
        loop {
            let rest = &self.bytes[self.at..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
            let line = std::str::from_utf8(rest[..end].trim_ascii_end()).map_err(strange)?;
            let (word, fields) = line.split_once(' ').unwrap_or((line, ""));
            let mut length = end + 1;
            let reply = match word {
                "HD" => Reply::Done(flags(fields)?),
                "VA" => {
                    let (size, fields) = fields.split_once(' ').unwrap_or((fields, ""));
                    let size: usize = size.parse().map_err(|_| strange(line))?;
                    let Some(data) = rest.get(length..length + size + 2) else { return Ok(None) };
                    length += size + 2;
                    Reply::Value(data[..size].to_vec(), flags(fields)?)
                }
                "EN" | "NF" => Reply::Missing,
                "NS" => Reply::NotStored,
                "EX" => Reply::Changed,
                "MN" => Reply::Nothing,
                "STAT" => {
                    let (name, value) = fields.split_once(' ').unwrap_or((fields, ""));
                    self.stats.push((name.to_owned(), value.to_owned()));
                    self.at += length;
                    continue;
                }
                "END" => Reply::Stats(std::mem::take(&mut self.stats)),
                "ERROR" | "CLIENT_ERROR" | "SERVER_ERROR" => Reply::Refused(line.to_owned()),
                _ => return Err(strange(line)),
            };
            self.at += length;
            return Ok(Some(reply));
        }
    }
}

fn flags(fields: &str) -> Result<Flags> {
    let mut flags = Flags::default();
    for field in fields.split_ascii_whitespace() {
        let Some((name, value)) = field.split_at_checked(1) else { return Err(strange(field)) };
        let parsed = match name {
            "c" => value.parse().map(|cas| flags.cas = cas).is_ok(),
            "t" => value.parse().map(|left| flags.left = left).is_ok(),
            // `W`, `X`, `Z`: who should renew a value that is stale. It never is.
            _ => true,
        };
        if !parsed {
            return Err(strange(field));
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parser: &mut Parser) -> Vec<Reply> {
        std::iter::from_fn(|| parser.next().unwrap()).collect()
    }

    #[test]
    fn replies_are_read_however_they_are_cut() {
        let text = b"HD c12 t-1\r\nVA 5 c3\r\na\r\nb \r\nEN\r\nNS\r\nEX c0\r\nNF\r\nMN\r\nSTAT a 1\r\nSTAT b\r\nEND\r\nSERVER_ERROR no\r\n";
        let mut parser = Parser::default();
        let mut all = Vec::new();
        for byte in text {
            parser.take(&[*byte]);
            all.extend(read(&mut parser));
        }
        let mut at_once = Parser::default();
        at_once.take(text);
        assert_eq!(all, read(&mut at_once));
        assert_eq!(all[0], Reply::Done(Flags { cas: 12, left: -1 }));
        assert_eq!(all[1], Reply::Value(b"a\r\nb ".to_vec(), Flags { cas: 3, left: 0 }));
        let stats = vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())];
        assert_eq!(all[7], Reply::Stats(stats));
        assert_eq!(all.len(), 9);
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for text in ["VA x\r\n", "hello\r\n", "HD cx\r\n", "\r\n"] {
            let mut parser = Parser::default();
            parser.take(text.as_bytes());
            assert!(parser.next().is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in "((HD|VA|EN|STAT|END) ?[0-9ctx -]{0,6}\r?\n|\\PC{0,9}){0,8}") {
            let mut parser = Parser::default();
            parser.take(bytes.as_bytes());
            while let Ok(Some(_)) = parser.next() {}
        }
    }
}
