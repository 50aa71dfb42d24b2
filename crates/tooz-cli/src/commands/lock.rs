//! `tooz lock`: CMD while a lock is held.

use std::time::Duration;

use tooz::{Coordinator, Lock, LockGuard, LockMode, LockName};

use super::environment::Environment;
use super::kill_after::notice;
use super::session::LossesBefore;
use super::waiting::{self, Wait};
use super::{required_command, unless_signalled, with_coordinator};
use crate::args::{Global, LockArguments};
use crate::failure::{self, CommandFailure};
use crate::run::{self, HeldRole, Job, JobEnd, OnLoss, Signals};
use crate::speech::locks::Asker;
use crate::speech::{self, held};

pub(super) async fn run(global: &Global, arguments: LockArguments) -> Result<u8, CommandFailure> {
    let name = LockName::new(arguments.lock.name())?;
    required_command(&arguments.run)?;
    with_coordinator(global, async |coordinator| {
        notice(coordinator, arguments.run.kill_after)?;
        let mut signals = Signals::listen()?;
        let waiting = acquire(coordinator, &name, &arguments);
        let Some(guard) = unless_signalled(&mut signals, waiting).await? else {
            return Err(not_acquired(coordinator, &name, &arguments).await);
        };
        let acquired = speech::locks::acquired(&name, &guard);
        let acquired = if arguments.is_conflict_no_news() { acquired.for_programs() } else { acquired };
        speech::tell(&acquired);
        under(global, coordinator, &name, guard, &arguments, &mut signals).await
    })
    .await
}

async fn not_acquired(coordinator: &Coordinator, name: &LockName, arguments: &LockArguments) -> CommandFailure {
    let code = arguments.conflict_exit_code;
    if arguments.is_conflict_no_news() {
        return CommandFailure::not_acquired(code, format!("lock {name:?} is held by another")).for_programs();
    }
    let holders = waiting::holders(coordinator, name).await;
    CommandFailure::not_acquired(
        code,
        speech::locks::not_acquired(name, holders, &Asker::of(name, coordinator.member())),
    )
}

async fn acquire(
    coordinator: &Coordinator,
    name: &LockName,
    arguments: &LockArguments,
) -> tooz::Result<Option<LockGuard>> {
    let lock = coordinator.lock(name)?;
    let mode = if arguments.shared { LockMode::Shared } else { LockMode::Exclusive };
    let limit = if arguments.no_wait { Some(Duration::ZERO) } else { arguments.wait };
    if limit == Some(Duration::ZERO) {
        return try_once(&lock, mode).await;
    }
    if limit.is_none() {
        // A wait without a limit outlives every failure of the backend. One that can't be used to begin with is told
        // instead, and only a try tells.
        if let Some(guard) = try_once(&lock, mode).await? {
            return Ok(Some(guard));
        }
    }
    waiting::tell_while(wait_for(&lock, mode, limit), Wait::ForLock(&lock, coordinator.member())).await
}

async fn try_once(lock: &Lock, mode: LockMode) -> tooz::Result<Option<LockGuard>> {
    match mode {
        LockMode::Exclusive => lock.try_acquire().await,
        LockMode::Shared => lock.shared().try_acquire().await,
    }
}

async fn wait_for(lock: &Lock, mode: LockMode, limit: Option<Duration>) -> tooz::Result<Option<LockGuard>> {
    match (mode, limit) {
        (LockMode::Exclusive, Some(limit)) => lock.acquire_within(limit).await,
        (LockMode::Shared, Some(limit)) => lock.shared().acquire_within(limit).await,
        (LockMode::Exclusive, None) => lock.acquire().await.map(Some),
        (LockMode::Shared, None) => lock.shared().acquire().await.map(Some),
    }
}

async fn under(
    global: &Global,
    coordinator: &Coordinator,
    name: &LockName,
    guard: LockGuard,
    arguments: &LockArguments,
    signals: &mut Signals,
) -> Result<u8, CommandFailure> {
    let environment = Environment::of(global, coordinator.member())?;
    let notice = notice(coordinator, arguments.run.kill_after)?;
    let job = Job {
        command: &required_command(&arguments.run)?,
        environment: environment.with("TOOZ_FENCING_TOKEN", &guard.fencing_token()).with("TOOZ_LOCK", name).list(),
        kill_after: notice.kill_after,
        descriptors: coordinator.descriptors(),
    };
    let (loss, losses) = (guard.loss(), LossesBefore::now());
    let holding = held::hold(loss.clone(), notice.late);
    let mut grant = HeldRole {
        remaining: Box::new(|| guard.remaining()),
        is_held: Box::new(|| guard.is_held()),
        lost: Box::pin(async move { loss.wait().await }),
        on_loss: OnLoss::Kill,
    };
    let outcome = run::run(job, &mut grant, signals).await;
    drop((grant, holding));
    losses.let_the_next_be_told(guard.loss().reason()).await;
    let released = tokio::select! {
        released = guard.release() => released.map_err(|error| speech::words::in_words(&error)),
        signal = signals.end_tidying_up() => Err(format!("releasing lock {name:?} was given up: signal {signal} came")),
    };
    match outcome? {
        JobEnd::Lost(why) => {
            speech::tell(&speech::locks::lost(name, &why));
            Err(CommandFailure::lost(format!("lock {name:?} was lost: {why}")))
        }
        JobEnd::Ended(code) => {
            match released {
                Ok(()) => speech::tell(&speech::locks::released(name)),
                Err(why) => {
                    failure::hurry();
                    // CMD has ended under the lock: its result stands. The release goes on until the session ends.
                    speech::warn(why);
                }
            }
            Ok(code)
        }
    }
}
