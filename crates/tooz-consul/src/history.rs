//! Whether the servers were set back to an earlier state, as after the restore of a snapshot, or with an older data folder under them.
//!
//! Keys stand there again then that were given back since, and others are gone. Nothing that Consul says of itself tells it for sure: its index
//! goes on after a restore. So each transaction that makes or deletes a key of the session also writes a stamp of the session, a number that only
//! grows, and reads what stood there before. A number that is lower than an earlier answer has said, or is gone, tells of a set-back. That costs
//! no request of its own.
//!
//! What is written hides what stood there, and an answer may be lost, or be late. So a stamp is written only over what its last answer has left
//! there. What was sent after a set-back is refused then, whatever becomes of its answer; what was sent before and arrives after it has a lower
//! number than what was answered since. Transactions that are under way at once write a stamp each, and none waits for another.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tooz_core::Result;
use tooz_core::driver::Mutex;

use crate::client::{Client, Lane, Scope, Turn};
use crate::request::{KeyEntry, Op, get_below, lock, set_at};

/// How many operations a transaction has for its stamp: the last one writes it.
pub(crate) const OPS: usize = 2;

/// What stands at a stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// 0: none.
    number: u64,
    index: u64,
}

/// What one session has seen of the servers' history.
pub(crate) struct History {
    /// In which the stamps lie.
    folder: String,
    session: String,
    /// The latest number that was given to a stamp.
    latest: AtomicU64,
    stamps: Mutex<Stamps>,
    was_set_back: AtomicBool,
    /// Whether something was sent without an answer since all was looked at: the stamps may be further than is known.
    is_unsure: AtomicBool,
}

/// As many as there were transactions under way at once.
#[derive(Default)]
struct Stamps {
    /// What was answered last of each.
    known: Vec<Mark>,
    /// Those that no transaction under way writes; the last one is taken first.
    free: Vec<usize>,
}

impl History {
    pub(crate) fn new(folder: String, session: String) -> Self {
        History {
            folder,
            session,
            latest: AtomicU64::new(0),
            stamps: Mutex::default(),
            was_set_back: AtomicBool::new(false),
            is_unsure: AtomicBool::new(false),
        }
    }

    /// What was answered so far: to be taken before a question is sent.
    pub(crate) fn seen(&self) -> Vec<Mark> {
        self.stamps.lock().known.clone()
    }

    /// A stamp for one transaction that is about to be sent.
    pub(crate) fn take(&self) -> Stamp<'_> {
        let mut stamps = self.stamps.lock();
        let place = stamps.free.pop().unwrap_or_else(|| {
            stamps.known.push(Mark::default());
            stamps.known.len() - 1
        });
        let number = self.latest.fetch_add(1, Ordering::Relaxed) + 1;
        Stamp { history: self, place, number, before: stamps.known.clone(), is_answered: false }
    }

    fn key(&self, place: usize) -> String {
        format!("{}{place}", self.folder)
    }

    /// Reads all stamps.
    pub(crate) fn read(&self) -> Op {
        get_below(&self.folder)
    }

    /// Judges what was read of the stamps by a question that was sent when `before` was seen. Answers whether it tells of a set-back.
    pub(crate) fn judge(&self, before: &[Mark], found: &[KeyEntry]) -> bool {
        let mut stamps = self.stamps.lock();
        let mut is_set_back = false;
        for (place, seen) in before.iter().enumerate() {
            let (key, known) = (self.key(place), &mut stamps.known[place]);
            let now = found.iter().find(|entry| entry.key == key).map_or_else(Mark::default, mark_of);
            if now.number < seen.number {
                is_set_back = true;
                // What follows is measured by what is there now.
                if known == seen {
                    *known = now;
                }
            } else if now.number >= known.number {
                *known = now;
            }
        }
        if is_set_back {
            self.was_set_back.store(true, Ordering::Release);
        }
        is_set_back
    }

    /// Looks at the stamps alone.
    pub(crate) async fn look(&self, client: &Client, lane: Lane) -> Result<()> {
        self.look_in(client, &client.turn(lane, None).await?).await
    }

    /// The same by a turn that was had before: behind a crowd the next one may be far.
    pub(crate) async fn look_in(&self, client: &Client, turn: &Turn<'_>) -> Result<()> {
        let before = self.seen();
        let was_unsure = self.is_unsure.swap(false, Ordering::AcqRel);
        let found = client.read_in(turn, &self.folder, Scope::Below).await;
        let found = found.inspect_err(|_| {
            self.is_unsure.fetch_or(was_unsure, Ordering::AcqRel);
        })?;
        if self.judge(&before, &found.entries) {
            client.set_back();
        }
        Ok(())
    }

    /// Whether something was sent without an answer since all was looked at.
    pub(crate) fn is_unsure(&self) -> bool {
        self.is_unsure.load(Ordering::Acquire)
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

/// What another than this session wrote there is no stamp.
fn mark_of(entry: &KeyEntry) -> Mark {
    let number = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok());
    Mark { number: number.unwrap_or(0), index: entry.modified }
}

/// The stamp that one transaction writes, until it is dropped.
pub(crate) struct Stamp<'a> {
    history: &'a History,
    place: usize,
    number: u64,
    /// What was answered of all stamps when it was taken.
    before: Vec<Mark>,
    is_answered: bool,
}

impl Stamp<'_> {
    /// Reads all stamps, and writes this one over what its last answer has left there.
    pub(crate) fn ops(&self) -> [Op; OPS] {
        let (key, value) = (self.history.key(self.place), self.number.to_string());
        let write = match self.before[self.place] {
            Mark { number: 0, .. } => lock(&key, value.as_bytes(), &self.history.session),
            Mark { index, .. } => set_at(&key, value.as_bytes(), index),
        };
        [self.history.read(), write]
    }

    /// Whether there is an answer that it was written over. A refusal says then that it is not what stands there.
    pub(crate) fn is_known(&self) -> bool {
        self.before[self.place].number > 0
    }

    /// Takes the stamps out of what the transaction has answered, and judges them. Answers whether they tell of a set-back.
    pub(crate) fn done(mut self, entries: &mut Vec<KeyEntry>) -> bool {
        let history = self.history;
        let (mut stamps, others): (Vec<KeyEntry>, Vec<KeyEntry>) =
            entries.drain(..).partition(|entry| entry.key.starts_with(&history.folder));
        *entries = others;
        // What was written comes last.
        let written = stamps.pop();
        let is_set_back = history.judge(&self.before, &stamps);
        if let Some(written) = written {
            history.stamps.lock().known[self.place] = Mark { number: self.number, index: written.modified };
            self.is_answered = true;
        }
        is_set_back
    }

    /// Nothing was written.
    pub(crate) fn refused(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Stamp<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.history.is_unsure.store(true, Ordering::Release);
        }
        self.history.stamps.lock().free.push(self.place);
    }
}

#[cfg(test)]
mod tests;
