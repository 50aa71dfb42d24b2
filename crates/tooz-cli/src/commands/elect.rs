//! `tooz elect`: CMD while this member leads its group.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz::{Coordinator, ErrorKind, GroupId, Leadership, LossReason, Membership};

use super::membership::{self, until_over};
use super::{kill_after, unless_signalled, with_coordinator};
use crate::args::{ElectArguments, Global};
use crate::exit::{self, CommandFailure};
use crate::run::{self, HeldRole, Job, JobEnd, OnLoss, Signals};

/// A leadership that is lost sooner is followed by a pause: a backend that is too slow for the session should not be asked in a circle.
const SHORTEST_ROUND: Duration = Duration::from_secs(1);

pub(super) async fn run(global: &Global, arguments: ElectArguments) -> Result<u8, CommandFailure> {
    let name = GroupId::new(arguments.group.name())?;
    let options = membership::options(&arguments.member)?;
    with_coordinator(global, async |coordinator| {
        kill_after(coordinator, arguments.kill_after.kill_after)?;
        let mut signals = Signals::listen()?;
        let membership = unless_signalled(&mut signals, membership::join(coordinator, &name, &options)).await?;
        let code = terms(coordinator, &membership, &arguments, &mut signals).await?;
        if let Err(why) = membership::leave(membership, &mut signals).await {
            // CMD has ended as the leader: its result stands.
            exit::say(why);
        }
        Ok(code)
    })
    .await
}

/// One term after another, until CMD ends by itself.
async fn terms(
    coordinator: &Coordinator,
    membership: &Membership,
    arguments: &ElectArguments,
    signals: &mut Signals,
) -> Result<u8, CommandFailure> {
    let name = membership.group();
    let over = until_over(membership);
    tokio::pin!(over);
    loop {
        let leadership = tokio::select! {
            elected = unless_signalled(signals, campaign(membership)) => elected?,
            reason = &mut over => return Err(membership::lost(name, &reason)),
        };
        let elected = Instant::now();
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
        let mut ended = None;
        let outcome = {
            let leading = lead(job, &leadership, signals);
            tokio::pin!(leading);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut leading => break outcome,
                    // The leadership ends with it, and CMD with the leadership: that is waited for.
                    reason = &mut over, if ended.is_none() => ended = Some(reason),
                }
            }
        };
        let resigned = tokio::select! {
            resigned = leadership.resign() => resigned.map_err(|error| error.to_string()),
            signal = signals.end_tidying_up() => Err(format!("resigning was given up: signal {signal} came")),
        };
        match outcome? {
            JobEnd::Ended(code) => {
                if let Err(why) = resigned {
                    exit::hurry();
                    exit::say(why);
                }
                return Ok(code);
            }
            JobEnd::Lost(why) => {
                let lost = format!("the leadership of group {name:?} was lost: {why}");
                if arguments.once {
                    return Err(CommandFailure::new(exit::LOST, lost));
                }
                if let Some(reason) = ended {
                    exit::say(lost);
                    return Err(membership::lost(name, &reason));
                }
                exit::say(format_args!("{lost}; campaigning again"));
                let pause = sleep(SHORTEST_ROUND.saturating_sub(elected.elapsed()));
                let pausing = async {
                    pause.await;
                    Ok::<_, CommandFailure>(())
                };
                unless_signalled(signals, pausing).await?;
            }
        }
    }
}

/// Waits to be elected; an end of the membership for ever is a loss, not an error of ours.
async fn campaign(membership: &Membership) -> Result<Leadership, CommandFailure> {
    match membership.campaign().await {
        Ok(leadership) => Ok(leadership),
        Err(error) if error.kind() == ErrorKind::NotMember => {
            let reason = membership.over().unwrap_or(LossReason::NotMember);
            Err(membership::lost(membership.group(), &reason))
        }
        Err(error) => Err(error.into()),
    }
}

async fn lead(job: Job<'_>, leadership: &Leadership, signals: &mut Signals) -> Result<JobEnd, CommandFailure> {
    let loss = leadership.loss();
    let mut grant = HeldRole {
        remaining: Box::new(|| leadership.remaining()),
        is_held: Box::new(|| leadership.is_leader()),
        lost: Box::pin(async move { loss.wait().await }),
        on_loss: OnLoss::Kill,
    };
    run::run(job, &mut grant, signals).await
}
