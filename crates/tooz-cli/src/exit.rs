//! Exit codes: those of CMD and of the waiting, as `flock` and `env` have them; errors of `tooz` itself by the numbers of `sysexits.h`.

use tooz::ErrorKind;

/// All went well.
pub(crate) const SUCCESS: u8 = 0;
/// The doctor found something wrong.
pub(crate) const WRONG: u8 = 1;
/// Wrong usage: an option, a name, a URL, or what it asks of the backend, which may be more than that can do.
pub(crate) const USAGE: u8 = 64;
/// There is no such group or holder.
pub(crate) const MISSING: u8 = 66;
/// The backend can't be reached, or does not answer in time.
pub(crate) const UNAVAILABLE: u8 = 69;
/// There is one already: the group, or a living member of that id.
pub(crate) const EXISTS: u8 = 73;
/// What is printed can't be written.
pub(crate) const OUTPUT: u8 = 74;
/// The lock was not to be had; or the group is in use, and so not to be deleted.
pub(crate) const NOT_ACQUIRED: u8 = 75;
/// What CMD ran under was lost, and CMD was stopped.
pub(crate) const LOST: u8 = 76;
/// The backend refuses the credentials, or lacks a permission.
pub(crate) const REFUSED: u8 = 77;
/// Any other error of `tooz` itself.
pub(crate) const ERROR: u8 = 125;
/// CMD was found but can't be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// CMD was not found.
pub(crate) const NOT_FOUND: u8 = 127;

/// The code for an end by that signal.
pub(crate) fn by_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(ERROR)
}

/// The code for an error of the library.
pub(crate) fn of_kind(kind: ErrorKind) -> u8 {
    match kind {
        // No repetition mends what a backend can't do.
        ErrorKind::Config | ErrorKind::Unsupported => USAGE,
        ErrorKind::NotFound => MISSING,
        ErrorKind::Unavailable | ErrorKind::TimedOut => UNAVAILABLE,
        ErrorKind::AlreadyExists => EXISTS,
        ErrorKind::NotEmpty => NOT_ACQUIRED,
        ErrorKind::Lost => LOST,
        ErrorKind::Unauthorized => REFUSED,
        _ => ERROR,
    }
}
