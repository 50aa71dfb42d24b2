//! The last step before CMD: the hidden subcommand `__exec`, which becomes CMD.
//!
//! It does what has to be done between fork and exec, in a program of its own, since code between the two can't be safe.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpgrp, getppid};

use super::terminal;
use crate::exit;

/// What the guard tells the trampoline: three words and CMD.
pub(super) struct Order {
    /// The guard: CMD is not to run without it.
    pub(super) guard: u32,
    /// Whether CMD begins in the terminal's foreground.
    pub(super) foreground: bool,
    /// The signals that were blocked when `tooz` was started.
    pub(super) blocked: SigSet,
}

impl Order {
    pub(super) fn words(&self) -> [String; 3] {
        let blocked: Vec<_> = self.blocked.iter().map(|signal| (signal as i32).to_string()).collect();
        [self.guard.to_string(), self.foreground.to_string(), blocked.join(",")]
    }

    fn parse(words: &[OsString]) -> Option<Self> {
        let [guard, foreground, blocked] = words else { return None };
        let blocked = blocked.to_str()?.split(',').filter(|number| !number.is_empty());
        Some(Order {
            guard: guard.to_str()?.parse().ok()?,
            foreground: foreground.to_str()?.parse().ok()?,
            blocked: blocked.filter_map(|number| Signal::try_from(number.parse::<i32>().ok()?).ok()).collect(),
        })
    }
}

/// Becomes CMD; answers only when that failed, with the exit code that tells how.
pub(super) fn main(arguments: &[OsString]) -> u8 {
    let Some((order, [program, rest @ ..])) =
        arguments.split_at_checked(3).and_then(|(words, command)| Some((Order::parse(words)?, command)))
    else {
        exit::say("__exec is started by tooz itself");
        return exit::ERROR;
    };
    // A belt beside the guard's own care: without the guard nobody would end CMD in time.
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        exit::say(format_args!("CMD can't be bound to its guard: {error}"));
        return exit::ERROR;
    }
    if u32::try_from(getppid().as_raw()) != Ok(order.guard) {
        return exit::ERROR;
    }
    if order.foreground {
        terminal::give_to(getpgrp());
    }
    // The guard blocks all signals, and that is inherited.
    if let Err(error) = order.blocked.thread_set_mask() {
        exit::say(format_args!("the signal mask can't be set back: {error}"));
        return exit::ERROR;
    }
    let error = Command::new(program).args(rest).exec();
    exit::say(format_args!("{} can't be run: {error}", program.to_string_lossy()));
    match error.kind() {
        ErrorKind::NotFound => exit::NOT_FOUND,
        _ => exit::NOT_EXECUTABLE,
    }
}

/// `Pid` of CMD as the guard has it from the standard library.
pub(super) fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_given() {
        let blocked: SigSet = [Signal::SIGHUP, Signal::SIGUSR1].into_iter().collect();
        let words = Order { guard: 7, foreground: true, blocked }.words().map(OsString::from);
        let order = Order::parse(&words).unwrap();
        assert_eq!((order.guard, order.foreground), (7, true));
        assert_eq!(order.blocked, blocked);
        assert!(Order::parse(&words[..2]).is_none());
    }
}
