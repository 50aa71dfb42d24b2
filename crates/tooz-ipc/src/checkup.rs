//! What an operator should know of the table: who shares it, how full it is, whether it is as it should be, and what the dead have left.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;
use tooz_core::{Checkup, Result};

use crate::access::Users;
use crate::error::{self, TableError};
use crate::layout::{AT_UNDONE, SLOTS};
use crate::living::Living;
use crate::namespace_folder::NamespaceFolder;

/// Users from this number on are people, whose files systemd removes.
const FIRST_NORMAL_USER: u32 = 1000;

/// For this many sessions and tables there should be files.
const FEW_FILES: u64 = 200;

/// Looks, and makes nothing.
pub(crate) async fn look(folder: &NamespaceFolder, living: Option<&Living>) -> Result<Checkup> {
    let mut checkup = Checkup::new(format!("the table {}", folder.table().display()));
    checkup = mount(checkup, folder);
    checkup = match living {
        Some(living) => contents(checkup, living).await?,
        None => checkup.good("there is no table yet: it is made at the first use"),
    };
    checkup = leftovers(checkup, folder);
    Ok(log_out(checkup, folder.users))
}

/// Which processes see the same memory: those that have the same mount, and the right to.
fn mount(checkup: Checkup, folder: &NamespaceFolder) -> Checkup {
    let shared_memory = folder.base.parent().unwrap_or(&folder.base);
    let device = fs::metadata(shared_memory).map_or(0, |found| found.dev());
    let room = statvfs(shared_memory).map_or(0, |found| found.blocks_available() * found.fragment_size()) >> 20;
    let shares = format!(
        "it is shared by {} where /dev/shm is device {}:{} (`stat -c %Hd:%Ld /dev/shm`): a container that has its own /dev/shm has its own table",
        folder.users.described(),
        nix::sys::stat::major(device),
        nix::sys::stat::minor(device)
    );
    let checkup = checkup.good(shares);
    let is_memory = statfs(shared_memory).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
    let checkup = if is_memory {
        checkup.good("/dev/shm is memory, which ends with a reboot, and the tokens with it")
    } else {
        checkup.warning("/dev/shm is no tmpfs here: each change may be written to a disk", "mount a tmpfs there")
    };
    let checkup = if room < 16 {
        checkup.warning(
            format!("/dev/shm has room for {room} MiB more, and each namespace takes some"),
            "make room, or give it more (docker run --shm-size=…)",
        )
    } else {
        checkup.good(format!("/dev/shm has room for {room} MiB more"))
    };
    match error::files_left(shared_memory) {
        Some(files) if files < FEW_FILES => checkup.warning(
            format!("/dev/shm has inodes for {files} files more, and each session takes two"),
            "delete what nothing uses any more there, or have it mounted with more (mount -o remount,nr_inodes=N /dev/shm)",
        ),
        Some(files) => checkup.good(format!("/dev/shm has inodes for {files} files more")),
        None => checkup,
    }
}

async fn contents(checkup: Checkup, living: &Living) -> Result<Checkup> {
    let seen = living.with(|table| Ok((table.verify(), table.count_sessions()?, table.get(AT_UNDONE)?))).await;
    let (verified, (sessions, dead), undone) = match seen {
        Ok(seen) => seen,
        Err(error) => {
            return Ok(checkup.wrong(
                error.to_string(),
                "let the process that is named go on or end it, or delete the table when nothing uses it",
            ));
        }
    };
    let census = match verified {
        Ok(census) => census,
        Err(fault @ TableError::Garbled(_)) => {
            let what = error::fault(fault, &living.table.path).to_string();
            return Ok(checkup.wrong(what, "stop all that use it, and delete it: it is made anew at the next use"));
        }
        Err(fault) => return Err(error::fault(fault, &living.table.path)),
    };
    let all = living.table.blocks();
    let full = format!(
        "{} of {all} blocks are in use: {} locks with {} holders and waiters, {} groups with {} members, {} watches",
        census.blocks, census.locks, census.places, census.groups, census.members, census.watches
    );
    let checkup = checkup.good("every list and count in it is right");
    let checkup = if census.blocks * 10 > all * 8 {
        checkup.warning(full, "have it made anew with more memory (size=…, in MiB), or spread over several namespaces")
    } else {
        checkup.good(full)
    };
    let checkup = checkup.good(format!("{sessions} of {SLOTS} sessions, {dead} of them dead and not cleared away yet"));
    Ok(if undone == 0 {
        checkup
    } else {
        checkup.good(format!("{undone} times a process died in the middle of a change, which was undone"))
    })
}

/// Tables stay until a reboot, as groups do.
fn leftovers(checkup: Checkup, folder: &NamespaceFolder) -> Checkup {
    let (mut tables, mut bytes) = (0, 0);
    for name in folders(&folder.base) {
        for namespace in folders(&name) {
            if let Ok(found) = fs::metadata(namespace.join("table")) {
                (tables, bytes) = (tables + 1, bytes + found.len());
            }
        }
    }
    let what =
        format!("{} has {tables} tables with {} MiB, which stay until a reboot", folder.base.display(), bytes >> 20);
    checkup.good(if tables > 1 { format!("{what}; delete those that nothing uses any more") } else { what })
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// systemd removes what a user has in /dev/shm when the last session of that user ends.
fn log_out(checkup: Checkup, users: Users) -> Checkup {
    let is_person = matches!(users, Users::User(user) if user >= FIRST_NORMAL_USER);
    let keeps = || {
        let settings = fs::read_to_string("/etc/systemd/logind.conf").unwrap_or_default();
        settings.lines().any(|line| {
            matches!(line.replace(' ', "").to_ascii_lowercase().as_str(), "removeipc=no" | "removeipc=false")
        })
    };
    if is_person && Path::new("/run/systemd/system").is_dir() && !keeps() {
        return checkup.warning(
            "systemd deletes what this user has in /dev/shm when the user logs out: all sessions are lost then",
            "run as a system user, or set RemoveIPC=no in /etc/systemd/logind.conf",
        );
    }
    checkup
}
