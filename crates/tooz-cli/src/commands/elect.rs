//! `tooz elect`: CMD while this member leads its group.

use std::cell::Cell;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz::{Coordinator, ErrorKind, GroupId, Leadership, LossReason, Membership};

use super::environment::Environment;
use super::kill_after::notice;
use super::membership::{self, until_over};
use super::session::LossesBefore;
use super::waiting::{self, Wait};
use super::{required_command, unless_signalled, with_coordinator};
use crate::args::{ElectArguments, Global};
use crate::failure::{self, CommandFailure};
use crate::run::{self, HeldRole, Job, JobEnd, OnLoss, Signals};
use crate::speech::{self, held};

/// A leadership that is lost sooner is followed by a pause: a backend that is too slow for the session should not be asked in a circle.
const SHORTEST_ROUND: Duration = Duration::from_secs(1);

pub(super) async fn run(global: &Global, arguments: ElectArguments) -> Result<u8, CommandFailure> {
    let name = GroupId::new(arguments.group.name())?;
    let options = membership::options(&arguments.member)?;
    let command = required_command(&arguments.run)?;
    with_coordinator(global, async |coordinator| {
        notice(coordinator, arguments.run.kill_after)?;
        let mut signals = Signals::listen()?;
        let membership = unless_signalled(&mut signals, membership::join(coordinator, &name, &options)).await?;
        speech::tell(&speech::groups::joined(&name, coordinator.member()));
        let candidate = Candidate {
            coordinator,
            membership: &membership,
            environment: Environment::of(global, coordinator.member())?.with("TOOZ_GROUP", &name).list(),
            command,
            once: arguments.once,
            kill_after: arguments.run.kill_after,
            leads: Cell::new(false),
        };
        let code = candidate.terms(&mut signals).await?;
        membership::leave_behind_cmd(&membership, &mut signals).await;
        Ok(code)
    })
    .await
}

/// A member that stands for election, and what it does as the leader.
struct Candidate<'a> {
    coordinator: &'a Coordinator,
    membership: &'a Membership,
    environment: Vec<(&'static str, OsString)>,
    command: Vec<OsString>,
    once: bool,
    /// As it was asked for; what that comes to is known with each session.
    kill_after: Option<Duration>,
    /// Whether the one leadership that it may have was had.
    leads: Cell<bool>,
}

/// How one term has ended.
enum TermEnd {
    /// CMD ended by itself.
    Ended(u8),
    Lost {
        why: String,
        /// The membership is over for ever as well.
        membership: Option<LossReason>,
    },
}

impl Candidate<'_> {
    /// One term after another, until CMD ends by itself.
    async fn terms(&self, signals: &mut Signals) -> Result<u8, CommandFailure> {
        let name = self.membership.group();
        let over = until_over(self.membership, || !(self.once && self.leads.get()));
        tokio::pin!(over);
        loop {
            let leadership = tokio::select! {
                // That it is a member again is told before what it is as one.
                biased;
                reason = &mut over => return Err(membership::lost(name, &reason)),
                elected = unless_signalled(signals, self.campaign()) => elected?,
            };
            let elected = Instant::now();
            self.leads.set(true);
            speech::tell(&speech::groups::elected(name, leadership.epoch()));
            let (why, membership) = match self.term(leadership, signals, over.as_mut()).await? {
                TermEnd::Ended(code) => return Ok(code),
                TermEnd::Lost { why, membership } => (why, membership),
            };
            speech::tell(&speech::groups::leadership_lost(name, &why, !self.once && membership.is_none()));
            let lost = format!("the leadership of group {name:?} was lost: {why}");
            match membership {
                _ if self.once => return Err(CommandFailure::lost(lost)),
                Some(reason) => return Err(membership::lost(name, &reason).context(&lost)),
                None => {}
            }
            let pause = sleep(SHORTEST_ROUND.saturating_sub(elected.elapsed()));
            let pausing = async {
                pause.await;
                Ok::<_, CommandFailure>(())
            };
            unless_signalled(signals, pausing).await?;
        }
    }

    /// Waits to be elected; an end of the membership for ever is a loss, not an error of ours.
    async fn campaign(&self) -> Result<Leadership, CommandFailure> {
        let group = self.coordinator.group(self.membership.group())?;
        match waiting::tell_while(self.membership.campaign(), Wait::ToLead(&group)).await {
            Ok(leadership) => Ok(leadership),
            Err(error) if error.kind() == ErrorKind::NotMember => {
                let reason = self.membership.over().unwrap_or(LossReason::NotMember);
                Err(membership::lost(self.membership.group(), &reason))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// CMD as the leader, and the resignation behind it.
    async fn term(
        &self,
        leadership: Leadership,
        signals: &mut Signals,
        mut over: impl Future<Output = LossReason> + Unpin,
    ) -> Result<TermEnd, CommandFailure> {
        let mut membership = None;
        let losses = LossesBefore::now();
        let outcome = {
            let leading = self.lead(&leadership, signals);
            tokio::pin!(leading);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut leading => break outcome,
                    // The leadership ends with it, and CMD with the leadership: that is waited for.
                    reason = &mut over, if membership.is_none() => membership = Some(reason),
                }
            }
        };
        losses.let_the_next_be_told(leadership.loss().reason()).await;
        let resigned = self.resign(leadership, signals).await;
        Ok(match outcome? {
            JobEnd::Lost(why) => TermEnd::Lost { why, membership },
            JobEnd::Ended(code) => {
                if let Err(why) = resigned {
                    failure::hurry();
                    speech::warn(why);
                }
                TermEnd::Ended(code)
            }
        })
    }

    async fn lead(&self, leadership: &Leadership, signals: &mut Signals) -> Result<JobEnd, CommandFailure> {
        let mut environment = self.environment.clone();
        let epoch = leadership.epoch().to_string();
        environment.extend(["TOOZ_EPOCH", "TOOZ_FENCING_TOKEN"].map(|name| (name, OsString::from(&epoch))));
        let notice = notice(self.coordinator, self.kill_after)?;
        let job = Job {
            command: &self.command,
            environment,
            kill_after: notice.kill_after,
            descriptors: self.coordinator.descriptors(),
        };
        let loss = leadership.loss();
        let _holding = held::hold(loss.clone(), notice.late);
        let mut grant = HeldRole {
            remaining: Box::new(|| leadership.remaining()),
            is_held: Box::new(|| leadership.is_leader()),
            lost: Box::pin(async move { loss.wait().await }),
            on_loss: OnLoss::Kill,
        };
        run::run(job, &mut grant, signals).await
    }

    async fn resign(&self, leadership: Leadership, signals: &mut Signals) -> Result<(), String> {
        let resigning = speech::groups::resigning(self.membership.group());
        let resigning = if leadership.is_leader() { resigning } else { resigning.for_programs() };
        speech::tell(&resigning);
        tokio::select! {
            resigned = leadership.resign() => resigned.map_err(|error| speech::words::in_words(&error)),
            signal = signals.end_tidying_up() => Err(format!("resigning was given up: signal {signal} came")),
        }
    }
}
