//! Whether heartbeats fail or are overdue just now, and by what.

use crate::base::error::Error;
use crate::base::mutex::Mutex;

/// Why the session is suspended, while it is.
#[derive(Debug, Default)]
pub(crate) struct Suspension(Mutex<Option<Error>>);

impl Suspension {
    /// A later error takes the place of an earlier one, since it is nearer to what a person can mend. Answers whether this one is the first.
    pub(crate) fn begin(&self, error: Error) -> bool {
        let before = self.0.lock().replace(error);
        before.is_none()
    }

    /// Answers whether there was one.
    pub(crate) fn end(&self) -> bool {
        let before = self.0.lock().take();
        before.is_some()
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.lock().is_some()
    }

    pub(crate) fn why(&self) -> Option<Error> {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;

    fn error(message: &str) -> Error {
        Error::new(ErrorKind::Unavailable, message)
    }

    #[test]
    fn it_begins_and_ends_once_and_says_what_was_met_last() {
        let suspension = Suspension::default();
        assert!(!suspension.is_on() && !suspension.end());
        assert!(suspension.begin(error("no answer")));
        assert!(!suspension.begin(error("connection refused")));
        assert_eq!(suspension.why(), Some(error("connection refused")));
        assert!(suspension.is_on() && suspension.end());
        assert!(!suspension.is_on() && suspension.why().is_none() && !suspension.end());
    }
}
