//! Other processes for the cases: they hold, wait, join, lead, play and count, and are killed or stopped.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tooz::{ConnectOptions, Coordinator, GroupWatch, Leadership, LockGuard, Membership};
use tooz_conformance::history::{Attempt, Play};
use tooz_tests::process::{self, Worker};

use crate::register;
use crate::stage::{OPERATION, PATIENCE, Stage};

/// Who a worker is.
#[derive(Serialize, Deserialize)]
struct Role {
    url: String,
    member: String,
    session_timeout: Duration,
}

/// What a worker is told. Each command has one reply.
#[derive(Serialize, Deserialize)]
pub(crate) enum Command {
    /// Acquire, and keep.
    Hold { lock: String },
    /// Wait for the lock in the background; the reply comes at once.
    Wait { lock: String },
    /// Watch the group, and keep that.
    Watch { group: String },
    /// Look whether the lock is held.
    Look,
    /// Stop the own process; what comes next in it is the look whether the lock is held, and then its release.
    StopThenLookAndRelease,
    /// Join, creating the group, and keep that.
    Join { group: String },
    /// Join and be elected, and keep both.
    Lead { group: String },
    /// Play random operations, and answer the history.
    Play(Play),
    /// Count in the registers of that file, under the lock.
    Count { lock: String, file: PathBuf, time: Duration },
}

/// What a worker answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Why it could not be done.
    pub(crate) error: Option<String>,
    pub(crate) token: Option<u64>,
    pub(crate) held: Option<bool>,
    /// The kind of the error that a release answered, where it answered one.
    pub(crate) release: Option<String>,
    pub(crate) attempts: Vec<Attempt>,
}

/// The case's side of a worker. Dropping it kills the process.
pub(crate) struct Other(Worker);

impl Other {
    /// Starts a process that connects as this member.
    pub(crate) async fn start(stage: &Stage, member: &str, session_timeout: Duration) -> Self {
        Self::start_at(&stage.url(), member, session_timeout).await
    }

    pub(crate) async fn start_at(url: &str, member: &str, session_timeout: Duration) -> Self {
        let role = Role { url: url.to_owned(), member: member.to_owned(), session_timeout };
        let mut other = Other(Worker::start(&role).expect("a worker can be started"));
        // The first line says that it has connected.
        other.reply(PATIENCE).await;
        other
    }

    pub(crate) async fn ask(&mut self, command: &Command) -> Reply {
        self.tell(command).await;
        self.reply(PATIENCE).await
    }

    pub(crate) async fn tell(&mut self, command: &Command) {
        self.0.tell(command).await.expect("the worker listens");
    }

    pub(crate) async fn reply(&mut self, limit: Duration) -> Reply {
        let reply: Reply = self.0.hear(limit).await.unwrap_or_else(|error| panic!("{error:#}"));
        assert!(reply.error.is_none(), "the worker failed: {reply:?}");
        reply
    }

    /// Acquires there, and answers the token.
    pub(crate) async fn hold(&mut self, lock: &str) -> u64 {
        self.ask(&Command::Hold { lock: lock.into() }).await.token.expect("a grant has a token")
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.0.kill().await.expect("the worker can be killed");
    }

    /// SIGSTOP.
    pub(crate) fn stop(&self) {
        self.0.stop().expect("the worker can be stopped");
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.0.resume().expect("the worker can be resumed");
    }

    /// Lets it close and exit.
    pub(crate) async fn end(self) {
        self.0.end(PATIENCE).await.unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Serves as a worker and exits, if this process was started as one; else does nothing.
pub(crate) fn serve() {
    let Some(role) = process::role::<Role>() else { return };
    let failed = |error: tooz::Error| Reply { error: Some(error.to_string()), ..Reply::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime of two threads can be made");
    let mut state = match runtime.block_on(State::start(&role)) {
        Ok(state) => state,
        Err(error) => {
            process::say(&failed(error));
            std::process::exit(1);
        }
    };
    process::say(&Reply::default());
    for command in process::orders() {
        process::say(&runtime.block_on(state.obey(command)).unwrap_or_else(failed));
    }
    let _ = runtime.block_on(state.coordinator.close());
    std::process::exit(0);
}

/// What a worker has.
struct State {
    coordinator: Coordinator,
    guard: Option<LockGuard>,
    memberships: Vec<Membership>,
    watches: Vec<GroupWatch>,
    leaderships: Vec<Leadership>,
}

impl State {
    async fn start(role: &Role) -> tooz::Result<Self> {
        let options = ConnectOptions::new(&role.url)?.member(role.member.as_str())?;
        let options = options.session_timeout(role.session_timeout).operation_timeout(OPERATION);
        let coordinator = options.connect().await?;
        Ok(State { coordinator, guard: None, memberships: Vec::new(), watches: Vec::new(), leaderships: Vec::new() })
    }

    async fn obey(&mut self, command: Command) -> tooz::Result<Reply> {
        let none = Reply::default();
        match command {
            Command::Hold { lock } => {
                let guard = self.coordinator.lock(lock)?.acquire().await?;
                let token = Some(guard.fencing_token().0);
                self.guard = Some(guard);
                Ok(Reply { token, ..none })
            }
            Command::Wait { lock } => {
                let lock = self.coordinator.lock(lock)?;
                // Should it be granted after all, it is kept until the process ends.
                tokio::spawn(async move { lock.acquire().await.map(std::mem::forget) });
                Ok(none)
            }
            Command::Watch { group } => {
                self.watches.push(self.coordinator.group(group)?.watch().await?);
                Ok(none)
            }
            Command::Look => Ok(Reply { held: self.guard.as_ref().map(LockGuard::is_held), ..none }),
            Command::StopThenLookAndRelease => {
                let guard = self.guard.take().expect("something is held");
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).expect("a process may stop itself");
                let held = Some(guard.is_held());
                let release = guard.release().await.err().map(|error| error.kind().to_string());
                Ok(Reply { held, release, ..none })
            }
            Command::Join { group } => {
                self.memberships.push(self.coordinator.group(group)?.join_or_create(&1).await?);
                Ok(none)
            }
            Command::Lead { group } => {
                let membership = self.coordinator.group(group)?.join_or_create(&1).await?;
                let leadership = membership.campaign().await?;
                let token = Some(leadership.epoch().0);
                self.memberships.push(membership);
                self.leaderships.push(leadership);
                Ok(Reply { token, ..none })
            }
            Command::Play(play) => {
                Ok(Reply { attempts: play.perform(std::slice::from_ref(&self.coordinator)).await, ..none })
            }
            Command::Count { lock, file, time } => {
                register::count(&self.coordinator.lock(lock)?, &file, time).await?;
                Ok(none)
            }
        }
    }
}
