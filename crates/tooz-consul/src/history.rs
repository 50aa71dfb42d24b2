//! Whether the servers were set back to an earlier state, as after the restore of a snapshot, or with an older data folder under them.
//!
//! Keys stand there again then that were given back since, and others are gone. Nothing that Consul says of itself tells it for sure: its index
//! goes on after a restore, and by the time a session asks it may have grown past what was seen before. So each transaction that makes or deletes a
//! key of the session also writes the session's stamp, and reads what stood there before. The index of the stamp only grows: where it is
//! lower than an earlier answer has said, or where the stamp is gone, the servers were set back. That costs no request of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tooz_core::Result;

use crate::client::{Client, Lane, Scope};
use crate::request::{Entry, Op, get_below, lock};

/// How many operations a transaction has for the stamp.
pub(crate) const OPS: usize = 2;

/// What one session has seen of the servers' history.
pub(crate) struct History {
    /// The stamp's.
    key: String,
    session: String,
    /// How often it was written: an equal value would leave the index where it is.
    written: AtomicU64,
    /// The latest index of the stamp that was answered; 0: none yet.
    seen: AtomicU64,
    was_set_back: AtomicBool,
}

impl History {
    pub(crate) fn new(key: String, session: String) -> Self {
        let (written, seen) = (AtomicU64::new(0), AtomicU64::new(0));
        History { key, session, written, seen, was_set_back: AtomicBool::new(false) }
    }

    /// The latest index so far: to be taken before a question is sent.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Reads the stamp, if there is one, and writes it.
    pub(crate) fn stamp(&self) -> [Op; OPS] {
        let value = self.written.fetch_add(1, Ordering::Relaxed).to_string();
        [self.read(), lock(&self.key, value.as_bytes(), &self.session)]
    }

    /// Reads the stamp, if there is one.
    pub(crate) fn read(&self) -> Op {
        get_below(&self.key)
    }

    /// Judges what a transaction that was sent when `before` was seen has read of the stamp, and takes that out of its answer. What it wrote
    /// comes last.
    pub(crate) fn note(&self, before: u64, has_written: bool, entries: &mut Vec<Entry>) {
        let mut stamps: Vec<u64> =
            entries.iter().filter(|entry| entry.key == self.key).map(|entry| entry.modified).collect();
        entries.retain(|entry| entry.key != self.key);
        let now = if has_written { stamps.pop() } else { stamps.last().copied() };
        let there = stamps.last().copied().unwrap_or(0);
        let now = now.unwrap_or(0);
        if there < before {
            self.was_set_back.store(true, Ordering::Release);
            // What follows is measured by what is there now.
            self.seen.store(now, Ordering::Release);
        } else {
            self.seen.fetch_max(now, Ordering::AcqRel);
        }
    }

    /// Looks at the stamp alone.
    pub(crate) async fn look(&self, client: &Client, lane: Lane) -> Result<()> {
        let before = self.seen();
        let mut found = client.read(lane, &self.key, Scope::One).await?.entries;
        self.note(before, false, &mut found);
        Ok(())
    }

    /// Whether the servers were set back, and what stands there was not compared since.
    pub(crate) fn was_set_back(&self) -> bool {
        self.was_set_back.load(Ordering::Acquire)
    }

    /// The same, for one that compares it now, and says by [`History::doubt`] if it could not.
    pub(crate) fn take_set_back(&self) -> bool {
        self.was_set_back.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn doubt(&self) {
        self.was_set_back.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, modified: u64) -> Entry {
        Entry { key: key.to_owned(), value: Vec::new(), session: None, created: 1, modified }
    }

    #[test]
    fn only_a_stamp_older_than_the_question_tells_of_a_set_back() {
        let history = History::new("stamp".to_owned(), "s".to_owned());
        let wrote = |before, stamps: &[u64]| {
            let mut entries = vec![entry("own", 1)];
            entries.extend(stamps.iter().map(|index| entry("stamp", *index)));
            history.note(before, true, &mut entries);
            assert_eq!(entries.len(), 1, "the stamp is no part of the answer");
            history.take_set_back()
        };
        assert!(!wrote(0, &[10]), "the first");
        let early = history.seen();
        assert!(!wrote(early, &[10, 20]) && history.seen() == 20);
        assert!(!wrote(early, &[10, 15]) && history.seen() == 20, "an answer that was overtaken is none");
        assert!(wrote(20, &[10, 30]), "the index goes on after a restore");
        assert!(wrote(30, &[5, 8]) && history.seen() == 8, "an older folder");
        assert!(!wrote(8, &[8, 9]));
        assert!(wrote(9, &[11]), "the stamp was not there yet");
        history.note(11, false, &mut vec![entry("stamp", 11)]);
        assert!(!history.was_set_back());
        history.note(11, false, &mut Vec::new());
        assert!(history.was_set_back() && history.seen() == 0);
    }
}
