//! `tooz join`: a member while CMD runs, or until a signal.

use nix::sys::signal::Signal;
use tooz::{Coordinator, GroupId, Membership};

use super::membership::{self, until_over};
use super::{kill_after, unless_signalled, with_coordinator};
use crate::args::{Global, JoinArguments};
use crate::exit::{self, CommandFailure};
use crate::run::{self, HeldRole, Job, JobEnd, OnLoss, Signals};

/// The signals that ask for a proper leave, which then is a good end.
const ASKS_TO_LEAVE: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

pub(super) async fn run(global: &Global, arguments: JoinArguments) -> Result<u8, CommandFailure> {
    let name = GroupId::new(arguments.group.name())?;
    let options = membership::options(&arguments.member)?;
    with_coordinator(global, async |coordinator| {
        kill_after(coordinator, arguments.kill_after.kill_after)?;
        let mut signals = Signals::listen()?;
        let membership = unless_signalled(&mut signals, membership::join(coordinator, &name, &options)).await?;
        exit::say(format_args!("joined group {name:?} as {:?}", coordinator.member()));
        if arguments.command.is_empty() {
            return alone(membership, &mut signals).await;
        }
        match run_command(coordinator, &membership, &arguments, &mut signals).await? {
            JobEnd::Ended(code) => {
                if let Err(why) = membership::leave(membership, &mut signals).await {
                    // CMD has ended as a member: its result stands.
                    exit::say(why);
                }
                Ok(code)
            }
            JobEnd::Lost(why) => Err(membership::lost(&name, &why)),
        }
    })
    .await
}

/// A member without a CMD, until a signal.
async fn alone(membership: Membership, signals: &mut Signals) -> Result<u8, CommandFailure> {
    let signal = tokio::select! {
        signal = signals.next_to_end() => signal,
        reason = until_over(&membership) => return Err(membership::lost(membership.group(), &reason)),
    };
    membership::leave(membership, signals).await.map_err(CommandFailure::error)?;
    let asked = ASKS_TO_LEAVE.iter().any(|one| *one as i32 == signal);
    Ok(if asked { exit::SUCCESS } else { exit::by_signal(signal) })
}

async fn run_command(
    coordinator: &Coordinator,
    membership: &Membership,
    arguments: &JoinArguments,
    signals: &mut Signals,
) -> Result<JobEnd, CommandFailure> {
    let job = Job {
        command: &arguments.command,
        environment: vec![
            ("TOOZ_GROUP", membership.group().to_string()),
            ("TOOZ_MEMBER", coordinator.member().to_string()),
        ],
        kill_after: kill_after(coordinator, arguments.kill_after.kill_after)?,
        descriptors: coordinator.descriptors(),
    };
    // A membership excludes no other and is re-established after a loss of its session: CMD has no deadline.
    let mut grant = HeldRole {
        remaining: Box::new(|| None),
        is_held: Box::new(|| true),
        lost: Box::pin(until_over(membership)),
        on_loss: OnLoss::Terminate,
    };
    run::run(job, &mut grant, signals).await
}
