//! The last step before CMD: the hidden subcommand `__exec`, which becomes CMD.
//!
//! It does what has to be done between fork and exec, in a program of its own, since code between the two can't be safe.

use std::convert::Infallible;
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
use crate::failure::CommandFailure;
use crate::speech::{self, Manner};

/// How many words an order is.
const WORDS: usize = 7;

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
    /// How to say that CMD can't be run.
    pub(super) manner: Manner,
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
            self.manner.word(),
        ]
    }

    fn parse(words: &[OsString]) -> Option<Self> {
        let [guard, foreground, blocked, ignored, deadline, kill_after, manner] = words else { return None };
        let blocked = blocked.to_str()?.split(',').filter(|number| !number.is_empty());
        Some(Order {
            guard: guard.to_str()?.parse().ok()?,
            foreground: foreground.to_str()?.parse().ok()?,
            blocked: blocked.filter_map(|number| Signal::try_from(number.parse::<i32>().ok()?).ok()).collect(),
            ignored: Ignored(ignored.to_str()?.parse().ok()?),
            term: Term { deadline: deadline.to_str()?.parse().ok()?, kill_after: kill_after.to_str()?.parse().ok()? },
            manner: Manner::parse(manner.to_str()?)?,
        })
    }
}

/// Becomes CMD; answers only when that failed, with the exit code that tells how.
pub(super) fn main(arguments: &[OsString]) -> u8 {
    let Some((order, [program, rest @ ..])) =
        arguments.split_at_checked(WORDS).and_then(|(words, command)| Some((Order::parse(words)?, command)))
    else {
        return CommandFailure::usage("__exec is started by tooz itself").report();
    };
    let manner = order.manner;
    let Err(failure) = become_command(&order, program, rest);
    // Not before: a program of several threads does not become another as one expects.
    let _ = speech::begin(manner);
    failure.report()
}

fn become_command(order: &Order, program: &OsString, rest: &[OsString]) -> Result<Infallible, CommandFailure> {
    // A belt beside the guard's own care: without the guard CMD would not be ended in time.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| CommandFailure::error(format!("CMD can't be bound to its guard: {}", error.desc())))?;
    if u32::try_from(getppid().as_raw()) != Ok(order.guard) {
        return Err(CommandFailure::quiet(exit::ERROR));
    }
    if order.foreground {
        terminal::give_to(getpgrp());
    }
    // The guard blocks all signals, and that is inherited.
    order
        .blocked
        .thread_set_mask()
        .map_err(|error| CommandFailure::error(format!("the signal mask can't be set back: {}", error.desc())))?;
    order.ignored.restore();
    if order.term.is_nearly_over() {
        return Err(CommandFailure::lost("what CMD was to run under was about to be lost, so it was not started"));
    }
    let error = replace_by(program, rest);
    let code = if error.kind() == ErrorKind::NotFound { exit::NOT_FOUND } else { exit::NOT_EXECUTABLE };
    let words = speech::words::plain(&error.to_string());
    Err(CommandFailure::command(code, format!("{} can't be run: {words}", program.to_string_lossy())))
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
        let manner = Manner { quiet: true, json: false, events: Some(5), is_first: false };
        let words = Order { guard: 7, foreground: true, blocked, ignored, term, manner }.words().map(OsString::from);
        let order = Order::parse(&words).unwrap();
        assert_eq!((order.guard, order.foreground), (7, true));
        assert_eq!((order.blocked, order.ignored, order.term, order.manner), (blocked, ignored, term, manner));
        assert!(Order::parse(&words[..2]).is_none());
    }
}
