//! The kernel's locks: byte ranges that belong to an open file description (`F_OFD_…`), never to a process.
//!
//! POSIX locks belong to the process: two tasks would both get the lock, and closing any other handle of the file would
//! lose it. An open file description ends with its last duplicate, so with the process at the latest.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Where the lock bytes of every file begin: far behind any content, and within 31 bits for small systems.
pub(crate) const FIRST: libc::off_t = 1 << 30;

/// Some bytes of a file. Locks need no content there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: libc::off_t,
    pub(crate) length: libc::off_t,
}

impl Range {
    /// The one byte at [`FIRST`]` + offset`.
    pub(crate) const fn byte(offset: libc::off_t) -> Self {
        Range { start: FIRST + offset, length: 1 }
    }
}

/// Beside others of its kind, or alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockKind {
    /// A read lock.
    Shared,
    /// A write lock.
    Alone,
}

/// Takes the lock if no other description has it. Takes over what the same description holds already.
pub(crate) fn try_lock(file: &File, range: Range, kind: LockKind) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&flock(range, of(kind)))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits in the kernel's queue, which a description that asks in the right moment may pass (hence the room `line`). Nothing but the grant ends it: for
/// threads of our own.
pub(crate) fn wait_lock(file: &File, range: Range, kind: LockKind) -> io::Result<()> {
    let wanted = flock(range, of(kind));
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&wanted)) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Drops what this description has of the range, in one step. Another thread may do so while one waits.
pub(crate) fn unlock(file: &File, range: Range) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&flock(range, libc::F_UNLCK)))?;
    Ok(())
}

/// One lock of another description that stands in the way, if there is one: any of several. Takes nothing.
pub(crate) fn blocker(file: &File, range: Range, kind: LockKind) -> io::Result<Option<Range>> {
    let mut found = flock(range, of(kind));
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
    if i32::from(found.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    // A length of 0 means up to the end of everything.
    let length = if found.l_len == 0 { libc::off_t::MAX - found.l_start } else { found.l_len };
    Ok(Some(Range { start: found.l_start, length }))
}

/// The bytes of the range that other descriptions have locked, in order.
pub(crate) fn locked_bytes(file: &File, range: Range) -> io::Result<Vec<libc::off_t>> {
    // The kernel names any lock in the range, not the first: what is left on both sides of it is asked for again.
    let mut locked = Vec::new();
    let mut unknown = vec![range];
    while let Some(part) = unknown.pop() {
        if part.length <= 0 {
            continue;
        }
        let Some(found) = blocker(file, part, LockKind::Alone)? else { continue };
        let start = found.start.max(part.start);
        let end = (found.start + found.length).min(part.start + part.length);
        locked.extend(start..end);
        unknown.push(Range { start: part.start, length: start - part.start });
        unknown.push(Range { start: end, length: part.start + part.length - end });
    }
    locked.sort_unstable();
    Ok(locked)
}

fn of(kind: LockKind) -> libc::c_int {
    match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Alone => libc::F_WRLCK,
    }
}

#[allow(clippy::cast_possible_truncation)] // The constants are small; their type differs between systems.
fn flock(range: Range, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: range.start,
        l_len: range.length,
        // The kernel insists on 0 here.
        l_pid: 0,
    }
}
