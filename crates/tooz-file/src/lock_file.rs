//! One lock is one file, and its bytes behind the content are what the kernel locks:
//!
//! | byte | who locks it |
//! |---|---|
//! | data | an exclusive holder alone, or the shared ones together |
//! | line | who waits, one byte each, in the order of their coming; for a moment all of it, whoever takes the lock without waiting |
//! | gate | the first in the line, or for a moment whoever takes the lock |
//! | slot n | the holder whose record stands in slot n of the content, for as long as it holds |
//!
//! They stand in that order, because neighbours that are locked alike are one call of the kernel: an exclusive holder takes all from data
//! to the first slot at once, a shared one all from line to the first slot, and then data.
//!
//! A record is written before its slot is locked, or while the slot and the line are locked in one piece: whoever finds a slot locked, and
//! not in such a piece, finds the right record in it.
//!
//! The kernel lets readers pass a waiting writer, and it lets whoever asks pass those who are just waking up. The line does
//! neither: it is left with the grant and not before, and nobody takes the lock past somebody in it (the room `line`). What is
//! granted, and every place, is dropped with the open file description, so with the process.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;
use tooz_core::driver::{LockKey, RequestId, Space};
use tooz_core::{Error, ErrorKind, FencingToken, Holder, LockMode, MemberId, Outcome, Result};

use crate::error;
use crate::layout::{How, Identity, Layout, leave_some};
use crate::line::{self, Standing};
use crate::ofd::{self, Kind, Range};
use crate::record::{self, Name, Slot};
use crate::unfinished::{Naming, Unfinished};

const DATA: Range = Range { start: line::WAY.start - 1, length: 1 };
const FIRST_SLOT: libc::off_t = 1;
#[allow(clippy::cast_possible_truncation)] // It is 512.
const COUNTER_AT: usize = record::HEAD as usize;
/// How often the file of a lock may come and go while it is being opened.
const OVERTAKEN: usize = 8;
/// The line, the gate and the first slot: what a shared holder takes alone.
const WAY_AND_SLOT: Range = Range { start: line::WAY.start, length: line::WAY.length + 1 };
/// All that an exclusive holder takes.
const AT_ONCE: Range = Range { start: DATA.start, length: WAY_AND_SLOT.length + 1 };
/// How many places there are for the records of those who share a lock: so many more than can be there, by their open files, that one chosen by
/// chance is likely to be free.
const SLOTS: u32 = 16384;
/// Where to look for one: among the low ones first, so that the file stays small, then among more and more of them.
const GUESSES: [u32; 4] = [1, 4, 64, 1024];
/// How often then among all, before that many holders are taken for too many.
const MORE_GUESSES: usize = 60;
const ALL_SLOTS: Range = Range { start: ofd::FIRST + FIRST_SLOT, length: SLOTS as libc::off_t };
const EVERYTHING: Range = Range { start: DATA.start, length: AT_ONCE.length - 1 + ALL_SLOTS.length };

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
pub(crate) struct Taken {
    pub(crate) file: Arc<LockFile>,
    pub(crate) token: FencingToken,
}

/// How an attempt ended.
pub(crate) enum Attempt {
    Taken(Taken),
    /// Somebody holds it, or comes first. The file has no lock of ours, and can be used again.
    Busy(Arc<LockFile>),
    /// The path leads to another file now: this one guards nothing.
    Stale,
}

/// What keeps an attempt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Somebody holds it in a mode that conflicts.
    Holder,
    /// Somebody stands in the line, in most cases to wait.
    Waiter,
    /// Nobody has it: a grant is being made, or one that nobody wanted is being given back.
    Passing,
}

/// Whether a grant that is being made has its slot: the first one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slots {
    Taken,
    ToTake,
}

/// What a grant says of its owner.
pub(crate) struct Claim<'a> {
    pub(crate) member: &'a MemberId,
    pub(crate) mode: LockMode,
    pub(crate) id: RequestId,
    /// Of the session's process. Asking for it is a call of the system, so the session asks once.
    pub(crate) pid: u32,
}

impl LockFile {
    /// Opens the file of a lock, and makes it where there is none.
    pub(crate) fn open(layout: &Layout, key: &LockKey) -> Result<Arc<Self>> {
        let path = layout.lock(key);
        let mut file = layout.open(&path, How::Existing);
        for _ in 0..OVERTAKEN {
            match file {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => file = make(layout, key, &path)?,
                _ => break,
            }
        }
        let file = file.map_err(|error| error::at(error, "open lock file", &path))?;
        leave_some(&file).map_err(|error| error::at(error, "open lock file", &path))?;
        let metadata = file.metadata().map_err(|error| error::at(error, "look at lock file", &path))?;
        if !metadata.is_file() {
            return Err(error::foreign(&path));
        }
        record::claim(&file, &path, &key.name)?;
        Ok(Arc::new(LockFile {
            file,
            path,
            name: Arc::clone(&key.name),
            space: key.space,
            identity: Identity::of(&metadata),
        }))
    }

    /// Takes the lock if it is free and nobody waits for it.
    pub(crate) fn try_take(self: Arc<Self>, claim: &Claim<'_>) -> Result<Attempt> {
        let lock = |range, kind| self.kernel(ofd::try_lock(&self.file, range, kind));
        let slot = match claim.mode {
            // Looking whether anybody waits costs nothing that way.
            LockMode::Exclusive => lock(AT_ONCE, Kind::Alone)?.then_some(Slots::Taken),
            LockMode::Shared => {
                let way = if lock(WAY_AND_SLOT, Kind::Alone)? {
                    Some(Slots::Taken)
                } else {
                    lock(line::WAY, Kind::Alone)?.then_some(Slots::ToTake)
                };
                if way.is_some() && !lock(DATA, Kind::Shared)? {
                    self.kernel(ofd::unlock(&self.file, WAY_AND_SLOT))?;
                    None
                } else {
                    way
                }
            }
        };
        let Some(slot) = slot else { return Ok(Attempt::Busy(self)) };
        let taken = self.make_grant(claim, slot)?;
        if let Some(taken) = &taken {
            taken.file.let_the_next_come()?;
        }
        Ok(taken.map_or(Attempt::Stale, Attempt::Taken))
    }

    /// Takes a place at the end of the line, if that is to be had at once.
    pub(crate) fn stand_in_line(&self) -> Result<Standing> {
        self.kernel(line::stand(&self.file))
    }

    /// Waits there for one's turn: then the gate is ours. For a thread of our own.
    pub(crate) fn wait_in_line(&self, standing: Standing) -> Result<()> {
        self.kernel(line::wait(&self.file, standing))
    }

    /// Waits until the holders have gone. For a thread of our own.
    pub(crate) fn wait_for_data(&self, mode: LockMode) -> Result<()> {
        let kind = match mode {
            LockMode::Exclusive => Kind::Alone,
            LockMode::Shared => Kind::Shared,
        };
        self.kernel(ofd::wait_lock(&self.file, DATA, kind))
    }

    /// Leaves the line and the gate.
    pub(crate) fn let_the_next_come(&self) -> Result<()> {
        self.kernel(ofd::unlock(&self.file, line::WAY))
    }

    /// Whether the lock's path still leads to this file: folders of temporary files are swept.
    pub(crate) fn is_in_place(&self) -> Result<bool> {
        self.kernel(self.identity.is_at(&self.path))
    }

    /// Makes a grant of the data lock, which this description has, while some description of ours has the gate: nobody else
    /// is at the counter or takes a slot. `None`: the path leads elsewhere.
    pub(crate) fn finish(self: Arc<Self>, claim: &Claim<'_>) -> Result<Option<Taken>> {
        self.make_grant(claim, Slots::ToTake)
    }

    fn make_grant(self: Arc<Self>, claim: &Claim<'_>, slots: Slots) -> Result<Option<Taken>> {
        if !self.is_in_place()? {
            return Ok(None);
        }
        let slot = match (slots, claim.mode) {
            (Slots::Taken, _) | (_, LockMode::Exclusive) => 0,
            (Slots::ToTake, LockMode::Shared) => self.free_slot(claim.id)?,
        };
        // The head comes with the counter in one reading: what somebody has written there meanwhile is not written over.
        let mut content = [0; COUNTER_AT + record::COUNTER];
        let length = self.kernel(record::read_up_to(&self.file, &mut content, 0))?;
        let (head, counter) = content[..length].split_at(length.min(COUNTER_AT));
        record::claim_by(head, &self.file, &self.path, &self.name)?;
        let now = record::now();
        let token = record::next_token(counter, now);
        let mut bytes = record::counter(token);
        if slot != 0 {
            self.kernel(self.file.write_all_at(&bytes, record::HEAD))?;
            bytes.clear();
        }
        record::append(&mut bytes, claim.member, claim.mode, token, now, claim.pid);
        let at = if slot == 0 { record::HEAD } else { record::slot_at(slot) };
        self.kernel(self.file.write_all_at(&bytes, at))?;
        if slots == Slots::ToTake && !self.kernel(ofd::try_lock(&self.file, slot_byte(slot), Kind::Alone))? {
            return Err(error::strange(&self.path, "has a locked slot without a lock: is another program at it?"));
        }
        self.ring()?;
        Ok(Some(Taken { file: self, token: FencingToken(token) }))
    }

    /// Wakes those who watch: a write is what the kernel tells of, a lock is not. Only elections are watched.
    fn ring(&self) -> Result<()> {
        match self.space {
            Space::Election => self.kernel(self.file.write_all_at(b"\n", record::BELL)),
            Space::Lock => Ok(()),
        }
    }

    /// The same a while after the file was last looked at.
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
        let held = |range, kind| self.kernel(ofd::blocker(&self.file, range, kind)).map(|found| found.is_some());
        if !held(ALL_SLOTS, Kind::Alone)? {
            return Ok(Obstacle::Passing);
        }
        // Shared holders do not keep a reader out; an exclusive one has the data lock as well as its slot.
        match mode {
            LockMode::Shared if !held(DATA, Kind::Shared)? => Ok(Obstacle::Waiter),
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

    /// A slot that nobody has. Each look goes through all holders in the kernel, so there are few where few slots are taken.
    fn free_slot(&self, id: RequestId) -> Result<u32> {
        #[allow(clippy::cast_possible_truncation)] // Any 64 bits of it will do.
        let mut random = fastrand::Rng::with_seed(id.0 as u64 ^ (id.0 >> 64) as u64);
        for among in GUESSES.into_iter().chain(std::iter::repeat_n(SLOTS, MORE_GUESSES)) {
            let slot = random.u32(0..among);
            if self.kernel(ofd::blocker(&self.file, slot_byte(slot), Kind::Alone))?.is_none() {
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

impl Taken {
    /// Gives it back. The description comes back without any lock, unless it is better closed: that gives back, too.
    pub(crate) fn give_back(self) -> Option<Arc<LockFile>> {
        ofd::unlock(&self.file.file, EVERYTHING).ok()?;
        self.file.ring_if_ours().ok()?;
        Some(self.file)
    }
}

/// Makes the file of a lock, open to those who use the namespace from the first moment on.
fn make(layout: &Layout, key: &LockKey, path: &Path) -> Result<std::io::Result<File>> {
    let naming = if layout.needs_no_giving() {
        // It is empty at first; whoever sees that writes the same into it.
        match layout.create(path) {
            Ok(file) => return Ok(Ok(file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Naming::Taken,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Naming::NoFolder,
            Err(error) => return Ok(Err(error)),
        }
    } else {
        let failed = |error| error::at(error, "make lock file", path);
        let (made, file) = Unfinished::file(layout)?;
        file.write_all_at(&record::head(&key.name), 0).map_err(failed)?;
        match made.take_free_name(path).map_err(failed)? {
            Naming::Done => return Ok(Ok(file)),
            naming => naming,
        }
    };
    match naming {
        Naming::NoFolder => layout.make_branch(&layout.locks(key.space))?,
        // Others may find it closed to them for a moment.
        Naming::NoLinks => match layout.create(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            result => return Ok(result),
        },
        Naming::Done | Naming::Taken => {}
    }
    Ok(layout.open(path, How::Existing))
}

/// Who holds the lock. Makes nothing: a lock without a file has no holders.
pub(crate) fn holders(layout: &Layout, key: &LockKey) -> Result<Vec<Holder>> {
    let path = layout.lock(key);
    let failed = |error| error::at(error, "look at lock file", &path);
    let file = match layout.open(&path, How::Look) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let (head, length) = record::read_head(&file).map_err(failed)?;
    match Name::of(&head[..length]) {
        Name::Of(theirs) if theirs != key.name.as_bytes() => {
            return Err(error::collision(&path, &String::from_utf8_lossy(theirs), &key.name));
        }
        Name::Foreign => return Err(error::foreign(&path)),
        Name::Of(_) | Name::Lost => {}
    }
    // Slots are read one after another, so that two that never held together may be seen: looked at again.
    let mut holders = Vec::new();
    for _ in 0..8 {
        holders = holders_once(&file).map_err(failed)?;
        if holders.len() < 2 || holders.iter().all(|holder| holder.mode == LockMode::Shared) {
            break;
        }
    }
    Ok(holders)
}

fn holders_once(file: &File) -> std::io::Result<Vec<Holder>> {
    let mut holders = Vec::new();
    for byte in ofd::locked_bytes(file, ALL_SLOTS)? {
        let slot = u32::try_from(byte - ALL_SLOTS.start).unwrap_or(0);
        if slot == 0 && !is_first_record_written(file)? {
            continue;
        }
        for _ in 0..8 {
            match record::read_slot(file, slot)? {
                Slot::Held(holder) => {
                    holders.push(holder);
                    break;
                }
                Slot::Empty => break,
                Slot::Torn => std::thread::yield_now(),
            }
        }
    }
    Ok(holders)
}

/// Whether the first slot is locked by somebody whose record is written. Who takes the lock without waiting has it locked in one piece with the
/// line until then: its grant has not been handed out.
fn is_first_record_written(file: &File) -> std::io::Result<bool> {
    let found = ofd::blocker(file, slot_byte(0), Kind::Alone)?;
    Ok(found.is_some_and(|found| found.start > line::WAY.start))
}

const fn slot_byte(slot: u32) -> Range {
    Range::byte(FIRST_SLOT + slot as libc::off_t)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn a_holder_is_seen_while_another_takes_the_lock_and_that_one_only_when_it_has_it() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let (holder, taker, looker) = (open(), open(), open());
        let lock = |file: &File, range| assert!(ofd::try_lock(file, range, Kind::Alone).unwrap());
        let seen = || holders_once(&looker).unwrap().len();
        let mut record = Vec::new();
        record::append(&mut record, &MemberId::new("a").unwrap(), LockMode::Shared, 7, 7, 7);
        holder.write_all_at(&record, record::slot_at(0)).unwrap();
        assert_eq!(seen(), 0, "whose it was has gone");

        lock(&holder, slot_byte(0));
        assert_eq!(seen(), 1);
        // As one does that finds the first slot taken and goes on to another.
        lock(&taker, line::WAY);
        assert_eq!(seen(), 1, "the taker is not the one who has the slot");

        ofd::unlock(&taker, EVERYTHING).unwrap();
        ofd::unlock(&holder, EVERYTHING).unwrap();
        for at_once in [WAY_AND_SLOT, AT_ONCE] {
            lock(&taker, at_once);
            assert_eq!(seen(), 0, "its record is not written yet");
            ofd::unlock(&taker, line::WAY).unwrap();
            assert_eq!(seen(), 1);
            ofd::unlock(&taker, EVERYTHING).unwrap();
        }
    }
}
