//! The one error of the library: a kind for each decision that a caller can take, and words that tell what to do.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, sorted by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URL, an option or a name is wrong: mend it, retrying does not help.
    Config,
    /// The backend can't be reached or can't serve now: try again later.
    Unavailable,
    /// The backend did not answer in time; see [`Error::outcome`].
    TimedOut,
    /// The backend refuses the credentials or lacks a permission.
    Unauthorized,
    /// What the call was about is no longer held: the session, the lock or the leadership is gone.
    Lost,
    /// It is there already: a group, or a living member with the same id.
    AlreadyExists,
    /// There is no such group, member or grant.
    NotFound,
    /// Only a member may do this.
    NotMember,
    /// A group that still has members can't be deleted.
    NotEmpty,
    /// This backend can't do it; its characteristics say so.
    Unsupported,
    /// The coordinator was closed.
    Closed,
    /// The backend answered something that this driver does not understand.
    Backend,
}

impl ErrorKind {
    /// The name as it stands in messages and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorKind::Config => "Config",
            ErrorKind::Unavailable => "Unavailable",
            ErrorKind::TimedOut => "TimedOut",
            ErrorKind::Unauthorized => "Unauthorized",
            ErrorKind::Lost => "Lost",
            ErrorKind::AlreadyExists => "AlreadyExists",
            ErrorKind::NotFound => "NotFound",
            ErrorKind::NotMember => "NotMember",
            ErrorKind::NotEmpty => "NotEmpty",
            ErrorKind::Unsupported => "Unsupported",
            ErrorKind::Closed => "Closed",
            ErrorKind::Backend => "Backend",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Whether the request that failed has taken effect at the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It has not, and will not.
    NotApplied,
    /// It has: only what came after it failed.
    Applied,
    /// This is not known, and the request may still take effect later. The library withdraws such requests by itself.
    Unknown,
}

/// The error of every fallible call.
///
/// Its message says which driver, what was asked, and what to do; it never holds a password. A clone is the same error, for several
/// callers that failed for one reason; two errors are equal when they say the same.
#[derive(Clone)]
pub struct Error(Box<ErrorInner>);

#[derive(Clone)]
struct ErrorInner {
    kind: ErrorKind,
    outcome: Outcome,
    driver: Option<&'static str>,
    message: String,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    /// The driver did not answer this, it panicked.
    is_panic: bool,
}

impl Error {
    /// An error with a message that says what was asked and what to do.
    ///
    /// The outcome is taken to be `Unknown` for `TimedOut` and `Unavailable`, else `NotApplied`; drivers that know better say so.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let outcome = match kind {
            ErrorKind::TimedOut | ErrorKind::Unavailable => Outcome::Unknown,
            _ => Outcome::NotApplied,
        };
        Error(Box::new(ErrorInner {
            kind,
            outcome,
            driver: None,
            message: message.into(),
            retry_after: None,
            source: None,
            is_panic: false,
        }))
    }

    /// Shorthand for the commonest kind: the URL, an option or a name is wrong.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// The answer of a driver to what its backend can't do.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::Unsupported,
            format!("{what} is not supported by this backend; its characteristics say so"),
        )
    }

    /// The answer in the place of a driver that panicked: how far it had come is not known.
    pub(crate) fn panicked(message: impl fmt::Display) -> Self {
        let mut error = Self::new(ErrorKind::Backend, format!("the driver panicked: {message}"));
        error.0.is_panic = true;
        error.with_outcome(Outcome::Unknown)
    }

    /// Only core knows whether the coordinator is closed: if other code says so, such as a function for credentials that asks another
    /// coordinator, that word has no meaning here.
    pub(crate) fn not_of_core(mut self) -> Self {
        if self.0.kind == ErrorKind::Closed {
            self.0.kind = ErrorKind::Backend;
        }
        self
    }

    /// What is answered once there is no heart any more.
    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the coordinator is closed, or belongs to another process; connect a new one")
    }

    pub(crate) fn is_panic(&self) -> bool {
        self.0.is_panic
    }

    /// Names the driver, unless one is named already. Core calls this for every error that leaves a driver.
    pub fn in_driver(mut self, driver: &'static str) -> Self {
        self.0.driver.get_or_insert(driver);
        self
    }

    /// Says whether the request took effect.
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.0.outcome = outcome;
        self
    }

    /// Says when trying again can help.
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Keeps the error that caused this one.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Puts what was being done in front of the message.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message);
        self
    }

    /// The message without the driver.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// What to decide upon.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the request that failed has taken effect.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The driver that answered, if one did.
    pub fn driver(&self) -> Option<&'static str> {
        self.0.driver
    }

    /// With `AlreadyExists` of a join: when the other member's session has ended at the latest.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Errors that end a first call: only the user can mend them. What has stood before is kept up all the same.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Config | ErrorKind::Unauthorized | ErrorKind::Unsupported | ErrorKind::Closed)
    }

    /// Whether the same call may succeed later without a repair by a person: `Unavailable`, `TimedOut`, and
    /// whatever carries a [`retry_after`](Self::retry_after).
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::TimedOut) || self.0.retry_after.is_some()
    }
}

impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        let words = |error: &Self| (error.0.kind, error.0.outcome, error.0.driver, error.0.retry_after);
        words(self) == words(other) && self.0.message == other.0.message
    }
}

impl Eq for Error {}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(driver) = self.0.driver {
            write!(formatter, "{driver}: ")?;
        }
        formatter.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Error");
        debug.field("kind", &self.0.kind);
        if let Some(driver) = self.0.driver {
            debug.field("driver", &driver);
        }
        debug.field("message", &self.0.message).field("outcome", &self.0.outcome);
        if let Some(after) = self.0.retry_after {
            debug.field("retry_after", &after);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// So that a name that is valid already can be given where one is parsed.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_its_driver_once_and_keeps_its_source() {
        let error = Error::new(ErrorKind::Unavailable, "no answer")
            .with_source("connection refused")
            .in_driver("redis")
            .in_driver("etcd");
        assert_eq!(error.to_string(), "redis: no answer");
        assert!(error.is_retryable());
        assert_eq!(error.source().unwrap().to_string(), "connection refused");
        assert_eq!(error.clone().source().unwrap().to_string(), "connection refused");
        assert_eq!(error.clone(), error);
    }
}
