//! `tooz join`: a member while CMD runs, or until a signal.

use nix::sys::signal::Signal;
use tooz::{GroupId, Membership};

use super::environment::Environment;
use super::kill_after::notice;
use super::membership::{self, until_over};
use super::{unless_signalled, with_coordinator};
use crate::args::{Global, JoinArguments};
use crate::exit;
use crate::failure::CommandFailure;
use crate::run::{self, HeldRole, Job, JobEnd, OnLoss, Signals};
use crate::speech;

/// The signals that ask for a proper leave, which then is a good end.
const ASKS_TO_LEAVE: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

pub(super) async fn run(global: &Global, arguments: JoinArguments) -> Result<u8, CommandFailure> {
    let name = GroupId::new(arguments.group.name())?;
    let options = membership::options(&arguments.member)?;
    with_coordinator(global, async |coordinator| {
        notice(coordinator, arguments.run.kill_after)?;
        let mut signals = Signals::listen()?;
        let membership = unless_signalled(&mut signals, membership::join(coordinator, &name, &options)).await?;
        speech::tell(&speech::groups::joined(&name, coordinator.member()));
        let Some(command) = arguments.run.command() else {
            return alone(&membership, &mut signals).await;
        };
        let environment = Environment::of(global, coordinator.member())?.with("TOOZ_GROUP", &name).list();
        let job = Job {
            command: &command,
            environment,
            kill_after: notice(coordinator, arguments.run.kill_after)?.kill_after,
            descriptors: coordinator.descriptors(),
        };
        beside(job, &membership, &mut signals).await
    })
    .await
}

/// A member without a CMD, until a signal.
async fn alone(membership: &Membership, signals: &mut Signals) -> Result<u8, CommandFailure> {
    let signal = tokio::select! {
        signal = signals.next_to_end() => signal,
        reason = until_over(membership, || true) => return Err(membership::lost(membership.group(), &reason)),
    };
    speech::tell(&speech::command::interrupted(signal, "leaving the group"));
    membership::leave(membership, signals).await.map_err(CommandFailure::error)?;
    let asked = ASKS_TO_LEAVE.iter().any(|one| *one as i32 == signal);
    Ok(if asked { exit::SUCCESS } else { exit::by_signal(signal) })
}

/// CMD while the membership lasts.
async fn beside(job: Job<'_>, membership: &Membership, signals: &mut Signals) -> Result<u8, CommandFailure> {
    // A membership excludes no other and is re-established after a loss of its session: CMD has no deadline.
    let mut grant = HeldRole {
        remaining: Box::new(|| None),
        is_held: Box::new(|| true),
        lost: Box::pin(until_over(membership, || true)),
        on_loss: OnLoss::Terminate,
    };
    match run::run(job, &mut grant, signals).await? {
        JobEnd::Ended(code) => {
            membership::leave_behind_cmd(membership, signals).await;
            Ok(code)
        }
        JobEnd::Lost(why) => Err(membership::lost(membership.group(), &why)),
    }
}
