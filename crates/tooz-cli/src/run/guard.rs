//! The guard: `tooz` itself, re-executed as `__guard`, the parent of CMD.
//!
//! It outlives a `tooz` that is killed or stopped, and ends CMD and all that CMD started before what `tooz` held can become
//! another's: at the end of the socket, or at a deadline that was not moved in time. It keeps the descriptors by which
//! the kernel knows the holder until nothing of CMD lives.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::dispositions::{self, Ignored};
use super::ears::Ears;
use super::protocol::{Cause, Ending, Frame, Term, meet, now, receive_keeping, send};
use super::trampoline::{Order, pid};
use super::{processes, this_program};
use crate::exit;
use crate::failure::CommandFailure;
use crate::speech::{self, Manner};

/// How long a `tooz` that stands still may keep the guard from its last word.
const LAST_WORD: Duration = Duration::from_millis(500);

/// `__guard ADDRESS PARENT FOREGROUND IGNORED MANNER CMD…`
pub(super) fn main(arguments: &[OsString]) -> u8 {
    // From here on only SIGKILL and SIGSTOP reach the guard: what the terminal and the shell send is for `tooz` to judge.
    let blocked = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK);
    let [address, parent, foreground, ignored, manner, command @ ..] = arguments else {
        return CommandFailure::usage("__guard is started by tooz itself").report();
    };
    let text = |word: &OsString| word.to_string_lossy().into_owned();
    let manner = Manner::parse(&text(manner)).unwrap_or_default();
    if speech::begin(manner).is_err() {
        // The reader has gone meanwhile. That is no reason not to guard.
        let _ = speech::begin(Manner { events: None, ..manner });
    }
    manner.close_callers_events();
    let stream = match meet(&text(address), text(parent).parse().unwrap_or(0)) {
        Ok(stream) => stream,
        Err(error) => return CommandFailure::error(format!("the guard can't reach its tooz: {error}")).report(),
    };
    dispositions::hear_of_children();
    processes::adopt_orphans();
    let term = loop {
        match receive_keeping(&stream) {
            Some(Frame::Keep) => {}
            Some(Frame::Start(term)) => break term,
            // Nothing was started, so there is nothing to end.
            _ => return exit::SUCCESS,
        }
    };
    let ears = match Ears::open(&stream) {
        Ok(ears) => ears,
        Err(error) => return CommandFailure::error(format!("the guard can't listen: {error}")).report(),
    };
    let mut watch = Watch {
        stream: &stream,
        ears,
        group: None,
        term,
        ending: None,
        killing: None,
        unsaid: None,
        status: None,
        out_of_reach: false,
    };
    // Between the word to start and now the machine may have slept.
    if let Some(ending) = watch.look_before_the_start() {
        return watch.say_the_last_word(ending);
    }
    let order = Order {
        guard: std::process::id(),
        foreground: text(foreground) == "true",
        blocked: blocked.unwrap_or_else(|_| SigSet::empty()),
        ignored: Ignored(text(ignored).parse().unwrap_or(0)),
        term: watch.term,
        manner: Manner { events: None, ..manner },
    };
    let child = this_program().arg("__exec").args(order.words()).args(command).process_group(0).spawn();
    let group = match child {
        Ok(child) => pid(child.id()),
        Err(error) => {
            let _ = send(&stream, Frame::NotStarted(error.raw_os_error().unwrap_or(Errno::EAGAIN as i32)));
            return exit::ERROR;
        }
    };
    // If it can't be told, the end of the socket is seen next.
    let _ = send(&stream, Frame::Started(group.as_raw()));
    watch.group = Some(group);
    let ending = watch.until_the_end();
    watch.say_the_last_word(ending)
}

struct Watch<'a> {
    stream: &'a UnixStream,
    ears: Ears<'a>,
    group: Option<Pid>,
    term: Term,
    /// Why CMD is being ended. Once begun it is final: CMD was told, and may have begun to give up.
    ending: Option<Cause>,
    /// Since when all of it is being killed.
    killing: Option<Instant>,
    /// Why, until it was said: what is done comes first.
    unsaid: Option<String>,
    /// How CMD itself ended. Until then its process group is its own; afterwards it may be any process's.
    status: Option<u8>,
    /// Whether only processes are left that may not be signalled from here.
    out_of_reach: bool,
}

impl Watch<'_> {
    fn look_before_the_start(&mut self) -> Option<Ending> {
        self.obey_all();
        if self.ending.is_none() && self.term.is_nearly_over() {
            self.ending = Some(Cause::Deadline);
        }
        self.ending.map(|_| self.result())
    }

    fn until_the_end(&mut self) -> Ending {
        loop {
            // All that was said counts before the clock does, and the kernel may have let the frames lie while this process stood still.
            self.obey_all();
            let childless = self.reap();
            // Ended by itself: what it leaves behind was not asked to end.
            if childless || (self.status.is_some() && self.ending.is_none()) {
                return self.result();
            }
            self.judge();
            if self.out_of_reach && self.status.is_some() {
                return self.result();
            }
            self.ears.wait(self.patience());
        }
    }

    fn result(&self) -> Ending {
        Ending {
            cause: self.ending.unwrap_or(Cause::Itself),
            code: self.status.unwrap_or_else(|| exit::by_signal(Signal::SIGKILL as i32)),
        }
    }

    fn say_the_last_word(&self, ending: Ending) -> u8 {
        if self.ending.is_some() {
            // With its last word the guard is ended by `tooz`.
            speech::finish();
        }
        // Unlike all other words this one must arrive, unless it is not read at all.
        let _ = self.stream.set_nonblocking(false);
        let _ = self.stream.set_write_timeout(Some(LAST_WORD));
        let _ = send(self.stream, Frame::Ended(ending));
        exit::SUCCESS
    }

    /// Looks at the clock, and at whether CMD itself has gone before the rest of what it started.
    fn judge(&mut self) {
        if self.term.is_over() {
            let why = match self.ending {
                Some(Cause::Order) => "it has not ended in time after it was told to",
                _ => "the deadline has come, and with it the end of what it runs under",
            };
            self.kill(Cause::Deadline, Some(why.to_owned()));
        } else if self.term.is_nearly_over() && self.ending.is_none() {
            self.terminate(Cause::Deadline);
            self.say(Signal::SIGTERM, &self.why_in_time());
        }
        if let (Some(cause), Some(_)) = (self.ending, self.status) {
            self.kill(cause, None);
        }
        if self.killing.is_some() {
            self.signal_group(Signal::SIGKILL);
            let below = processes::kill_below();
            if let Some(why) = self.unsaid.take() {
                self.say(Signal::SIGKILL, &why);
            }
            self.out_of_reach = below.is_out_of_reach();
            if self.out_of_reach && self.status.is_some() {
                below.say();
            }
        }
    }

    /// Until when nothing has to be done unless something happens. At most a second: a machine that sleeps does not count
    /// the time of a wait, but the deadline goes on.
    fn patience(&self) -> Duration {
        if let Some(since) = self.killing {
            return processes::pause(since.elapsed());
        }
        let next = if self.ending.is_none() { self.term.warning() } else { self.term.deadline };
        Duration::from_nanos(next.saturating_sub(now())).min(Duration::from_secs(1))
    }

    fn obey_all(&mut self) {
        for frame in self.ears.frames() {
            self.obey(frame);
        }
        if self.ears.is_deaf() {
            let why = "its tooz has died or was killed, and nothing holds any more what it runs under";
            self.kill(Cause::Order, Some(why.to_owned()));
        }
    }

    fn obey(&mut self, frame: Frame) {
        match frame {
            Frame::Deadline(moment) if self.ending.is_none() => self.term.deadline = moment,
            Frame::Signal(signal) => {
                if let Ok(signal) = Signal::try_from(signal) {
                    self.signal_group(signal);
                }
            }
            Frame::Terminate(moment, reason) => {
                self.term.deadline = self.term.deadline.min(moment);
                if self.ending.is_none() {
                    self.terminate(Cause::Order);
                    self.say(Signal::SIGTERM, &reason.to_string());
                }
            }
            Frame::Kill(reason) => self.kill(Cause::Order, Some(reason.to_string())),
            _ => {}
        }
    }

    fn terminate(&mut self, cause: Cause) {
        self.ending = Some(cause);
        self.signal_group(Signal::SIGTERM);
        // One that is stopped would not hear it.
        self.signal_group(Signal::SIGCONT);
    }

    /// What CMD is told, and why. That it was said, `tooz` hears: without a guard it says it itself.
    fn say(&self, signal: Signal, why: &str) {
        // One that has ended already is told nothing any more.
        if self.status.is_none() {
            speech::tell(&speech::command::ending(signal, why));
        }
        // If it can't be told, the end of the socket is seen next.
        let _ = send(self.stream, Frame::Said);
    }

    fn kill(&mut self, cause: Cause, why: Option<String>) {
        self.ending.get_or_insert(cause);
        if self.killing.is_none() {
            self.killing = Some(Instant::now());
            // One that has ended already is not killed: the rest of what it started is.
            self.unsaid = why.filter(|_| self.status.is_none());
        }
    }

    fn why_in_time(&self) -> String {
        let kill_after = Duration::from_nanos(self.term.kill_after);
        let rest = Duration::from_millis(u64::try_from(kill_after.as_millis()).unwrap_or(u64::MAX));
        format!(
            "no heartbeat has come for so long that what it runs under is sure for only {} more",
            humantime::format_duration(rest)
        )
    }

    fn signal_group(&self, signal: Signal) {
        if let (Some(group), None) = (self.group, self.status) {
            processes::signal_group(group, signal);
        }
    }

    /// Takes note of what happened to the children. True: there is none any more.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WUNTRACED | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return false,
                Ok(status) => self.note(status),
                Err(Errno::EINTR) => {}
                Err(_) => return true,
            }
        }
    }

    fn note(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, code) if Some(pid) == self.group => {
                self.status = Some(u8::try_from(code).unwrap_or(exit::ERROR));
            }
            WaitStatus::Signaled(pid, signal, _) if Some(pid) == self.group => {
                self.status = Some(exit::by_signal(signal as i32));
            }
            WaitStatus::Stopped(pid, signal) if Some(pid) == self.group => {
                // If it can't be told, the end of the socket is seen next; and one that reads nothing needs not know.
                let _ = send(self.stream, Frame::Stopped(signal as i32));
            }
            _ => {}
        }
    }
}

/// The command that becomes a guard.
pub(super) fn command(address: &str, foreground: bool, command: &[OsString]) -> Command {
    let mut guard = this_program();
    let ignored = Ignored::at_start().0.to_string();
    guard.arg("__guard").arg(address).arg(std::process::id().to_string());
    guard.arg(foreground.to_string()).arg(ignored).arg(speech::manner().word()).args(command);
    // Away from the group that Ctrl-C, Ctrl-Z and the shell's signals go to.
    guard.process_group(0);
    guard
}
