//! The errors of this driver. No client library stands behind it, so they are made here and not translated.

use tooz_core::{Error, ErrorKind, Outcome};

/// The session is not among the living.
pub(crate) fn lost() -> Error {
    Error::new(ErrorKind::Lost, "the session has ended")
}

/// The member is cut off by a test.
pub(crate) fn cut_off() -> Error {
    Error::new(ErrorKind::Unavailable, "this member is cut off from the store").with_outcome(Outcome::NotApplied)
}

/// The operation was done, but its reply was lost by a test.
pub(crate) fn reply_lost() -> Error {
    Error::new(ErrorKind::TimedOut, "the reply was lost")
}

/// It arrives after it was taken back.
pub(crate) fn taken_back() -> Error {
    Error::new(ErrorKind::Backend, "this request was taken back before it arrived")
}
