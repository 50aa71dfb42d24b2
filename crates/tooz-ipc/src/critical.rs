//! The critical section: whose the table is, and how a change that was not finished is taken back.
//!
//! The table belongs to one session at a time, by a word that is taken with one compare-and-swap. Each store into what other sessions read
//! goes through the undo log: first what stood there, then the new value. A change is finished when the log is empty again, by one store. A process that dies
//! in the middle leaves the word with its slot, whose byte is not locked any more: the next process that wants the table sees that, takes the word over
//! and puts everything back. Where the byte stays locked, by a child that the dead process had forked, its number says that it is dead.

use std::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};
use std::time::{Duration, Instant, SystemTime};

use tooz_core::driver::MutexGuard;

use crate::doorbell::{Ring, RingReason};
use crate::error::TableError;
use crate::layout::{self, AT_OWNER, AT_TOKEN, AT_UNDO, AT_UNDONE, PID, SLOTS, UNDO_AT, UNDO_RECORDS};
use crate::process::Process;
use crate::table::Table;

/// How often the word is read in place, while its owner is on another processor and ready within a microsecond.
const SPINS: u32 = 100;
/// How often the processor is given away then, to an owner that was interrupted.
const YIELDS: u32 = 64;
/// The bits of the word that say whose it is.
const OWNER_BITS: u32 = 16;
const OWNER_MASK: u64 = (1 << OWNER_BITS) - 1;

/// The table, as long as it is ours.
pub(crate) struct Critical<'a> {
    pub(crate) table: &'a Table,
    /// Whom to ring when this is over.
    pub(crate) rings: Vec<Ring>,
    /// The value of the word while it is ours.
    word: u64,
    /// How many records the log has.
    records: usize,
    /// Whether this change has freed a block: what is freed may be taken again only when it is finished, as it may have to come back.
    pub(crate) has_freed: bool,
    _turn: MutexGuard<'a, ()>,
}

/// A wait for the table, while others have it.
pub(crate) struct TableWait {
    patience: Duration,
    begun: Instant,
    /// What its word said when it was looked at last, and since when.
    word: u64,
    since: Instant,
}

impl TableWait {
    pub(crate) fn begin(patience: Duration) -> Self {
        let begun = Instant::now();
        TableWait { patience, begun, word: 0, since: begun }
    }

    /// One more look has found it to be another's. Answers with what the wait ends, where it has lasted long enough.
    ///
    /// A process is named only for one change that takes at least the half of that: many that crowd get on, each by itself.
    pub(crate) fn goes_on(&mut self, by: Option<Process>, word: u64) -> Result<(), TableError> {
        let now = Instant::now();
        if word != self.word {
            (self.word, self.since) = (word, now);
        }
        if now.duration_since(self.begun) < self.patience {
            return Ok(());
        }
        let is_stuck = now.duration_since(self.since) * 2 >= self.patience;
        Err(TableError::Busy { by: by.filter(|_| is_stuck), word })
    }
}

impl Table {
    /// Makes the table ours. `Busy`: another session is in the middle of a change for longer than that takes.
    pub(crate) fn enter(&self) -> Result<Critical<'_>, TableError> {
        let turn = self.turn.lock();
        let owner = self.region.word(AT_OWNER)?;
        let mine = self.slot() as u64 + 1;
        for tries in 0.. {
            let seen = owner.load(Ordering::Relaxed);
            let theirs = seen & OWNER_MASK;
            // Our own: a change that was begun by the dead who had the slot before us.
            if theirs != 0 && theirs != mine {
                if tries < SPINS {
                    std::hint::spin_loop();
                    continue;
                }
                let slot = usize::try_from(theirs).unwrap_or(SLOTS) - 1;
                if slot >= SLOTS {
                    return Err(TableError::Garbled("the owner of the table is none"));
                }
                if self.is_locked(slot)? {
                    if tries < SPINS + YIELDS {
                        std::thread::yield_now();
                        continue;
                    }
                    // A child that was forked keeps the byte of its dead parent locked, but never goes on with what that had begun.
                    let process = Process::of(self.region.word(layout::slot(slot, PID))?.load(Ordering::Relaxed));
                    if !process.is_gone() {
                        return Err(TableError::Busy { by: Some(process), word: seen });
                    }
                }
            }
            let word = ((seen >> OWNER_BITS).wrapping_add(1) << OWNER_BITS) | mine;
            if owner.compare_exchange(seen, word, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                let mut critical =
                    Critical { table: self, rings: Vec::new(), word, records: 0, has_freed: false, _turn: turn };
                if critical.take_back()? > 0 {
                    critical.count_undone()?;
                }
                return Ok(critical);
            }
        }
        Err(TableError::Busy { by: None, word: 0 })
    }
}

impl Critical<'_> {
    /// The word at that place.
    pub(crate) fn get(&self, at: usize) -> Result<u64, TableError> {
        Ok(self.word_at(at)?.load(Ordering::Relaxed))
    }

    /// The word at that place as the number of a block, or of something else that is counted.
    pub(crate) fn number(&self, at: usize) -> Result<usize, TableError> {
        usize::try_from(self.get(at)?).map_err(|_| TableError::Garbled("a number that is too large"))
    }

    /// A store that is taken back unless the change is finished.
    pub(crate) fn set(&mut self, at: usize, value: u64) -> Result<(), TableError> {
        let word = self.word_at(at)?;
        if self.table.keeps_undo {
            if self.records == UNDO_RECORDS {
                return Err(TableError::Garbled("a change of too many stores"));
            }
            let record = UNDO_AT + 2 * self.records;
            self.word_at(record)?.store(at as u64, Ordering::Relaxed);
            self.word_at(record + 1)?.store(word.load(Ordering::Relaxed), Ordering::Relaxed);
            // What was stored before a releasing store is there when that is: the record before its number, the number before the value.
            self.word_at(AT_UNDO)?.store(self.records as u64 + 1, Ordering::Release);
        }
        word.store(value, Ordering::Release);
        self.records += usize::from(self.table.keeps_undo);
        Ok(())
    }

    /// A store into what no other session reads before it is linked: it needs no undo.
    pub(crate) fn put(&mut self, at: usize, value: u64) -> Result<(), TableError> {
        self.word_at(at)?.store(value, Ordering::Relaxed);
        Ok(())
    }

    /// The change is finished, and will not be taken back.
    pub(crate) fn commit(&mut self) -> Result<(), TableError> {
        self.word_at(AT_UNDO)?.store(0, Ordering::Release);
        // What the next change writes into the log must not be written before that: a process that dies in between would leave an old number of new records.
        // All that a dead process had stored is seen by the process that finds it dead, so that the order of its own instructions is all that counts.
        compiler_fence(Ordering::SeqCst);
        self.records = 0;
        self.has_freed = false;
        Ok(())
    }

    /// Finishes a part of a change of many steps, each of which leaves the table as it should be.
    pub(crate) fn checkpoint(&mut self) -> Result<(), TableError> {
        if self.records * 2 > UNDO_RECORDS { self.commit() } else { Ok(()) }
    }

    /// Rings for a session when this is over.
    pub(crate) fn ring(&mut self, slot: usize, what: RingReason, block: usize) {
        self.rings.push(Ring { slot, what, block });
    }

    /// The next token: it grows, and is not below the wall clock in µs.
    pub(crate) fn next_token(&mut self, now: u64) -> Result<u64, TableError> {
        let token = self.get(AT_TOKEN)?.wrapping_add(1).max(now);
        self.set(AT_TOKEN, token)?;
        Ok(token)
    }

    /// Puts back what an unfinished change has stored, the last first. One that dies here leaves the log, and the next one begins again.
    /// Answers how many stores there were.
    fn take_back(&mut self) -> Result<usize, TableError> {
        let records = self.number(AT_UNDO)?;
        if records == 0 {
            return Ok(0);
        }
        if records > UNDO_RECORDS {
            return Err(TableError::Garbled("the undo log is longer than it can be"));
        }
        for record in (0..records).map(|record| UNDO_AT + 2 * record).rev() {
            let (at, value) = (self.number(record)?, self.get(record + 1)?);
            if at < AT_TOKEN || (UNDO_AT..layout::slot(0, 0)).contains(&at) {
                return Err(TableError::Garbled("the undo log names what no change stores"));
            }
            self.word_at(at)?.store(value, Ordering::Relaxed);
        }
        fence(Ordering::Release);
        self.word_at(AT_UNDO)?.store(0, Ordering::Release);
        self.records = 0;
        Ok(records)
    }

    /// Counts a change of the dead that was undone. One of ours that was refused is taken back without a word.
    fn count_undone(&self) -> Result<(), TableError> {
        let undone = self.word_at(AT_UNDONE)?;
        undone.store(undone.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        Ok(())
    }

    fn word_at(&self, at: usize) -> Result<&AtomicU64, TableError> {
        self.table.region.word(at)
    }
}

/// What was not finished is taken back, and the table has no owner any more.
impl Drop for Critical<'_> {
    fn drop(&mut self) {
        if self.records > 0 {
            // A log that can't be taken back stays, and the next process says so.
            let _ = self.take_back();
        }
        if let Ok(owner) = self.word_at(AT_OWNER) {
            owner.store(self.word & !OWNER_MASK, Ordering::Release);
        }
    }
}

/// Whether the table has no owner, by the word that says so.
pub(crate) const fn is_unowned(word: u64) -> bool {
    let owner = word & OWNER_MASK;
    owner == 0
}

/// The wall clock in µs since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod killed;
#[cfg(test)]
pub(crate) mod stage;
