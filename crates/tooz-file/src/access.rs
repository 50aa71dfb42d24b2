//! For whom folders and files are made: for all users that may write the folder that the URL names, and for them alone. The umask of the
//! first one decides nothing: a file that others can't open would lock them out, or hide its member from them.
//!
//! A user that may not write may not read either. The kernel gives a read lock to each user that may open a file for reading, and that keeps
//! all others out as well as a write lock does.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use nix::libc;

/// The users of a folder and of all that is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    user: u32,
    group: u32,
    /// The nine bits of a folder.
    mode: u32,
}

/// What the bits are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Folder,
    File,
}

/// What it took to give something away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    /// Nothing: it was made with the right mode, and of the right group.
    AsItWas,
    Changed,
}

impl Access {
    /// For the users that may write this folder.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        Ok(Self::like(&fs::metadata(folder)?))
    }

    fn like(folder: &Metadata) -> Self {
        const WRITE_AND_ENTER: u32 = 0o3;
        let all_or_nothing = |shift: u32| match (folder.mode() >> shift) & WRITE_AND_ENTER {
            WRITE_AND_ENTER => 0o7 << shift,
            _ => 0,
        };
        Access { user: folder.uid(), group: folder.gid(), mode: 0o700 | all_or_nothing(3) | all_or_nothing(0) }
    }

    /// The mode to make it with.
    pub(crate) fn mode(self, object: Object) -> u32 {
        match object {
            Object::Folder => self.mode,
            Object::File => self.mode & 0o666,
        }
    }

    /// Gives what was just made, and what no other process has seen yet, to its users. Answers whether it was theirs already.
    pub(crate) fn give(self, made: &File, object: Object) -> io::Result<Handover> {
        let mut found = made.metadata()?;
        let mut given = Handover::AsItWas;
        if found.uid() != self.user || found.gid() != self.group {
            // Only root can give away what it made in another's folder; each user can give it to a group of their own.
            if fchown(made, Some(self.user), Some(self.group)).is_err() && found.gid() != self.group {
                let _ = fchown(made, None, Some(self.group));
            }
            found = made.metadata()?;
            given = Handover::Changed;
        }
        let mut bits = self.mode(object);
        if found.gid() != self.group {
            // The group's share would be another group's: its users get no more than all others.
            bits = (bits & !0o070) | ((bits & 0o007) << 3);
        }
        if found.uid() != self.user && bits & 0o070 == 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "it would belong to user {}, and user {} of the folder would be locked out",
                    found.uid(),
                    self.user
                ),
            ));
        }
        if found.mode() & 0o777 == bits {
            return Ok(given);
        }
        // A folder may have the bit by which the group is handed down.
        let bits = bits | (found.mode() & libc::S_ISGID);
        match made.set_permissions(Permissions::from_mode(bits)) {
            // Some file systems have modes for the whole mount alone.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS)) => {
                Ok(given)
            }
            result => result.map(|()| Handover::Changed),
        }
    }

    /// Makes a folder for them. It has another name at first, or is within such a one: no other process sees it before it is as it should be.
    pub(crate) fn make_folder(self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)?;
        let given = open_folder(path).and_then(|made| self.give(&made, Object::Folder));
        if given.is_err() {
            let _ = fs::remove_dir(path);
        }
        given.map(drop)
    }
}

/// Opens a folder that was just made. Its own maker may be kept out, by a umask that takes the owner's bits.
fn open_folder(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path);
    match open() {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            fs::set_permissions(path, Permissions::from_mode(0o700))?;
            open()
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_that_may_write_the_folder_may_use_what_is_in_it_and_no_others_may_look() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, folders, files) in [
            (0o755, 0o700, 0o600),
            (0o775, 0o770, 0o660),
            (0o777, 0o777, 0o666),
            (0o1777, 0o777, 0o666),
            (0o700, 0o700, 0o600),
            (0o773, 0o777, 0o666),
            (0o722, 0o700, 0o600),
        ] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            let access = Access::of(folder.path()).unwrap();
            let (sub, file) = (folder.path().join("folder"), folder.path().join("file"));
            access.make_folder(&sub).unwrap();
            access.give(&File::create(&file).unwrap(), Object::File).unwrap();
            let mode_of = |path: &Path| path.metadata().unwrap().mode() & 0o777;
            assert_eq!((mode_of(&sub), mode_of(&file)), (folders, files), "in {mode:o}");
            fs::remove_dir(sub).unwrap();
            fs::remove_file(file).unwrap();
        }
    }
}
