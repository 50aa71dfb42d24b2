//! How a file that is there is opened and read, which file it is, and how many may be open at once.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::lstat;

/// A file that was written since it was last read has its time of access noted at each reading, which costs more than reading.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSEEN: libc::c_int = libc::O_NOATIME;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const UNSEEN: libc::c_int = 0;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenMode {
    /// For reading alone: works on a read-only file system.
    Look,
    /// For writing.
    Existing,
}

/// Opens a file that is there, without following a link out of the folder.
pub(crate) fn open(path: &Path, how: OpenMode) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(how == OpenMode::Existing);
    open_by(&mut options, path)
}

/// Opens a file by these options, without following a link out of the folder.
pub(crate) fn open_by(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let mut open = |more| options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | more).open(path);
    let mut open = || match open(UNSEEN) {
        // Only the owner of a file may read it unseen.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => open(0),
        result => result,
    };
    match open() {
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) && raise_limit() => open(),
        result => result,
    }
}

/// Reads as much as there is.
pub(crate) fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], at + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Which file it is: a path may come to mean another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Identity { device: metadata.dev(), inode: metadata.ino() }
    }

    /// Whether the path still leads to this file.
    pub(crate) fn is_at(self, path: &Path) -> io::Result<bool> {
        match lstat(path) {
            // Their types differ between systems.
            #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
            Ok(found) => Ok(self == Identity { device: found.st_dev as u64, inode: found.st_ino as u64 }),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether this process is short of something, so that no other file could be opened either.
pub(crate) fn is_short(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Every held lock is an open file, and the soft limit of 1024 is there for users of `select` alone: when it is reached, it
/// is raised to what the system allows this process anyway. Answers whether that made room.
fn raise_limit() -> bool {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok(),
        _ => false,
    }
}

/// The last descriptors below the limit are the application's: what is held is refused before nothing else can be opened. Descriptors are given
/// out from below, so that the number tells how many there are. For a file that stays open.
pub(crate) fn leave_some(file: &File) -> io::Result<()> {
    const LEFT: u64 = 32;
    /// No process has so low a limit as to be near it there, and asking is a call of the system.
    const LOW: u64 = 128;
    let number = u64::try_from(file.as_raw_fd()).unwrap_or(0);
    if number < LOW {
        return Ok(());
    }
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if number + LEFT < soft || (raise_limit() && leave_some(file).is_ok()) => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        Err(_) => Ok(()),
    }
}
