//! Being a member, as `join` and `elect` are: joining in spite of an earlier run that has crashed, telling what becomes of the membership,
//! and leaving without waiting for ever.

use std::time::Duration;

use tooz::{Capabilities, Coordinator, ErrorKind, GroupId, JoinOptions, LossReason, Membership};

use super::session::{LossesBefore, is_of_the_session};
use crate::args::MemberArguments;
use crate::failure::{self, CommandFailure};
use crate::run::Signals;
use crate::speech::{self, groups};

/// How much later than it says a dead member's session may end; core waits as long.
const LATE: Duration = Duration::from_secs(1);

/// How long leaving may take. An unfinished leave is then up to the end of the session.
const LONGEST_LEAVE: Duration = Duration::from_secs(5);

pub(super) fn options(arguments: &MemberArguments) -> Result<JoinOptions, CommandFailure> {
    let options = JoinOptions::new().capabilities(capabilities(arguments.capabilities.as_deref())?).create();
    Ok(if arguments.take_over { options.take_over() } else { options })
}

/// Joins. A namesake that may be dead is waited for, as long as a session can outlive its process, and not longer: one that is listed
/// even then is alive.
pub(super) async fn join(
    coordinator: &Coordinator,
    name: &GroupId,
    options: &JoinOptions,
) -> Result<Membership, CommandFailure> {
    let group = coordinator.group(name)?;
    let error = match group.join_with(options.clone()).await {
        Ok(membership) => return Ok(membership),
        Err(error) => error,
    };
    let Some(after) = error.retry_after().filter(|_| error.kind() == ErrorKind::AlreadyExists) else {
        return Err(error.into());
    };
    let at_most = humantime::format_duration(rounded(after + LATE)).to_string();
    speech::tell(&groups::waiting_for_namesake(name, coordinator.member(), &at_most));
    Ok(group.join_with(options.clone().wait()).await?)
}

fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).next_multiple_of(100))
}

/// Waits until the membership is over for ever, and tells of the losses that are mended by joining again, if it `goes_on`.
pub(super) async fn until_over(membership: &Membership, goes_on: impl Fn() -> bool) -> LossReason {
    let group = membership.group();
    loop {
        let losses = LossesBefore::now();
        let reason = membership.loss().wait().await;
        if let Some(over) = membership.over().or_else(|| (!is_of_the_session(reason)).then_some(reason)) {
            return over;
        }
        losses.let_the_next_be_told(Some(reason)).await;
        speech::tell(&groups::membership_lost(group, reason, goes_on()));
        if let Err(reason) = membership.wait_standing().await {
            return reason;
        }
        speech::tell(&groups::rejoined(group, membership.member()));
    }
}

/// An end that was not asked for.
pub(super) fn lost(group: &GroupId, reason: &dyn std::fmt::Display) -> CommandFailure {
    CommandFailure::lost(format!("the membership of group {group:?} was lost: {reason}"))
}

/// Leaves, unless that takes too long or the user does not want to wait for it: the session's end does it then. Answers why it is not known
/// to be done.
pub(super) async fn leave(membership: &Membership, signals: &mut Signals) -> Result<(), String> {
    let left_undone = |why: &str| {
        Err(format!("leaving the group was given up: {why}; the member is listed until its session has ended"))
    };
    let left = tokio::select! {
        result = membership.leave() => result.map_err(|error| speech::words::in_words(&error)),
        signal = signals.end_tidying_up() => left_undone(&format!("signal {signal} came")),
        () = tokio::time::sleep(LONGEST_LEAVE) => left_undone(&format!("no answer for {LONGEST_LEAVE:?}")),
    };
    match left {
        Ok(()) => speech::tell(&groups::left(membership.group())),
        Err(_) => failure::hurry(),
    }
    left
}

/// The same after CMD has ended as a member: its result stands.
pub(super) async fn leave_behind_cmd(membership: &Membership, signals: &mut Signals) {
    if let Err(why) = leave(membership, signals).await {
        speech::warn(why);
    }
}

/// What a member says of itself. A weight that no partitioner understands would count as 1 without a word.
fn capabilities(json: Option<&str>) -> Result<Capabilities, CommandFailure> {
    let Some(json) = json else { return Ok(Capabilities::default()) };
    let capabilities = Capabilities::from_json(json)?;
    let value: serde_json::Value = capabilities.get()?;
    match value.get("weight") {
        Some(weight) if !weight.is_u64() => Err(CommandFailure::usage(format!(
            "--capabilities: the weight {weight} is no share of partitions: write a whole number from 0 on, as in {{\"weight\": 2}}"
        ))),
        _ => Ok(capabilities),
    }
}
