//! For whom folders and files are made: for one user, for the members of a group, or for all, whatever the umask of their maker.
//!
//! A user who may write the file of a table can take every lock, or end all processes that use it by making it shorter. So a file or folder that others
//! could have put there, where all users may make folders, is looked at before it is used.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown,
};
use std::path::Path;

use nix::libc;
use tooz_core::Result;

use crate::error;

/// How the name begins of what is not finished yet, and gets its name then.
pub(crate) const UNFINISHED: &str = ".new-";

/// Who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Users {
    /// The user of that number.
    User(u32),
    /// The members of the group of that number.
    Group(u32),
    /// All users of this host.
    All,
}

impl Users {
    /// The folder of such users among those of all.
    pub(crate) fn folder(self) -> String {
        match self {
            Users::User(user) => format!("tooz-{user}"),
            Users::Group(group) => format!("tooz-g{group}"),
            Users::All => "tooz-all".to_owned(),
        }
    }

    pub(crate) fn described(self) -> String {
        match self {
            Users::User(user) => format!("user {user} alone"),
            Users::Group(group) => format!("the members of group {group}"),
            Users::All => "all users of this host".to_owned(),
        }
    }

    const fn file_mode(self) -> u32 {
        match self {
            Users::User(_) => 0o600,
            Users::Group(_) => 0o660,
            Users::All => 0o666,
        }
    }

    const fn folder_mode(self) -> u32 {
        match self {
            Users::User(_) => 0o700,
            Users::Group(_) => 0o770,
            Users::All => 0o777,
        }
    }

    /// Makes a folder that is not there yet. It gets its name when it is as it should be.
    pub(crate) fn make_folder(self, path: &Path) -> Result<()> {
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        let failed = |error| error::at(error, "make folder", path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let first = path.with_file_name(format!("{UNFINISHED}{name}-{:016x}", fastrand::u64(..)));
        let made = DirBuilder::new().mode(0o700).create(&first).and_then(|()| {
            if let Users::Group(group) = self {
                chown(&first, None, Some(group))?;
            }
            fs::set_permissions(&first, Permissions::from_mode(self.folder_mode()))?;
            fs::rename(&first, path)
        });
        if made.is_err() {
            let _ = fs::remove_dir(&first);
        }
        match made {
            // Another has made it meanwhile.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY | libc::EPERM))
                    && path.is_dir() =>
            {
                Ok(())
            }
            result => result.map_err(failed),
        }
    }

    /// Refuses a folder that another has put there, or that is open to others.
    pub(crate) fn check_folder(self, path: &Path) -> Result<()> {
        let found = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.map_err(|error| error::at(error, "look at folder", path))?,
        };
        if !found.is_dir() {
            return Err(error::not_ours(path, "is no folder"));
        }
        match self {
            Users::User(user) if found.uid() != user => {
                Err(error::not_ours(path, format_args!("belongs to user {}", found.uid())))
            }
            Users::Group(group) if found.gid() != group => {
                Err(error::not_ours(path, format_args!("belongs to group {}", found.gid())))
            }
            Users::User(_) if found.mode() & 0o077 != 0 => Err(error::not_ours(path, "is open to other users")),
            Users::Group(_) if found.mode() & 0o007 != 0 => {
                Err(error::not_ours(path, "is open to users beside the group"))
            }
            _ => Ok(()),
        }
    }

    /// Makes a file that is not there yet.
    pub(crate) fn create(self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(path)?;
        if let Users::Group(group) = self {
            fchown(&file, None, Some(group))?;
        }
        file.set_permissions(Permissions::from_mode(self.file_mode()))?;
        Ok(file)
    }

    /// Gives a socket to them that was just made.
    pub(crate) fn give(self, path: &Path) -> io::Result<()> {
        if let Users::Group(group) = self {
            chown(path, None, Some(group))?;
        }
        fs::set_permissions(path, Permissions::from_mode(self.file_mode()))
    }
}
