//! Histories: random operations on locks, written down with the times of the machine's monotonic clock.
//!
//! All workers run on one host, so the order of the times is real. [`checker`](crate::checker) judges what is written here.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tooz_core::{Coordinator, Lock, LockGuard, LockMode};

/// The machine's monotonic clock in nanoseconds: the same for every process of the host.
#[cfg(unix)]
pub fn now() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock is part of every supported kernel");
    let nanos = Duration::from(time).as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// The time since the first call in nanoseconds: for histories of one process.
#[cfg(not(unix))]
pub fn now() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let nanos = START.get_or_init(std::time::Instant::now).elapsed().as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// Exclusive or shared, as it stands in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// Beside others.
    Shared,
}

impl Mode {
    /// Whether two grants exclude each other.
    pub const fn conflicts_with(self, other: Mode) -> bool {
        matches!(self, Mode::Exclusive) || matches!(other, Mode::Exclusive)
    }

    /// As the library has it.
    pub const fn of_lock(self) -> LockMode {
        match self {
            Mode::Exclusive => LockMode::Exclusive,
            Mode::Shared => LockMode::Shared,
        }
    }
}

/// One attempt to get a lock, and all that came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The worker: it does one thing after another.
    pub worker: String,
    /// Which lock.
    pub lock: String,
    /// How.
    pub mode: Mode,
    /// When it was asked for.
    pub asked: u64,
    /// What was answered.
    pub answer: Response,
}

/// What an attempt was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// It is not known: an error, or the worker died. It may have been granted, then or later.
    Unknown,
    /// It was not to be had.
    NotHad {
        /// When that was answered.
        at: u64,
        /// Whether it waited and its time was over: then its withdrawal may go on for a while after the answer.
        waited: bool,
    },
    /// It was granted.
    Granted(Grant),
}

/// A grant, from the holder's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// When the holder got it.
    pub at: u64,
    /// Its fencing token.
    pub token: u64,
    /// Until when the holder believed that it held it: the release that it asked for, the loss that it was told of, or the
    /// deadline as computed, whichever came first. `None`: to the end of the history.
    pub believed_until: Option<u64>,
    /// When the release was answered with success; `None`: it was lost, failed, or never asked for.
    pub released: Option<u64>,
}

/// What a worker is to play: random operations for so long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Play {
    /// The name in the history, and of the randomness.
    pub name: String,
    /// Where the randomness begins.
    pub seed: u64,
    /// For how long.
    pub time: Duration,
    /// How many locks; the fewer, the more contention.
    pub locks: usize,
    /// How many tasks for each coordinator.
    pub tasks: usize,
    /// Whether shared locks are played too.
    pub shared: bool,
    /// Whether some wait for a limited time only. Without, every refusal is judged strictly.
    pub limits: bool,
}

impl Play {
    /// Plays with each of these coordinators at once and answers what happened.
    pub async fn perform(&self, coordinators: &[Coordinator]) -> Vec<Attempt> {
        let mut tasks = Vec::new();
        for (index, coordinator) in coordinators.iter().enumerate() {
            for task in 0..self.tasks {
                let player = Player {
                    worker: format!("{}-{index}-{task}", self.name),
                    coordinator: coordinator.clone(),
                    random: fastrand::Rng::with_seed(self.seed ^ ((index as u64) << 32) ^ ((task as u64) << 16)),
                    play: self.clone(),
                    attempts: Vec::new(),
                };
                tasks.push(tokio::spawn(player.perform()));
            }
        }
        let mut attempts = Vec::new();
        for task in tasks {
            attempts.extend(task.await.unwrap_or_default());
        }
        attempts
    }
}

struct Player {
    worker: String,
    coordinator: Coordinator,
    random: fastrand::Rng,
    play: Play,
    attempts: Vec<Attempt>,
}

impl Player {
    async fn perform(mut self) -> Vec<Attempt> {
        let end = now() + u64::try_from(self.play.time.as_nanos()).unwrap_or(u64::MAX / 2);
        while now() < end {
            let name = format!("lock-{}", self.random.usize(..self.play.locks));
            let Ok(lock) = self.coordinator.lock(&name) else { break };
            let mode = if self.play.shared && self.random.bool() { Mode::Shared } else { Mode::Exclusive };
            let asked = now();
            let patience = match self.random.u8(..3) {
                0 => WaitMode::Try,
                1 if self.play.limits => WaitMode::Limited(Duration::from_millis(self.random.u64(1..40))),
                _ => WaitMode::Wait,
            };
            let answer = match ask(&lock, mode, patience).await {
                Ok(Some(guard)) => Response::Granted(self.hold(guard).await),
                Ok(None) => Response::NotHad { at: now(), waited: matches!(patience, WaitMode::Limited(_)) },
                Err(_) => Response::Unknown,
            };
            let stop = matches!(answer, Response::Unknown);
            self.attempts.push(Attempt { worker: self.worker.clone(), lock: name, mode, asked, answer });
            if stop {
                // An error that repeats at once would fill the history with nothing.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let pause = Duration::from_micros(self.random.u64(..2000));
            tokio::time::sleep(pause).await;
        }
        self.attempts
    }

    /// Holds it for a while, and gives it back in one way or the other.
    async fn hold(&mut self, guard: LockGuard) -> Grant {
        let at = now();
        let token = guard.fencing_token().0;
        tokio::time::sleep(Duration::from_micros(self.random.u64(..3000))).await;
        let asked = now();
        // The order matters: first the time, then the look, so that a belief is never written down too long.
        let lost = !guard.is_held();
        let believed_until = Some(if lost { asked.min(at) } else { asked });
        let released = match guard.release().await {
            Ok(()) if !lost => Some(now()),
            _ => None,
        };
        Grant { at, token, believed_until, released }
    }
}

/// How long an attempt waits.
#[derive(Clone, Copy)]
enum WaitMode {
    Try,
    Limited(Duration),
    Wait,
}

async fn ask(lock: &Lock, mode: Mode, patience: WaitMode) -> tooz_core::Result<Option<LockGuard>> {
    match (patience, mode) {
        (WaitMode::Try, Mode::Exclusive) => lock.try_acquire().await,
        (WaitMode::Try, Mode::Shared) => lock.shared().try_acquire().await,
        (WaitMode::Limited(limit), Mode::Exclusive) => lock.acquire_within(limit).await,
        (WaitMode::Limited(limit), Mode::Shared) => lock.shared().acquire_within(limit).await,
        (WaitMode::Wait, Mode::Exclusive) => lock.acquire().await.map(Some),
        (WaitMode::Wait, Mode::Shared) => lock.shared().acquire().await.map(Some),
    }
}
