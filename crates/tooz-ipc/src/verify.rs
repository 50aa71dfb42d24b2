//! Whether the whole table is as it should be: each block is in use once or free, each list and count is right, no two hold what one may hold.

use std::collections::HashSet;

use tooz_core::LockMode;

use crate::critical::Critical;
use crate::error::TableError;
use crate::layout::{
    self, AT_FREE, AT_TOKEN, AT_TOUCHED, BUCKETS, BlockKind, CAPABILITIES, CHAIN, COUNT, GRANTED, HASH, IN_USE, MEMBER,
    MEMBER_NAME, MODE, NAME, RECORD, SLOTS, TOKEN, WAITING, block,
};
use crate::list::List;
use crate::queue::mode_of;

/// How much of everything there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) locks: usize,
    pub(crate) places: usize,
    pub(crate) groups: usize,
    pub(crate) members: usize,
    pub(crate) watches: usize,
    /// Blocks that are not free.
    pub(crate) blocks: usize,
}

/// What was seen so far.
#[derive(Default)]
struct Verification {
    census: Census,
    blocks: HashSet<usize>,
    things: HashSet<usize>,
    tokens: HashSet<u64>,
}

impl Critical<'_> {
    /// Looks at every block, for some 100 ns each. The first thing that is wrong is the error.
    pub(crate) fn verify(&self) -> Result<Census, TableError> {
        let mut verified = Verification::default();
        let touched = self.number(AT_TOUCHED)?;
        if touched > self.table.blocks() {
            return wrong("more blocks were used than there are");
        }
        for bucket in 0..BUCKETS {
            for record in self.records(bucket, 1)?.0 {
                if layout::bucket(self.get(block(record, HASH))?) != layout::bucket(bucket as u64) {
                    return wrong("a record is in the wrong bucket");
                }
                self.verify_record(record, &mut verified)?;
            }
        }
        self.verify_sessions(&mut verified)?;
        verified.census.blocks = verified.blocks.len();
        let mut free = self.number(AT_FREE)?;
        while free != 0 {
            self.verify_block(free, &mut verified)?;
            free = self.number(block(free, CHAIN))?;
        }
        if verified.blocks.len() == touched { Ok(verified.census) } else { wrong("a block is neither free nor in use") }
    }

    fn verify_record(&self, record: usize, verified: &mut Verification) -> Result<(), TableError> {
        self.verify_block(record, verified)?;
        self.verify_chain(self.number(block(record, NAME))?, verified)?;
        let kind = self.kind(record)?;
        let (things, expected) = (
            self.all(List::of(record))?,
            if kind == Some(BlockKind::Group) { BlockKind::Membership } else { BlockKind::Place },
        );
        match kind {
            Some(BlockKind::Lock | BlockKind::Election) => {
                verified.census.locks += 1;
                verified.census.places += things.len();
                self.verify_queue(record, &things, verified)?;
            }
            Some(BlockKind::Group) => {
                verified.census.groups += 1;
                verified.census.members += things.len();
                if self.number(block(record, COUNT))? != things.len() {
                    return wrong("the members of a group are counted wrong");
                }
                for member in &things {
                    self.verify_chain(self.number(block(*member, MEMBER_NAME))?, verified)?;
                    self.verify_chain(self.number(block(*member, CAPABILITIES))?, verified)?;
                }
            }
            _ => return wrong("a record is none"),
        }
        for thing in things {
            self.verify_thing(thing, expected, record, verified)?;
        }
        for watch in self.all(List::watches(record))? {
            verified.census.watches += 1;
            self.verify_thing(watch, BlockKind::Watch, record, verified)?;
        }
        Ok(())
    }

    /// Those that hold it stand before those that wait, are counted, and may hold it beside each other.
    fn verify_queue(&self, lock: usize, places: &[usize], verified: &mut Verification) -> Result<(), TableError> {
        let (mut holders, mut alone, mut first_waiter) = (0, false, 0);
        for place in places {
            let token = self.get(block(*place, TOKEN))?;
            let mode = mode_of(self.get(block(*place, MODE))?)?;
            if token == 0 {
                first_waiter = if first_waiter == 0 { *place } else { first_waiter };
                continue;
            }
            if first_waiter != 0 {
                return wrong("a holder stands behind a waiter");
            }
            if token > self.get(AT_TOKEN)? || !verified.tokens.insert(token) {
                return wrong("a token was given twice, or never");
            }
            holders += 1;
            alone |= mode == LockMode::Exclusive;
        }
        if alone && holders > 1 {
            return wrong("two hold a lock that one holds alone");
        }
        if self.number(block(lock, GRANTED))? != holders || self.number(block(lock, WAITING))? != first_waiter {
            return wrong("holders or waiters are counted wrong");
        }
        Ok(())
    }

    fn verify_thing(
        &self,
        thing: usize,
        kind: BlockKind,
        record: usize,
        verified: &mut Verification,
    ) -> Result<(), TableError> {
        self.verify_block(thing, verified)?;
        verified.things.insert(thing);
        self.owner(thing)?;
        if self.kind(thing)? != Some(kind) || self.number(block(thing, RECORD))? != record {
            return wrong("something is in a list that is not its own");
        }
        Ok(())
    }

    /// Each thing is in the list of one session.
    fn verify_sessions(&self, verified: &mut Verification) -> Result<(), TableError> {
        let mut owned = 0;
        for slot in 0..SLOTS {
            for thing in self.all(List::owned(slot))? {
                owned += 1;
                if !verified.things.contains(&thing) || self.owner(thing)?.0 != slot {
                    return wrong("a session has what is not its own");
                }
            }
            if self.get(layout::slot(slot, IN_USE))? != 0 {
                self.verify_chain(self.number(layout::slot(slot, MEMBER))?, verified)?;
            }
        }
        if owned == verified.things.len() { Ok(()) } else { wrong("something is no session's") }
    }

    fn verify_chain(&self, first: usize, verified: &mut Verification) -> Result<(), TableError> {
        let mut at = first;
        while at != 0 {
            self.verify_block(at, verified)?;
            at = self.number(block(at, CHAIN))?;
        }
        Ok(())
    }

    fn verify_block(&self, at: usize, verified: &mut Verification) -> Result<(), TableError> {
        if at == 0 || at > self.number(AT_TOUCHED)? || !verified.blocks.insert(at) {
            return wrong("a block is used twice, or none");
        }
        Ok(())
    }
}

fn wrong<T>(what: &'static str) -> Result<T, TableError> {
    Err(TableError::Garbled(what))
}

#[cfg(test)]
mod garbled;
