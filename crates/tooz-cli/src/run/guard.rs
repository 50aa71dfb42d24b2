//! The guard: `tooz` itself, re-executed as `__guard`, the parent of CMD.
//!
//! It outlives a `tooz` that is killed or stopped, and ends CMD and all that CMD started before what `tooz` held can become
//! somebody else's: at the end of the socket, or at a deadline that was not moved in time. It keeps the descriptors by which
//! the kernel knows the holder until nothing of CMD lives.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::protocol::{Cause, Ending, Frame, NEVER, meet, now, receive, receive_keeping, send};
use super::trampoline::{Order, pid};
use super::{processes, this_program};
use crate::exit;

enum Event {
    Frame(Frame),
    /// `tooz` has gone.
    Gone,
    /// Something happened to a process below us.
    Child(WaitStatus),
    /// Nothing lives below us any more.
    Childless,
}

/// `__guard ADDRESS PARENT FOREGROUND CMD…`
pub(super) fn main(arguments: &[OsString]) -> u8 {
    // From here on only SIGKILL and SIGSTOP reach the guard: what the terminal and the shell send is for `tooz` to judge.
    let blocked = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK);
    let [address, parent, foreground, command @ ..] = arguments else {
        exit::say("__guard is started by tooz itself");
        return exit::ERROR;
    };
    let text = |word: &OsString| word.to_string_lossy().into_owned();
    let stream = match meet(&text(address), text(parent).parse().unwrap_or(0)) {
        Ok(stream) => stream,
        Err(error) => {
            exit::say(format_args!("the guard can't reach its tooz: {error}"));
            return exit::ERROR;
        }
    };
    processes::adopt_orphans();
    let (deadline, kill_after) = loop {
        match receive_keeping(&stream) {
            Some(Frame::Keep) => {}
            Some(Frame::Start { deadline, kill_after }) => break (deadline, kill_after),
            // Nothing was started, so there is nothing to end.
            _ => return exit::SUCCESS,
        }
    };
    let order = Order {
        guard: std::process::id(),
        foreground: text(foreground) == "true",
        blocked: blocked.unwrap_or_else(|_| SigSet::empty()),
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
    let events = listen(&stream);
    let mut watch = Watch { group, deadline, kill_after, ending: None, killing: false, status: None };
    let ending = watch.until_the_end(&stream, &events);
    let _ = send(&stream, Frame::Ended(ending));
    exit::SUCCESS
}

/// Two threads that wait for one thing each. They end with the process.
fn listen(stream: &UnixStream) -> Receiver<Event> {
    let (sender, events) = channel();
    let frames: Sender<Event> = sender.clone();
    match stream.try_clone() {
        Ok(stream) => drop(thread::spawn(move || {
            while let Some(frame) = receive(&stream) {
                let _ = frames.send(Event::Frame(frame));
            }
            let _ = frames.send(Event::Gone);
        })),
        // Without ears the only safe thing is to end CMD.
        Err(_) => drop(frames.send(Event::Gone)),
    }
    thread::spawn(move || {
        loop {
            let event = match waitpid(None, Some(WaitPidFlag::WUNTRACED)) {
                Ok(status) => Event::Child(status),
                Err(Errno::EINTR) => continue,
                Err(_) => Event::Childless,
            };
            let last = matches!(event, Event::Childless);
            if sender.send(event).is_err() || last {
                return;
            }
        }
    });
    events
}

struct Watch {
    group: Pid,
    deadline: u64,
    kill_after: u64,
    /// Why CMD is being ended. Once begun it is final: CMD was told, and may have begun to give up.
    ending: Option<Cause>,
    killing: bool,
    /// How CMD itself ended.
    status: Option<u8>,
}

impl Watch {
    fn until_the_end(&mut self, stream: &UnixStream, events: &Receiver<Event>) -> Ending {
        loop {
            self.judge();
            let event = match events.recv_timeout(self.patience()) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => Event::Childless,
            };
            match event {
                Event::Frame(frame) => self.obey(frame),
                Event::Gone => self.kill(Cause::Order),
                Event::Child(status) => self.note(status, stream),
                Event::Childless => return self.result(),
            }
            // Ended by itself: what it leaves behind was not asked to end.
            if self.status.is_some() && self.ending.is_none() {
                return self.result();
            }
        }
    }

    fn result(&self) -> Ending {
        Ending {
            cause: self.ending.unwrap_or(Cause::Itself),
            code: self.status.unwrap_or_else(|| exit::by_signal(Signal::SIGKILL as i32)),
        }
    }

    /// Looks at the clock, and at whether CMD itself has gone before the rest of what it started.
    fn judge(&mut self) {
        let left = self.deadline.saturating_sub(now());
        if self.deadline != NEVER {
            if left == 0 {
                self.kill(Cause::Deadline);
            } else if left <= self.kill_after && self.ending.is_none() {
                self.terminate(Cause::Deadline);
            }
        }
        if self.ending.is_some() && self.status.is_some() {
            self.killing = true;
        }
        if self.killing {
            // The group's id is CMD's own as long as CMD has not been reaped; afterwards it may be anybody's.
            if self.status.is_none() {
                processes::signal_group(self.group, Signal::SIGKILL);
            }
            processes::kill_below();
        }
    }

    /// Until when nothing has to be done unless something happens. At most a second: a machine that sleeps does not count
    /// the time of a wait, but the deadline goes on.
    fn patience(&self) -> Duration {
        if self.killing {
            return Duration::from_millis(2);
        }
        let next = match self.ending {
            None => self.deadline.saturating_sub(self.kill_after),
            Some(_) => self.deadline,
        };
        let next = if self.deadline == NEVER { NEVER } else { next };
        Duration::from_nanos(next.saturating_sub(now())).min(Duration::from_secs(1))
    }

    fn obey(&mut self, frame: Frame) {
        match frame {
            Frame::Deadline(moment) if self.ending.is_none() => self.deadline = moment,
            Frame::Signal(signal) if self.status.is_none() => {
                if let Ok(signal) = Signal::try_from(signal) {
                    processes::signal_group(self.group, signal);
                }
            }
            Frame::Terminate(moment) => {
                self.deadline = self.deadline.min(moment);
                if self.ending.is_none() {
                    self.terminate(Cause::Order);
                }
            }
            Frame::Kill => self.kill(Cause::Order),
            _ => {}
        }
    }

    fn terminate(&mut self, cause: Cause) {
        self.ending = Some(cause);
        if self.status.is_none() {
            processes::signal_group(self.group, Signal::SIGTERM);
            // One that is stopped would not hear it.
            processes::signal_group(self.group, Signal::SIGCONT);
        }
    }

    fn kill(&mut self, cause: Cause) {
        self.ending.get_or_insert(cause);
        self.killing = true;
    }

    fn note(&mut self, status: WaitStatus, stream: &UnixStream) {
        match status {
            WaitStatus::Exited(pid, code) if pid == self.group => {
                self.status = Some(u8::try_from(code).unwrap_or(exit::ERROR));
            }
            WaitStatus::Signaled(pid, signal, _) if pid == self.group => {
                self.status = Some(exit::by_signal(signal as i32));
            }
            WaitStatus::Stopped(pid, signal) if pid == self.group => {
                // If it can't be told, the end of the socket is seen next.
                let _ = send(stream, Frame::Stopped(signal as i32));
            }
            _ => {}
        }
    }
}

/// The command that becomes a guard.
pub(super) fn command(address: &str, foreground: bool, command: &[OsString]) -> Command {
    let mut guard = this_program();
    guard.arg("__guard").arg(address).arg(std::process::id().to_string()).arg(foreground.to_string()).args(command);
    // Away from the group that Ctrl-C, Ctrl-Z and the shell's signals go to.
    guard.process_group(0);
    guard
}
