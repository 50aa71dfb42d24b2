//! `tooz join`: a member while CMD runs, or until a signal.

use tooz::{Coordinator, GroupId, JoinOptions, Membership};

use super::{capabilities, kill_after, over, unless_signalled, with_coordinator};
use crate::args::{Global, JoinArguments};
use crate::exit::{self, Failure};
use crate::run::{self, Grant, Job, OnLoss, Outcome, Signals};

pub(super) async fn run(global: &Global, arguments: JoinArguments) -> Result<u8, Failure> {
    let name = GroupId::new(arguments.group.name())?;
    let capabilities = capabilities(arguments.capabilities.as_deref())?;
    with_coordinator(global, async |coordinator| {
        kill_after(coordinator, arguments.kill_after.kill_after)?;
        let mut signals = Signals::listen()?;
        let options = JoinOptions::new().capabilities(capabilities).create();
        let group = coordinator.group(&name)?;
        let membership = unless_signalled(&mut signals, group.join_with(options)).await?;
        exit::say(format_args!("joined group {name:?} as {:?}", coordinator.member()));
        let outcome = if arguments.command.is_empty() {
            tokio::select! {
                // Asked to leave, it leaves: that is a good end.
                _ = signals.next_to_end() => Outcome::Ended(exit::SUCCESS),
                reason = over(&membership) => Outcome::Lost(reason.to_string()),
            }
        } else {
            run_command(coordinator, &membership, &arguments, &mut signals).await?
        };
        match outcome {
            Outcome::Ended(code) => {
                membership.leave().await?;
                Ok(code)
            }
            Outcome::Lost(why) => {
                Err(Failure::new(exit::LOST, format!("the membership of group {name:?} was lost: {why}")))
            }
        }
    })
    .await
}

async fn run_command(
    coordinator: &Coordinator,
    membership: &Membership,
    arguments: &JoinArguments,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    let job = Job {
        command: &arguments.command,
        environment: vec![
            ("TOOZ_GROUP", membership.group().to_string()),
            ("TOOZ_MEMBER", coordinator.member().to_string()),
        ],
        kill_after: kill_after(coordinator, arguments.kill_after.kill_after)?,
        descriptors: coordinator.descriptors(),
    };
    // A membership excludes nobody and is re-established after a loss of its session: CMD has no deadline.
    let mut grant = Grant {
        remaining: Box::new(|| None),
        is_held: Box::new(|| true),
        lost: Box::pin(over(membership)),
        on_loss: OnLoss::Terminate,
    };
    run::run(job, &mut grant, signals).await
}
