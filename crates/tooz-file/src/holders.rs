//! What others see of locks by their files: the holders of one, and whether one is in use. Takes no lock and makes nothing.

use std::fs::File;
use std::path::Path;

use nix::libc;
use tooz_core::driver::{LockKey, Space};
use tooz_core::{GroupId, Holder, LockMode, LockName, Result};

use crate::byte_lock::{self, LockKind};
use crate::error;
use crate::layout::Layout;
use crate::line;
use crate::lock_file::{ALL_SLOTS, EVERYTHING, slot_byte};
use crate::open_file::{self, OpenMode};
use crate::record::{self, Name, Slot};

/// The key of the lock that the file at a path is for, if that is held or waited for. `None` also for what is no lock's file, or not for us to read.
pub(crate) fn key_if_in_use(path: &Path, space: Space) -> Result<Option<LockKey>> {
    let failed = |error| error::at(error, "look at lock file", path);
    let file = match open_file::open(path, OpenMode::Look) {
        Err(error) if open_file::is_short(&error) => return Err(failed(error)),
        Err(_) => return Ok(None),
        Ok(file) => file,
    };
    if byte_lock::blocker(&file, EVERYTHING, LockKind::Alone).map_err(failed)?.is_none() {
        return Ok(None);
    }
    let (head, length) = record::read_head(&file).map_err(failed)?;
    let name = record::full_name(&head[..length], path);
    Ok(name.and_then(|name| match space {
        Space::Lock => LockName::new(name).ok().map(|name| LockKey::lock(&name)),
        Space::Election => GroupId::new(name).ok().map(|group| LockKey::election(&group)),
    }))
}

/// The holders of a lock. Makes nothing: a lock without a file has no holders.
pub(crate) fn holders(layout: &Layout, key: &LockKey) -> Result<Vec<Holder>> {
    let path = layout.lock(key);
    let failed = |error| error::at(error, "look at lock file", &path);
    let file = match open_file::open(&path, OpenMode::Look) {
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
    for byte in byte_lock::locked_bytes(file, ALL_SLOTS)? {
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

/// Whether the first slot is locked by a holder whose record is written. An attempt that does not wait has it locked in one piece with the
/// line until then: its grant has not been handed out.
fn is_first_record_written(file: &File) -> std::io::Result<bool> {
    let found = byte_lock::blocker(file, slot_byte(0), LockKind::Alone)?;
    Ok(found.is_some_and(|found| found.start > line::WAY.start))
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt as _;

    use tooz_core::MemberId;

    use super::*;
    use crate::lock_file::{AT_ONCE, WAY_AND_SLOT};

    #[test]
    fn a_holder_is_seen_while_another_takes_the_lock_and_that_one_only_when_it_has_it() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let (holder, taker, looker) = (open(), open(), open());
        let lock = |file: &File, range| assert!(byte_lock::try_lock(file, range, LockKind::Alone).unwrap());
        let seen = || holders_once(&looker).unwrap().len();
        let mut record = Vec::new();
        record::append(&mut record, &MemberId::new("a").unwrap(), LockMode::Shared, 7, 7, 7);
        holder.write_all_at(&record, record::slot_at(0)).unwrap();
        assert_eq!(seen(), 0, "whose it was has gone");

        lock(&holder, slot_byte(0));
        assert_eq!(seen(), 1);
        // As one does that finds the first slot taken and goes on to another.
        lock(&taker, line::WAY);
        assert_eq!(seen(), 1, "the taker is not the holder of the slot");

        byte_lock::unlock(&taker, EVERYTHING).unwrap();
        byte_lock::unlock(&holder, EVERYTHING).unwrap();
        for at_once in [WAY_AND_SLOT, AT_ONCE] {
            lock(&taker, at_once);
            assert_eq!(seen(), 0, "its record is not written yet");
            byte_lock::unlock(&taker, line::WAY).unwrap();
            assert_eq!(seen(), 1);
            byte_lock::unlock(&taker, EVERYTHING).unwrap();
        }
    }
}
