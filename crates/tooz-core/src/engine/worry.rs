//! One thing that is kept up, and its complaint: told by `events()` when it fails, taken back when it works again.

use std::sync::Arc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::session_event::SessionEvent;
use crate::engine::inner::{Inner, Retry};
use crate::engine::live_session::LiveSession;
use crate::engine::phase::Need;
use crate::engine::troubles::Trouble;

/// How often in a row what may pass by itself is no trouble yet, with the pauses in between about half a second.
const PASSING: u32 = 4;

/// The complaint of one task that keeps something up. A drop takes the complaint back.
pub(crate) struct Worry {
    inner: Arc<Inner>,
    number: u64,
    /// What is kept up, in words.
    doing: String,
    in_a_row: u32,
    is_told: bool,
}

impl Worry {
    pub(crate) fn new(inner: &Arc<Inner>, doing: impl Into<String>) -> Self {
        Worry {
            number: inner.troubles.new_worry(),
            inner: Arc::clone(inner),
            doing: doing.into(),
            in_a_row: 0,
            is_told: false,
        }
    }

    /// An attempt failed, and there will be another. What may pass by itself is told when it comes several times in a row from a backend that
    /// answers heartbeats: that it can't be reached is what the session's own events tell.
    pub(crate) fn about(&mut self, error: &Error) {
        // The end of a session is told as such.
        if matches!(error.kind(), ErrorKind::Lost | ErrorKind::Closed) {
            return;
        }
        self.in_a_row += 1;
        let may_pass = error.is_retryable() && (self.in_a_row < PASSING || self.inner.is_out_of_reach());
        if !may_pass || self.is_told {
            self.say(error);
        }
    }

    /// Tells at once of an attempt that failed, whatever it failed by.
    pub(crate) fn say(&mut self, error: &Error) {
        self.is_told = true;
        let cause = error.clone().in_driver(self.inner.driver.name());
        let shown = cause.clone().context(&self.doing);
        if self.inner.troubles.add(self.number, Trouble { cause, shown: shown.clone() }) {
            self.inner.telemetry.troubled(&shown);
            self.inner.tell(&SessionEvent::Troubled(shown));
        }
    }

    /// A living session for what has stood before: a refusal is told, and waited out. Only the close is an error.
    pub(crate) async fn session_kept(&mut self, need: Need) -> Result<Arc<LiveSession>> {
        let inner = Arc::clone(&self.inner);
        loop {
            match inner.session(need, Retry::UntilRefused).await {
                // The next attempt comes after a pause already.
                Err(error) if error.kind() != ErrorKind::Closed => self.about(&error),
                session => return session,
            }
        }
    }

    /// A living session for a watch. One that begins fails with the first error; one that has stood waits for a session.
    pub(crate) async fn session_for_watch(&mut self, is_first: bool) -> Result<Arc<LiveSession>> {
        if is_first {
            self.inner.session(Need::Reading, Retry::Never).await
        } else {
            self.session_kept(Need::Reading).await
        }
    }

    /// It works again.
    pub(crate) fn is_over(&mut self) {
        self.in_a_row = 0;
        let was_told = std::mem::take(&mut self.is_told);
        if was_told && self.inner.troubles.remove(self.number) && !*self.inner.closing.borrow() {
            self.inner.tell(&SessionEvent::Recovered);
        }
    }
}

impl Drop for Worry {
    fn drop(&mut self) {
        self.is_over();
    }
}
