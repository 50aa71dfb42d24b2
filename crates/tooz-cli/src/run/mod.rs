//! Running CMD so that it never outlives what it runs under.
//!
//! Three processes: `tooz`, which holds; its *guard*, the parent of CMD, which ends CMD when `tooz` dies, stops or says so; and a
//! *trampoline* that becomes CMD. `tooz` tells the guard how long what it holds holds for sure, and the guard ends CMD in time
//! also when it hears nothing more. If the guard is killed, `tooz` inherits CMD and ends it.

mod dispositions;
mod ears;
mod guard;
mod job;
mod processes;
mod protocol;
mod reason;
mod signals;
mod terminal;
mod trampoline;

use std::ffi::OsString;
use std::process::Command;

pub(crate) use job::{HeldRole, Job, JobEnd, OnLoss, run};
pub(crate) use signals::{Signals, ended_by};
pub(crate) use terminal::{has_job_control, stop_job};

/// The subcommands that only `tooz` itself starts; `None` for all others.
pub(crate) fn hidden(arguments: &[OsString]) -> Option<u8> {
    let rest = arguments.get(2..)?;
    match arguments[1].to_str()? {
        "__guard" => Some(guard::main(rest)),
        "__exec" => Some(trampoline::main(rest)),
        _ => None,
    }
}

/// This program once more, also when its file was replaced meanwhile by another version.
fn this_program() -> Command {
    use std::os::unix::process::CommandExt;
    #[cfg(target_os = "linux")]
    let path = std::path::PathBuf::from("/proc/self/exe");
    #[cfg(not(target_os = "linux"))]
    let path = std::env::current_exe().unwrap_or_else(|_| "tooz".into());
    let mut program = Command::new(path);
    program.arg0("tooz");
    program
}
