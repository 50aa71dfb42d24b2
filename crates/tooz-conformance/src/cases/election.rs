//! Election: one leader at a time, known to all, and handed over.

use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{Characteristic, Coordinator, ErrorKind, LeaderEvent, LeaderWatch, Leadership, Membership};

use crate::cases::Requirement::{EndSession, Has};
use crate::cases::cases;
use crate::stage::{CaseFailure, CaseResult, Stage, ensure, ensure_eq, refused};

const GROUPS: Characteristic = Characteristic::Groups;

cases! { "election";
    a_group_without_candidates_has_no_leader [Has(GROUPS)];
    the_elected_leader_is_known_to_all [Has(GROUPS)];
    there_is_one_leader_at_a_time [Has(GROUPS)];
    the_epoch_grows_with_every_leader [Has(GROUPS)];
    resigning_hands_over_to_the_next [Has(GROUPS)];
    candidates_are_elected_in_order [Has(GROUPS), Has(Characteristic::FairLocks)];
    a_vacancy_is_told [Has(GROUPS)];
    a_change_of_leaders_is_pushed [Has(GROUPS), Has(Characteristic::PushedWatches)];
    leaders_alternate_and_every_turn_is_told [Has(GROUPS)];
    a_leadership_ends_with_the_membership [Has(GROUPS)];
    a_candidate_who_leaves_is_not_elected [Has(GROUPS)];
    a_dropped_leadership_resigns [Has(GROUPS)];
    a_cancelled_campaign_leaks_nothing [Has(GROUPS)];
    closing_resigns [Has(GROUPS)];
    a_user_lock_of_the_groups_name_is_another_lock [Has(GROUPS)];
    candidates_are_not_listed_as_extra_members [Has(GROUPS)];
    a_group_is_deletable_after_an_election [Has(GROUPS)];
    a_lost_session_makes_room_for_the_next_leader [Has(GROUPS), EndSession];
    a_leadership_stops_its_work_at_the_loss [Has(GROUPS), EndSession];
}

/// Coordinators `m0`…, all members of group `g`.
async fn members(stage: &Stage, count: usize) -> CaseResult<(Vec<Coordinator>, Vec<Membership>)> {
    let coordinators = stage.connect_all(count).await?;
    let mut memberships = Vec::new();
    for coordinator in &coordinators {
        memberships.push(stage.soon("joining", coordinator.group("g")?.join_or_create(&())).await??);
    }
    Ok((coordinators, memberships))
}

async fn elected(stage: &Stage, membership: &Membership) -> CaseResult<Leadership> {
    Ok(stage.soon("being elected", membership.campaign()).await??)
}

/// A campaign that goes on by itself; the membership is kept by it.
fn campaigning(membership: Membership) -> tokio::task::JoinHandle<tooz_core::Result<(Membership, Leadership)>> {
    tokio::spawn(async move {
        let leadership = membership.campaign().await?;
        Ok((membership, leadership))
    })
}

async fn next(stage: &Stage, watch: &mut LeaderWatch) -> CaseResult<Option<String>> {
    match stage.within(stage.after_a_crash(), "the next leader event", watch.next()).await? {
        Some(LeaderEvent::Elected(leader)) => Ok(Some(leader.member.to_string())),
        Some(LeaderEvent::Vacant) => Ok(None),
        other => Err(CaseFailure::new(format!("unexpected {other:?}"))),
    }
}

async fn leader_name(stage: &Stage, coordinator: &Coordinator) -> CaseResult<Option<String>> {
    let leader = stage.soon("asking for the leader", coordinator.group("g")?.leader()).await??;
    Ok(leader.map(|leader| leader.member.to_string()))
}

async fn a_group_without_candidates_has_no_leader(stage: Stage) -> CaseResult {
    let (coordinators, _memberships) = members(&stage, 2).await?;
    // A member that does not stand is never elected.
    sleep(stage.moment()).await;
    ensure_eq!(leader_name(&stage, &coordinators[0]).await?, None, "the leader");
    let mut watch = stage.soon("watching", coordinators[0].group("g")?.watch_leader()).await??;
    ensure_eq!(next(&stage, &mut watch).await?, None, "the first event");
    Ok(())
}

async fn the_elected_leader_is_known_to_all(stage: Stage) -> CaseResult {
    let (coordinators, memberships) = members(&stage, 3).await?;
    let leadership = elected(&stage, &memberships[1]).await?;
    ensure!(leadership.is_leader(), "it was just elected");
    for coordinator in &coordinators {
        let leader = stage.soon("asking for the leader", coordinator.group("g")?.leader()).await??;
        let leader = leader.ok_or_else(|| CaseFailure::new("there is no leader"))?;
        ensure_eq!(leader.member.as_str(), "m1", "the leader");
        ensure_eq!(leader.epoch, leadership.epoch(), "the epoch");
    }
    stage.soon("resigning", leadership.resign()).await??;
    ensure_eq!(leader_name(&stage, &coordinators[0]).await?, None, "the leader after resigning");
    Ok(())
}

async fn there_is_one_leader_at_a_time(stage: Stage) -> CaseResult {
    let (_coordinators, memberships) = members(&stage, 5).await?;
    let mut campaigns: Vec<_> = memberships.into_iter().map(campaigning).collect();
    let mut kept = Vec::new();
    while !campaigns.is_empty() {
        let mut winner = None;
        stage
            .eventually(stage.patience(), "a leader is elected", async || {
                winner = campaigns.iter().position(tokio::task::JoinHandle::is_finished);
                Ok(winner.is_some())
            })
            .await?;
        let Some(winner) = winner else { continue };
        let (membership, leadership) = stage.soon("the winner", campaigns.remove(winner)).await???;
        sleep(stage.moment()).await;
        ensure!(!campaigns.iter().any(tokio::task::JoinHandle::is_finished), "two lead at once");
        ensure!(leadership.is_leader(), "the winner still has it");
        stage.soon("resigning", leadership.resign()).await??;
        kept.push(membership);
    }
    Ok(())
}

async fn the_epoch_grows_with_every_leader(stage: Stage) -> CaseResult {
    let (_coordinators, memberships) = members(&stage, 2).await?;
    let mut last = None;
    for round in 0..6 {
        let leadership = elected(&stage, &memberships[round % 2]).await?;
        ensure!(Some(leadership.epoch()) > last, "epoch {} after {last:?}", leadership.epoch());
        last = Some(leadership.epoch());
        stage.soon("resigning", leadership.resign()).await??;
    }
    Ok(())
}

async fn resigning_hands_over_to_the_next(stage: Stage) -> CaseResult {
    let (coordinators, mut memberships) = members(&stage, 2).await?;
    let (second, first) = (memberships.remove(1), memberships.remove(0));
    let leadership = elected(&stage, &first).await?;
    let mut next = campaigning(second);
    stage.not_yet("the second leader", &mut next).await?;
    stage.soon("resigning", leadership.resign()).await??;
    let (_membership, leadership) = stage.soon("the next leader", next).await???;
    ensure!(leadership.is_leader(), "it was just elected");
    ensure_eq!(leader_name(&stage, &coordinators[0]).await?.as_deref(), Some("m1"), "the leader");
    ensure!(first.is_member(), "the resigned leader is still a member");
    Ok(())
}

async fn candidates_are_elected_in_order(stage: Stage) -> CaseResult {
    let (_coordinators, mut memberships) = members(&stage, 4).await?;
    let rest = memberships.split_off(1);
    let mut leadership = elected(&stage, &memberships[0]).await?;
    let mut campaigns = Vec::new();
    for membership in rest {
        let campaign = async move { membership.campaign().await.map(|leadership| (membership, leadership)) };
        campaigns.push(stage.begin(campaign).await?);
        // Each is in the queue of the backend before the next one comes.
        sleep(stage.moment() * 2).await;
    }
    for campaign in campaigns {
        stage.soon("resigning", leadership.resign()).await??;
        let (membership, next) = stage.soon("the next in the queue", campaign).await???;
        leadership = next;
        memberships.push(membership);
    }
    Ok(())
}

async fn a_vacancy_is_told(stage: Stage) -> CaseResult {
    let (coordinators, memberships) = members(&stage, 2).await?;
    let mut watch = stage.soon("watching", coordinators[0].group("g")?.watch_leader()).await??;
    ensure_eq!(next(&stage, &mut watch).await?, None, "at first");
    let leadership = elected(&stage, &memberships[1]).await?;
    ensure_eq!(next(&stage, &mut watch).await?.as_deref(), Some("m1"), "then");
    stage.soon("resigning", leadership.resign()).await??;
    ensure_eq!(next(&stage, &mut watch).await?, None, "after resigning");
    Ok(())
}

async fn a_change_of_leaders_is_pushed(stage: Stage) -> CaseResult {
    let (_coordinators, memberships) = members(&stage, 1).await?;
    let long = stage.long_session();
    let watcher = stage.connect_with(stage.options("watcher")?.session_timeout(long)).await?;
    let mut watch = stage.soon("watching", watcher.group("g")?.watch_leader()).await??;
    stage.soon("the present state", watch.next()).await?;
    for _ in 0..3 {
        let leadership = elected(&stage, &memberships[0]).await?;
        let event = stage.soon("the news of the leader", watch.next()).await?;
        ensure!(matches!(event, Some(LeaderEvent::Elected(_))), "m0 was elected: {event:?}");
        stage.soon("resigning", leadership.resign()).await??;
        let event = stage.soon("the news of the vacancy", watch.next()).await?;
        ensure_eq!(event, Some(LeaderEvent::Vacant), "m0 has resigned");
    }
    Ok(())
}

async fn leaders_alternate_and_every_turn_is_told(stage: Stage) -> CaseResult {
    let (coordinators, memberships) = members(&stage, 2).await?;
    let mut watch = stage.soon("watching", coordinators[1].group("g")?.watch_leader()).await??;
    ensure_eq!(next(&stage, &mut watch).await?, None, "at first");
    for turn in ["m0", "m1", "m0"] {
        let leadership = elected(&stage, &memberships[usize::from(turn == "m1")]).await?;
        ensure_eq!(next(&stage, &mut watch).await?.as_deref(), Some(turn), "the leader");
        stage.soon("resigning", leadership.resign()).await??;
        ensure_eq!(next(&stage, &mut watch).await?, None, "between two leaders");
    }
    Ok(())
}

async fn a_leadership_ends_with_the_membership(stage: Stage) -> CaseResult {
    let (coordinators, mut memberships) = members(&stage, 2).await?;
    let first = memberships.remove(0);
    let leadership = elected(&stage, &first).await?;
    let next = campaigning(memberships.remove(0));
    sleep(stage.moment()).await;
    stage.soon("leaving", first.leave()).await??;
    ensure!(!leadership.is_leader(), "a member that left does not lead");
    stage.soon("the leadership's loss", leadership.loss().wait()).await?;
    let (_membership, _leadership) = stage.soon("the next leader", next).await???;
    ensure_eq!(leader_name(&stage, &coordinators[0]).await?.as_deref(), Some("m1"), "the leader");
    let result = stage.soon("resigning", leadership.resign()).await?;
    refused("resigning what was lost", result, ErrorKind::Lost)?;
    ensure_eq!(leader_name(&stage, &coordinators[0]).await?.as_deref(), Some("m1"), "the leader is another");
    Ok(())
}

async fn a_candidate_who_leaves_is_not_elected(stage: Stage) -> CaseResult {
    let (coordinators, memberships) = members(&stage, 2).await?;
    let mut memberships = memberships.into_iter();
    let (Some(first), Some(second)) = (memberships.next(), memberships.next()) else {
        return Err(CaseFailure::new("two joined"));
    };
    let leadership = elected(&stage, &first).await?;
    {
        let mut campaign = Box::pin(second.campaign());
        stage.not_yet("a second leader", &mut campaign).await?;
    }
    stage.soon("leaving", second.leave()).await??;
    stage.soon("resigning", leadership.resign()).await??;
    sleep(stage.moment()).await;
    ensure_eq!(leader_name(&stage, &coordinators[0]).await?, None, "a member that left leads");
    Ok(())
}

async fn a_dropped_leadership_resigns(stage: Stage) -> CaseResult {
    let (_coordinators, memberships) = members(&stage, 2).await?;
    drop(elected(&stage, &memberships[0]).await?);
    drop(elected(&stage, &memberships[1]).await?);
    Ok(())
}

async fn a_cancelled_campaign_leaks_nothing(stage: Stage) -> CaseResult {
    let (coordinators, memberships) = members(&stage, 2).await?;
    for round in 0..10_u64 {
        let leadership = elected(&stage, &memberships[0]).await?;
        let _ = tokio::time::timeout(Duration::from_micros(500 * round), memberships[1].campaign()).await;
        stage.soon("resigning", leadership.resign()).await??;
    }
    stage
        .eventually(stage.patience(), "there is no leader", async || {
            Ok(leader_name(&stage, &coordinators[0]).await?.is_none())
        })
        .await
}

async fn closing_resigns(stage: Stage) -> CaseResult {
    let (coordinators, mut memberships) = members(&stage, 2).await?;
    let _leadership = elected(&stage, &memberships[0]).await?;
    let next = campaigning(memberships.remove(1));
    sleep(stage.moment()).await;
    stage.soon("closing", coordinators[0].close()).await??;
    drop(stage.soon("the next leader", next).await???);
    Ok(())
}

async fn a_user_lock_of_the_groups_name_is_another_lock(stage: Stage) -> CaseResult {
    let (coordinators, memberships) = members(&stage, 1).await?;
    let other = stage.connect("other").await?;
    let mut guards = Vec::new();
    for name in ["g", "election", "leader", "g/leader", "election/g", "elections/g"] {
        guards.push(stage.hold(&other.lock(name)?).await?);
    }
    let leadership = elected(&stage, &memberships[0]).await?;
    ensure_eq!(leader_name(&stage, &coordinators[0]).await?.as_deref(), Some("m0"), "the leader");
    ensure!(guards.iter().all(tooz_core::LockGuard::is_held), "the election took a user's lock");
    for guard in guards {
        stage.give(guard).await?;
    }
    ensure!(leadership.is_leader(), "a user's release ended the leadership");
    Ok(())
}

async fn candidates_are_not_listed_as_extra_members(stage: Stage) -> CaseResult {
    let (coordinators, mut memberships) = members(&stage, 2).await?;
    let _leadership = elected(&stage, &memberships[0]).await?;
    let _campaign = campaigning(memberships.remove(1));
    sleep(stage.moment()).await;
    ensure_eq!(stage.member_names(&coordinators[0].group("g")?).await?, ["m0", "m1"], "the members");
    Ok(())
}

async fn a_group_is_deletable_after_an_election(stage: Stage) -> CaseResult {
    let (coordinators, mut memberships) = members(&stage, 1).await?;
    let leadership = elected(&stage, &memberships[0]).await?;
    stage.soon("resigning", leadership.resign()).await??;
    let _leadership = elected(&stage, &memberships[0]).await?;
    stage.soon("leaving", memberships.remove(0).leave()).await??;
    let group = coordinators[0].group("g")?;
    stage.soon("deleting", group.delete()).await??;
    ensure_eq!(stage.group_names(&coordinators[0]).await?, Vec::<String>::new(), "the groups");
    // The next group of that name begins without a leader.
    stage.soon("creating", group.create()).await??;
    ensure_eq!(leader_name(&stage, &coordinators[0]).await?, None, "the leader of the new group");
    Ok(())
}

async fn a_lost_session_makes_room_for_the_next_leader(stage: Stage) -> CaseResult {
    let (coordinators, mut memberships) = members(&stage, 2).await?;
    let second = memberships.remove(1);
    let leadership = elected(&stage, &memberships[0]).await?;
    let next = campaigning(second);
    sleep(stage.moment()).await;
    stage.end_session("m0").await?;
    let (_membership, new) = stage.within(stage.after_a_crash(), "the next leader", next).await???;
    stage.within(stage.after_a_crash(), "the old leader's loss", leadership.loss().wait()).await?;
    ensure!(!leadership.is_leader(), "two lead");
    ensure!(new.epoch() > leadership.epoch(), "the epoch did not grow");
    ensure_eq!(leader_name(&stage, &coordinators[1]).await?.as_deref(), Some("m1"), "the leader");
    Ok(())
}

async fn a_leadership_stops_its_work_at_the_loss(stage: Stage) -> CaseResult {
    let (_coordinators, memberships) = members(&stage, 1).await?;
    let leadership = elected(&stage, &memberships[0]).await?;
    ensure_eq!(stage.soon("the work", leadership.while_held(async { 1 })).await?, Ok(1), "the work's value");
    let work = tokio::spawn(async move { leadership.while_held(std::future::pending::<()>()).await });
    sleep(stage.moment()).await;
    stage.end_session("m0").await?;
    let result = stage.within(stage.after_a_crash(), "the end of the work", work).await??;
    ensure!(result.is_err(), "the work goes on without the leadership");
    // The membership comes back by itself; then it may stand again.
    let again = stage.within(stage.after_a_crash(), "the next campaign", async {
        loop {
            if let Ok(leadership) = memberships[0].campaign().await {
                return leadership;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    ensure!(again.await?.is_leader(), "it was just elected");
    Ok(())
}
