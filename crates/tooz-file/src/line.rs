//! The line before one lock: first come, first served, also while others come and go in no time.
//!
//! The kernel's own queue is not enough: it wakes a waiter, and another that asks before that one runs gets the lock. So each waiter
//! locks a byte behind all that are locked, and waits until no byte before its own is locked any more. It keeps its byte, and
//! the gate, until it has the lock; and an attempt that does not wait takes the whole line and the gate in one step, which fails
//! while a waiter stands in it. Each waiter waits for the one right before it alone, so that a grant wakes one; and a
//! byte goes with the open file description, so that the dead stand in no one's way. (The order is that of the queue lock of
//! Craig, Landin and Hagersten.)

use std::fs::File;
use std::io;

use nix::libc;

use crate::byte_lock::{self, FIRST, LockKind, Range};

/// So many may come until the line is empty once: hours of contention without a pause. A waiter that comes after that waits at the gate alone,
/// where the kernel's order is all there is, until the line has ended.
const LENGTH: libc::off_t = 1 << 29;

/// How often a place is looked for at once before one is waited for.
const TRIES: u32 = 16;

const LINE: Range = Range { start: FIRST - LENGTH, length: LENGTH };
const GATE: Range = Range { start: FIRST, length: 1 };
/// The line and the gate behind it.
pub(crate) const WAY: Range = Range { start: LINE.start, length: LENGTH + 1 };

/// Where a waiter stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Position {
    /// There, by the description's lock on it.
    At(Range),
    /// Nowhere yet: the line is on the move just now.
    NotYet,
    /// Behind a line that is too long to stand in.
    Outside,
}

/// Takes a place at the end, if that is to be had without waiting: it is kept from then on, however long it takes until a
/// thread waits there.
pub(crate) fn stand(file: &File) -> io::Result<Position> {
    for _ in 0..TRIES {
        let Some(place) = end_of_line(file)? else { return Ok(Position::Outside) };
        if byte_lock::try_lock(file, place, LockKind::Alone)? {
            return Ok(Position::At(place));
        }
        // Another came at the same moment, or takes the lock just now, and with it all of the line for that moment.
        std::thread::yield_now();
    }
    Ok(Position::NotYet)
}

/// Waits there for the turn, and takes the gate. The place is kept. For a thread of our own: nothing ends it but the turn.
pub(crate) fn wait(file: &File, position: Position) -> io::Result<()> {
    let place = match position {
        Position::At(place) => Some(place),
        Position::NotYet => stand_patiently(file)?,
        Position::Outside => None,
    };
    if let Some(place) = place {
        while let Some(before) = taken_before(file, place)? {
            byte_lock::wait_lock(file, before, LockKind::Shared)?;
            byte_lock::unlock(file, before)?;
        }
    }
    byte_lock::wait_lock(file, GATE, LockKind::Alone)
}

/// Takes a place as [`stand`] does, and waits for it: a process that takes the lock just now may have been stopped in that very moment.
fn stand_patiently(file: &File) -> io::Result<Option<Range>> {
    let Some(place) = end_of_line(file)? else { return Ok(None) };
    byte_lock::wait_lock(file, place, LockKind::Alone)?;
    Ok(Some(place))
}

/// The byte behind the last one that is locked; `None`: the line is too long.
fn end_of_line(file: &File) -> io::Result<Option<Range>> {
    let mut start = LINE.start;
    while start < FIRST {
        let rest = Range { start, length: FIRST - start };
        match byte_lock::blocker(file, rest, LockKind::Alone)? {
            None => return Ok(Some(Range { start, length: 1 })),
            // An attempt that does not wait has all of the line, but no place in it.
            Some(found) if found.length > 1 => return Ok(Some(Range { start, length: 1 })),
            Some(found) => start = found.start + found.length,
        }
    }
    Ok(None)
}

/// A place whose turn comes before that one's: the one right before it, if it is still taken.
fn taken_before(file: &File, place: Range) -> io::Result<Option<Range>> {
    let right_before = Range { start: place.start - 1, length: 1 };
    if right_before.start < LINE.start {
        return Ok(None);
    }
    if byte_lock::blocker(file, right_before, LockKind::Alone)?.is_some() {
        return Ok(Some(right_before));
    }
    let found =
        byte_lock::blocker(file, Range { start: LINE.start, length: place.start - LINE.start }, LockKind::Alone)?;
    Ok(found.map(|found| Range { start: found.start.max(LINE.start), length: 1 }))
}
