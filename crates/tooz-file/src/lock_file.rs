//! One lock is one file, and its bytes behind the content are what the kernel locks:
//!
//! | byte | locked by |
//! |---|---|
//! | data | an exclusive holder alone, or the shared ones together |
//! | line | the waiters, one byte each, in the order of their coming; for a moment all of it, by an attempt that does not wait |
//! | gate | the first in the line, or for a moment the one that takes the lock |
//! | slot n | the holder whose record stands in slot n of the content, for as long as it holds |
//!
//! They stand in that order, because neighbours that are locked alike are one call of the kernel: an exclusive holder takes all from data
//! to the first slot at once, a shared one all from line to the first slot, and then data.
//!
//! A record is written before its slot is locked, or while the slot and the line are locked in one piece: a slot that is found locked, and
//! not in such a piece, has the right record in it.
//!
//! The kernel lets readers pass a waiting writer, and it lets a new request pass those that are just waking up. The line does
//! neither: it is left with the grant and not before, and no request takes the lock past a waiter in it (the room `line`). What is
//! granted, and every place, is dropped with the open file description, so with the process.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;
use tooz_core::driver::{LockKey, RequestId, Space};
use tooz_core::{Error, ErrorKind, FencingToken, LockMode, MemberId, Outcome, Result};

use crate::byte_lock::{self, LockKind, Range};
use crate::error;
use crate::line::{self, Position};
use crate::namespace_folder::NamespaceFolder;
use crate::open_file::{self, Identity, OpenMode, leave_some};
use crate::record::{self, Name};
use crate::unfinished::{Naming, Unfinished};

const DATA: Range = Range { start: line::WAY.start - 1, length: 1 };
const FIRST_SLOT: libc::off_t = 1;
#[allow(clippy::cast_possible_truncation)] // It is 512.
const COUNTER_AT: usize = record::HEAD as usize;
/// How often the file of a lock may come and go while it is being opened.
const OVERTAKEN: usize = 8;
/// The line, the gate and the first slot: what a shared holder takes alone.
pub(crate) const WAY_AND_SLOT: Range = Range { start: line::WAY.start, length: line::WAY.length + 1 };
/// All that an exclusive holder takes.
pub(crate) const AT_ONCE: Range = Range { start: DATA.start, length: WAY_AND_SLOT.length + 1 };
/// How many places there are for the records of holders that share a lock: so many more than can be there, by their open files, that one chosen by
/// chance is likely to be free.
const SLOTS: u32 = 16384;
/// Where to look for one: among the low ones first, so that the file stays small, then among more and more of them.
const GUESSES: [u32; 4] = [1, 4, 64, 1024];
/// How often then among all, before that many holders are taken for too many.
const MORE_GUESSES: usize = 60;
pub(crate) const ALL_SLOTS: Range = Range { start: byte_lock::FIRST + FIRST_SLOT, length: SLOTS as libc::off_t };
pub(crate) const EVERYTHING: Range = Range { start: DATA.start, length: AT_ONCE.length - 1 + ALL_SLOTS.length };

/// One open file description of a lock's file. One grant has one, and shares it with no other.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    path: PathBuf,
    /// Whose file it is.
    name: Arc<str>,
    space: Space,
    identity: Identity,
}

/// A lock that is ours.
#[derive(Debug)]
pub(crate) struct LockedFile {
    pub(crate) file: Arc<LockFile>,
    pub(crate) token: FencingToken,
}

/// How an attempt ended.
pub(crate) enum AttemptEnd {
    Taken(LockedFile),
    /// Another holds it, or comes first. The file has no lock of ours, and can be used again.
    Busy(Arc<LockFile>),
    /// The path leads to another file now: this one guards nothing.
    Stale,
}

/// What keeps an attempt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Another holds it in a mode that conflicts.
    Holder,
    /// Another stands in the line, in most cases to wait.
    Waiter,
    /// No holder has it: a grant is being made, or an unwanted one is being given back.
    Passing,
}

/// Whether a grant that is being made has its slot: the first one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slots {
    Taken,
    ToTake,
}

/// The session that wants a grant, as the grant's record is to say.
pub(crate) struct Requester<'a> {
    pub(crate) member: &'a MemberId,
    pub(crate) mode: LockMode,
    pub(crate) id: RequestId,
    /// Of the session's process. Asking for it is a call of the system, so the session asks once.
    pub(crate) pid: u32,
}

impl LockFile {
    /// Opens the file of a lock, and makes it where there is none.
    pub(crate) fn open(namespace: &NamespaceFolder, key: &LockKey) -> Result<Arc<Self>> {
        // Those that moved the namespace to another layout may hold this lock elsewhere.
        namespace.compare()?;
        let path = namespace.layout.lock(key);
        let mut file = open_file::open(&path, OpenMode::Existing);
        for _ in 0..OVERTAKEN {
            match file {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => file = make(namespace, key, &path)?,
                _ => break,
            }
        }
        let file = file.map_err(|error| error::at(error, "open lock file", &path))?;
        leave_some(&file).map_err(|error| error::at(error, "open lock file", &path))?;
        let metadata = file.metadata().map_err(|error| error::at(error, "look at lock file", &path))?;
        if !metadata.is_file() {
            return Err(error::foreign(&path));
        }
        record::ensure_name(&file, &path, &key.name)?;
        Ok(Arc::new(LockFile {
            file,
            path,
            name: Arc::clone(&key.name),
            space: key.space,
            identity: Identity::of(&metadata),
        }))
    }

    /// Takes the lock if it is free and has no waiters.
    pub(crate) fn try_take(self: Arc<Self>, requester: &Requester<'_>) -> Result<AttemptEnd> {
        let lock = |range, kind| self.kernel(byte_lock::try_lock(&self.file, range, kind));
        let slot = match requester.mode {
            // Looking for waiters costs nothing that way.
            LockMode::Exclusive => lock(AT_ONCE, LockKind::Alone)?.then_some(Slots::Taken),
            LockMode::Shared => {
                let way = if lock(WAY_AND_SLOT, LockKind::Alone)? {
                    Some(Slots::Taken)
                } else {
                    lock(line::WAY, LockKind::Alone)?.then_some(Slots::ToTake)
                };
                if way.is_some() && !lock(DATA, LockKind::Shared)? {
                    self.kernel(byte_lock::unlock(&self.file, WAY_AND_SLOT))?;
                    None
                } else {
                    way
                }
            }
        };
        let Some(slot) = slot else { return Ok(AttemptEnd::Busy(self)) };
        let taken = self.make_grant(requester, slot)?;
        if let Some(taken) = &taken {
            taken.file.let_the_next_come()?;
        }
        Ok(taken.map_or(AttemptEnd::Stale, AttemptEnd::Taken))
    }

    /// Takes a place at the end of the line, if that is to be had at once.
    pub(crate) fn stand_in_line(&self) -> Result<Position> {
        self.kernel(line::stand(&self.file))
    }

    /// Waits there for one's turn: then the gate is ours. For a thread of our own.
    pub(crate) fn wait_in_line(&self, position: Position) -> Result<()> {
        self.kernel(line::wait(&self.file, position))
    }

    /// Waits until the holders have gone. For a thread of our own.
    pub(crate) fn wait_for_data(&self, mode: LockMode) -> Result<()> {
        let kind = match mode {
            LockMode::Exclusive => LockKind::Alone,
            LockMode::Shared => LockKind::Shared,
        };
        self.kernel(byte_lock::wait_lock(&self.file, DATA, kind))
    }

    /// Leaves the line and the gate.
    pub(crate) fn let_the_next_come(&self) -> Result<()> {
        self.kernel(byte_lock::unlock(&self.file, line::WAY))
    }

    /// Whether the lock's path still leads to this file: folders of temporary files are swept.
    pub(crate) fn is_in_place(&self) -> Result<bool> {
        self.kernel(self.identity.is_at(&self.path))
    }

    /// Makes a grant of the data lock, which this description has, while some description of ours has the gate: no other
    /// is at the counter or takes a slot. `None`: the path leads elsewhere.
    pub(crate) fn finish(self: Arc<Self>, requester: &Requester<'_>) -> Result<Option<LockedFile>> {
        self.make_grant(requester, Slots::ToTake)
    }

    fn make_grant(self: Arc<Self>, requester: &Requester<'_>, slots: Slots) -> Result<Option<LockedFile>> {
        if !self.is_in_place()? {
            return Ok(None);
        }
        let slot = match (slots, requester.mode) {
            (Slots::Taken, _) | (_, LockMode::Exclusive) => 0,
            (Slots::ToTake, LockMode::Shared) => self.free_slot(requester.id)?,
        };
        // The head comes with the counter in one reading: what another program has written there meanwhile is not written over.
        let mut content = [0; COUNTER_AT + record::COUNTER];
        let length = self.kernel(open_file::read_up_to(&self.file, &mut content, 0))?;
        let (head, counter) = content[..length].split_at(length.min(COUNTER_AT));
        record::ensure_name_in(head, &self.file, &self.path, &self.name)?;
        let now = record::now();
        let token = record::next_token(counter, now);
        let mut bytes = record::counter(token);
        if slot != 0 {
            self.kernel(self.file.write_all_at(&bytes, record::HEAD))?;
            bytes.clear();
        }
        record::append(&mut bytes, requester.member, requester.mode, token, now, requester.pid);
        let at = if slot == 0 { record::HEAD } else { record::slot_at(slot) };
        self.kernel(self.file.write_all_at(&bytes, at))?;
        if slots == Slots::ToTake && !self.kernel(byte_lock::try_lock(&self.file, slot_byte(slot), LockKind::Alone))? {
            return Err(error::strange(&self.path, "has a locked slot without a lock: is another program at it?"));
        }
        self.ring()?;
        Ok(Some(LockedFile { file: self, token: FencingToken(token) }))
    }

    /// Wakes the watchers: a write is what the kernel tells of, a lock is not. Only elections are watched.
    fn ring(&self) -> Result<()> {
        match self.space {
            Space::Election => self.kernel(self.file.write_all_at(b"\n", record::BELL)),
            Space::Lock => Ok(()),
        }
    }

    /// Wakes the watchers a while after the file was last looked at: by now it may be another program's.
    fn ring_if_ours(&self) -> Result<()> {
        if self.space == Space::Election {
            let (head, length) = self.kernel(record::read_head(&self.file))?;
            if Name::of(&head[..length]) == Name::Foreign {
                return Err(error::foreign(&self.path));
            }
        }
        self.ring()
    }

    /// What stands in the way after an attempt that failed.
    pub(crate) fn obstacle(&self, mode: LockMode) -> Result<Obstacle> {
        let held = |range, kind| self.kernel(byte_lock::blocker(&self.file, range, kind)).map(|found| found.is_some());
        if !held(ALL_SLOTS, LockKind::Alone)? {
            return Ok(Obstacle::Passing);
        }
        // Shared holders do not keep a reader out; an exclusive one has the data lock as well as its slot.
        match mode {
            LockMode::Shared if !held(DATA, LockKind::Shared)? => Ok(Obstacle::Waiter),
            _ => Ok(Obstacle::Holder),
        }
    }

    /// A duplicate of the description: it keeps what the description has.
    pub(crate) fn duplicate(&self) -> Result<File> {
        self.kernel(self.file.try_clone())
    }

    /// The file's path, for watching it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A slot that no holder has. Each look goes through all holders in the kernel, so there are few where few slots are taken.
    fn free_slot(&self, id: RequestId) -> Result<u32> {
        #[allow(clippy::cast_possible_truncation)] // Any 64 bits of it will do.
        let mut random = fastrand::Rng::with_seed(id.0 as u64 ^ (id.0 >> 64) as u64);
        for among in GUESSES.into_iter().chain(std::iter::repeat_n(SLOTS, MORE_GUESSES)) {
            let slot = random.u32(0..among);
            if self.kernel(byte_lock::blocker(&self.file, slot_byte(slot), LockKind::Alone))?.is_none() {
                return Ok(slot);
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "{} has too many shared holders, some {SLOTS} of them: try again when some have gone",
                self.path.display()
            ),
        )
        .with_outcome(Outcome::NotApplied))
    }

    fn kernel<T>(&self, result: std::io::Result<T>) -> Result<T> {
        result.map_err(|error| error::at(error, "use lock file", &self.path))
    }
}

impl LockedFile {
    /// Gives it back. The description comes back without any lock, unless it is better closed: that gives back, too.
    pub(crate) fn give_back(self) -> Option<Arc<LockFile>> {
        byte_lock::unlock(&self.file.file, EVERYTHING).ok()?;
        self.file.ring_if_ours().ok()?;
        Some(self.file)
    }
}

/// Makes the file of a lock, open to the users of the namespace from the first moment on.
fn make(namespace: &NamespaceFolder, key: &LockKey, path: &Path) -> Result<std::io::Result<File>> {
    let naming = if namespace.needs_no_giving() {
        // It is empty at first; a process that sees that writes the same into it.
        match namespace.create(path) {
            Ok(file) => return Ok(Ok(file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Naming::Taken,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Naming::NoFolder,
            Err(error) => return Ok(Err(error)),
        }
    } else {
        let failed = |error| error::at(error, "make lock file", path);
        let (made, file) = Unfinished::file(namespace)?;
        file.write_all_at(&record::head(&key.name), 0).map_err(failed)?;
        match made.take_free_name(path).map_err(failed)? {
            Naming::Done => return Ok(Ok(file)),
            naming => naming,
        }
    };
    match naming {
        Naming::NoFolder => namespace.make_branch(&namespace.layout.locks(key.space))?,
        // Others may find it closed to them for a moment.
        Naming::NoLinks => match namespace.create(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            result => return Ok(result),
        },
        Naming::Done | Naming::Taken => {}
    }
    Ok(open_file::open(path, OpenMode::Existing))
}

pub(crate) const fn slot_byte(slot: u32) -> Range {
    Range::byte(FIRST_SLOT + slot as libc::off_t)
}
