//! Random operations on locks by coordinators of one process, and the history of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tooz_core::{Coordinator, Lock, LockGuard};

use crate::history::{Attempt, Grant, Mode, Response, now};

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
                Err(_) => Response::Unknown { until: None },
            };
            let stop = matches!(answer, Response::Unknown { .. });
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
        Grant { at, token, believed_until, released, lost: lost.then(now) }
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
