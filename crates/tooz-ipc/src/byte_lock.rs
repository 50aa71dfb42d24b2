//! The kernel's locks on bytes of the table's file: one for each session. They belong to the open file description (`F_OFD_…`) that is mapped, so a
//! byte is locked exactly as long as some process can still write by that description.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Where the bytes begin: far behind any content. Locks need no content there.
const FIRST: libc::off_t = 1 << 40;

/// Takes the byte if no other description has it.
pub(crate) fn try_lock(file: &File, slot: usize) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&flock(slot))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether another description has the byte. One's own shows as free.
pub(crate) fn is_locked(file: &File, slot: usize) -> io::Result<bool> {
    let mut found = flock(slot);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // The constants are small, and so are slots.
fn flock(slot: usize) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: FIRST + slot as libc::off_t,
        l_len: 1,
        // The kernel insists on 0 here.
        l_pid: 0,
    }
}
