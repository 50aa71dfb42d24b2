//! Exit codes, and the failures that end the command with one of them and a line on stderr.

use std::fmt::Display;
use std::io::{self, Write};

use tooz::{Error, ErrorKind};

/// All went well.
pub(crate) const SUCCESS: u8 = 0;
/// The doctor found something wrong.
pub(crate) const WRONG: u8 = 1;
/// The lock was not to be had.
pub(crate) const NOT_ACQUIRED: u8 = 75;
/// What CMD ran under was lost, and CMD was stopped.
pub(crate) const LOST: u8 = 76;
/// Any error of `tooz` itself, usage included.
pub(crate) const ERROR: u8 = 125;
/// CMD was found but can't be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// CMD was not found.
pub(crate) const NOT_FOUND: u8 = 127;

/// The code for an end by that signal.
pub(crate) fn by_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(ERROR)
}

/// Why the command ends otherwise than well.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Without one it ends quietly.
    message: Option<String>,
}

impl Failure {
    /// An end with that code and reason.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Failure { code, message: Some(message.into()) }
    }

    /// An error of `tooz` itself.
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Failure::new(ERROR, message)
    }

    /// An end that needs no words.
    pub(crate) fn quiet(code: u8) -> Self {
        Failure { code, message: None }
    }

    /// Says the reason on stderr and answers the code.
    pub(crate) fn report(self) -> u8 {
        if let Some(message) = self.message {
            say(message);
        }
        self.code
    }
}

/// One line on stderr. Whoever closed stderr does not want to know.
pub(crate) fn say(message: impl Display) {
    let line = format!("tooz: {message}\n").replace('\n', " ");
    let _ = writeln!(io::stderr(), "{}", line.trim_end());
}

/// An error with its causes. The last one is the one that says "permission denied"; each is added unless the message has it already.
pub(crate) fn in_words(error: &Error) -> String {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        source = cause.source();
    }
    message
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = if error.kind() == ErrorKind::Lost { LOST } else { ERROR };
        Failure::new(code, in_words(&error))
    }
}

/// For output: a reader that went away (`tooz members g | head -1`) is no error.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::quiet(SUCCESS),
            _ => Failure::error(format!("writing the output: {error}")),
        }
    }
}
