//! What an operator should know of the folder: its users, what it lies on, and how much there is room for.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use tooz_core::{Checkup, Result};

use crate::error;
use crate::layout::Layout;
use crate::namespace_folder::NamespaceFolder;

/// Fewer open files than that are soon used up, as each held lock and membership is one.
const FEW_FILES: u64 = 1024;

/// Looks, and makes nothing.
pub(crate) fn look(namespace: &NamespaceFolder, is_remote: bool, is_pushed: bool) -> Result<Checkup> {
    namespace.compare()?;
    let layout = &namespace.layout;
    let mut checkup = Checkup::new(format!("the folder {}", layout.root().display()));
    checkup = users(checkup, layout)?;
    checkup = if is_remote {
        checkup.warning(
            "it lies on a network file system: the death of a client is known when its server thinks so",
            "name a folder on a local file system (file:///FOLDER), or use a server",
        )
    } else {
        checkup.good("it lies on a local file system: the kernel frees what the dead held")
    };
    checkup = if is_pushed {
        checkup.good("changes of groups are told by inotify")
    } else {
        checkup.warning(
            "changes of groups are found by looking, several times in a session timeout",
            "raise fs.inotify.max_user_instances and max_user_watches, or leave inotify=false away",
        )
    };
    Ok(match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard < FEW_FILES => checkup.warning(
            format!("this process may open {hard} files, and each held lock and membership is one"),
            "raise the limit (ulimit -Hn)",
        ),
        Ok((_, hard)) => {
            checkup.good(format!("this process may open {hard} files, one for each held lock and membership"))
        }
        Err(_) => checkup,
    })
}

/// The users of the namespace, or those that it would have, if it were made now.
fn users(checkup: Checkup, layout: &Layout) -> Result<Checkup> {
    let Some(folder) = [layout.root(), layout.folder()].into_iter().find(|folder| folder.exists()) else {
        return Ok(checkup.good("it is made at its first use, for the users that the umask lets write there"));
    };
    let found = fs::metadata(folder).map_err(|error| error::at(error, "look at folder", folder))?;
    let mode = found.mode() & 0o7777;
    let told = |what: &str| {
        format!(
            "{} has the mode {mode:04o} and belongs to user {} and group {}: {what}",
            folder.display(),
            found.uid(),
            found.gid()
        )
    };
    let checkup = match (mode & 0o030 == 0o030, mode & 0o003 == 0o003) {
        (_, true) => checkup.warning(
            told("all users of this host may use it, and keep each other out"),
            "take the others' permission away (chmod o=) unless that is meant",
        ),
        (true, false) => checkup.good(told("its user and its group may use it, and no other user may look")),
        (false, false) => checkup.good(told("its user alone may use it, and no other user may look")),
    };
    Ok(match readable(layout) {
        Some(path) => checkup.warning(
            format!("{} may be read by users that may not write it, and a reader can keep all others out", path.display()),
            "take that permission away (chmod -R o= or g=), or clear the folder while it is not in use: earlier versions left it so",
        ),
        None => checkup,
    })
}

/// One of the folders in which files can be opened by some who may not write them, as earlier versions made them.
fn readable(layout: &Layout) -> Option<std::path::PathBuf> {
    let open = |path: &Path| {
        let mode = fs::symlink_metadata(path).map_or(0, |found| found.mode());
        [3, 0].into_iter().any(|shift| matches!((mode >> shift) & 0o7, 0o1 | 0o5))
    };
    let all = [layout.folder().to_owned(), layout.root().to_owned()];
    // A user who is kept out of one of them comes to nothing below.
    all.iter().all(|path| open(path)).then(|| layout.root().to_owned())
}
