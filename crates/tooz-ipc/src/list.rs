//! Lists with two ends, whose links stand in what is listed: the places of a lock, the members of a group, the watches of both, and what a session has.

use crate::critical::Critical;
use crate::error::TableError;
use crate::layout::{
    self, HEAD, NEXT, OWNED_HEAD, OWNED_NEXT, OWNED_PREVIOUS, OWNED_TAIL, PREVIOUS, TAIL, WATCH_HEAD, WATCH_TAIL, block,
};

/// Where a list begins and ends, and by which words of its blocks it is linked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    head: usize,
    tail: usize,
    next: usize,
    previous: usize,
}

impl List {
    /// The places of a lock, or the members of a group.
    pub(crate) const fn of(record: usize) -> Self {
        List { head: block(record, HEAD), tail: block(record, TAIL), next: NEXT, previous: PREVIOUS }
    }

    /// Its watches.
    pub(crate) const fn watches(record: usize) -> Self {
        List { head: block(record, WATCH_HEAD), tail: block(record, WATCH_TAIL), next: NEXT, previous: PREVIOUS }
    }

    /// What a session has.
    pub(crate) const fn owned(slot: usize) -> Self {
        List {
            head: layout::slot(slot, OWNED_HEAD),
            tail: layout::slot(slot, OWNED_TAIL),
            next: OWNED_NEXT,
            previous: OWNED_PREVIOUS,
        }
    }
}

impl Critical<'_> {
    /// The first of a list; 0 if there is none.
    pub(crate) fn first(&self, list: List) -> Result<usize, TableError> {
        self.number(list.head)
    }

    /// All of a list, from its head.
    pub(crate) fn all(&self, list: List) -> Result<Vec<usize>, TableError> {
        let mut all = Vec::new();
        let mut item = self.number(list.head)?;
        while item != 0 {
            if all.len() > self.table.blocks() {
                return Err(TableError::Garbled("a list without an end"));
            }
            all.push(item);
            item = self.number(block(item, list.next))?;
        }
        Ok(all)
    }

    /// Puts a block that is in no such list at the end.
    pub(crate) fn push(&mut self, list: List, item: usize) -> Result<(), TableError> {
        let end = self.number(list.tail)?;
        self.put(block(item, list.next), 0)?;
        self.put(block(item, list.previous), end as u64)?;
        let before = if end == 0 { list.head } else { block(end, list.next) };
        self.set(before, item as u64)?;
        self.set(list.tail, item as u64)
    }

    /// Takes a block out.
    pub(crate) fn unlink(&mut self, list: List, item: usize) -> Result<(), TableError> {
        let (next, previous) = (self.number(block(item, list.next))?, self.number(block(item, list.previous))?);
        let before = if previous == 0 { list.head } else { block(previous, list.next) };
        let after = if next == 0 { list.tail } else { block(next, list.previous) };
        if self.number(before)? != item || self.number(after)? != item {
            return Err(TableError::Garbled("a list whose neighbours do not know each other"));
        }
        self.set(before, next as u64)?;
        self.set(after, previous as u64)
    }
}
