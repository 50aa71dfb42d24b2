//! A table as one session has it: the file, the memory that it is, and the byte of the file by which others see that the session lives.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::libc;
use tooz_core::driver::Mutex;
use tooz_core::{Error, ErrorKind, Namespace, Result};

use crate::byte_lock;
use crate::error::{self, TableError};
use crate::layout::{
    self, AT_MAGIC, AT_VERSION, AT_WORDS, BLOCK, BUCKETS, IN_USE, MAGIC, PID, SLOTS, SMALLEST, VERSION,
};
use crate::process::Process;
use crate::region::{Region, WORD};

/// A table, and the slot that this description of its file has there.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) region: Region,
    pub(crate) path: PathBuf,
    /// One description is mapped and has the lock: with two, a file that was made anew would show the living as dead.
    file: File,
    identity: (u64, u64),
    slot: usize,
    /// The how-manieth session of this slot it is; 0 until it is entered.
    pub(crate) generation: AtomicU64,
    /// The threads of this process go one after another.
    pub(crate) turn: Mutex<()>,
    /// What the control of a test leaves away.
    pub(crate) keeps_undo: bool,
}

/// Where the file of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableFile {
    InPlace,
    /// It was deleted, moved, or replaced.
    Gone,
    /// It was made shorter: to read or write what is missing would be the end of this process.
    Cut,
    /// Its beginning is not what this driver wrote: another program has written over it.
    Overwritten,
}

impl Table {
    /// Opens the table at that path, and takes a slot there. `None`: there is none.
    pub(crate) fn open(path: &Path, namespace: &Namespace) -> Result<Option<Self>> {
        let failed = |error| error::at(error, "open the table", path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR | libc::ENXIO)) => {
                return Err(error::foreign(path));
            }
            result => result.map_err(failed)?,
        };
        let words = words_of(&file, path, namespace)?;
        let found = file.metadata().map_err(failed)?;
        let region = Region::map(&file, words).map_err(failed)?;
        let slot = free_slot(&file, path)?;
        // Before the first change: a process that finds the table ours has to find our number, and not that of the dead who had the slot.
        let process = Process::ours().word().to_ne_bytes();
        file.write_all_at(&process, (layout::slot(slot, PID) * WORD) as u64).map_err(failed)?;
        Ok(Some(Table {
            region,
            path: path.to_owned(),
            file,
            identity: (found.dev(), found.ino()),
            slot,
            generation: AtomicU64::new(0),
            turn: Mutex::new(()),
            keeps_undo: true,
        }))
    }

    /// Our slot.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// The number of its file, which no other table that is there has.
    pub(crate) fn inode(&self) -> u64 {
        self.identity.1
    }

    /// How many blocks it has.
    pub(crate) fn blocks(&self) -> usize {
        layout::blocks(self.region.len())
    }

    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> u64 {
        (self.region.len() * WORD) as u64
    }

    /// Whether some process has that slot. Ours shows as free.
    pub(crate) fn is_locked(&self, slot: usize) -> Result<bool, TableError> {
        byte_lock::is_locked(&self.file, slot).map_err(|error| TableError::Unknown(error.raw_os_error().unwrap_or(0)))
    }

    /// What one cheap call of the system says of the file: whether it has a name, and all of its length. Then its beginning may be read.
    pub(crate) fn glance(&self) -> TableFile {
        match self.file.metadata() {
            Ok(found) if found.nlink() == 0 => TableFile::Gone,
            Ok(found) if found.size() < self.bytes() => TableFile::Cut,
            Ok(_) => self.beginning(),
            // What can't be looked at proves nothing.
            Err(_) => TableFile::InPlace,
        }
    }

    /// Whether the first words, which no change touches, say what they said.
    fn beginning(&self) -> TableFile {
        let words = [(AT_MAGIC, MAGIC), (AT_VERSION, VERSION), (AT_WORDS, self.region.len() as u64)];
        let says = |(at, value)| self.region.word(at).is_ok_and(|word| word.load(Ordering::Relaxed) == value);
        if words.into_iter().all(says) { TableFile::InPlace } else { TableFile::Overwritten }
    }

    /// Whether its path still leads to this file, whole and ours.
    pub(crate) fn standing(&self) -> TableFile {
        match self.path.symlink_metadata() {
            Ok(found) if (found.dev(), found.ino()) != self.identity => TableFile::Gone,
            Ok(found) if found.size() < self.bytes() => TableFile::Cut,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => TableFile::Gone,
            Ok(_) => self.beginning(),
            // What can't be looked at proves nothing of its name, but the description knows the length.
            Err(_) => self.glance(),
        }
    }

    /// A duplicate of the description: the session lives until that is closed, too.
    pub(crate) fn duplicate(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// Writes the beginning of a table into a file that no other process knows yet. All but the buckets is 0 there.
pub(crate) fn write_header(file: &File, words: usize) -> io::Result<()> {
    for (at, value) in [(AT_MAGIC, MAGIC), (AT_VERSION, VERSION), (AT_WORDS, words as u64)] {
        file.write_all_at(&value.to_ne_bytes(), (at * WORD) as u64)?;
    }
    let first = layout::bucket(0);
    let buckets: Vec<u8> =
        (first..first + BUCKETS).flat_map(|bucket| layout::bucket_word(bucket, 0).to_ne_bytes()).collect();
    file.write_all_at(&buckets, (first * WORD) as u64)
}

/// How many words a table of so many MiB has.
pub(crate) fn words_for(mebibytes: u64) -> usize {
    usize::try_from(mebibytes.saturating_mul(1 << 20)).unwrap_or(usize::MAX) / WORD
}

/// Looks at the beginning of the file before any of it is mapped.
fn words_of(file: &File, path: &Path, namespace: &Namespace) -> Result<usize> {
    let failed = |error| error::at(error, "read the beginning of", path);
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(error::foreign(path));
    }
    if found.len() < ((AT_WORDS + 1) * WORD) as u64 {
        return Err(error::too_short(path));
    }
    let mut beginning = [0; (AT_WORDS + 1) * WORD];
    file.read_exact_at(&mut beginning, 0).map_err(failed)?;
    let word = |at: usize| beginning[at * WORD..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    if word(AT_MAGIC) != MAGIC {
        return Err(error::foreign(path));
    }
    if word(AT_VERSION) != VERSION {
        return Err(Error::foreign_layout(namespace, word(AT_VERSION), VERSION));
    }
    let words = usize::try_from(word(AT_WORDS)).unwrap_or(usize::MAX);
    let is_whole = words >= SMALLEST && words.checked_mul(WORD).is_some_and(|bytes| bytes as u64 <= found.len());
    if !is_whole || layout::blocks(words) > usize::try_from(u32::MAX).unwrap_or(usize::MAX) / BLOCK {
        return Err(Error::new(
            ErrorKind::Backend,
            format!(
                "the table {} says that it has {words} words, but the file has {} bytes: it was made shorter or spoiled; stop all that use it, and \
                 delete it",
                path.display(),
                found.len()
            ),
        ));
    }
    Ok(words)
}

/// Locks the byte of a slot that no session has. One that the dead have left in use is as good, but tried later: it has to be cleared away.
fn free_slot(file: &File, path: &Path) -> Result<usize> {
    let (failed, cut) = (|error| error::at(error, "lock a byte of", path), |error| error::at(error, "read", path));
    for is_leftover in [false, true] {
        for slot in 0..SLOTS {
            // Read and not looked at in memory, of which a file that was made shorter meanwhile would leave nothing.
            let mut in_use = [0; WORD];
            file.read_exact_at(&mut in_use, (layout::slot(slot, IN_USE) * WORD) as u64).map_err(cut)?;
            let in_use = u64::from_ne_bytes(in_use) != 0;
            if in_use == is_leftover && byte_lock::try_lock(file, slot).map_err(failed)? {
                return Ok(slot);
            }
        }
    }
    Err(error::no_slot(path, SLOTS))
}
