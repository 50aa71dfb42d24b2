//! Where things lie in the table, in words, and what its first words say. Touches no memory.
//!
//! ```text
//! header        what it is; the table word, the number of undo records, the last token, the free blocks
//! undo log      UNDO_RECORDS × (place, what stood there)
//! slots         SLOTS × SLOT words: one for each session
//! buckets       BUCKETS words: the first record of each hash, with a mark
//! blocks        the rest, BLOCK words each: records of locks and groups, places in queues, members, watches, texts
//! ```
//!
//! A block is known by a number from 1 on; 0 is none. Its first word says which block follows it in a chain, also in that of the free ones.

/// What the first word says.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"tooz-ipc");
/// The layout that this version speaks. It grows with every change of what is below.
pub(crate) const VERSION: u64 = 2;

/// Header: [`MAGIC`].
pub(crate) const AT_MAGIC: usize = 0;
/// Header: [`VERSION`].
pub(crate) const AT_VERSION: usize = 1;
/// Header: how many words the table has.
pub(crate) const AT_WORDS: usize = 2;
/// Header: whose the table is: a number of the change and the slot plus one, or 0 for no session. It has a cache line for itself and for what every change touches.
pub(crate) const AT_OWNER: usize = 8;
/// Header: how many records the undo log has.
pub(crate) const AT_UNDO: usize = 9;
/// Header: the last token.
pub(crate) const AT_TOKEN: usize = 10;
/// Header: the first free block of those that were used before.
pub(crate) const AT_FREE: usize = 11;
/// Header: how many blocks were ever used.
pub(crate) const AT_TOUCHED: usize = 12;
/// Header: when sessions were last looked after, in ms since 1970.
pub(crate) const AT_SWEPT: usize = 13;
/// Header: with which slot that goes on.
pub(crate) const AT_CURSOR: usize = 14;
/// Header: how many changes of the dead were undone.
pub(crate) const AT_UNDONE: usize = 15;
const HEADER: usize = 16;

/// How many stores one change may consist of.
pub(crate) const UNDO_RECORDS: usize = 128;
pub(crate) const UNDO_AT: usize = HEADER;

/// How many sessions there may be at once.
pub(crate) const SLOTS: usize = 4096;
/// How many words a session has.
const SLOT: usize = 8;
const SLOTS_AT: usize = UNDO_AT + 2 * UNDO_RECORDS;

/// Slot: counts the sessions that had it.
pub(crate) const GENERATION: usize = 0;
/// Slot: whether a session has it.
pub(crate) const IN_USE: usize = 1;
/// Slot: the first and the last of the things that the session has.
pub(crate) const OWNED_HEAD: usize = 2;
pub(crate) const OWNED_TAIL: usize = 3;
/// Slot: the text of the member, and its length.
pub(crate) const MEMBER: usize = 4;
pub(crate) const MEMBER_LENGTH: usize = 5;
/// Slot: the process, and its namespace of processes. Stored once, by the one who has locked the byte of the slot, before its first change: no change
/// puts back what stood there.
pub(crate) const PID: usize = 6;
/// Slot: whether its doorbell could not be rung since it last answered.
pub(crate) const MISSED: usize = 7;

/// How many chains of records there are.
pub(crate) const BUCKETS: usize = 4096;
const BUCKETS_AT: usize = SLOTS_AT + SLOTS * SLOT;

/// How many words a block has.
pub(crate) const BLOCK: usize = 16;
const BLOCKS_AT: usize = BUCKETS_AT + BUCKETS;

/// The fewest words that make sense: one page of blocks.
pub(crate) const SMALLEST: usize = BLOCKS_AT + 512;

/// Block: which one follows it in its chain, also while it is free.
pub(crate) const CHAIN: usize = 0;
/// Block: what it is.
pub(crate) const KIND: usize = 3;

/// Record of a lock or a group: the next one of the same bucket, the hash of its name, the text of its name and its length.
pub(crate) const NEXT_IN_BUCKET: usize = 1;
pub(crate) const HASH: usize = 2;
pub(crate) const NAME: usize = 4;
pub(crate) const NAME_LENGTH: usize = 5;
/// Record: what is in it, places in a queue or members.
pub(crate) const HEAD: usize = 7;
pub(crate) const TAIL: usize = 8;
/// Record of a lock: the first that waits, how many hold it, and in which mode.
pub(crate) const WAITING: usize = 9;
pub(crate) const GRANTED: usize = 10;
pub(crate) const HOLDERS_MODE: usize = 11;
/// Record of a group: it grows with every change; how many members there are.
pub(crate) const REVISION: usize = 9;
pub(crate) const COUNT: usize = 10;
/// Record: its watches.
pub(crate) const WATCH_HEAD: usize = 12;
pub(crate) const WATCH_TAIL: usize = 13;
/// Record: grows with every change that is told to its watches.
pub(crate) const CHANGES: usize = 14;

/// What a session has (a place in a queue, a membership, a watch): its neighbours among the things of that session.
pub(crate) const OWNED_NEXT: usize = 1;
pub(crate) const OWNED_PREVIOUS: usize = 2;
/// … whose it is.
pub(crate) const OWNER_SLOT: usize = 4;
pub(crate) const OWNER_GENERATION: usize = 5;
/// … its neighbours in the record, and the record.
pub(crate) const NEXT: usize = 6;
pub(crate) const PREVIOUS: usize = 7;
pub(crate) const RECORD: usize = 8;
/// … by which request.
pub(crate) const ID_HIGH: usize = 9;
pub(crate) const ID_LOW: usize = 10;
/// A place in a queue: the mode, the token (0: it waits), since when, in µs since 1970.
pub(crate) const MODE: usize = 11;
pub(crate) const TOKEN: usize = 12;
pub(crate) const SINCE: usize = 13;
/// A membership: the text of its name, and its length; its capabilities, and their length; the hash of its name.
pub(crate) const MEMBER_NAME: usize = 11;
pub(crate) const MEMBER_NAME_LENGTH: usize = 12;
pub(crate) const CAPABILITIES: usize = 13;
pub(crate) const CAPABILITIES_LENGTH: usize = 14;
pub(crate) const MEMBER_HASH: usize = 15;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockKind {
    Lock,
    Election,
    Group,
    Place,
    Membership,
    Watch,
}

impl BlockKind {
    pub(crate) const fn word(self) -> u64 {
        match self {
            BlockKind::Lock => 1,
            BlockKind::Election => 2,
            BlockKind::Group => 3,
            BlockKind::Place => 4,
            BlockKind::Membership => 5,
            BlockKind::Watch => 6,
        }
    }

    /// Whether it is found by its name, in a bucket.
    pub(crate) const fn is_record(self) -> bool {
        matches!(self, BlockKind::Lock | BlockKind::Election | BlockKind::Group)
    }

    pub(crate) const fn of(word: u64) -> Option<Self> {
        match word {
            1 => Some(BlockKind::Lock),
            2 => Some(BlockKind::Election),
            3 => Some(BlockKind::Group),
            4 => Some(BlockKind::Place),
            5 => Some(BlockKind::Membership),
            6 => Some(BlockKind::Watch),
            _ => None,
        }
    }
}

/// The place of a word of a slot.
pub(crate) const fn slot(slot: usize, field: usize) -> usize {
    SLOTS_AT + slot * SLOT + field
}

/// The place of a bucket.
pub(crate) const fn bucket(hash: u64) -> usize {
    #[allow(clippy::cast_possible_truncation)] // There are few buckets.
    let number = (hash % BUCKETS as u64) as usize;
    BUCKETS_AT + number
}

/// What stands in the bucket at that place when that is its first record; 0: it has none. The mark makes an empty bucket another thing than memory over which
/// zeros were written: a lock that is not found there would be given a second time.
pub(crate) const fn bucket_word(bucket: usize, record: usize) -> u64 {
    let mixed = ((bucket as u64) << 32 ^ record as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32 | 1) << 32 | record as u64
}

/// The first record in the bucket at that place, by what stands there. `None`: no driver of this kind has written that.
pub(crate) const fn first_in_bucket(bucket: usize, word: u64) -> Option<usize> {
    let record = (word & 0xffff_ffff) as usize;
    if bucket_word(bucket, record) == word { Some(record) } else { None }
}

/// The place of a word of a block. A number that is none leads outside of the table.
pub(crate) const fn block(block: usize, field: usize) -> usize {
    match block.wrapping_sub(1).checked_mul(BLOCK) {
        Some(offset) => offset.saturating_add(BLOCKS_AT + field),
        None => usize::MAX,
    }
}

/// How many blocks a table of so many words has.
pub(crate) const fn blocks(words: usize) -> usize {
    words.saturating_sub(BLOCKS_AT) / BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_says_its_record_and_zeros_or_the_word_of_another_bucket_do_not() {
        let (one, other) = (bucket(1), bucket(2));
        for record in [0, 1, 70_000, u32::MAX as usize / BLOCK] {
            let word = bucket_word(one, record);
            assert_eq!(first_in_bucket(one, word), Some(record));
            assert_eq!(first_in_bucket(other, word), None);
        }
        for written in [0, 7, u64::MAX] {
            assert_eq!(first_in_bucket(one, written), None);
        }
    }
}
