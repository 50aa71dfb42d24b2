//! Files that live as long as a process keeps them: alive means locked. Sessions and members are such files.
//!
//! Such a file is locked before it gets its name, with all that stands in it, so that no process ever sees it dead or half
//! written; and it gets its name by a rename, which takes the place of an older one in the same step.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::libc;
use tooz_core::Result;

use crate::byte_lock::{self, LockKind, Range};
use crate::error;
use crate::namespace_folder::NamespaceFolder;
use crate::open_file::{self, Identity, OpenMode, leave_some};
use crate::unfinished::{Naming, Unfinished};

const LIFE: Range = Range::byte(0);
/// What every such file begins with: by that the dead are known as ours, and what others put beside them is never removed.
const BEGINNING: &[u8] = br#"{"member":"#;
/// No file of ours is larger, as none is made that is; and none is read any further.
pub(crate) const LARGEST: usize = 1 << 20;

/// How often a file is looked at whose name was given to another meanwhile.
const LOOKS: usize = 16;

/// A file that is alive as long as this value, or a duplicate of its description, is.
#[derive(Debug)]
pub(crate) struct AliveFile {
    file: File,
    path: PathBuf,
    identity: Identity,
}

impl AliveFile {
    /// Makes `folder/name` with this content, in place of what is there. The content is an object that begins with [`BEGINNING`].
    pub(crate) fn create(namespace: &NamespaceFolder, folder: &Path, name: &str, content: &[u8]) -> Result<Self> {
        debug_assert!(content.starts_with(BEGINNING), "it is known as ours when its process has gone");
        let path = folder.join(name);
        let failed = |error| error::at(error, "make file", &path);
        for _ in 0..2 {
            let (mut made, mut file) = Unfinished::file(namespace)?;
            leave_some(&file).map_err(failed)?;
            // No other process knows this file, so the lock is to be had.
            byte_lock::try_lock(&file, LIFE, LockKind::Alone).map_err(failed)?;
            file.write_all(content).map_err(failed)?;
            let identity = Identity::of(&file.metadata().map_err(failed)?);
            // Where the wall clock jumped, another process may have taken it for a leftover.
            if made.take_name(&path).map_err(failed)? == Naming::Done {
                return Ok(AliveFile { file, path, identity });
            }
        }
        Err(failed(io::Error::from_raw_os_error(libc::ENOENT)))
    }

    /// Whether the name still leads to this file: it may have been replaced or deleted.
    pub(crate) fn is_in_place(&self) -> io::Result<bool> {
        self.identity.is_at(&self.path)
    }

    /// Takes the file away, unless its name is another's by now.
    pub(crate) fn remove(&self) -> Result<()> {
        let removed = self.is_in_place().and_then(|ours| if ours { fs::remove_file(&self.path) } else { Ok(()) });
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error::at(error, "remove file", &self.path)),
            _ => Ok(()),
        }
    }

    /// A duplicate of the description: the file is alive until that is closed, too.
    pub(crate) fn duplicate(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// A file of that kind as others see it.
pub(crate) enum LifeSign {
    /// There is none.
    Nothing,
    /// Its process has gone.
    Dead,
    /// Its process keeps it; this stands in it.
    Alive(Vec<u8>),
    /// It is no file of ours, or not one that may be read: whether it is alive can't be said, and it is left alone.
    Strange,
}

/// Looks at a file without touching it. One whose name was given to another meanwhile says nothing of that name: an update of a member puts a new file in the
/// place of the old one, and lets that go.
pub(crate) fn look(path: &Path) -> Result<LifeSign> {
    let failed = |error| error::at(error, "look at file", path);
    for _ in 0..LOOKS {
        let file = match open_file::open(path, OpenMode::Look) {
            Ok(file) => file,
            Err(error) => return strange(&error).ok_or_else(|| failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        match look_at(&file, &metadata).map_err(failed)? {
            LifeSign::Dead if !Identity::of(&metadata).is_at(path).map_err(failed)? => {}
            sign => return Ok(sign),
        }
    }
    Ok(LifeSign::Dead)
}

fn look_at(file: &File, metadata: &fs::Metadata) -> io::Result<LifeSign> {
    if !metadata.is_file() {
        return Ok(LifeSign::Strange);
    }
    let alive = byte_lock::blocker(file, LIFE, LockKind::Alone)?.is_some();
    // It is not written again once it has its name.
    let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let mut content = vec![0; if alive { length.min(LARGEST) } else { length.min(BEGINNING.len()) }];
    let whole = length;
    let length = open_file::read_up_to(file, &mut content, 0)?;
    content.truncate(length);
    if alive {
        return Ok(LifeSign::Alive(content));
    }
    let ours = content == BEGINNING || is_lost(file, whole)?;
    Ok(if ours { LifeSign::Dead } else { LifeSign::Strange })
}

/// Whether the whole file is what a power cut leaves of one of ours: nothing, zeros, or a part of the beginning and zeros.
fn is_lost(file: &File, length: usize) -> io::Result<bool> {
    if length > LARGEST {
        return Ok(false);
    }
    let mut content = vec![0; length];
    open_file::read_up_to(file, &mut content, 0)?;
    let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    Ok(BEGINNING.starts_with(&content[..end]))
}

/// What it means that a file can't be opened. `None`: it says nothing of the file.
fn strange(error: &io::Error) -> Option<LifeSign> {
    match error.raw_os_error() {
        Some(libc::ENOENT) => Some(LifeSign::Nothing),
        // Not for us; a link; a socket or a device.
        Some(libc::EACCES | libc::EPERM | libc::ELOOP | libc::ENXIO | libc::ENODEV) => Some(LifeSign::Strange),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// As a member does that updates its capabilities: a new file takes the name of the old one, which is let go.
    #[test]
    fn a_file_that_is_replaced_by_another_living_one_is_never_seen_dead() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("member");
        let put = |number: usize| {
            let made = folder.path().join(format!("made-{number}"));
            let mut file = File::options().read(true).write(true).create_new(true).open(&made).unwrap();
            byte_lock::try_lock(&file, LIFE, LockKind::Alone).unwrap();
            file.write_all(BEGINNING).unwrap();
            fs::rename(&made, &path).unwrap();
            file
        };
        let mut alive = put(0);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut looks = 0;
                while !is_over.load(Ordering::Relaxed) || looks < 1000 {
                    assert!(matches!(look(&path), Ok(LifeSign::Alive(_))), "look {looks}");
                    looks += 1;
                }
            });
            for number in 1..3000 {
                alive = put(number);
            }
            is_over.store(true, Ordering::Relaxed);
            looking.join().unwrap();
        });
        drop(alive);
        assert!(matches!(look(&path), Ok(LifeSign::Dead)));
    }
}
