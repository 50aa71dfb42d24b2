//! The side of `tooz`: it starts the guard, tells it the deadline, forwards signals, and stops and goes on with its shell.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::process::Child;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use tooz::LossReason;

use super::protocol::{Cause, Ending, Frame, Meeting, NEVER, Term, now, receive, send, send_descriptors};
use super::reason::Reason;
use super::{Signals, dispositions, ended_by, guard, processes, terminal};
use crate::exit;
use crate::failure::CommandFailure;
use crate::speech;

/// How long the guard may take to end what it was told to kill, before `tooz` does it.
const GUARD_PATIENCE: Duration = Duration::from_millis(500);

/// How long the guard may take to come. Its start takes a millisecond; what is longer than this is a machine that is stuck.
const LONGEST_START: Duration = Duration::from_secs(10);

/// The shortest and the longest time between two looks at the deadline.
const LOOKS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(500)];

/// What CMD runs under.
pub(crate) struct HeldRole<'a> {
    /// How long it holds for sure; `None`: until it is told otherwise.
    pub(crate) remaining: Box<dyn Fn() -> Option<Duration> + 'a>,
    /// Whether it holds now.
    pub(crate) is_held: Box<dyn Fn() -> bool + 'a>,
    /// Its loss.
    pub(crate) lost: Pin<Box<dyn Future<Output = LossReason> + 'a>>,
    /// What to do then.
    pub(crate) on_loss: OnLoss,
}

/// How CMD is ended after a loss.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnLoss {
    /// At once: another may hold it already.
    Kill,
    /// With SIGTERM first: nothing is at risk while CMD tidies up.
    Terminate,
}

/// What to run.
pub(crate) struct Job<'a> {
    pub(crate) command: &'a [OsString],
    pub(crate) environment: Vec<(&'static str, OsString)>,
    pub(crate) kill_after: Duration,
    /// By which the kernel knows the holder.
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// How it went.
pub(crate) enum JobEnd {
    /// CMD ended by itself with that exit code.
    Ended(u8),
    /// CMD was ended, or had ended too late, for that reason.
    Lost(String),
}

/// Runs CMD to its end. When this returns, nothing runs any more that must not run without the grant.
pub(crate) async fn run(
    job: Job<'_>,
    grant: &mut HeldRole<'_>,
    signals: &mut Signals,
) -> Result<JobEnd, CommandFailure> {
    let mut run = match Run::start(job, grant, signals).await? {
        StartEnd::Running(run) => run,
        StartEnd::Lost(why) => return Ok(JobEnd::Lost(why)),
    };
    let ending = run.until_the_end(grant, signals).await;
    if let Some(group) = run.group {
        terminal::take_back(group);
    }
    run.end_guard();
    let ending = ending?;
    Ok(match (run.lost, ending.cause) {
        (Some(reason), _) => JobEnd::Lost(reason.to_string()),
        (None, Cause::Itself) if (grant.is_held)() => JobEnd::Ended(ending.code),
        (None, Cause::Itself) => JobEnd::Lost("it was not held any more when CMD ended".to_owned()),
        (None, Cause::Deadline) => JobEnd::Lost("its deadline came near without a heartbeat".to_owned()),
        (None, Cause::Order) => JobEnd::Lost("CMD was stopped".to_owned()),
    })
}

struct Run {
    guard: Child,
    stream: UnixStream,
    frames: UnboundedReceiver<Frame>,
    /// Until when CMD may run, as the guard knows it.
    told: Term,
    kill_after: Duration,
    group: Option<Pid>,
    lost: Option<Reason>,
    /// Whether the guard has said why it ends CMD.
    is_said: bool,
    /// When the guard must have ended CMD after a loss.
    patience: Option<Instant>,
}

enum StartEnd {
    Running(Run),
    /// What CMD was to run under has gone meanwhile, or is about to.
    Lost(String),
}

impl Run {
    async fn start(job: Job<'_>, grant: &mut HeldRole<'_>, signals: &mut Signals) -> Result<StartEnd, CommandFailure> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| {
                CommandFailure::error(format!("{what}: {}", speech::words::plain(&error.to_string())))
            }
        };
        // A process that was started with SIGCHLD ignored would never hear how the guard and CMD ended.
        dispositions::hear_of_children();
        // For the case that the guard is killed: its orphans come to us.
        processes::adopt_orphans();
        let meeting = Meeting::open().map_err(failed("no socket for the guard"))?;
        let mut command = guard::command(meeting.address(), terminal::hand_over_at_start(), job.command);
        let mut guard = command.envs(job.environment).spawn().map_err(failed("the guard process can't be started"))?;
        let connected = {
            let child = &mut guard;
            let coming = meeting.accept(child.id(), LONGEST_START, || !matches!(child.try_wait(), Ok(None)));
            tokio::select! {
                connected = coming => connected.map_err(failed("the guard process does not answer")).map(Ok),
                reason = &mut grant.lost => Ok(Err(reason.to_string())),
                signal = signals.next_to_end() => Err(ended_by(signal)),
            }
        };
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            otherwise => {
                // Nothing runs yet, and a guard that comes too late finds no process.
                let _ = guard.kill();
                let _ = guard.wait();
                return otherwise.map(|lost| StartEnd::Lost(lost.err().unwrap_or_default()));
            }
        };
        // A guard that reads nothing for so long (stopped, and its buffer full) is no guard.
        stream.set_write_timeout(Some(GUARD_PATIENCE)).map_err(failed("the guard's socket"))?;
        let kill_after = u64::try_from(job.kill_after.as_nanos()).unwrap_or(NEVER);
        let told = Term { deadline: deadline(grant), kill_after };
        let frames = listen(&stream).map_err(failed("the guard's socket"))?;
        let mut run = Run {
            guard,
            stream,
            frames,
            told,
            kill_after: job.kill_after,
            group: None,
            lost: None,
            is_said: false,
            patience: None,
        };
        // The guard looks once more, and so does the last step before CMD: the machine may sleep at any moment.
        if told.is_nearly_over() || !(grant.is_held)() {
            run.end_guard();
            return Ok(StartEnd::Lost("its deadline came near before CMD was started".to_owned()));
        }
        send_descriptors(&run.stream, &job.descriptors)
            .and_then(|()| send(&run.stream, Frame::Start(told)))
            .map_err(failed("the guard process has gone"))?;
        Ok(StartEnd::Running(run))
    }

    async fn until_the_end(
        &mut self,
        grant: &mut HeldRole<'_>,
        signals: &mut Signals,
    ) -> Result<Ending, CommandFailure> {
        let mut next_look = Instant::now();
        loop {
            let patience = self.patience;
            tokio::select! {
                // The guard's word comes first: after the end of CMD nothing else matters.
                biased;
                frame = self.frames.recv() => match frame {
                    Some(Frame::Ended(ending)) => {
                        speech::tell(&speech::command::ended(ending.code));
                        return Ok(ending);
                    }
                    Some(Frame::Started(group)) => {
                        let group = Pid::from_raw(group);
                        self.group = Some(group);
                        speech::tell(&speech::command::started(group));
                    }
                    Some(Frame::NotStarted(errno)) => {
                        return Err(CommandFailure::error(format!("CMD can't be started: {}", Errno::from_raw(errno).desc())));
                    }
                    Some(Frame::Stopped(signal)) => self.stopped(signal, grant),
                    Some(Frame::Said) => self.is_said = true,
                    Some(_) => {}
                    None => return self.without_guard().await,
                },
                reason = &mut grant.lost, if self.lost.is_none() => self.lose(grant, Reason::Lost(reason)),
                () = sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => {
                    return self.without_guard().await;
                }
                signal = signals.next() => {
                    self.tell(Frame::Signal(signal as i32));
                    speech::tell(&speech::command::forwarded(signal));
                }
                () = sleep_until(next_look), if self.lost.is_none() => {
                    self.check(grant);
                    next_look = Instant::now() + self.until_next_look();
                }
            }
        }
    }

    /// The nearer the moment at which the guard would end CMD, the more often the deadline is looked at: one that a heartbeat has moved is
    /// known there before.
    fn until_next_look(&self) -> Duration {
        let [shortest, longest] = LOOKS;
        let left = Duration::from_nanos(self.told.warning().saturating_sub(now()));
        // Often enough for a deadline to be known well before a shorter session's CMD would be terminated.
        (left / 4).min(self.kill_after / 4).clamp(shortest, longest)
    }

    /// The guard has said its last word, or has nothing to do: whatever became of it, it is not waited for.
    fn end_guard(&mut self) {
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }

    fn tell(&mut self, frame: Frame) {
        if send(&self.stream, frame).is_err() {
            // The last words of a guard that has gone are still read; one that only hangs gets no more time than this.
            self.patience.get_or_insert_with(|| Instant::now() + GUARD_PATIENCE);
        }
    }

    /// Tells the guard the deadline as it is now, and looks for a loss that was not told.
    fn check(&mut self, grant: &HeldRole<'_>) {
        if self.lost.is_some() {
            return;
        }
        let deadline = deadline(grant);
        if deadline != self.told.deadline {
            self.told.deadline = deadline;
            self.tell(Frame::Deadline(deadline));
        }
        if !(grant.is_held)() {
            self.lose(grant, Reason::NotHeld);
        }
    }

    /// Why is said by the guard, at the moment at which it acts.
    fn lose(&mut self, grant: &HeldRole<'_>, reason: Reason) {
        match grant.on_loss {
            OnLoss::Kill => {
                self.tell(Frame::Kill(reason));
                self.patience = Some(Instant::now() + GUARD_PATIENCE);
            }
            OnLoss::Terminate => {
                self.tell(Frame::Terminate(now().saturating_add(self.told.kill_after), reason));
                self.patience = Some(Instant::now() + self.kill_after + GUARD_PATIENCE);
            }
        }
        self.lost = Some(reason);
    }

    /// CMD was stopped: by Ctrl-Z, or because it wants the terminal from the background. So is this job then, and goes on
    /// with CMD when the shell says so, if what CMD runs under is still held.
    fn stopped(&mut self, signal: i32, grant: &HeldRole<'_>) {
        let Some(group) = self.group else { return };
        let wants_terminal = signal == Signal::SIGTTIN as i32 || signal == Signal::SIGTTOU as i32;
        if !(wants_terminal && terminal::is_ours()) {
            if terminal::has_job_control() {
                terminal::take_back(group);
                terminal::stop_job();
                self.check(grant);
                if self.lost.is_some() {
                    return;
                }
            } else if signal != Signal::SIGTSTP as i32 {
                // Nothing would ever continue us. A user that stopped CMD alone may continue it alone.
                return;
            }
        }
        if terminal::is_ours() {
            terminal::give_to(group);
        }
        self.tell(Frame::Signal(Signal::SIGCONT as i32));
    }

    /// The guard was killed or hangs: CMD is not to run unguarded.
    async fn without_guard(&mut self) -> Result<Ending, CommandFailure> {
        // Its orphans are ours as soon as it is dead.
        self.end_guard();
        while let Ok(frame) = self.frames.try_recv() {
            self.is_said |= frame == Frame::Said;
        }
        if let Some(reason) = self.lost.filter(|_| !self.is_said) {
            speech::tell(&speech::command::ending(Signal::SIGKILL, &reason.to_string()));
        }
        processes::end_all(self.group).await;
        match self.lost {
            Some(_) => Ok(Ending { cause: Cause::Order, code: exit::by_signal(Signal::SIGKILL as i32) }),
            None => Err(CommandFailure::error("the guard process was killed, so CMD was killed too")),
        }
    }
}

/// The deadline by the guard's clock. It is read first, so that the answer is never later than the truth.
fn deadline(grant: &HeldRole<'_>) -> u64 {
    let before = now();
    match (grant.remaining)() {
        None => NEVER,
        Some(remaining) => before.saturating_add(u64::try_from(remaining.as_nanos()).unwrap_or(NEVER)),
    }
}

/// A thread that reads what the guard says; it ends with the guard.
fn listen(stream: &UnixStream) -> std::io::Result<UnboundedReceiver<Frame>> {
    let stream = stream.try_clone()?;
    let (sender, frames) = unbounded_channel();
    std::thread::Builder::new().name("tooz-guard".to_owned()).spawn(move || {
        while let Some(frame) = receive(&stream) {
            if sender.send(frame).is_err() {
                return;
            }
        }
    })?;
    Ok(frames)
}
