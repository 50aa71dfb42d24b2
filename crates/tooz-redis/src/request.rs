//! Requests as they go out: one command or several, in one sending.

use std::io::Write as _;

/// A word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    Word(&'static str),
    Text(String),
    Number(i64),
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Argument::Text(text.to_owned())
    }
}

impl From<String> for Argument {
    fn from(text: String) -> Self {
        Argument::Text(text)
    }
}

/// As the server reads numbers.
pub(crate) fn number(number: u64) -> Argument {
    Argument::Number(i64::try_from(number).unwrap_or(i64::MAX))
}

/// What is answered to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// One value for each command.
    Replies(usize),
    /// A push for each channel, which is how servers answer in RESP3 to what changes the channels that are heard.
    Pushes(usize),
}

/// What is sent in one piece.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    pub(crate) awaited: Awaited,
}

impl Request {
    pub(crate) fn empty() -> Self {
        Request { bytes: Vec::with_capacity(512), awaited: Awaited::Replies(0) }
    }

    /// A request of one command.
    pub(crate) fn of(name: &str, arguments: &[Argument]) -> Self {
        let mut request = Self::empty();
        request.add(name, arguments);
        request
    }

    /// One that changes which channels are heard.
    pub(crate) fn of_channels(name: &str, channels: &[String]) -> Self {
        let mut request = Request { bytes: Vec::with_capacity(256), awaited: Awaited::Pushes(channels.len()) };
        request.begin(channels.len() + 1);
        request.word(name);
        for channel in channels {
            request.word(channel);
        }
        request
    }

    /// A command that is written as one types it.
    pub(crate) fn of_line(line: &str) -> Self {
        Request { bytes: format!("{line}\r\n").into_bytes(), awaited: Awaited::Replies(1) }
    }

    /// One more command behind it.
    pub(crate) fn add(&mut self, name: &str, arguments: &[Argument]) {
        self.add_command(&[name], arguments);
    }

    /// The same for a command that begins with several words.
    pub(crate) fn add_command(&mut self, first: &[&str], arguments: &[Argument]) {
        if let Awaited::Replies(commands) = &mut self.awaited {
            *commands += 1;
        }
        self.begin(first.len() + arguments.len());
        for word in first {
            self.word(word);
        }
        for argument in arguments {
            match argument {
                Argument::Word(word) => self.word(word),
                Argument::Text(text) => self.word(text),
                Argument::Number(number) => self.number(*number),
            }
        }
    }

    fn begin(&mut self, words: usize) {
        // Writing to memory never fails.
        let _ = write!(self.bytes, "*{words}\r\n");
    }

    fn word(&mut self, word: &str) {
        let _ = write!(self.bytes, "${}\r\n", word.len());
        self.bytes.extend_from_slice(word.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn number(&mut self, number: i64) {
        let mut digits = [0; 20];
        let mut left = &mut digits[..];
        let _ = write!(left, "{number}");
        let length = 20 - left.len();
        let _ = write!(self.bytes, "${length}\r\n");
        self.bytes.extend_from_slice(&digits[..length]);
        self.bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::value::{Parser, Value};

    /// A request is a value like any other.
    fn read_back(request: &Request) -> Vec<Value> {
        let mut parser = Parser::default();
        parser.room().extend_from_slice(&request.bytes);
        std::iter::from_fn(|| parser.next().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn a_request_reads_back_the_same(texts in prop::collection::vec("\\PC{0,9}|[\r\n*$]{0,5}", 0..5), number: i64, count: u64) {
            let mut arguments: Vec<Argument> = texts.iter().map(|text| text.as_str().into()).collect();
            arguments.extend([Argument::Word("word"), Argument::Number(number), super::number(count)]);
            let mut request = Request::of("NAME", &arguments);
            request.add_command(&["CONFIG", "GET"], &[]);
            let mut words = vec!["NAME".to_owned()];
            words.extend(texts);
            words.extend(["word".to_owned(), number.to_string(), count.min(i64::MAX.unsigned_abs()).to_string()]);
            let array = |words: Vec<String>| Value::Array(words.into_iter().map(Value::Text).collect());
            let second = array(vec!["CONFIG".to_owned(), "GET".to_owned()]);
            prop_assert_eq!(read_back(&request), vec![array(words), second]);
            prop_assert_eq!(request.awaited, Awaited::Replies(2));
        }
    }

    #[test]
    fn channels_are_answered_one_by_one() {
        let request = Request::of_channels("SUBSCRIBE", &["a".to_owned(), "b".to_owned()]);
        assert_eq!(request.bytes, b"*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n$1\r\nb\r\n");
        assert_eq!(request.awaited, Awaited::Pushes(2));
    }
}
