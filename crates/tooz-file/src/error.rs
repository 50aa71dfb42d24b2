//! From an error of the system to a kind and to words that say what to do. The only place where that is decided.

use std::fmt;
use std::io;
use std::path::Path;

use nix::libc;
use tooz_core::{Error, ErrorKind, GroupId, Outcome};

/// What the system refused, where, and what would help.
///
/// What may pass by itself is told in the same words for all files of a folder: core tells of each trouble once, and a hundred waits that fail for one
/// reason are one trouble.
pub(crate) fn at(error: io::Error, doing: impl fmt::Display, path: &Path) -> Error {
    let (kind, advice) = judge(&error);
    let message = match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => format!("no more files can be opened: {error}; {advice}"),
        _ if kind == ErrorKind::Unavailable => {
            format!("can't {doing} in {}: {error}; {advice}", path.parent().unwrap_or(path).display())
        }
        _ => format!("can't {doing} {}: {error}; {advice}", path.display()),
    };
    Error::new(kind, message)
        // A call of the system that fails has done nothing.
        .with_outcome(Outcome::NotApplied)
        .with_source(error)
}

/// A thread that would have waited for a lock.
pub(crate) fn no_thread(error: io::Error) -> Error {
    let message = format!(
        "no more threads can be started: {error}; each contended lock waits on one: raise the limit (ulimit -u, or the container's)"
    );
    Error::new(ErrorKind::Unavailable, message).with_outcome(Outcome::NotApplied).with_source(error)
}

/// A file that holds what no driver of this kind wrote.
pub(crate) fn strange(path: &Path, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Backend, format!("{} {what}", path.display()))
}

/// A file that stands where one of ours should be, and that another program wrote.
pub(crate) fn foreign(path: &Path) -> Error {
    Error::config(format!(
        "{} was not written by this driver, and stays as it is: move it away, or name a folder that is this driver's alone in the \
         URL (file:///FOLDER)",
        path.display()
    ))
}

/// What keeps a group from being deleted, as there may be a living member behind it.
pub(crate) fn in_the_way(path: &Path, group: &GroupId) -> Error {
    Error::config(format!(
        "group {group:?} can't be deleted while {} is there, which was not written by this driver or can't be read by this user: move it \
         away, or let its owner read it",
        path.display()
    ))
}

/// Two names that became one file name; or a file that is not where it was made.
pub(crate) fn collision(path: &Path, theirs: &str, ours: &str) -> Error {
    strange(
        path,
        format_args!(
            "belongs to {theirs:?}, not to {ours:?}: it was copied or linked there by hand, and then delete it, once no process uses it; or \
             their hashes collide, and then choose another name"
        ),
    )
}

/// A record of the layout that says none.
pub(crate) fn spoiled_record(path: &Path) -> Error {
    Error::config(format!(
        "{} does not say in which layout the namespace is kept: it is spoiled, or another program's. Stop all that use the namespace and \
         delete that file, or name a folder that is this driver's alone in the URL (file:///FOLDER)",
        path.display()
    ))
}

fn judge(error: &io::Error) -> (ErrorKind, &'static str) {
    match error.raw_os_error() {
        None if error.kind() == io::ErrorKind::PermissionDenied => {
            (ErrorKind::Unauthorized, "run this as a user of the folder, or let root give files away (CAP_CHOWN)")
        }
        Some(libc::EACCES | libc::EPERM) => (
            ErrorKind::Unauthorized,
            "users that may write the folder may use it, and no others: see its owner, group and mode, or name another folder in the URL \
             (file:///FOLDER)",
        ),
        Some(libc::EROFS) => {
            (ErrorKind::Unauthorized, "the file system is read-only: name another folder in the URL (file:///FOLDER)")
        }
        Some(libc::ENOENT | libc::ENOTDIR | libc::EEXIST | libc::EISDIR | libc::ENAMETOOLONG | libc::EINVAL) => {
            (ErrorKind::Config, "name a folder that is this driver's alone in the URL (file:///FOLDER)")
        }
        Some(libc::ELOOP) => (
            ErrorKind::Config,
            "a symbolic link stands there, which is not followed: move it away, or name a folder that is this driver's alone in the URL \
             (file:///FOLDER)",
        ),
        Some(libc::ENXIO | libc::ESPIPE) => (
            ErrorKind::Config,
            "a pipe, a socket or a device stands there: move it away, or name a folder that is this driver's alone in the URL \
             (file:///FOLDER)",
        ),
        // Not `Unavailable`: a wait for a lock would go on without a word until there is room.
        Some(libc::ENOSPC | libc::EDQUOT) => (ErrorKind::Config, "make room on that file system and try again"),
        Some(libc::EMFILE | libc::ENFILE) => (
            ErrorKind::Unavailable,
            "every held lock and membership is an open file, and the last 32 are left to the application: raise the limit (ulimit -n)",
        ),
        Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS) => (
            ErrorKind::Config,
            "this file system has no file locks to give: name a folder on another one in the URL (file:///FOLDER)",
        ),
        _ => (ErrorKind::Unavailable, "see to the file system and try again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_the_place_and_the_cure() {
        for (code, kind, words) in [
            (libc::EACCES, ErrorKind::Unauthorized, "file:///FOLDER"),
            (libc::EROFS, ErrorKind::Unauthorized, "read-only"),
            (libc::ENOTDIR, ErrorKind::Config, "folder"),
            (libc::ELOOP, ErrorKind::Config, "symbolic link"),
            (libc::ESPIPE, ErrorKind::Config, "a pipe"),
            (libc::ENOSPC, ErrorKind::Config, "room"),
        ] {
            let error = at(io::Error::from_raw_os_error(code), "make folder", Path::new("/srv/x"));
            assert_eq!(error.kind(), kind, "{error}");
            assert_eq!(error.outcome(), Outcome::NotApplied);
            assert!(error.to_string().contains(words) && error.to_string().contains("/srv/x"), "{error}");
        }
    }

    #[test]
    fn what_may_pass_by_itself_is_one_reason_whatever_file_it_was_about() {
        for (code, words) in [(libc::EMFILE, "ulimit"), (libc::ENFILE, "ulimit"), (libc::EIO, "/srv/locks")] {
            let [one, other] = ["/srv/locks/one", "/srv/locks/other"]
                .map(|path| at(io::Error::from_raw_os_error(code), "open lock file", Path::new(path)));
            assert_eq!(one, other);
            assert_eq!((one.kind(), one.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
            assert!(one.to_string().contains(words), "{one}");
        }
        assert!(no_thread(io::Error::from_raw_os_error(libc::EAGAIN)).to_string().contains("ulimit -u"));
    }
}
