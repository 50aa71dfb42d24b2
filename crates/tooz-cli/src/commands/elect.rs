//! `tooz elect`: CMD while this member leads its group.

use tooz::{ErrorKind, GroupId, JoinOptions, Leadership, LossReason, Membership};

use super::{capabilities, kill_after, over, unless_signalled, with_coordinator};
use crate::args::{ElectArguments, Global};
use crate::exit::{self, Failure};
use crate::run::{self, Grant, Job, OnLoss, Outcome, Signals};

pub(super) async fn run(global: &Global, arguments: ElectArguments) -> Result<u8, Failure> {
    let name = GroupId::new(arguments.group.name())?;
    let capabilities = capabilities(arguments.capabilities.as_deref())?;
    with_coordinator(global, async |coordinator| {
        kill_after(coordinator, arguments.kill_after.kill_after)?;
        let mut signals = Signals::listen()?;
        let options = JoinOptions::new().capabilities(capabilities).create();
        let group = coordinator.group(&name)?;
        let membership = unless_signalled(&mut signals, group.join_with(options)).await?;
        loop {
            let leadership = unless_signalled(&mut signals, campaign(&membership)).await?;
            let job = Job {
                command: &arguments.command,
                environment: vec![
                    ("TOOZ_EPOCH", leadership.epoch().to_string()),
                    ("TOOZ_FENCING_TOKEN", leadership.epoch().to_string()),
                    ("TOOZ_GROUP", name.to_string()),
                    ("TOOZ_MEMBER", coordinator.member().to_string()),
                ],
                kill_after: kill_after(coordinator, arguments.kill_after.kill_after)?,
                descriptors: coordinator.descriptors(),
            };
            let outcome = lead(job, &leadership, &mut signals).await;
            let resigned = leadership.resign().await;
            match outcome? {
                Outcome::Ended(code) => {
                    if let Err(error) = resigned {
                        exit::say(error);
                    }
                    membership.leave().await?;
                    return Ok(code);
                }
                Outcome::Lost(why) => {
                    let lost = format!("the leadership of group {name:?} was lost: {why}");
                    if arguments.once {
                        return Err(Failure::new(exit::LOST, lost));
                    }
                    exit::say(format_args!("{lost}; campaigning again"));
                }
            }
        }
    })
    .await
}

/// Waits to be elected; an end of the membership for ever is a loss, not an error of ours.
async fn campaign(membership: &Membership) -> Result<Leadership, Failure> {
    let lost = |reason: &dyn std::fmt::Display| {
        let group = membership.group();
        Failure::new(exit::LOST, format!("the membership of group {group:?} was lost: {reason}"))
    };
    tokio::select! {
        elected = membership.campaign() => match elected {
            Ok(leadership) => Ok(leadership),
            Err(error) if error.kind() == ErrorKind::NotMember => Err(lost(&LossReason::NotMember)),
            Err(error) => Err(error.into()),
        },
        reason = over(membership) => Err(lost(&reason)),
    }
}

async fn lead(job: Job<'_>, leadership: &Leadership, signals: &mut Signals) -> Result<Outcome, Failure> {
    let loss = leadership.loss();
    let mut grant = Grant {
        remaining: Box::new(|| leadership.remaining()),
        is_held: Box::new(|| leadership.is_leader()),
        lost: Box::pin(async move { loss.wait().await }),
        on_loss: OnLoss::Kill,
    };
    run::run(job, &mut grant, signals).await
}
