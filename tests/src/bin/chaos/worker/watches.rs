//! Watching the members and the leader. A watch that has ended is begun anew.

use std::time::Duration;

use tooz::{GroupEvent, LeaderEvent};
use tooz_conformance::history::{Telling, Told, ToldLeader, now};

use crate::record::{GROUP, Record};
use crate::worker::Desk;
use crate::worker::looks::listed;

/// Until a watch that could not be begun is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// Watches the members until the end.
pub(crate) async fn watch_members(desk: Desk) {
    let Ok(group) = desk.coordinator.group(GROUP) else { return };
    while !desk.is_ending() {
        let (number, worker) = (desk.number(), format!("{}/watch", desk.role.member));
        let asked = now();
        let Ok(mut watch) = group.watch().await else {
            desk.rest(AGAIN).await;
            continue;
        };
        desk.say(&Record::Watching { number, worker, at: asked });
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                () = desk.end() => None,
            };
            let Some(what) = event.as_ref().and_then(telling) else { break };
            desk.say(&Record::Told { number, told: Told { at: now(), what } });
        }
        desk.say(&Record::Unwatched { number, at: now() });
    }
}

fn telling(event: &GroupEvent) -> Option<Telling> {
    Some(match event {
        GroupEvent::Snapshot(members) => Telling::Snapshot(members.iter().map(listed).collect()),
        GroupEvent::Reset(members) => Telling::Reset(members.iter().map(listed).collect()),
        GroupEvent::Joined(entry) => Telling::Joined(listed(entry)),
        GroupEvent::Updated(entry) => Telling::Updated(listed(entry)),
        GroupEvent::Left(member) => Telling::Left(member.as_str().to_owned()),
        GroupEvent::Deleted => Telling::Deleted,
        _ => return None,
    })
}

/// Watches the leader until the end.
pub(crate) async fn watch_leader(desk: Desk) {
    let Ok(group) = desk.coordinator.group(GROUP) else { return };
    while !desk.is_ending() {
        let (number, worker) = (desk.number(), format!("{}/watch-leader", desk.role.member));
        let asked = now();
        let Ok(mut watch) = group.watch_leader().await else {
            desk.rest(AGAIN).await;
            continue;
        };
        desk.say(&Record::WatchingLeader { number, worker, at: asked });
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                () = desk.end() => None,
            };
            let epoch = match event {
                Some(LeaderEvent::Elected(leader)) => Some(leader.epoch.0),
                Some(LeaderEvent::Vacant) => None,
                _ => break,
            };
            desk.say(&Record::ToldLeader { number, told: ToldLeader { at: now(), epoch } });
        }
        desk.say(&Record::Unwatched { number, at: now() });
    }
}
