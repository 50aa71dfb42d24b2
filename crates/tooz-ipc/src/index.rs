//! Records of locks and groups, found by their names.

use crate::critical::Critical;
use crate::error::TableError;
use crate::layout::{
    self, BUCKETS, BlockKind, CHANGES, COUNT, GRANTED, HASH, HEAD, HOLDERS_MODE, KIND, NAME, NAME_LENGTH,
    NEXT_IN_BUCKET, REVISION, TAIL, WAITING, WATCH_HEAD, WATCH_TAIL, block,
};
use crate::list::List;

/// A hash of a name that is the same in all processes (FNV-1a with a last mixing).
pub(crate) fn hash_of(kind: BlockKind, name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ kind.word();
    for byte in name {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^ (hash >> 29)
}

impl Critical<'_> {
    /// The record of that name.
    pub(crate) fn find(&self, kind: BlockKind, name: &[u8]) -> Result<Option<usize>, TableError> {
        let hash = hash_of(kind, name);
        let mut record = self.first_in(layout::bucket(hash))?;
        for _ in 0..=self.table.blocks() {
            if record == 0 {
                return Ok(None);
            }
            let is_it = self.get(block(record, HASH))? == hash && self.get(block(record, KIND))? == kind.word();
            if is_it
                && self.is_text(self.number(block(record, NAME))?, self.number(block(record, NAME_LENGTH))?, name)?
            {
                return Ok(Some(record));
            }
            record = self.next_in_bucket(record)?;
        }
        Err(TableError::Garbled("a bucket without an end"))
    }

    /// The first record in the bucket at that place; 0 if there is none.
    fn first_in(&self, bucket: usize) -> Result<usize, TableError> {
        layout::first_in_bucket(bucket, self.get(bucket)?).ok_or(TableError::Garbled("a bucket that was written over"))
    }

    /// The record that follows one in its bucket; 0 if none does.
    fn next_in_bucket(&self, record: usize) -> Result<usize, TableError> {
        if !self.kind(record)?.is_some_and(BlockKind::is_record) {
            return Err(TableError::Garbled("a bucket with something else than records"));
        }
        self.number(block(record, NEXT_IN_BUCKET))
    }

    /// A new record of a name that has none.
    pub(crate) fn make(&mut self, kind: BlockKind, name: &[u8]) -> Result<usize, TableError> {
        let (record, text, hash) = (self.take()?, self.write_text(name)?, hash_of(kind, name));
        let bucket = layout::bucket(hash);
        for field in [HEAD, TAIL, WAITING, GRANTED, HOLDERS_MODE, WATCH_HEAD, WATCH_TAIL, CHANGES] {
            self.put(block(record, field), 0)?;
        }
        const { assert!(REVISION == WAITING && COUNT == GRANTED, "a group begins with zeros as well") };
        self.put(block(record, KIND), kind.word())?;
        self.put(block(record, HASH), hash)?;
        self.put(block(record, NAME), text as u64)?;
        self.put(block(record, NAME_LENGTH), name.len() as u64)?;
        self.put(block(record, NEXT_IN_BUCKET), self.first_in(bucket)? as u64)?;
        self.set(bucket, layout::bucket_word(bucket, record))?;
        Ok(record)
    }

    /// The record of that name, which is made if there is none.
    pub(crate) fn find_or_make(&mut self, kind: BlockKind, name: &[u8]) -> Result<usize, TableError> {
        match self.find(kind, name)? {
            Some(record) => Ok(record),
            None => self.make(kind, name),
        }
    }

    /// Takes a record away in which nothing is left.
    pub(crate) fn forget(&mut self, record: usize) -> Result<(), TableError> {
        self.take_out_of_bucket(record)?;
        self.set(block(record, KIND), 0)?;
        self.free(self.number(block(record, NAME))?)?;
        self.free(record)
    }

    fn take_out_of_bucket(&mut self, record: usize) -> Result<(), TableError> {
        let bucket = layout::bucket(self.get(block(record, HASH))?);
        let after = self.next_in_bucket(record)?;
        let mut before = self.first_in(bucket)?;
        if before == record {
            return self.set(bucket, layout::bucket_word(bucket, after));
        }
        for _ in 0..=self.table.blocks() {
            if before == 0 {
                break;
            }
            let next = self.next_in_bucket(before)?;
            if next == record {
                return self.set(block(before, NEXT_IN_BUCKET), after as u64);
            }
            before = next;
        }
        Err(TableError::Garbled("a record that is in no bucket"))
    }

    /// Takes the record of a lock away if nothing is left in it.
    pub(crate) fn forget_if_idle(&mut self, lock: usize) -> Result<(), TableError> {
        let is_idle = self.first(List::of(lock))? == 0 && self.first(List::watches(lock))? == 0;
        if is_idle && self.kind(lock)? != Some(BlockKind::Group) { self.forget(lock) } else { Ok(()) }
    }

    /// What a block is.
    pub(crate) fn kind(&self, of: usize) -> Result<Option<BlockKind>, TableError> {
        Ok(BlockKind::of(self.get(block(of, KIND))?))
    }

    /// The name of a record.
    pub(crate) fn name(&self, record: usize) -> Result<String, TableError> {
        let text = self.read_text(self.number(block(record, NAME))?, self.number(block(record, NAME_LENGTH))?)?;
        String::from_utf8(text).map_err(|_| TableError::Garbled("a name that is no text"))
    }

    /// The records of some buckets, from one on; and from which to go on.
    pub(crate) fn records(&self, from: usize, buckets: usize) -> Result<(Vec<usize>, Option<usize>), TableError> {
        let end = from.saturating_add(buckets).min(BUCKETS);
        let mut records = Vec::new();
        for bucket in from..end {
            let mut record = self.first_in(layout::bucket(bucket as u64))?;
            while record != 0 {
                if records.len() > self.table.blocks() {
                    return Err(TableError::Garbled("a bucket without an end"));
                }
                records.push(record);
                record = self.next_in_bucket(record)?;
            }
        }
        Ok((records, (end < BUCKETS).then_some(end)))
    }
}
