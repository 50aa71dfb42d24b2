//! Blocks: taken, given back, and chained to texts.
//!
//! A chain is linked by the first word of its blocks, as the list of the free ones is. So taking the first few of that list changes no link but its end,
//! and what is written into them needs no undo before they are linked from elsewhere.

use crate::critical::Critical;
use crate::error::TableError;
use crate::layout::{AT_FREE, AT_TOUCHED, BLOCK, CHAIN, block};
use crate::region::WORD;

/// How many bytes of a text are in one block.
const PIECE: usize = (BLOCK - 1) * WORD;

impl Critical<'_> {
    /// A block for something that is not a text. Its words but the first may be anything.
    pub(crate) fn take(&mut self) -> Result<usize, TableError> {
        self.take_chain(1)
    }

    /// A chain of so many blocks, at least one.
    pub(crate) fn take_chain(&mut self, count: usize) -> Result<usize, TableError> {
        debug_assert!(!self.has_freed, "what this change has freed may have to come back");
        let (first_free, mut last, mut taken) = (self.number(AT_FREE)?, 0, 0);
        let mut next_free = first_free;
        while next_free != 0 && taken < count {
            last = next_free;
            next_free = self.number(block(last, CHAIN))?;
            taken += 1;
        }
        let missing = count - taken;
        if missing == 0 {
            self.set(AT_FREE, next_free as u64)?;
            self.set(block(last, CHAIN), 0)?;
            return Ok(first_free);
        }
        // The rest was never used, and comes one after another.
        let touched = self.number(AT_TOUCHED)?;
        let end = touched.saturating_add(missing);
        if end > self.table.blocks() {
            return Err(TableError::Full);
        }
        for fresh in touched + 1..=end {
            self.put(block(fresh, CHAIN), if fresh < end { fresh as u64 + 1 } else { 0 })?;
        }
        self.set(AT_TOUCHED, end as u64)?;
        if last == 0 {
            return Ok(touched + 1);
        }
        self.set(AT_FREE, 0)?;
        self.set(block(last, CHAIN), touched as u64 + 1)?;
        Ok(first_free)
    }

    /// Gives a chain back.
    pub(crate) fn free(&mut self, first: usize) -> Result<(), TableError> {
        let mut last = first;
        for _ in 0..=self.table.blocks() {
            let next = self.number(block(last, CHAIN))?;
            if next == 0 {
                let free = self.get(AT_FREE)?;
                self.set(block(last, CHAIN), free)?;
                self.set(AT_FREE, first as u64)?;
                self.has_freed = true;
                return Ok(());
            }
            last = next;
        }
        Err(TableError::Garbled("a chain without an end"))
    }

    /// A chain with that text.
    pub(crate) fn write_text(&mut self, text: &[u8]) -> Result<usize, TableError> {
        let first = self.take_chain(text.len().div_ceil(PIECE).max(1))?;
        let mut at = first;
        for piece in text.chunks(PIECE) {
            for (word, bytes) in (1..).zip(piece.chunks(WORD)) {
                self.put(block(at, word), word_of(bytes))?;
            }
            at = self.number(block(at, CHAIN))?;
        }
        Ok(first)
    }

    /// The text of so many bytes in that chain.
    pub(crate) fn read_text(&self, first: usize, length: usize) -> Result<Vec<u8>, TableError> {
        if length > self.table.blocks() * PIECE {
            return Err(TableError::Garbled("a text that is longer than the table"));
        }
        let mut text = Vec::with_capacity(length + WORD);
        let mut at = first;
        while text.len() < length {
            for word in 1..BLOCK.min(1 + (length - text.len()).div_ceil(WORD)) {
                text.extend(self.get(block(at, word))?.to_ne_bytes());
            }
            at = self.number(block(at, CHAIN))?;
        }
        text.truncate(length);
        Ok(text)
    }

    /// Whether that is the text in that chain.
    pub(crate) fn is_text(&self, first: usize, length: usize, text: &[u8]) -> Result<bool, TableError> {
        if length != text.len() {
            return Ok(false);
        }
        let mut at = first;
        for piece in text.chunks(PIECE) {
            for (word, bytes) in (1..).zip(piece.chunks(WORD)) {
                if self.get(block(at, word))? != word_of(bytes) {
                    return Ok(false);
                }
            }
            at = self.number(block(at, CHAIN))?;
        }
        Ok(true)
    }
}

/// The last word of a text is filled up with zeros.
fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_ne_bytes(word)
}
