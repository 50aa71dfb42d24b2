//! Failures: each ends the command with an exit code and with words on stderr, or, with `--json`, with the same as JSON.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use tooz::Error;

use crate::exit;
use crate::speech::words::{in_words, plain};
use crate::speech::{self, Event, Loudness};

/// Why the command ends otherwise than well.
#[derive(Debug)]
pub(crate) struct CommandFailure {
    code: u8,
    kind: &'static str,
    driver: Option<&'static str>,
    /// Without one it ends quietly.
    message: Option<String>,
    /// Who hears of it.
    loudness: Loudness,
}

impl CommandFailure {
    fn new(code: u8, kind: &'static str, message: impl Into<String>) -> Self {
        CommandFailure { code, kind, driver: None, message: Some(message.into()), loudness: Loudness::Always }
    }

    /// Wrong usage, which no repetition mends.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        CommandFailure::new(exit::USAGE, "Usage", message)
    }

    /// What was asked for is not there.
    pub(crate) fn missing(message: impl Into<String>) -> Self {
        CommandFailure::new(exit::MISSING, "NotFound", message)
    }

    /// The lock was not to be had.
    pub(crate) fn not_acquired(code: u8, message: impl Into<String>) -> Self {
        CommandFailure::new(code, "NotAcquired", message)
    }

    /// What CMD ran under was lost.
    pub(crate) fn lost(message: impl Into<String>) -> Self {
        CommandFailure::new(exit::LOST, "Lost", message)
    }

    /// CMD could not be run.
    pub(crate) fn command(code: u8, message: impl Into<String>) -> Self {
        CommandFailure::new(code, "Command", message)
    }

    /// The doctor found something.
    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        CommandFailure::new(exit::WRONG, "Wrong", message)
    }

    /// What was asked for could not be written.
    pub(crate) fn output(message: impl Into<String>) -> Self {
        CommandFailure::new(exit::OUTPUT, "Output", message)
    }

    /// Another error of `tooz` itself.
    pub(crate) fn error(message: impl Into<String>) -> Self {
        CommandFailure::new(exit::ERROR, "Other", message)
    }

    /// An end that needs no words.
    pub(crate) fn quiet(code: u8) -> Self {
        CommandFailure { code, kind: "Quiet", driver: None, message: None, loudness: Loudness::Always }
    }

    /// No news for people: only a program that asked for events hears of it.
    pub(crate) fn for_programs(mut self) -> Self {
        self.loudness = Loudness::Programs;
        self
    }

    /// Puts what was being done in front of the message.
    pub(crate) fn context(mut self, doing: &str) -> Self {
        self.message = self.message.map(|message| format!("{doing}: {message}"));
        self
    }

    /// Says the reason and answers the code.
    pub(crate) fn report(self) -> u8 {
        if let Some(message) = self.message {
            let event = Event::new("error", message.clone()).loudness(self.loudness);
            let event = event.with("kind", self.kind).with("message", message);
            speech::tell(&event.with("driver", self.driver).with("exit_code", self.code));
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

impl From<Error> for CommandFailure {
    fn from(error: Error) -> Self {
        let failure = CommandFailure::new(exit::of_kind(error.kind()), error.kind().name(), in_words(&error));
        CommandFailure { driver: error.driver(), ..failure }
    }
}

/// For output: a reader that went away (`tooz members g | head -1`) is no error.
impl From<io::Error> for CommandFailure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CommandFailure::quiet(exit::SUCCESS),
            _ => CommandFailure::output(format!("writing the output: {}", plain(&error.to_string()))),
        }
    }
}
