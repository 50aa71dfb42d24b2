//! The folder of a namespace: how it and what is in it come to be, for whom, and whether it is kept in the layout of this version.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use tooz_core::driver::Mutex;
use tooz_core::{Error, Namespace, Result};

use crate::access::{Access, Handover, Object};
use crate::error;
use crate::folder_stamp::FolderStamp;
use crate::layout::{self, Layout, LayoutReading};
use crate::open_file::{self, OpenMode};
use crate::options::{Owner, Settings};

/// The folder of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct NamespaceFolder {
    pub(crate) layout: Layout,
    owner: Owner,
    namespace: Namespace,
    /// What the record of the layout looked like when it was read and said ours: it is read again as soon as it looks otherwise.
    agreed: Arc<Mutex<Option<FolderStamp>>>,
    needs_no_giving: Arc<AtomicBool>,
}

/// Whether a namespace has a record of its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamespaceRecord {
    Missing,
    Ours,
}

impl NamespaceFolder {
    pub(crate) fn new(settings: &Settings, namespace: &Namespace) -> Self {
        NamespaceFolder {
            layout: Layout::new(&settings.folder, namespace),
            owner: settings.owner,
            namespace: namespace.clone(),
            agreed: Arc::default(),
            needs_no_giving: Arc::default(),
        }
    }

    /// Whether there is nothing at its path.
    pub(crate) fn is_missing(&self) -> bool {
        self.layout.root().symlink_metadata().is_err()
    }

    /// Refuses a namespace that is kept in another layout. Makes nothing. A namespace may be moved while this process lives, so it is asked at each
    /// opening of a file, and costs one look there.
    pub(crate) fn compare(&self) -> Result<NamespaceRecord> {
        // Before the reading: what changes after it looks otherwise at the next time.
        let now = FolderStamp::of(&self.layout.record());
        if *self.agreed.lock() == Some(now) {
            return Ok(NamespaceRecord::Ours);
        }
        match self.recorded()? {
            LayoutReading::Nothing => Ok(NamespaceRecord::Missing),
            LayoutReading::Ours => {
                *self.agreed.lock() = Some(now);
                Ok(NamespaceRecord::Ours)
            }
            LayoutReading::Spoiled => Err(error::spoiled_record(&self.layout.record())),
            LayoutReading::Foreign(found) => Err(Error::foreign_layout(&self.namespace, found, layout::SPOKEN)),
        }
    }

    fn recorded(&self) -> Result<LayoutReading> {
        let path = self.layout.record();
        let failed = |error| error::at(error, "read the record of the layout in", &path);
        let file = match open_file::open(&path, OpenMode::Look) {
            // A namespace that is a file is told of when something is to be made in it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                return Ok(LayoutReading::Nothing);
            }
            result => result.map_err(failed)?,
        };
        if !file.metadata().map_err(failed)?.is_file() {
            return Ok(LayoutReading::Spoiled);
        }
        let mut text = [0; 64];
        let length = open_file::read_up_to(&file, &mut text, 0).map_err(failed)?;
        Ok(LayoutReading::of(&text[..length]))
    }

    /// The users of the namespace.
    pub(crate) fn access(&self) -> io::Result<Access> {
        Access::of(self.layout.root())
    }

    /// Makes one of the folders in which everything is.
    pub(crate) fn make_branch(&self, branch: &Path) -> Result<()> {
        self.make()?;
        let root = self.layout.root();
        let made = match branch.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let access = self.access().map_err(|error| error::at(error, "look at folder", root))?;
                appear(root, branch, |first| access.make_folder(first))
            }
            _ => Ok(()),
        };
        made.map_err(|error| error::at(error, "make folder", branch))
    }

    /// Makes the folder with all that belongs to it, in one step, if there is none.
    pub(crate) fn make(&self) -> Result<()> {
        if !self.is_missing() {
            return Ok(());
        }
        let mode = match self.owner {
            Owner::User => 0o700,
            Owner::AsUmask => 0o777,
        };
        let (folder, root) = (self.layout.folder(), self.layout.root());
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(folder)
            .map_err(|error| error::at(error, "make folder", folder))?;
        let access = Access::of(folder).map_err(|error| error::at(error, "look at folder", folder))?;
        appear(folder, root, |first| {
            access.make_folder(first)?;
            for branch in self.layout.branches() {
                access.make_folder(&first.join(branch.file_name().unwrap_or_default()))?;
            }
            write_record(&first.join(self.layout.record().file_name().unwrap_or_default()), access)
        })
        .map_err(|error| error::at(error, "make folder", root))
    }

    /// Makes a file that is not there yet, for the users of the namespace.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        let access = self.access()?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(access.mode(Object::File));
        let file = open_file::open_by(&mut options, path)?;
        let given = access.give(&file, Object::File);
        self.needs_no_giving.store(matches!(given, Ok(Handover::AsItWas)), Ordering::Relaxed);
        if given.is_err() {
            let _ = fs::remove_file(path);
        }
        given.map(|_| file)
    }

    /// Whether files belong to the users of the namespace from their first moment on, as the umask takes nothing away: so it was with the last one.
    pub(crate) fn needs_no_giving(&self) -> bool {
        self.needs_no_giving.load(Ordering::Relaxed)
    }
}

/// Writes the record of the layout where no other process sees it yet, or where names can't be given to finished files.
pub(crate) fn write_record(path: &Path, access: Access) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Err(error) = access.give(&file, Object::File) {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    file.write_all(layout::record_text().as_bytes())
}

/// Makes a folder under another name beside its own, and lets it appear with all that `make` puts into it. One that is there already is as good.
fn appear(parent: &Path, path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let first = parent.join(layout::unfinished_name());
    let result = make(&first).and_then(|()| fs::rename(&first, path));
    if result.is_err() {
        let _ = fs::remove_dir_all(&first);
    }
    match result {
        // Another process has made it meanwhile. (It may be another user's, in a folder with the sticky bit.)
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY | libc::EPERM | libc::EACCES))
                && path.is_dir() =>
        {
            Ok(())
        }
        other => other,
    }
}
