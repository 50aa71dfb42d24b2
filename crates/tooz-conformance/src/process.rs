//! Other processes: the test binary started again as a worker that holds, waits, joins and leads, and may be killed.

use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tooz_core::driver::Mutex;
use tooz_core::{ConnectOptions, Coordinator, Leadership, LockGuard, Membership};

use crate::history::{Attempt, Play};
use crate::stage::{CaseFailure, CaseResult, Stage};

/// Set in the environment of a worker: its URL, member and timeout, as JSON.
const VARIABLE: &str = "TOOZ_CONFORMANCE_WORKER";

/// Whether the binary can be started again at all.
pub(crate) const AVAILABLE: bool = cfg!(unix);

/// One at a time: workers cost processor time that others' timeouts need.
static TURN: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(1);

/// The identity of a worker.
#[derive(Serialize, Deserialize)]
struct WorkerIdentity {
    url: String,
    member: String,
    session_timeout: Duration,
}

/// What a worker is told. Each command has one reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Acquire, and keep.
    Hold { lock: String },
    /// Acquire so many locks, and keep them.
    HoldMany { count: usize },
    /// Wait for the lock in the background; the reply comes at once.
    Wait { lock: String },
    /// Whether the lock that is held is held.
    IsHeld,
    /// Wait for the loss of the lock that is held.
    AwaitLoss,
    /// Look whether the lock is held, stop the own process, and after the continue answer what was found before.
    CheckThenStop,
    /// Release what is held.
    Release,
    /// Join, creating the group, and keep that.
    Join { group: String },
    /// Join and be elected, and keep that.
    Lead { group: String },
    /// Play random operations, and answer the history.
    Play(Play),
    /// Make and close coordinators, and count threads named `tooz-heart` before and after.
    CountHearts { coordinators: usize },
    /// Make and close coordinators one after another, and count threads and files afterwards.
    ComeAndGo { times: usize },
}

/// What a worker answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) error: Option<String>,
    pub(crate) token: Option<u64>,
    pub(crate) held: Option<bool>,
    pub(crate) before: Option<usize>,
    pub(crate) after: Option<usize>,
    pub(crate) threads: Option<u64>,
    pub(crate) files: Option<u64>,
    pub(crate) attempts: Vec<Attempt>,
}

/// The suite's side of a worker. Dropping it kills the process.
pub(crate) struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    patience: Duration,
    /// Held for as long as the worker lives.
    turn: Option<tokio::sync::SemaphorePermit<'static>>,
}

impl Worker {
    /// Starts a worker that connects to the stage's store as this member. The case has the workers' turn until it ends.
    pub(crate) async fn start(stage: &Stage, member: &str) -> CaseResult<Self> {
        let turn = TURN.acquire().await.map_err(CaseFailure::new)?;
        let mut worker = Self::beside(stage, member).await?;
        worker.turn = Some(turn);
        Ok(worker)
    }

    /// One more worker of a case that has its turn already.
    pub(crate) async fn beside(stage: &Stage, member: &str) -> CaseResult<Self> {
        let role = WorkerIdentity {
            url: stage.url().to_owned(),
            member: member.to_owned(),
            session_timeout: stage.session_timeout(),
        };
        let role = serde_json::to_string(&role).map_err(CaseFailure::new)?;
        let binary = std::env::current_exe().map_err(CaseFailure::new)?;
        let mut child = tokio::process::Command::new(binary)
            .env(VARIABLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(CaseFailure::new)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(CaseFailure::new("the worker has no pipes"));
        };
        let output = BufReader::new(output).lines();
        let mut worker = Worker { child, input: Some(input), output, patience: stage.after_a_crash(), turn: None };
        // The first line says that it is a worker indeed, and has connected.
        worker.reply().await?;
        Ok(worker)
    }

    /// Tells it something and waits for the reply.
    pub(crate) async fn ask(&mut self, command: &Command) -> CaseResult<Reply> {
        self.tell(command).await?;
        self.reply().await
    }

    /// Tells it something.
    pub(crate) async fn tell(&mut self, command: &Command) -> CaseResult {
        let mut line = serde_json::to_string(command).map_err(CaseFailure::new)?;
        line.push('\n');
        let input = self.input.as_mut().ok_or_else(|| CaseFailure::new("the worker was ended"))?;
        input.write_all(line.as_bytes()).await.map_err(CaseFailure::new)
    }

    /// Waits for the reply to what was told.
    pub(crate) async fn reply(&mut self) -> CaseResult<Reply> {
        let limit = self.patience + Duration::from_secs(10);
        let line = tokio::time::timeout(limit, self.output.next_line())
            .await
            .map_err(|_| CaseFailure::new(format!("the worker did not answer within {limit:?}")))?
            .map_err(CaseFailure::new)?
            .ok_or_else(|| {
                CaseFailure::new("the worker has gone; does main call serve_worker() before anything else?")
            })?;
        let reply: Reply = serde_json::from_str(&line)
            .map_err(|error| CaseFailure::new(format!("the worker answered {line:?}: {error}")))?;
        match reply.error {
            Some(error) => Err(CaseFailure::new(format!("the worker failed: {error}"))),
            None => Ok(reply),
        }
    }

    /// Ends it as the kernel would: without a word to the backend.
    pub(crate) async fn kill(mut self) -> CaseResult {
        self.child.kill().await.map_err(CaseFailure::new)
    }

    /// Lets it close and exit.
    pub(crate) async fn end(mut self) -> CaseResult {
        self.input = None;
        match tokio::time::timeout(self.patience, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(status) => Err(CaseFailure::new(format!("the worker ended with {status:?}"))),
            Err(_) => Err(CaseFailure::new("the worker did not end")),
        }
    }

    /// SIGSTOP.
    pub(crate) fn stop(&self) -> CaseResult {
        self.signal(Signal::Stop)
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) -> CaseResult {
        self.signal(Signal::Continue)
    }

    #[cfg(unix)]
    fn signal(&self, signal: Signal) -> CaseResult {
        use nix::sys::signal::{Signal as Number, kill};
        let number = match signal {
            Signal::Stop => Number::SIGSTOP,
            Signal::Continue => Number::SIGCONT,
        };
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let id = id.ok_or_else(|| CaseFailure::new("the worker has gone"))?;
        kill(nix::unistd::Pid::from_raw(id), number).map_err(CaseFailure::new)
    }

    #[cfg(not(unix))]
    #[allow(clippy::unused_self)]
    fn signal(&self, _signal: Signal) -> CaseResult {
        Err(CaseFailure::new("this system has no such signals"))
    }
}

#[derive(Clone, Copy)]
enum Signal {
    Stop,
    Continue,
}

/// Serves as a worker and exits, if this process was started as one; else does nothing.
///
/// [`suite!`](crate::suite) calls it. A test with a `main` of its own that uses [`run_case`](crate::run_case) calls it first.
pub fn serve_worker() {
    let Ok(role) = std::env::var(VARIABLE) else { return };
    let answer = |reply: &Reply| {
        let line = serde_json::to_string(reply).unwrap_or_default();
        let mut output = std::io::stdout().lock();
        // A suite that has gone needs no answer.
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    };
    let failed = |error: String| Reply { error: Some(error), ..Reply::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime of two threads can be made");
    let state = match runtime.block_on(WorkerState::start(&role)) {
        Ok(state) => state,
        Err(error) => {
            answer(&failed(error.to_string()));
            std::process::exit(1);
        }
    };
    answer(&Reply::default());
    // The end of the input is the end of the suite's interest, or of the suite.
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let reply = match serde_json::from_str(&line) {
            Ok(command) => runtime.block_on(state.obey(command)).unwrap_or_else(|error| failed(error.to_string())),
            Err(error) => failed(error.to_string()),
        };
        answer(&reply);
    }
    let _ = runtime.block_on(state.coordinator.close());
    std::process::exit(0);
}

/// What a worker has.
struct WorkerState {
    role: WorkerIdentity,
    coordinator: Coordinator,
    guards: Mutex<VecDeque<LockGuard>>,
    memberships: Mutex<Vec<Membership>>,
    leaderships: Mutex<Vec<Leadership>>,
}

type WorkerResult<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

impl WorkerState {
    async fn start(role: &str) -> WorkerResult<Self> {
        let role: WorkerIdentity = serde_json::from_str(role)?;
        let coordinator = connect(&role).await?;
        Ok(WorkerState {
            role,
            coordinator,
            guards: Mutex::default(),
            memberships: Mutex::default(),
            leaderships: Mutex::default(),
        })
    }

    fn keep(&self, guard: LockGuard) -> Reply {
        let token = Some(guard.fencing_token().0);
        self.guards.lock().push_back(guard);
        Reply { token, ..Reply::default() }
    }

    fn is_held(&self) -> Option<bool> {
        let guards = self.guards.lock();
        (!guards.is_empty()).then(|| guards.iter().all(LockGuard::is_held))
    }

    async fn obey(&self, command: Command) -> WorkerResult<Reply> {
        let none = Reply::default();
        match command {
            Command::Hold { lock } => Ok(self.keep(self.coordinator.lock(lock)?.acquire().await?)),
            Command::HoldMany { count } => {
                for index in 0..count {
                    self.keep(self.coordinator.lock(format!("many-{index}"))?.acquire().await?);
                }
                Ok(none)
            }
            Command::Wait { lock } => {
                let lock = self.coordinator.lock(lock)?;
                tokio::spawn(async move {
                    // Should it be granted after all, it is kept until the process ends.
                    if let Ok(guard) = lock.acquire().await {
                        std::mem::forget(guard);
                    }
                });
                Ok(none)
            }
            Command::IsHeld => Ok(Reply { held: self.is_held(), ..none }),
            Command::AwaitLoss => {
                let loss = self.guards.lock().front().map(LockGuard::loss);
                loss.ok_or("nothing is held")?.wait().await;
                Ok(Reply { held: self.is_held(), ..none })
            }
            Command::CheckThenStop => {
                let held = self.is_held();
                stop_oneself()?;
                Ok(Reply { held, ..none })
            }
            Command::Release => {
                let guard = self.guards.lock().pop_front();
                guard.ok_or("nothing is held")?.release().await?;
                Ok(none)
            }
            Command::Join { group } => {
                let membership = self.coordinator.group(group)?.join_or_create(&1).await?;
                self.memberships.lock().push(membership);
                Ok(none)
            }
            Command::Lead { group } => {
                let membership = self.coordinator.group(group)?.join_or_create(&1).await?;
                let leadership = membership.campaign().await?;
                let token = Some(leadership.epoch().0);
                self.memberships.lock().push(membership);
                self.leaderships.lock().push(leadership);
                Ok(Reply { token, ..none })
            }
            Command::Play(play) => {
                Ok(Reply { attempts: play.perform(std::slice::from_ref(&self.coordinator)).await, ..none })
            }
            Command::CountHearts { coordinators } => {
                self.coordinator.close().await?;
                let mut all = Vec::new();
                for _ in 0..coordinators {
                    let coordinator = connect(&self.role).await?;
                    drop(coordinator.lock("x")?.acquire().await?);
                    all.push(coordinator);
                }
                let before = threads_named("tooz-heart");
                for coordinator in all {
                    coordinator.close().await?;
                }
                // The thread has ended when close returns; the kernel may list it for a moment longer.
                let mut after = threads_named("tooz-heart");
                for _ in 0..20 {
                    if after == Some(0) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    after = threads_named("tooz-heart");
                }
                Ok(Reply { before, after, ..none })
            }
            Command::ComeAndGo { times } => {
                for _ in 0..times {
                    let coordinator = connect(&self.role).await?;
                    coordinator.lock("x")?.acquire().await?.release().await?;
                    coordinator.close().await?;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                Ok(Reply { threads: entries("/proc/self/task"), files: entries("/proc/self/fd"), ..none })
            }
        }
    }
}

async fn connect(role: &WorkerIdentity) -> tooz_core::Result<Coordinator> {
    let options = ConnectOptions::new(&role.url)?.member(&role.member)?;
    options.session_timeout(role.session_timeout).connect().await
}

/// How many threads of this process have that name, on systems that tell.
fn threads_named(name: &str) -> Option<usize> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    Some(names.filter(|found| found.trim_end() == name).count())
}

fn entries(folder: &str) -> Option<u64> {
    std::fs::read_dir(folder).ok().map(|entries| entries.count() as u64)
}

#[cfg(unix)]
fn stop_oneself() -> WorkerResult<()> {
    Ok(nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)?)
}

#[cfg(not(unix))]
fn stop_oneself() -> WorkerResult<()> {
    Err("this system has no SIGSTOP".into())
}
