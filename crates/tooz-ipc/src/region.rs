//! A file as memory that processes share, seen as words that change one at a time. All unsafe code of this driver is in here.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::error::TableError;

/// The size of a word in bytes.
pub(crate) const WORD: usize = size_of::<u64>();

/// Words of a file that is mapped by several processes. Any of them may change a word at any time, so each is an atomic.
///
/// The memory is as long as it was when it was mapped. A file that is made shorter afterwards takes pages away from under it, and to touch one of
/// those is the end of the process (SIGBUS): the callers look at the file's length before.
#[derive(Debug)]
pub(crate) struct Region {
    start: NonNull<AtomicU64>,
    words: usize,
}

#[expect(unsafe_code, reason = "a raw pointer is neither by itself")]
// SAFETY: the memory is not bound to a thread, and is accessed as atomics alone.
unsafe impl Send for Region {}
#[expect(unsafe_code, reason = "a raw pointer is neither by itself")]
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the first words of a file that has at least so many.
    pub(crate) fn map(file: &File, words: usize) -> io::Result<Self> {
        let bytes = words.checked_mul(WORD).and_then(NonZeroUsize::new);
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        if file.metadata()?.len() < bytes.get() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        #[expect(unsafe_code, reason = "there is no safe way to map a file")]
        // SAFETY: no address is asked for, so no memory of ours is replaced.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Region { start: start.cast(), words })
    }

    /// The word at that place.
    pub(crate) fn word(&self, at: usize) -> Result<&AtomicU64, TableError> {
        self.words().get(at).ok_or(TableError::Garbled("a place outside of the table"))
    }

    /// How many words there are.
    pub(crate) fn len(&self) -> usize {
        self.words
    }

    fn words(&self) -> &[AtomicU64] {
        #[expect(unsafe_code, reason = "mapped memory is a pointer and a length")]
        // SAFETY: so many words are mapped, readable and writable, at an address that is a multiple of the page size, until this is dropped, which the
        // borrow excludes. Every bit pattern is a valid `AtomicU64`. Whatever another process does to the memory is like an atomic store of a
        // machine word to us, or (for one that is no driver of ours) makes us read wrong numbers, which are checked where they are used.
        unsafe {
            slice::from_raw_parts(self.start.as_ptr(), self.words)
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "there is no safe way to unmap")]
        // SAFETY: that is what was mapped, and no borrow of it is left.
        let _ = unsafe { munmap(self.start.cast(), self.words * WORD) };
    }
}
