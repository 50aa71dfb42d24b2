//! What sessions have in the table: whose a thing is, and whether that one lives.

use std::sync::atomic::Ordering;

use crate::critical::Critical;
use crate::error::TableError;
use crate::layout::{self, BlockKind, GENERATION, IN_USE, KIND, OWNER_GENERATION, OWNER_SLOT, RECORD, SLOTS, block};
use crate::list::List;

/// Whose a thing is: a slot, and the how-manieth session of it.
pub(crate) type Owner = (usize, u64);

impl Critical<'_> {
    /// Whether that very session lives: the slot may be another's by now.
    pub(crate) fn is_alive(&self, slot: usize, generation: u64) -> Result<bool, TableError> {
        if slot >= SLOTS {
            return Err(TableError::Garbled("a slot that is none"));
        }
        let is_same =
            self.get(layout::slot(slot, GENERATION))? == generation && self.get(layout::slot(slot, IN_USE))? != 0;
        Ok(is_same && (slot == self.table.slot() || self.table.is_locked(slot)?))
    }

    /// Whose a thing is: a slot and a generation.
    pub(crate) fn owner(&self, thing: usize) -> Result<Owner, TableError> {
        if self.kind(thing)?.is_none_or(BlockKind::is_record) {
            return Err(TableError::Garbled("a list with something that no session can have"));
        }
        let slot = self.number(block(thing, OWNER_SLOT))?;
        if slot >= SLOTS {
            return Err(TableError::Garbled("a slot that is none"));
        }
        Ok((slot, self.get(block(thing, OWNER_GENERATION))?))
    }

    pub(crate) fn is_owner_alive(&self, thing: usize) -> Result<bool, TableError> {
        let (slot, generation) = self.owner(thing)?;
        self.is_alive(slot, generation)
    }

    /// Whether it is ours, of that kind.
    pub(crate) fn is_ours(&self, thing: usize, kind: BlockKind) -> Result<bool, TableError> {
        let ours = (self.table.slot() as u64, self.table.generation.load(Ordering::Relaxed));
        let theirs = (self.get(block(thing, OWNER_SLOT))?, self.get(block(thing, OWNER_GENERATION))?);
        Ok(self.kind(thing)? == Some(kind) && theirs == ours)
    }

    /// A new thing of ours in that list of that record.
    pub(crate) fn own(&mut self, kind: BlockKind, record: usize, list: List) -> Result<usize, TableError> {
        let thing = self.take()?;
        let (slot, generation) = (self.table.slot(), self.table.generation.load(Ordering::Relaxed));
        self.put(block(thing, KIND), kind.word())?;
        self.put(block(thing, OWNER_SLOT), slot as u64)?;
        self.put(block(thing, OWNER_GENERATION), generation)?;
        self.put(block(thing, RECORD), record as u64)?;
        self.push(list, thing)?;
        self.push(List::owned(slot), thing)?;
        Ok(thing)
    }

    /// Takes a thing out of both its lists, and its block back.
    pub(crate) fn disown(&mut self, thing: usize, list: List) -> Result<(), TableError> {
        let (slot, _) = self.owner(thing)?;
        self.unlink(list, thing)?;
        self.unlink(List::owned(slot), thing)?;
        self.set(block(thing, KIND), 0)?;
        self.free(thing)
    }
}
