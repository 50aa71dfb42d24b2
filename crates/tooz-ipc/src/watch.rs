//! Watches in the table: one for each session and each lock or group that it watches, so that a change rings for those that look.

use crate::critical::Critical;
use crate::doorbell::RingReason;
use crate::error::TableError;
use crate::layout::{BlockKind, CHANGES, RECORD, block};
use crate::list::List;

/// A watch that we have of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordWatch {
    pub(crate) block: usize,
    /// How often the record has changed.
    pub(crate) changes: u64,
    /// Whether it was made just now: what we watched at that record before is gone, also where record and watch have the blocks of those that are gone.
    pub(crate) is_new: bool,
}

impl Critical<'_> {
    /// Watches a record, by the watch that we have there already if that still stands.
    pub(crate) fn watch(&mut self, record: usize, there: Option<usize>) -> Result<RecordWatch, TableError> {
        let changes = self.get(block(record, CHANGES))?;
        if let Some(there) = there
            && self.is_watch(there, record)?
        {
            return Ok(RecordWatch { block: there, changes, is_new: false });
        }
        let block = self.own(BlockKind::Watch, record, List::watches(record))?;
        self.commit()?;
        Ok(RecordWatch { block, changes, is_new: true })
    }

    /// How often a record has changed that we watch. `None`: the watch is over, as with a group that was deleted.
    pub(crate) fn changes(&self, watch: usize, record: usize) -> Result<Option<u64>, TableError> {
        if self.is_watch(watch, record)? { self.get(block(record, CHANGES)).map(Some) } else { Ok(None) }
    }

    /// Whether that block is still our watch of that record: with a deleted group its watches go.
    pub(crate) fn is_watch(&self, watch: usize, record: usize) -> Result<bool, TableError> {
        Ok(self.is_ours(watch, BlockKind::Watch)? && self.number(block(watch, RECORD))? == record)
    }

    /// Ends a watch, whosever it is.
    pub(crate) fn end_watch(&mut self, watch: usize) -> Result<(), TableError> {
        let record = self.number(block(watch, RECORD))?;
        self.disown(watch, List::watches(record))?;
        self.forget_if_idle(record)?;
        self.commit()
    }

    /// Rings for all that watch a record.
    pub(crate) fn ring_watchers(&mut self, record: usize, what: RingReason) -> Result<(), TableError> {
        if self.first(List::watches(record))? == 0 {
            return Ok(());
        }
        let changes = self.get(block(record, CHANGES))?;
        self.set(block(record, CHANGES), changes.wrapping_add(1))?;
        for watch in self.all(List::watches(record))? {
            let (slot, _) = self.owner(watch)?;
            self.ring(slot, what, record);
        }
        Ok(())
    }
}
