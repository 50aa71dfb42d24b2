//! The last step before CMD: the hidden subcommand `__exec`, which becomes CMD.
//!
//! It does what has to be done between fork and exec, in a program of its own, since code between the two can't be safe.

use std::ffi::{CString, OsString};
use std::io::{Error, ErrorKind};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, execvp, getpgrp, getppid};

use super::dispositions::Ignored;
use super::protocol::Term;
use super::terminal;
use crate::exit;

/// How many words an order is.
const WORDS: usize = 6;

/// What the guard tells the trampoline, before CMD.
pub(super) struct Order {
    /// The guard: CMD is not to run without it.
    pub(super) guard: u32,
    /// Whether CMD begins in the terminal's foreground.
    pub(super) foreground: bool,
    /// The signals that were blocked when `tooz` was started.
    pub(super) blocked: SigSet,
    /// And those that were ignored.
    pub(super) ignored: Ignored,
    /// Until when CMD may run. The machine may have slept since the guard looked.
    pub(super) term: Term,
}

impl Order {
    pub(super) fn words(&self) -> [String; WORDS] {
        let blocked: Vec<_> = self.blocked.iter().map(|signal| (signal as i32).to_string()).collect();
        [
            self.guard.to_string(),
            self.foreground.to_string(),
            blocked.join(","),
            self.ignored.0.to_string(),
            self.term.deadline.to_string(),
            self.term.kill_after.to_string(),
        ]
    }

    fn parse(words: &[OsString]) -> Option<Self> {
        let [guard, foreground, blocked, ignored, deadline, kill_after] = words else { return None };
        let blocked = blocked.to_str()?.split(',').filter(|number| !number.is_empty());
        Some(Order {
            guard: guard.to_str()?.parse().ok()?,
            foreground: foreground.to_str()?.parse().ok()?,
            blocked: blocked.filter_map(|number| Signal::try_from(number.parse::<i32>().ok()?).ok()).collect(),
            ignored: Ignored(ignored.to_str()?.parse().ok()?),
            term: Term { deadline: deadline.to_str()?.parse().ok()?, kill_after: kill_after.to_str()?.parse().ok()? },
        })
    }
}

/// Becomes CMD; answers only when that failed, with the exit code that tells how.
pub(super) fn main(arguments: &[OsString]) -> u8 {
    let Some((order, [program, rest @ ..])) =
        arguments.split_at_checked(WORDS).and_then(|(words, command)| Some((Order::parse(words)?, command)))
    else {
        exit::say("__exec is started by tooz itself");
        return exit::ERROR;
    };
    // A belt beside the guard's own care: without the guard CMD would not be ended in time.
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
    order.ignored.restore();
    if order.term.is_nearly_over() {
        exit::say("what CMD was to run under was about to be lost, so it was not started");
        return exit::LOST;
    }
    let error = replace_by(program, rest);
    exit::say(format_args!("{} can't be run: {error}", program.to_string_lossy()));
    match error.kind() {
        ErrorKind::NotFound => exit::NOT_FOUND,
        _ => exit::NOT_EXECUTABLE,
    }
}

/// The standard library's own way would set SIGPIPE back to its default.
fn replace_by(program: &OsString, rest: &[OsString]) -> Error {
    let words = std::iter::once(program).chain(rest).map(|word| CString::new(word.as_bytes()));
    match words.collect::<Result<Vec<_>, _>>() {
        Ok(words) => match execvp(&words[0], &words) {
            Ok(never) => match never {},
            // A folder of PATH that may not be looked into, as the superuser's own, is no program that may not be run.
            Err(Errno::EACCES) if !is_on_path(program) => Errno::ENOENT.into(),
            Err(errno) => errno.into(),
        },
        Err(error) => error.into(),
    }
}

/// Whether a program is where it is looked for, as far as this user can see.
fn is_on_path(program: &OsString) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    program.as_bytes().contains(&b'/') || std::env::split_paths(&path).any(|folder| folder.join(program).exists())
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
        let (ignored, term) = (Ignored(u64::MAX), Term { deadline: u64::MAX, kill_after: 5 });
        let words = Order { guard: 7, foreground: true, blocked, ignored, term }.words().map(OsString::from);
        let order = Order::parse(&words).unwrap();
        assert_eq!((order.guard, order.foreground), (7, true));
        assert_eq!((order.blocked, order.ignored, order.term), (blocked, ignored, term));
        assert!(Order::parse(&words[..2]).is_none());
    }
}
