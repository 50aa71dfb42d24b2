//! Exit codes, and the failures that end the command with one of them and a line on stderr.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

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
pub(crate) struct CommandFailure {
    code: u8,
    /// Without one it ends quietly.
    message: Option<String>,
}

impl CommandFailure {
    /// An end with that code and reason.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        CommandFailure { code, message: Some(message.into()) }
    }

    /// An error of `tooz` itself.
    pub(crate) fn error(message: impl Into<String>) -> Self {
        CommandFailure::new(ERROR, message)
    }

    /// An end that needs no words.
    pub(crate) fn quiet(code: u8) -> Self {
        CommandFailure { code, message: None }
    }

    /// Says the reason on stderr and answers the code.
    pub(crate) fn report(self) -> u8 {
        if let Some(message) = self.message {
            say(message);
        }
        self.code
    }
}

/// Set when something could not be given back in time.
static HURRIED: AtomicBool = AtomicBool::new(false);

/// The remaining work is not waited for as long as usual.
pub(crate) fn hurry() {
    HURRIED.store(true, Ordering::Relaxed);
}

pub(crate) fn is_hurried() -> bool {
    HURRIED.load(Ordering::Relaxed)
}

/// One line on stderr. A caller that closed stderr does not want to know.
pub(crate) fn say(message: impl Display) {
    let _ = writeln!(io::stderr(), "{}", on_one_line(&format!("tooz: {message}")));
}

/// The longest line, in characters: what a server says of itself may be a page.
const LONGEST: usize = 2_000;

/// The words of a server or a file go to a terminal, which obeys some characters.
fn on_one_line(text: &str) -> String {
    let mut line = String::new();
    for (count, character) in text.trim_end().chars().enumerate() {
        match character {
            _ if count == LONGEST => {
                line.push('…');
                break;
            }
            '\n' => line.push(' '),
            control if control.is_control() => line.extend(control.escape_default()),
            other => line.push(other),
        }
    }
    line
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

impl From<Error> for CommandFailure {
    fn from(error: Error) -> Self {
        let code = if error.kind() == ErrorKind::Lost { LOST } else { ERROR };
        CommandFailure::new(code, in_words(&error))
    }
}

/// For output: a reader that went away (`tooz members g | head -1`) is no error.
impl From<io::Error> for CommandFailure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CommandFailure::quiet(SUCCESS),
            _ => CommandFailure::error(format!("writing the output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_told_what_to_do_by_a_server() {
        assert_eq!(on_one_line("a\nb\u{1b}[2J\u{7}\n"), "a b\\u{1b}[2J\\u{7}");
        assert_eq!(on_one_line(&"x".repeat(3_000)).chars().count(), LONGEST + 1);
    }
}
