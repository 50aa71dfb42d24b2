//! What stands in a file: its full name, the counter of a lock, the records of its holders, and the record of a member.
//!
//! A file name may be cut to a hash, so the name itself is the first thing in a file. Everything that is written again
//! is written in place by one `pwrite` within one page, so that a killed process leaves the old or the new value.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tooz_core::driver::{RequestId, decode_name};
use tooz_core::{Capabilities, Error, ErrorKind, FencingToken, Holder, LockMode, MemberId, Result, RosterEntry};

use crate::alive_file;
use crate::error;
use crate::open_file::read_up_to;

/// The text at the beginning of a lock file and of a group's own file; the name follows on the next line.
const MARK: &str = "tooz file 1\n";
/// Room for the mark and any name. What changes in place follows: a lock's counter, a group's count of changes.
pub(crate) const HEAD: u64 = 512;
/// A byte that means nothing: writing it tells watchers to look. It is the last one of the head.
pub(crate) const BELL: u64 = HEAD - 1;
/// The counter of a lock: the token given last, and the same number once more, disguised, as proof that it is one.
pub(crate) const COUNTER: usize = 16;
/// So much of the head is ever written: the rest is zeros, but for the bell.
const WRITTEN: usize = MARK.len() + 256;
const DISGUISE: u64 = 0x746f_6f7a_6c6f_636b;
/// A token beyond what a double can count is no token of ours.
const LARGEST_TOKEN: u64 = 1 << 53;
/// Length and checksum of a record, before its JSON.
const PREFIX: usize = 8;
/// Slots lie on multiples of this, so that none crosses a page; the first shares its place with the head and the counter.
const SLOT: u64 = 1024;
/// No file of ours is larger: it has 16384 slots.
const LARGEST_FILE: u64 = 16386 * SLOT;

/// The holder of a lock, as it stands in a slot.
#[derive(Debug, Serialize, Deserialize)]
struct Record<'a> {
    member: std::borrow::Cow<'a, str>,
    mode: char,
    token: u64,
    since: u64,
    pid: u32,
}

/// Where the record of a slot begins.
pub(crate) const fn slot_at(slot: u32) -> u64 {
    match slot {
        // Behind the counter, so that an exclusive grant writes both at once.
        0 => HEAD + COUNTER as u64,
        slot => (slot as u64 + 1) * SLOT,
    }
}

/// Microseconds of the wall clock.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

/// The token after the one in the file, and never below the clock: so it grows also when the machine lost power before
/// the file's last state was on the disk, or when another program emptied the file.
pub(crate) fn next_token(counter: &[u8], now: u64) -> u64 {
    let number = |at: usize| counter.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    match (number(0), number(8)) {
        (Some(last), Some(proof)) if last ^ DISGUISE == proof && last < LARGEST_TOKEN => now.max(last + 1),
        _ => now,
    }
}

/// The counter with this token.
pub(crate) fn counter(token: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&token.to_le_bytes());
    bytes.extend_from_slice(&(token ^ DISGUISE).to_le_bytes());
    bytes
}

/// Appends the record of a holder.
pub(crate) fn append(to: &mut Vec<u8>, member: &MemberId, mode: LockMode, token: u64, since: u64, pid: u32) {
    let start = to.len();
    to.extend_from_slice(&[0; PREFIX]);
    let record = Record {
        member: member.as_str().into(),
        mode: match mode {
            LockMode::Exclusive => 'x',
            LockMode::Shared => 's',
        },
        token,
        since,
        pid,
    };
    serde_json::to_writer(&mut *to, &record).expect("text and numbers are JSON, and memory does not fail");
    let json = &to[start + PREFIX..];
    // A name of 255 bytes that are all escaped makes less than 600 bytes of JSON.
    debug_assert!(
        json.len() + PREFIX + COUNTER + usize::try_from(HEAD).unwrap_or(0) <= 2048 - COUNTER,
        "a record fits its slot"
    );
    let length = u32::try_from(json.len()).unwrap_or(0).to_le_bytes();
    let sum = checksum(json).to_le_bytes();
    to[start..start + 4].copy_from_slice(&length);
    to[start + 4..start + PREFIX].copy_from_slice(&sum);
}

/// What a slot says.
pub(crate) enum Slot {
    /// Nothing was ever written there, or another program emptied the file.
    Empty,
    /// A writer is at it, or it is not ours: read again.
    Torn,
    /// A grant.
    Held(Holder),
}

/// Reads the record of a slot.
pub(crate) fn read_slot(file: &File, slot: u32) -> io::Result<Slot> {
    let mut bytes = [0; 1024];
    let length = read_up_to(file, &mut bytes, slot_at(slot))?;
    Ok(Slot::of(&bytes[..length]))
}

impl Slot {
    fn of(bytes: &[u8]) -> Self {
        let Some((prefix, rest)) = bytes.split_at_checked(PREFIX) else { return Slot::Empty };
        let word = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
        let (size, sum) = (word(0) as usize, word(4));
        if size == 0 {
            return Slot::Empty;
        }
        let holder = rest
            .get(..size)
            .filter(|json| checksum(json) == sum)
            .and_then(|json| serde_json::from_slice::<Record<'_>>(json).ok())
            .and_then(holder);
        holder.map_or(Slot::Torn, Slot::Held)
    }
}

fn holder(record: Record<'_>) -> Option<Holder> {
    let mode = if record.mode == 'x' { LockMode::Exclusive } else { LockMode::Shared };
    let member = MemberId::new(record.member).ok()?;
    let since = UNIX_EPOCH.checked_add(Duration::from_micros(record.since))?;
    Some(Holder::new(member, mode, FencingToken(record.token)).since(since).pid(record.pid))
}

/// What a file that is for this name begins with.
pub(crate) fn head(name: &str) -> Vec<u8> {
    format!("{MARK}{name}\n").into_bytes()
}

/// Checks whose file it is, and writes that down where nothing is written any more. Several may do so at once: they write the same.
pub(crate) fn ensure_name(file: &File, path: &Path, name: &str) -> Result<()> {
    let failed = |error| error::at(error, "use file", path);
    let (bytes, length) = read_head(file).map_err(failed)?;
    ensure_name_in(&bytes[..length], file, path, name)
}

/// Checks by the beginning of a file whose it is, and writes the name down where nothing is written any more.
pub(crate) fn ensure_name_in(beginning: &[u8], file: &File, path: &Path, name: &str) -> Result<()> {
    match Name::of(beginning) {
        Name::Of(theirs) if theirs == name.as_bytes() => Ok(()),
        Name::Of(theirs) => Err(error::collision(path, &String::from_utf8_lossy(theirs), name)),
        // Its beginning was lost with the power: the locks on it are the kernel's and hold.
        Name::Lost => {
            let failed = |error| error::at(error, "use file", path);
            if !is_ours_behind(beginning, file).map_err(failed)? {
                return Err(error::foreign(path));
            }
            file.write_all_at(&head(name), 0).map_err(failed)
        }
        Name::Foreign => Err(error::foreign(path)),
    }
}

/// Whether nothing stands behind a beginning of zeros that another program may have written: a foreign file may begin so, too. Reads the whole file,
/// which is never larger than all slots.
#[allow(clippy::cast_possible_truncation)] // They are 511 and 1024.
fn is_ours_behind(beginning: &[u8], file: &File) -> io::Result<bool> {
    const BLOCK: usize = SLOT as usize;
    if beginning.iter().any(|byte| *byte != 0) {
        return Ok(true);
    }
    let length = file.metadata()?.len();
    if length > LARGEST_FILE {
        return Ok(false);
    }
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let mut first = [0; 2 * BLOCK];
    let found = read_up_to(file, &mut first, 0)?;
    let (head, rest) = first.split_at(BELL as usize);
    let (count, slot) = rest[1..].split_at(COUNTER);
    // A lock has a token there, a group a count of its changes.
    let is_counted = next_token(count, 0) != 0 || is_zero(&count[5..]);
    let is_slot = |bytes: &[u8]| is_zero(bytes) || matches!(Slot::of(bytes), Slot::Held(_));
    if !(is_zero(head) && matches!(rest[0], 0 | b'\n') && is_counted && is_slot(slot)) {
        return Ok(false);
    }
    let (mut at, mut block) = (found as u64, [0; BLOCK]);
    while at < length {
        let read = read_up_to(file, &mut block, at)?;
        if read == 0 || !is_slot(&block[..read]) {
            return Ok(read == 0);
        }
        at += read as u64;
    }
    Ok(true)
}

/// The full name that a file is for, by its beginning.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// Nothing is written there, or not all that was: a power cut leaves that.
    Lost,
    Of(&'a [u8]),
    /// Another program wrote what stands there, and it is not written over.
    Foreign,
}

impl<'a> Name<'a> {
    pub(crate) fn of(beginning: &'a [u8]) -> Self {
        let head = &beginning[..beginning.len().min(WRITTEN)];
        if head.iter().all(|byte| *byte == 0) || MARK.as_bytes().starts_with(head) {
            return Name::Lost;
        }
        let Some(rest) = head.strip_prefix(MARK.as_bytes()) else { return Name::Foreign };
        rest.iter().position(|byte| *byte == b'\n').map_or(Name::Lost, |end| Name::Of(&rest[..end]))
    }
}

/// The full name that the file at a path is for, if it is one of ours: what stands in it, or where that is lost, the path, unless that was cut.
pub(crate) fn full_name(beginning: &[u8], path: &Path) -> Option<String> {
    match Name::of(beginning) {
        Name::Of(name) => std::str::from_utf8(name).ok().map(str::to_owned),
        Name::Lost => path.file_name()?.to_str().and_then(decode_name),
        Name::Foreign => None,
    }
}

/// The beginning of a file, and how much there is of it.
pub(crate) fn read_head(file: &File) -> io::Result<([u8; WRITTEN], usize)> {
    let mut bytes = [0; WRITTEN];
    let length = read_up_to(file, &mut bytes, 0)?;
    Ok((bytes, length))
}

/// A member as it stands in its file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MemberRecord<'a> {
    // First, since all files of the living begin with it.
    member: std::borrow::Cow<'a, str>,
    request: String,
    pid: u32,
    #[serde(borrow)]
    capabilities: &'a RawValue,
}

impl MemberRecord<'_> {
    /// The content of a member's file.
    pub(crate) fn write(member: &MemberId, id: RequestId, capabilities: &Capabilities) -> Result<Vec<u8>> {
        let wrong = |error| Error::new(ErrorKind::Backend, "these capabilities can't be written").with_source(error);
        let raw: &RawValue = serde_json::from_str(capabilities.as_json()).map_err(wrong)?;
        let record = MemberRecord {
            member: member.as_str().into(),
            request: id.to_string(),
            pid: std::process::id(),
            capabilities: raw,
        };
        let mut content = serde_json::to_vec(&record).map_err(wrong)?;
        content.push(b'\n');
        if content.len() > alive_file::LARGEST {
            return Err(Error::config(format!(
                "these capabilities make a file of {} bytes, and every member that lists the group reads it: {} are the most; say where \
                 the rest can be found",
                content.len(),
                alive_file::LARGEST
            )));
        }
        Ok(content)
    }

    /// Reads what `write` wrote.
    pub(crate) fn read(path: &Path, content: &[u8]) -> Result<RosterEntry> {
        let strange =
            |error: &dyn std::fmt::Display| error::strange(path, format_args!("is no member's file: {error}"));
        let record: MemberRecord<'_> = serde_json::from_slice(content).map_err(|error| strange(&error))?;
        let member = MemberId::new(record.member).map_err(|error| strange(&error))?;
        let id: RequestId = record.request.parse().map_err(|error| strange(&error))?;
        Ok(RosterEntry::new(member, id, Capabilities::from_json(record.capabilities.get())?))
    }
}

/// FNV-1a: enough to tell half a write from a whole one.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests;
