//! Watching a group: the snapshot, then every change without a gap, then the end.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;
use tooz_core::{Characteristic, ErrorKind, GroupEvent, GroupWatch};

use crate::cases::Requirement::{EndSession, Has};
use crate::cases::cases;
use crate::stage::{CaseFailure, CaseResult, Stage, ensure, ensure_eq};

const GROUPS: Characteristic = Characteristic::Groups;

cases! { "watches";
    a_watch_begins_with_a_snapshot [Has(GROUPS)];
    every_change_is_told [Has(GROUPS)];
    changes_are_pushed [Has(GROUPS), Has(Characteristic::PushedWatches)];
    no_member_is_missed_between_snapshot_and_changes [Has(GROUPS)];
    the_capabilities_come_with_the_change [Has(GROUPS)];
    a_watch_ends_after_deleted [Has(GROUPS)];
    a_watch_ends_with_close [Has(GROUPS)];
    two_watchers_see_the_same [Has(GROUPS)];
    a_slow_reader_gets_a_reset_or_every_change [Has(GROUPS)];
    a_closed_member_is_told_as_left [Has(GROUPS)];
    a_dead_session_is_told_as_left [Has(GROUPS), EndSession];
    a_watch_survives_the_loss_of_its_session [Has(GROUPS), EndSession];
    a_dropped_watch_costs_nothing [Has(GROUPS)];
}

/// The next event, which must come.
async fn next(stage: &Stage, watch: &mut GroupWatch) -> CaseResult<GroupEvent> {
    match stage.soon("the next event", watch.next()).await? {
        Some(event) => Ok(event),
        None => Err(CaseFailure::new("the watch has ended")),
    }
}

/// Follows a watch until exactly these are members.
async fn follow_until(
    limit: Duration,
    watch: &mut GroupWatch,
    seen: &mut BTreeSet<String>,
    wanted: &BTreeSet<String>,
) -> CaseResult {
    let following = async {
        while seen != wanted {
            match watch.next().await {
                Some(GroupEvent::Snapshot(all) | GroupEvent::Reset(all)) => {
                    *seen = all.iter().map(|entry| entry.member.to_string()).collect();
                }
                Some(GroupEvent::Joined(entry)) => {
                    if !seen.insert(entry.member.to_string()) {
                        return Err(CaseFailure::new(format!("{} joined twice", entry.member)));
                    }
                }
                Some(GroupEvent::Left(member)) => {
                    if !seen.remove(member.as_str()) {
                        return Err(CaseFailure::new(format!("{member} left, but was not there")));
                    }
                }
                Some(GroupEvent::Updated(_)) => {}
                other => return Err(CaseFailure::new(format!("unexpected {other:?}"))),
            }
        }
        Ok(())
    };
    match timeout(limit, following).await {
        Ok(verdict) => verdict,
        Err(_) => Err(CaseFailure::new(format!("the watch showed {seen:?}, and not {wanted:?} within {limit:?}"))),
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

async fn a_watch_begins_with_a_snapshot(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("a", "g").await?;
    let mut empty = stage.soon("watching", group.watch()).await??;
    ensure_eq!(next(&stage, &mut empty).await?, GroupEvent::Snapshot(Vec::new()), "the first event of an empty group");
    let _membership = stage.soon("joining", group.join(&7)).await??;
    let mut watch = stage.soon("watching", group.watch()).await??;
    let GroupEvent::Snapshot(members) = next(&stage, &mut watch).await? else {
        return Err(CaseFailure::new("the first event is a snapshot"));
    };
    ensure_eq!(members.len(), 1, "the members in the snapshot");
    ensure_eq!(members[0].member.as_str(), "a", "the member");
    ensure_eq!(members[0].capabilities.get::<i32>()?, 7, "its capabilities");
    Ok(())
}

async fn every_change_is_told(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("watcher", "g").await?;
    let mut watch = stage.soon("watching", group.watch()).await??;
    next(&stage, &mut watch).await?;
    let theirs = stage.connect("b").await?.group("g")?;
    let membership = stage.soon("joining", theirs.join(&1)).await??;
    let event = next(&stage, &mut watch).await?;
    ensure!(matches!(&event, GroupEvent::Joined(entry) if entry.member.as_str() == "b"), "b joined: {event:?}");
    stage.soon("updating", membership.update(&2)).await??;
    let event = next(&stage, &mut watch).await?;
    ensure!(matches!(&event, GroupEvent::Updated(entry) if entry.capabilities.as_json() == "2"), "b is new: {event:?}");
    stage.soon("leaving", membership.leave()).await??;
    let event = next(&stage, &mut watch).await?;
    ensure!(matches!(&event, GroupEvent::Left(member) if member.as_str() == "b"), "b left: {event:?}");
    Ok(())
}

async fn changes_are_pushed(stage: Stage) -> CaseResult {
    // A session so long that the reading in between comes much later than patience ends.
    let long = stage.long_session();
    let watcher = stage.connect_with(stage.options("watcher")?.session_timeout(long)).await?;
    let group = watcher.group("g")?;
    stage.soon("creating", group.create()).await??;
    let mut watch = stage.soon("watching", group.watch()).await??;
    next(&stage, &mut watch).await?;
    let membership = stage.join(&stage.connect("b").await?.group("g")?).await?;
    next(&stage, &mut watch).await?;
    stage.soon("updating", membership.update(&1)).await??;
    next(&stage, &mut watch).await?;
    stage.soon("leaving", membership.leave()).await??;
    next(&stage, &mut watch).await?;
    stage.soon("deleting", group.delete()).await??;
    ensure_eq!(next(&stage, &mut watch).await?, GroupEvent::Deleted, "the last event");
    Ok(())
}

async fn no_member_is_missed_between_snapshot_and_changes(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("watcher", "g").await?;
    let coordinators = stage.connect_all(20).await?;
    let mut joins = Vec::new();
    for coordinator in &coordinators {
        let group = coordinator.group("g")?;
        joins.push(tokio::spawn(async move { group.join(&1).await }));
    }
    // Watches begin while they join, so that each begins at another point of the story.
    let mut watches = Vec::new();
    for _ in 0..8 {
        watches.push(stage.soon("watching", group.watch()).await??);
        tokio::task::yield_now().await;
    }
    let mut memberships = Vec::new();
    for join in joins {
        memberships.push(stage.soon("joining", join).await???);
    }
    let wanted: BTreeSet<String> = (0..20).map(|index| format!("m{index}")).collect();
    for watch in &mut watches {
        follow_until(stage.patience(), watch, &mut BTreeSet::new(), &wanted).await?;
    }
    Ok(())
}

async fn the_capabilities_come_with_the_change(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("watcher", "g").await?;
    let mut watch = stage.soon("watching", group.watch()).await??;
    next(&stage, &mut watch).await?;
    let _membership = stage.soon("joining", stage.connect("b").await?.group("g")?.join(&["x", "y"])).await??;
    match next(&stage, &mut watch).await? {
        GroupEvent::Joined(entry) => {
            ensure_eq!(entry.capabilities.get::<Vec<String>>()?, ["x", "y"], "the capabilities");
            Ok(())
        }
        event => Err(CaseFailure::new(format!("b joined, but told was {event:?}"))),
    }
}

async fn a_watch_ends_after_deleted(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("watcher", "g").await?;
    let mut watch = stage.soon("watching", group.watch()).await??;
    next(&stage, &mut watch).await?;
    stage.soon("deleting", stage.connect("b").await?.group("g")?.delete()).await??;
    ensure_eq!(next(&stage, &mut watch).await?, GroupEvent::Deleted, "the last event");
    for _ in 0..2 {
        ensure_eq!(stage.soon("the end", watch.next()).await?, None, "after Deleted");
    }
    ensure_eq!(watch.end().map(|why| why.kind()), Some(ErrorKind::NotFound), "why it has ended");
    Ok(())
}

async fn a_watch_ends_with_close(stage: Stage) -> CaseResult {
    let (coordinator, group) = stage.with_group("watcher", "g").await?;
    let mut watch = stage.soon("watching", group.watch()).await??;
    next(&stage, &mut watch).await?;
    stage.soon("closing", coordinator.close()).await??;
    stage.soon("the end of the watch", async { while watch.next().await.is_some() {} }).await?;
    ensure_eq!(watch.end().map(|why| why.kind()), Some(ErrorKind::Closed), "why it has ended");
    Ok(())
}

async fn two_watchers_see_the_same(stage: Stage) -> CaseResult {
    let (_one, group) = stage.with_group("one", "g").await?;
    let mut first = stage.soon("watching", group.watch()).await??;
    let mut second = stage.soon("watching", stage.connect("two").await?.group("g")?.watch()).await??;
    let mut third = stage.soon("watching", group.watch()).await??;
    let coordinators = stage.connect_all(3).await?;
    let mut memberships = Vec::new();
    for coordinator in &coordinators {
        memberships.push(stage.join(&coordinator.group("g")?).await?);
    }
    stage.soon("leaving", memberships.remove(1).leave()).await??;
    for watch in [&mut first, &mut second, &mut third] {
        // Through all of them first: the end alone could be seen too early.
        let mut seen = BTreeSet::new();
        follow_until(stage.patience(), watch, &mut seen, &set(&["m0", "m2"])).await?;
    }
    Ok(())
}

async fn a_slow_reader_gets_a_reset_or_every_change(stage: Stage) -> CaseResult {
    let (_watcher, group) = stage.with_group("watcher", "g").await?;
    let mut watch = stage.soon("watching", group.watch()).await??;
    let membership = stage.join(&stage.connect("b").await?.group("g")?).await?;
    for count in 0..1500 {
        stage.soon("updating", membership.update(&count)).await??;
    }
    let reading = async {
        let mut last = None;
        while last != Some(1499) {
            last = match watch.next().await {
                Some(GroupEvent::Snapshot(all) | GroupEvent::Reset(all)) => {
                    all.first().and_then(|entry| entry.capabilities.get().ok()).or(last)
                }
                Some(GroupEvent::Joined(entry) | GroupEvent::Updated(entry)) => entry.capabilities.get().ok().or(last),
                _ => return Err(CaseFailure::new("the watch has ended")),
            };
        }
        Ok(())
    };
    stage.soon("the last of many updates", reading).await?
}

async fn a_closed_member_is_told_as_left(stage: Stage) -> CaseResult {
    let (_watcher, group) = stage.with_group("watcher", "g").await?;
    let mut watch = stage.soon("watching", group.watch()).await??;
    let coordinator = stage.connect("b").await?;
    let _membership = stage.join(&coordinator.group("g")?).await?;
    let mut seen = BTreeSet::new();
    follow_until(stage.patience(), &mut watch, &mut seen, &set(&["b"])).await?;
    stage.soon("closing", coordinator.close()).await??;
    follow_until(stage.patience(), &mut watch, &mut seen, &set(&[])).await
}

async fn a_dead_session_is_told_as_left(stage: Stage) -> CaseResult {
    let (_watcher, group) = stage.with_group("watcher", "g").await?;
    let mut watch = stage.soon("watching", group.watch()).await??;
    let membership = stage.join(&stage.connect("b").await?.group("g")?).await?;
    let first = membership.loss();
    let mut seen = BTreeSet::new();
    follow_until(stage.patience(), &mut watch, &mut seen, &set(&["b"])).await?;
    stage.end_session("b").await?;
    stage.within(stage.after_a_crash(), "the loss", first.wait()).await?;
    // It leaves, and comes back by itself under another id; a slow watcher may see both as one reset.
    stage
        .within(stage.after_a_crash(), "the news of it", async {
            loop {
                match watch.next().await {
                    Some(GroupEvent::Left(member)) if member.as_str() == "b" => return Ok(()),
                    Some(GroupEvent::Reset(_)) => return Ok(()),
                    Some(_) => {}
                    None => return Err(CaseFailure::new("the watch has ended")),
                }
            }
        })
        .await?
}

async fn a_watch_survives_the_loss_of_its_session(stage: Stage) -> CaseResult {
    let (_watcher, group) = stage.with_group("watcher", "g").await?;
    // A session must be open to be ended.
    let _own = stage.join(&group).await?;
    let mut watch = stage.soon("watching", group.watch()).await??;
    let mut seen = BTreeSet::new();
    follow_until(stage.patience(), &mut watch, &mut seen, &set(&["watcher"])).await?;
    stage.end_session("watcher").await?;
    let _membership = stage.join(&stage.connect("b").await?.group("g")?).await?;
    follow_until(stage.after_a_crash(), &mut watch, &mut seen, &set(&["b", "watcher"])).await
}

async fn a_dropped_watch_costs_nothing(stage: Stage) -> CaseResult {
    let (_watcher, group) = stage.with_group("watcher", "g").await?;
    for _ in 0..100 {
        drop(stage.soon("watching", group.watch()).await??);
    }
    let membership = stage.join(&group).await?;
    stage.soon("leaving", membership.leave()).await??;
    stage.soon("deleting", group.delete()).await??;
    Ok(())
}
