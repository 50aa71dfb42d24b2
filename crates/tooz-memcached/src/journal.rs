//! Journals: what stands in a record, one entry a line, in the order in which the server took the entries.
//!
//! A record is only ever appended to, or replaced by a shorter text that means the same, where nothing was appended meanwhile. What it means
//! depends on the text alone, so that all clients agree; all safety rests on that. An entry that has no effect where it stands has none for ever.

pub(crate) mod group;
pub(crate) mod groups;
pub(crate) mod lock;

use std::fmt;
use std::str::FromStr;

use tooz_core::Result;

use crate::error::strange;

/// Names have no control characters, and capabilities none that JSON has between its parts alone, so none of them holds what parts the fields of an
/// entry or the entries.
pub(crate) const BETWEEN: char = '\t';

/// A journal that is longer than this, in bytes, and mostly over, is written anew.
pub(crate) const LONG: usize = 2048;

/// The id of a session: made once, and never made again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) u64);

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for SessionId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(SessionId)
    }
}

/// How what a request has made came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Given back, withdrawn, or left.
    Given,
    /// Taken away: broken, or taken over.
    Taken,
    /// Its session was seen to be gone.
    Died,
}

/// The fields of each line.
pub(crate) fn entries(text: &[u8]) -> Result<impl Iterator<Item = Fields<'_>>> {
    let text = std::str::from_utf8(text).map_err(strange)?;
    Ok(text.lines().map(|line| Fields { line, left: line.split(BETWEEN) }))
}

/// The fields of one entry, one after the other.
pub(crate) struct Fields<'a> {
    line: &'a str,
    left: std::str::Split<'a, char>,
}

impl<'a> Fields<'a> {
    /// The next one as it stands.
    pub(crate) fn text(&mut self) -> Result<&'a str> {
        self.left.next().ok_or_else(|| strange(self.line))
    }

    /// The next one, read.
    pub(crate) fn read<T: FromStr>(&mut self) -> Result<T> {
        self.text()?.parse().map_err(|_| strange(self.line))
    }

    /// The error of an entry that can't be read. (A later version writes under another layout.)
    pub(crate) fn strange<T>(&self) -> Result<T> {
        Err(strange(self.line))
    }
}

/// An entry that says that a session was seen to be gone. It is the same in all journals.
pub(crate) fn dead(session: SessionId) -> String {
    format!("X{BETWEEN}{session}\n")
}
