//! What goes wrong again and again while tooz keeps it up: told once by `events()`, shown by `state()` until it is mended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::events::SessionEvent;
use crate::inner::Inner;
use crate::{Error, ErrorKind};

/// How often in a row what may pass by itself is no trouble yet, with the pauses in between about half a second.
const PASSING: u32 = 4;

/// The present troubles of a coordinator, by who has them.
#[derive(Default)]
pub(crate) struct Troubles(Mutex<Present>);

#[derive(Default)]
struct Present {
    by_worry: BTreeMap<u64, Told>,
    /// Whose trouble is the latest word.
    latest: Option<u64>,
    numbers: u64,
}

struct Told {
    /// Without what was being done: a hundred tasks that fail for one reason are one trouble.
    cause: Error,
    shown: Error,
}

/// What one task that keeps something up has to complain of. Dropping it takes the complaint back.
pub(crate) struct Worry {
    inner: Arc<Inner>,
    number: u64,
    /// What is kept up, in words.
    doing: String,
    in_a_row: u32,
    is_told: bool,
}

impl Troubles {
    fn present(&self) -> MutexGuard<'_, Present> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest word.
    pub(crate) fn latest(&self) -> Option<Error> {
        let present = self.present();
        let latest = present.latest.and_then(|number| present.by_worry.get(&number));
        latest.or_else(|| present.by_worry.values().next_back()).map(|told| told.shown.clone())
    }

    fn new_worry(&self) -> u64 {
        let mut present = self.present();
        present.numbers += 1;
        present.numbers
    }

    /// Answers whether nobody has said that before.
    fn add(&self, number: u64, told: Told) -> bool {
        let mut present = self.present();
        // Whoever fails again in the same way may say it in other words, such as with another port.
        let said_before = present.by_worry.get(&number).is_some_and(|before| before.cause.kind() == told.cause.kind());
        let is_new = !said_before && !present.by_worry.values().any(|other| other.cause == told.cause);
        let before = present.by_worry.insert(number, told);
        present.latest = Some(number);
        drop(present);
        drop(before);
        is_new
    }

    /// Answers whether that was the last.
    fn remove(&self, number: u64) -> bool {
        let mut present = self.present();
        let removed = present.by_worry.remove(&number);
        let is_last = removed.is_some() && present.by_worry.is_empty();
        drop(present);
        drop(removed);
        is_last
    }
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

    /// The same, told at once.
    pub(crate) fn say(&mut self, error: &Error) {
        self.is_told = true;
        let cause = error.clone().in_driver(self.inner.driver.name());
        let shown = cause.clone().context(&self.doing);
        if self.inner.troubles.add(self.number, Told { cause, shown: shown.clone() }) {
            crate::trace::troubled(&self.inner, &shown);
            self.inner.tell(&SessionEvent::Troubled(shown));
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
