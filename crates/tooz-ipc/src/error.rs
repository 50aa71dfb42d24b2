//! From an error of the system or of the table to a kind and to words that say what to do. The only place where that is decided.

use std::fmt;
use std::io;
use std::path::Path;

use nix::libc;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, eaccess};
use tooz_core::{Error, ErrorKind, Outcome};

use crate::process::Process;

pub(crate) const SHARED_MEMORY: &str = "/dev/shm";

/// What is wrong with a change of the table. Nothing of that change is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableError {
    /// No driver of this kind has left it so.
    Garbled(&'static str),
    /// There is no free block.
    Full,
    /// Another is in the middle of a change, and lives: that process, or (`None`) now one and now another. `word` is the table's for that change alone.
    Busy { by: Option<Process>, word: u64 },
    /// The kernel does not say who lives.
    Unknown(i32),
}

/// What the system refused, where, and what would help.
pub(crate) fn at(error: io::Error, doing: impl fmt::Display, path: &Path) -> Error {
    let (kind, advice) = judge(&error, path);
    Error::new(kind, format!("can't {doing} {}: {error}; {advice}", path.display()))
        // A call of the system that fails has done nothing.
        .with_outcome(Outcome::NotApplied)
        .with_source(error)
}

/// What is wrong with the table at that path.
pub(crate) fn fault(fault: TableError, path: &Path) -> Error {
    let path = path.display();
    let error = match fault {
        // What a person has to mend: a call that tried it again would go on for ever.
        TableError::Garbled(what) => Error::config(format!(
            "the table {path} is spoiled ({what}): stop all that use it, and delete it; `tooz doctor` looks at it whole"
        )),
        // Not `Unavailable`: a wait for a lock would go on without a word until there is room.
        TableError::Full => Error::config(format!(
            "the table {path} is full: every lock in use, waiter, member and watch takes some 128 to 384 bytes in it. Stop all that use it and delete it, \
             and have it made anew with more (`size=64` in the URL, in MiB), or spread over several namespaces"
        )),
        TableError::Busy { by, .. } => {
            Error::new(ErrorKind::Unavailable, format!("the table {path} can't be used just now: {}", blocker(by)))
        }
        TableError::Unknown(code) => {
            let error = io::Error::from_raw_os_error(code);
            Error::new(
                ErrorKind::Unavailable,
                format!("the kernel does not say which sessions of the table {path} live: {error}"),
            )
            .with_source(error)
        }
    };
    error.with_outcome(Outcome::NotApplied)
}

/// Which process has the table, and what to do about it.
fn blocker(process: Option<Process>) -> String {
    let Some(process) = process else { return "other processes change it all the time; try again".to_owned() };
    if let Some(pid) = process.pid_here() {
        return format!(
            "process {pid} has begun a change of it and does not get on with it, as if it were stopped (its state: `ps -o stat= {pid}`, T is stopped). All others \
             wait for it: let it go on (kill -CONT {pid}), or end it (kill -9 {pid}), and its change is undone"
        );
    }
    let (pid, namespace) = process.elsewhere();
    format!(
        "a process of another container has begun a change of it and does not get on with it, as if it were stopped. It is process {pid} of the namespace \
         pid:[{namespace}] (`lsns -t pid`): let it go on there (kill -CONT {pid}), or end it there (kill -9 {pid}), and its change is undone"
    )
}

/// There is no room for one more session.
pub(crate) fn no_slot(path: &Path, slots: usize) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "the table {} has {slots} sessions, and no more: use one coordinator for a process, or several namespaces",
            path.display()
        ),
    )
    .with_outcome(Outcome::NotApplied)
}

/// A file that stands where the table should be, and that another program wrote.
pub(crate) fn foreign(path: &Path) -> Error {
    Error::config(format!(
        "{} was not made by this driver, and stays as it is: move it away, or give another name in the URL (ipc://NAME)",
        path.display()
    ))
}

/// A file that stands where the table should be, and has not even the beginning of one.
pub(crate) fn too_short(path: &Path) -> Error {
    Error::config(format!(
        "{} was not made by this driver, or another program has cut it, and stays as it is: a table that was cut is of no more use and may be deleted; another \
         file is to be moved away, or the URL to have another name (ipc://NAME)",
        path.display()
    ))
}

/// A folder that is another user's, or open to others.
pub(crate) fn not_ours(path: &Path, what: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Unauthorized,
        format!(
            "{} {what}: other users could keep this process out or end it there, so it is not used; have it removed",
            path.display()
        ),
    )
    .with_outcome(Outcome::NotApplied)
}

/// Capabilities for which there is no room.
pub(crate) fn too_long(length: usize, most: usize) -> Error {
    Error::config(format!("capabilities have at most {most} bytes as JSON in shared memory, these have {length}"))
}

/// The session is over.
pub(crate) fn lost(why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Lost, format!("the session has ended: {why}"))
}

/// A grant that was taken away before.
pub(crate) fn taken_away() -> Error {
    Error::new(ErrorKind::NotFound, "the grant had been taken away before")
}

/// Whether that is to stand in `/dev/shm` itself, and this user may make nothing there.
fn is_closed(path: &Path) -> bool {
    let folder = Path::new(SHARED_MEMORY);
    path.parent() == Some(folder) && eaccess(folder, AccessFlags::W_OK).is_err()
}

/// How many files there is room for; `None` where that has no limit.
pub(crate) fn files_left(shared_memory: &Path) -> Option<u64> {
    let found = statvfs(shared_memory).ok()?;
    (found.files() > 0).then(|| found.files_available())
}

fn judge(error: &io::Error, path: &Path) -> (ErrorKind, &'static str) {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) if is_closed(path) => {
            (ErrorKind::Unauthorized, "all users must be able to make folders in /dev/shm (`chmod 1777 /dev/shm`)")
        }
        Some(libc::EACCES | libc::EPERM) => (
            ErrorKind::Unauthorized,
            "shared memory is for the user alone where the URL says no mode; with a group it is for the members of that (`id -nG` says which groups this user \
             is in), and with mode=666 for all users",
        ),
        Some(libc::EROFS) => (ErrorKind::Unauthorized, "/dev/shm is read-only here"),
        Some(libc::ENOSPC) if files_left(Path::new(SHARED_MEMORY)) == Some(0) => (
            ErrorKind::Config,
            "/dev/shm has no inodes left for one more file (a namespace takes some five, and each session two): delete what nothing uses any more there, or have \
             it mounted with more (`mount -o remount,nr_inodes=N /dev/shm`)",
        ),
        Some(libc::ENOSPC | libc::EDQUOT) => (
            ErrorKind::Config,
            "/dev/shm is full (a container has 64 MiB of its own, unless it is told otherwise): make room, or ask for less (size=2 in the URL, in MiB)",
        ),
        Some(libc::ENOENT | libc::ENOTDIR | libc::EISDIR | libc::EEXIST | libc::ELOOP | libc::ENXIO) => (
            ErrorKind::Config,
            "there must be a /dev/shm, and nothing but what this driver makes below its folder there",
        ),
        Some(libc::EMFILE | libc::ENFILE) => (
            ErrorKind::Unavailable,
            "each session takes up to five open files, and four more for the coordinator: raise the limit (ulimit -n)",
        ),
        _ => (ErrorKind::Unavailable, "see to /dev/shm and try again"),
    }
}
