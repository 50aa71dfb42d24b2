//! What the server sends, one value after another: read by the codec, once a value is there as a whole and known to be no burden.

use redis_protocol::resp3::decode::complete::decode_range;
use redis_protocol::resp3::types::RangeFrame;
use tooz_core::Result;

use crate::error::garbled;

/// The longest value, in bytes. The longest answer of a script has about a million (`members.lua`).
const LONGEST: usize = 64 * 1024 * 1024;

/// Of how many parts a value is at most, those of its parts counted. Each takes a hundred times the memory of its shortest form.
const MOST_PARTS: usize = 1 << 18;

/// How deep values stand in each other: the codec goes into itself for each. What is asked here is answered in four levels at most.
const DEEPEST: usize = 32;

/// The longest line, in bytes: a number, a length, or an error with its words.
const LONGEST_LINE: usize = 64 * 1024;

/// What values begin with: those of one line, those with a length, and those with parts.
const KINDS: &[u8] = b"+-:,#_($!=*~>%|";

/// How much room there is for what comes next, and how much is kept when a long value has gone.
const ROOM: usize = 16 * 1024;
const MOST_KEPT: usize = 1024 * 1024;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Double(f64),
    Text(String),
    /// What is no text in UTF-8.
    Bytes(Vec<u8>),
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// The server says no.
    Error(String),
    /// What comes by itself.
    Push(Vec<Value>),
}

impl Value {
    /// As text, if it is one or can be written as one.
    pub(crate) fn as_string(&self) -> Option<String> {
        match self {
            Value::Boolean(value) => Some(value.to_string()),
            Value::Integer(value) => Some(value.to_string()),
            Value::Double(value) => Some(value.to_string()),
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(bytes.to_vec()),
        }
    }

    /// What the codec has found in those bytes. `None`: what it finds nowhere, or nothing that a server sends.
    fn of_frame(frame: &RangeFrame, bytes: &[u8]) -> Option<Self> {
        let part = |(begin, end): (usize, usize)| bytes.get(begin..end);
        let all =
            |frames: &[RangeFrame]| frames.iter().map(|frame| Self::of_frame(frame, bytes)).collect::<Option<_>>();
        Some(match frame {
            RangeFrame::Null => Value::Null,
            RangeFrame::Boolean { data, .. } => Value::Boolean(*data),
            RangeFrame::Number { data, .. } => Value::Integer(*data),
            RangeFrame::Double { data, .. } => Value::Double(*data),
            RangeFrame::SimpleString { data, .. }
            | RangeFrame::BlobString { data, .. }
            | RangeFrame::BigNumber { data, .. }
            | RangeFrame::VerbatimString { data, .. } => Self::of_bytes(part(*data)?),
            RangeFrame::SimpleError { data, .. } | RangeFrame::BlobError { data, .. } => {
                Value::Error(String::from_utf8_lossy(part(*data)?).into_owned())
            }
            RangeFrame::Array { data, .. } => Value::Array(all(data)?),
            RangeFrame::Push { data, .. } => Value::Push(all(data)?),
            RangeFrame::Set { data, .. } => {
                Value::Array(data.iter().map(|frame| Self::of_frame(frame, bytes)).collect::<Option<_>>()?)
            }
            RangeFrame::Map { data, .. } => {
                let pairs =
                    data.iter().map(|(key, value)| Some((Self::of_frame(key, bytes)?, Self::of_frame(value, bytes)?)));
                Value::Map(pairs.collect::<Option<_>>()?)
            }
            RangeFrame::Hello { .. } | RangeFrame::ChunkedString(_) => return None,
        })
    }
}

/// Takes bytes as they come, and gives values as they are whole.
#[derive(Default)]
pub(crate) struct Parser {
    bytes: Vec<u8>,
    /// Where the value begins that comes next.
    begin: usize,
    measure: Measure,
}

impl Parser {
    /// Where to put what comes next, behind what is there.
    pub(crate) fn room(&mut self) -> &mut Vec<u8> {
        if self.begin == self.bytes.len() {
            self.bytes.clear();
            if self.bytes.capacity() > MOST_KEPT {
                self.bytes = Vec::new();
            }
        } else {
            self.bytes.drain(..self.begin);
        }
        self.begin = 0;
        self.bytes.reserve(ROOM);
        &mut self.bytes
    }

    /// The next value, if it is there as a whole. After an error nothing more can be read.
    pub(crate) fn next(&mut self) -> Result<Option<Value>> {
        let bytes = &self.bytes[self.begin..];
        let Some(length) = self.measure.go_on(bytes)? else { return Ok(None) };
        self.measure = Measure::default();
        self.begin += length;
        let whole = &bytes[..length];
        let frame = decode_range(whole).map_err(garbled)?;
        let value = frame.filter(|(_, read)| *read == length).and_then(|(frame, _)| Value::of_frame(&frame, whole));
        value.map(Some).ok_or_else(|| garbled("a value that ends somewhere else than it says"))
    }
}

/// How far a value is known, before the codec reads it. The codec begins anew with each piece that comes, and goes into itself without an end.
#[derive(Default)]
struct Measure {
    /// Everything before it belongs to the value.
    at: usize,
    /// How many parts are missing at each level.
    open: Vec<usize>,
    parts: usize,
}

impl Measure {
    /// Looks at what is new; answers the length of the value as soon as it is whole.
    fn go_on(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        while let Some(kind) = bytes.get(self.at) {
            // Before a line is waited for that may never end.
            if !KINDS.contains(kind) {
                return Err(garbled(format_args!("a value that begins with byte {kind}")));
            }
            let Some(line) = line_of(&bytes[self.at + 1..])? else { return Ok(None) };
            let behind = self.at + 1 + line.len() + 2;
            match kind {
                b'$' | b'!' | b'=' => {
                    let end = behind.saturating_add(length_of(line)?).saturating_add(2);
                    if end > LONGEST {
                        return Err(garbled(format_args!("a value of more than {LONGEST} bytes")));
                    }
                    if bytes.len() < end {
                        return Ok(None);
                    }
                    self.at = end;
                }
                b'*' | b'~' | b'>' | b'%' | b'|' => {
                    let times = if matches!(kind, b'%' | b'|') { 2 } else { 1 };
                    // What is told of a value stands before it.
                    let behind_it = usize::from(*kind == b'|');
                    let parts = length_of(line)?.saturating_mul(times).saturating_add(behind_it);
                    self.at = behind;
                    if parts > 0 {
                        self.open(parts)?;
                        continue;
                    }
                }
                _ => self.at = behind,
            }
            if self.is_whole() {
                return Ok(Some(self.at));
            }
        }
        if self.at > LONGEST { Err(garbled(format_args!("a value of more than {LONGEST} bytes"))) } else { Ok(None) }
    }

    fn open(&mut self, parts: usize) -> Result<()> {
        self.parts = self.parts.saturating_add(parts);
        if self.parts > MOST_PARTS {
            return Err(garbled(format_args!("a value of more than {MOST_PARTS} parts")));
        }
        if self.open.len() == DEEPEST {
            return Err(garbled(format_args!("a value of more than {DEEPEST} levels")));
        }
        self.open.push(parts);
        Ok(())
    }

    /// One part has come to its end, and those that end with it.
    fn is_whole(&mut self) -> bool {
        while let Some(missing) = self.open.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

/// What stands before the next end of a line; `None`: that has not come yet.
fn line_of(bytes: &[u8]) -> Result<Option<&[u8]>> {
    let near = &bytes[..bytes.len().min(LONGEST_LINE)];
    match near.windows(2).position(|end| end == b"\r\n") {
        Some(length) => Ok(Some(&near[..length])),
        None if near.len() == LONGEST_LINE => Err(garbled(format_args!("a line of more than {LONGEST_LINE} bytes"))),
        None => Ok(None),
    }
}

fn length_of(line: &[u8]) -> Result<usize> {
    let length = std::str::from_utf8(line).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    length.and_then(|text| text.parse().ok()).ok_or_else(|| garbled("a length that is no number"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tooz_core::ErrorKind;

    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// Everything that can be read of that, given in pieces of that size.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<Value>> {
        let (mut parser, mut values) = (Parser::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            parser.room().extend_from_slice(piece);
            while let Some(value) = parser.next()? {
                values.push(value);
            }
        }
        Ok(values)
    }

    fn refused(bytes: &[u8]) -> String {
        let error = read(bytes, 4096).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backend);
        error.to_string()
    }

    #[test]
    fn each_kind_of_value_is_read_in_whatever_pieces_it_comes() {
        let bytes = b"+OK\r\n-NOPERM no\r\n:-7\r\n,1.5\r\n#t\r\n_\r\n(12345678901234567890\r\n$3\r\na\r\n\r\n$0\r\n\r\n$1\r\n\xff\r\n\
            =6\r\ntxt:hi\r\n!5\r\nERR x\r\n*2\r\n:1\r\n*0\r\n~1\r\n+a\r\n%1\r\n+k\r\n:2\r\n>2\r\n+message\r\n*1\r\n+x\r\n|1\r\n+why\r\n+so\r\n:3\r\n";
        let expected = [
            text("OK"),
            Value::Error("NOPERM no".to_owned()),
            Value::Integer(-7),
            Value::Double(1.5),
            Value::Boolean(true),
            Value::Null,
            text("12345678901234567890"),
            text("a\r\n"),
            text(""),
            Value::Bytes(vec![0xff]),
            text("hi"),
            Value::Error("ERR x".to_owned()),
            Value::Array(vec![Value::Integer(1), Value::Array(Vec::new())]),
            Value::Array(vec![text("a")]),
            Value::Map(vec![(text("k"), Value::Integer(2))]),
            Value::Push(vec![text("message"), Value::Array(vec![text("x")])]),
            Value::Integer(3),
        ];
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(read(bytes, piece).unwrap(), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_would_be_a_burden_is_refused_before_it_is_there() {
        assert!(refused(&b"*1\r\n".repeat(100_000)).contains("levels"));
        assert!(refused(&b">1\r\n%1\r\n+k\r\n".repeat(100_000)).contains("levels"));
        assert!(refused(b"$999999999\r\n").contains("bytes"));
        assert!(refused(b"$18446744073709551615\r\n").contains("bytes"));
        assert!(refused(b"*999999999\r\n").contains("parts"));
        assert!(refused(b"%18446744073709551615\r\n").contains("parts"));
        assert!(refused(&b"*100000\r\n".repeat(3)).contains("parts"));
        assert!(refused(&b"+".repeat(LONGEST_LINE + 1)).contains("line"));
    }

    #[test]
    fn what_no_server_says_is_refused() {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"*-1\r\n",
            b"$-1\r\n",
            b"$?\r\n",
            b"$+1\r\n",
            b";1\r\n",
            b"\r\n\r\n",
        ] {
            refused(bytes);
        }
        for bytes in [&b":x\r\n"[..], b"#x\r\n", b",x\r\n", b"=3\r\ntxt\r\n", b"%1\r\n*1\r\n:1\r\n:2\r\n"] {
            refused(bytes);
        }
    }

    #[test]
    fn a_long_value_leaves_no_room_behind() {
        let mut parser = Parser::default();
        let long = vec![b'x'; 8 * MOST_KEPT];
        parser.room().extend_from_slice(format!("${}\r\n", long.len()).as_bytes());
        for piece in long.chunks(ROOM) {
            assert!(parser.next().unwrap().is_none());
            parser.room().extend_from_slice(piece);
        }
        parser.room().extend_from_slice(b"\r\n+OK\r\n");
        assert_eq!(parser.next().unwrap(), Some(Value::Text(String::from_utf8(long).unwrap())));
        assert_eq!(parser.next().unwrap(), Some(text("OK")));
        assert!(parser.room().capacity() < MOST_KEPT);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_pieces_make_no_difference(
            bytes in "([*$>!=][0-9]{1,2}\r\n|[%~|][01]\r\n|[+:,#_(-][a-z0-9]{0,3}\r\n|[a-z]{1,4}\r\n){0,12}",
            piece in 1..9_usize,
        ) {
            let whole = read(bytes.as_bytes(), 10_000).map_err(|error| error.to_string());
            let pieces = read(bytes.as_bytes(), piece).map_err(|error| error.to_string());
            prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }

        #[test]
        fn bytes_of_any_kind_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&bytes, 5);
        }
    }
}
