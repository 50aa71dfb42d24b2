//! What goes wrong again and again while tooz keeps it up: told once by `events()`, shown by `state()` until it is mended.

use std::collections::BTreeMap;

use crate::base::error::Error;
use crate::base::mutex::{Mutex, MutexGuard};

/// The present troubles of a coordinator, by the worry that has them.
#[derive(Default)]
pub(crate) struct Troubles(Mutex<Present>);

#[derive(Default)]
struct Present {
    by_worry: BTreeMap<u64, Trouble>,
    /// Whose trouble is the latest word.
    latest: Option<u64>,
    numbers: u64,
}

pub(crate) struct Trouble {
    /// Without what was being done: a hundred tasks that fail for one reason are one trouble.
    pub(crate) cause: Error,
    pub(crate) shown: Error,
}

impl Troubles {
    fn present(&self) -> MutexGuard<'_, Present> {
        self.0.lock()
    }

    /// The latest word.
    pub(crate) fn latest(&self) -> Option<Error> {
        let present = self.present();
        let latest = present.latest.and_then(|number| present.by_worry.get(&number));
        latest.or_else(|| present.by_worry.values().next_back()).map(|told| told.shown.clone())
    }

    pub(crate) fn new_worry(&self) -> u64 {
        let mut present = self.present();
        present.numbers += 1;
        present.numbers
    }

    /// Answers whether this is said for the first time.
    pub(crate) fn add(&self, number: u64, told: Trouble) -> bool {
        let mut present = self.present();
        // A second failure of the same kind may say it in other words, such as with another port.
        let said_before = present.by_worry.get(&number).is_some_and(|before| before.cause.kind() == told.cause.kind());
        let is_new = !said_before && !present.by_worry.values().any(|other| other.cause == told.cause);
        let before = present.by_worry.insert(number, told);
        present.latest = Some(number);
        drop(present);
        drop(before);
        is_new
    }

    /// Answers whether that was the last.
    pub(crate) fn remove(&self, number: u64) -> bool {
        let mut present = self.present();
        let removed = present.by_worry.remove(&number);
        let is_last = removed.is_some() && present.by_worry.is_empty();
        drop(present);
        drop(removed);
        is_last
    }
}
