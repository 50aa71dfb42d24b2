//! A descriptor that this program was started with, by its number.

use std::fs::File;
use std::os::fd::RawFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// A duplicate that is closed when it is dropped; what is wrong with one that can't be written to, in words.
pub(super) fn duplicate(number: RawFd) -> Result<File, String> {
    let file = open(number).map_err(|error| super::words::plain(&error.to_string()))?;
    let flags = fcntl(&file, FcntlArg::F_GETFL).map_err(|error| error.desc().to_owned())?;
    if OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        return Err("it is open for reading".to_owned());
    }
    Ok(file)
}

/// With the place in the file that the caller has, so that both write one behind the other. Asked of the kernel as of any process's descriptor,
/// since a number alone proves nothing to the compiler.
#[cfg(target_os = "linux")]
fn open(number: RawFd) -> std::io::Result<File> {
    use rustix::io::Errno;
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let own = pidfd_open(getpid(), PidfdFlags::empty());
    match own.and_then(|own| pidfd_getfd(own, number, PidfdGetfdFlags::empty())) {
        Ok(duplicate) => Ok(File::from(duplicate)),
        Err(error @ Errno::BADF) => Err(error.into()),
        // A kernel that is too old for it, or a container that forbids it.
        Err(_) => open_anew(number),
    }
}

#[cfg(not(target_os = "linux"))]
fn open(number: RawFd) -> std::io::Result<File> {
    open_anew(number)
}

/// At the end of the file; a socket can't be opened so.
fn open_anew(number: RawFd) -> std::io::Result<File> {
    File::options().append(true).open(format!("/dev/fd/{number}"))
}
