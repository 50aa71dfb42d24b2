//! `tooz lock`: CMD while a lock is held.

use std::time::Duration;

use tooz::{Coordinator, LockGuard, LockMode, LockName};

use super::{kill_after, unless_signalled, with_coordinator};
use crate::args::{Global, LockArguments};
use crate::exit::{self, CommandFailure};
use crate::run::{self, HeldRole, Job, JobEnd, OnLoss, Signals};

pub(super) async fn run(global: &Global, arguments: LockArguments) -> Result<u8, CommandFailure> {
    let name = LockName::new(arguments.lock.name())?;
    with_coordinator(global, async |coordinator| {
        kill_after(coordinator, arguments.kill_after.kill_after)?;
        let mut signals = Signals::listen()?;
        let waiting = acquire(coordinator, &name, &arguments);
        let Some(guard) = unless_signalled(&mut signals, waiting).await? else {
            let code = arguments.conflict_exit_code;
            return Err(CommandFailure::new(code, format!("lock {name:?} is held by somebody else")));
        };
        under(coordinator, &name, guard, &arguments, &mut signals).await
    })
    .await
}

async fn acquire(
    coordinator: &Coordinator,
    name: &LockName,
    arguments: &LockArguments,
) -> tooz::Result<Option<LockGuard>> {
    let lock = coordinator.lock(name)?;
    let mode = if arguments.shared { LockMode::Shared } else { LockMode::Exclusive };
    let try_once = async || match mode {
        LockMode::Exclusive => lock.try_acquire().await,
        LockMode::Shared => lock.shared().try_acquire().await,
    };
    match if arguments.no_wait { Some(Duration::ZERO) } else { arguments.wait } {
        Some(Duration::ZERO) => try_once().await,
        Some(limit) if mode == LockMode::Exclusive => lock.acquire_within(limit).await,
        Some(limit) => lock.shared().acquire_within(limit).await,
        None => {
            // A wait without a limit outlives every failure of the backend. One that can't be used to begin with is told
            // instead, and only a try tells.
            if let Some(guard) = try_once().await? {
                return Ok(Some(guard));
            }
            match mode {
                LockMode::Exclusive => lock.acquire().await.map(Some),
                LockMode::Shared => lock.shared().acquire().await.map(Some),
            }
        }
    }
}

async fn under(
    coordinator: &Coordinator,
    name: &LockName,
    guard: LockGuard,
    arguments: &LockArguments,
    signals: &mut Signals,
) -> Result<u8, CommandFailure> {
    let job = Job {
        command: &arguments.command,
        environment: vec![
            ("TOOZ_FENCING_TOKEN", guard.fencing_token().to_string()),
            ("TOOZ_LOCK", name.to_string()),
            ("TOOZ_MEMBER", coordinator.member().to_string()),
        ],
        kill_after: kill_after(coordinator, arguments.kill_after.kill_after)?,
        descriptors: coordinator.descriptors(),
    };
    let loss = guard.loss();
    let mut grant = HeldRole {
        remaining: Box::new(|| guard.remaining()),
        is_held: Box::new(|| guard.is_held()),
        lost: Box::pin(async move { loss.wait().await }),
        on_loss: OnLoss::Kill,
    };
    let outcome = run::run(job, &mut grant, signals).await;
    drop(grant);
    let released = tokio::select! {
        released = guard.release() => released.map_err(|error| error.to_string()),
        signal = signals.end_tidying_up() => Err(format!("releasing lock {name:?} was given up: signal {signal} came")),
    };
    match outcome? {
        JobEnd::Lost(why) => Err(CommandFailure::new(exit::LOST, format!("lock {name:?} was lost: {why}"))),
        JobEnd::Ended(code) => {
            if let Err(why) = released {
                exit::hurry();
                // CMD has ended under the lock: its result stands. The release goes on until the session ends.
                exit::say(why);
            }
            Ok(code)
        }
    }
}
