//! Files that live as long as a process keeps them: alive means locked. Sessions and members are such files.
//!
//! Such a file is locked before it gets its name, with all that stands in it, so that nobody ever sees it dead or half
//! written; and it gets its name by a rename, which takes the place of an older one in the same step.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::libc;
use tooz_core::Result;

use crate::error;
use crate::layout::{How, Identity, Layout, unfinished};
use crate::ofd::{self, Kind, Range};

const LIFE: Range = Range::byte(0);

/// A file that is alive as long as this value, or a duplicate of its description, is.
#[derive(Debug)]
pub(crate) struct AliveFile {
    file: File,
    path: PathBuf,
    identity: Identity,
}

impl AliveFile {
    /// Makes `folder/name` with this content, in place of what is there.
    pub(crate) fn create(layout: &Layout, folder: &Path, name: &str, content: &[u8]) -> Result<Self> {
        let first = folder.join(unfinished());
        let path = folder.join(name);
        let mut file = layout.open(&first, How::CreateNew).map_err(|error| error::at(error, "make file", &first))?;
        let made = (|| {
            // Nobody else knows this file, so the lock is to be had.
            ofd::try_lock(&file, LIFE, Kind::Alone)?;
            file.write_all(content)?;
            let identity = Identity::of(&file.metadata()?);
            fs::rename(&first, &path)?;
            Ok(identity)
        })();
        match made {
            Ok(identity) => Ok(AliveFile { file, path, identity }),
            Err(error) => {
                let _ = fs::remove_file(&first);
                Err(error::at(error, "make file", &path))
            }
        }
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
pub(crate) enum Seen {
    /// There is none.
    Nothing,
    /// Its process has gone.
    Dead,
    /// Its process keeps it; this stands in it.
    Alive(Vec<u8>),
}

/// Looks at a file without touching it.
pub(crate) fn look(layout: &Layout, path: &Path) -> Result<Seen> {
    let failed = |error| error::at(error, "look at file", path);
    let file = match layout.open(path, How::Look) {
        Ok(file) => file,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ELOOP)) => return Ok(Seen::Nothing),
        Err(error) => return Err(failed(error)),
    };
    if ofd::blocker(&file, LIFE, Kind::Alone).map_err(failed)?.is_none() {
        return Ok(Seen::Dead);
    }
    let mut content = Vec::new();
    io::Read::read_to_end(&mut &file, &mut content).map_err(failed)?;
    Ok(Seen::Alive(content))
}
