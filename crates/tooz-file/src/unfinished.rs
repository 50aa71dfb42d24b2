//! What has no name yet: files and folders are made whole among the sessions, and get their names in one step.
//!
//! So no process ever sees one that is empty, half written, or closed to its users, and what a killed process leaves behind
//! lies in one place, where the next session looks (the room `sweep`).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::libc;
use tooz_core::Result;

use crate::error;
use crate::namespace_folder::NamespaceFolder;

/// A file or folder on its way. Dropped without a name it is taken away.
pub(crate) struct Unfinished {
    path: PathBuf,
    is_named: bool,
}

/// How a name was to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    Done,
    /// Something has that name.
    Taken,
    /// The folder in which the name was to be is not there, or the unfinished one was swept away.
    NoFolder,
    /// This file system has no second names for files.
    NoLinks,
}

impl Unfinished {
    /// A new file, empty, for the users of the namespace.
    pub(crate) fn file(namespace: &NamespaceFolder) -> Result<(Self, File)> {
        let path = namespace.layout.unfinished();
        let file = match namespace.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                namespace.make_branch(&namespace.layout.sessions())?;
                namespace.create(&path)
            }
            result => result,
        };
        let file = file.map_err(|error| error::at(error, "make file", &path))?;
        Ok((Unfinished { path, is_named: false }, file))
    }

    /// A new folder, for the users of the namespace.
    pub(crate) fn folder(namespace: &NamespaceFolder) -> Result<Self> {
        let path = namespace.layout.unfinished();
        let attempt = || namespace.access().and_then(|access| access.make_folder(&path));
        let made = match attempt() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                namespace.make_branch(&namespace.layout.sessions())?;
                attempt()
            }
            result => result,
        };
        made.map_err(|error| error::at(error, "make folder", &path))?;
        Ok(Unfinished { path, is_named: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a file its name, if nothing has it.
    pub(crate) fn take_free_name(self, path: &Path) -> io::Result<Naming> {
        let Err(error) = fs::hard_link(&self.path, path) else {
            // The first name goes as this is dropped.
            return Ok(Naming::Done);
        };
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EXDEV | libc::EMLINK) => Ok(Naming::NoLinks),
            _ => refused(error),
        }
    }

    /// Gives it its name, in place of a file, or of an empty folder, that has it.
    pub(crate) fn take_name(&mut self, path: &Path) -> io::Result<Naming> {
        match fs::rename(&self.path, path) {
            Ok(()) => {
                self.is_named = true;
                Ok(Naming::Done)
            }
            Err(error) => refused(error),
        }
    }
}

fn refused(error: io::Error) -> io::Result<Naming> {
    match error.raw_os_error() {
        Some(libc::EEXIST | libc::ENOTEMPTY) => Ok(Naming::Taken),
        Some(libc::ENOENT) => Ok(Naming::NoFolder),
        _ => Err(error),
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_named {
            return;
        }
        // What can't be removed now is swept by a later session.
        if let Err(error) = fs::remove_file(&self.path)
            && matches!(error.raw_os_error(), Some(libc::EISDIR | libc::EPERM))
        {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
