//! Doorbells: a socket for each session, to which others send what it should look at.
//!
//! A ring is a hint. What is missed (a queue has room for some ten of them) is marked in the session's slot, and looked for with the next ring.

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::namespace_folder::NamespaceFolder;
use crate::table::Table;

/// What a session should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RingReason {
    /// Its place in a queue: it may have the lock.
    Place,
    /// Its place in a queue, which was taken away.
    Broken,
    /// Its membership, which is another's now.
    Replaced,
    /// A lock or a group that it watches.
    Record,
    /// A group that it watched, and that was deleted.
    Gone,
}

/// One ring for the session of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    pub(crate) slot: usize,
    pub(crate) what: RingReason,
    pub(crate) block: usize,
}

/// The longest letter.
pub(crate) const LETTER: usize = 9;

/// What stands in a letter: what to look at, and which block.
pub(crate) fn read(letter: &[u8]) -> Option<(RingReason, usize)> {
    let what = match *letter.first()? {
        b'p' => RingReason::Place,
        b'b' => RingReason::Broken,
        b'r' => RingReason::Replaced,
        b'c' => RingReason::Record,
        b'g' => RingReason::Gone,
        _ => return None,
    };
    let number = u64::from_ne_bytes(*letter.get(1..)?.first_chunk()?);
    Some((what, usize::try_from(number).ok()?))
}

fn write(ring: Ring) -> [u8; LETTER] {
    let mut letter = [0; LETTER];
    letter[0] = match ring.what {
        RingReason::Place => b'p',
        RingReason::Broken => b'b',
        RingReason::Replaced => b'r',
        RingReason::Record => b'c',
        RingReason::Gone => b'g',
    };
    letter[1..].copy_from_slice(&(ring.block as u64).to_ne_bytes());
    letter
}

/// Makes the doorbell of our slot, in place of what a dead session has left.
pub(crate) fn hang(folder: &NamespaceFolder, table: &Table) -> io::Result<UnixDatagram> {
    let path = folder.bell(table.inode(), table.slot());
    let bind = |path: &Path| {
        let _ = fs::remove_file(path);
        UnixDatagram::bind(path)
    };
    let socket = match bind(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            folder.users.make_folder(path.parent().unwrap_or(&folder.base)).map_err(io::Error::other)?;
            bind(&path)?
        }
        result => result?,
    };
    folder.users.give(&path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The means to ring for others.
#[derive(Debug)]
pub(crate) struct Hand(UnixDatagram);

impl Hand {
    pub(crate) fn new() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Hand(socket))
    }

    /// Rings at that doorbell; `missed` is the mark for what could not be sent. A session that has no doorbell is gone, or only looks.
    pub(crate) fn ring<'a>(&self, bell: &Path, ring: Ring, missed: impl FnOnce() -> Option<&'a AtomicU64>) {
        let letter = write(ring);
        let send = || self.0.send_to(&letter, bell);
        if let Err(error) = send()
            && matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory)
        {
            if let Some(missed) = missed() {
                missed.store(1, Ordering::Release);
            }
            // If it was answered just before the mark was set, this ring comes through.
            let _ = send();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_says_what_was_written() {
        for what in [RingReason::Place, RingReason::Broken, RingReason::Replaced, RingReason::Record, RingReason::Gone]
        {
            let ring = Ring { slot: 1, what, block: 70_000 };
            assert_eq!(read(&write(ring)), Some((what, 70_000)));
        }
        for wrong in [&b""[..], b"x", b"p", b"p1234567", b"x12345678"] {
            assert_eq!(read(wrong), None);
        }
    }
}
