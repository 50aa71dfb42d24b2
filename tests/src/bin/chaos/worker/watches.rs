//! Watching the members and the leader. A watch that has ended is begun anew.

use std::time::Duration;

use tooz::{Group, GroupEvent, GroupWatch, LeaderEvent, LeaderWatch};
use tooz_conformance::history::{Telling, Told, ToldLeader, now};

use crate::record::{GROUP, Record};
use crate::worker::Desk;
use crate::worker::looks::listed;

/// Until a watch that could not be begun is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// Watches the members until the end.
pub(crate) async fn watch_members(desk: Desk) {
    follow::<GroupWatch>(desk).await;
}

/// Watches the leader until the end.
pub(crate) async fn watch_leader(desk: Desk) {
    follow::<LeaderWatch>(desk).await;
}

/// A watch of members or of the leader, and how it is written down.
trait Watch: Sized {
    /// What its worker is called behind the member's name.
    const NAME: &str;

    async fn begin(group: &Group) -> tooz::Result<Self>;
    fn begun(number: u64, worker: String, at: u64) -> Record;
    /// What it tells next; nothing where it has ended.
    async fn told(&mut self, number: u64) -> Option<Record>;
}

async fn follow<W: Watch>(desk: Desk) {
    let Ok(group) = desk.coordinator.group(GROUP) else { return };
    while !desk.is_ending() {
        let (number, worker) = (desk.number(), format!("{}/{}", desk.role.member, W::NAME));
        let asked = now();
        let Ok(mut watch) = W::begin(&group).await else {
            desk.rest(AGAIN).await;
            continue;
        };
        desk.say(&W::begun(number, worker, asked));
        loop {
            let told = tokio::select! {
                told = watch.told(number) => told,
                () = desk.end() => None,
            };
            let Some(told) = told else { break };
            desk.say(&told);
        }
        desk.say(&Record::Unwatched { number, at: now() });
    }
}

impl Watch for GroupWatch {
    const NAME: &str = "watch";

    async fn begin(group: &Group) -> tooz::Result<Self> {
        group.watch().await
    }

    fn begun(number: u64, worker: String, at: u64) -> Record {
        Record::Watching { number, worker, at }
    }

    async fn told(&mut self, number: u64) -> Option<Record> {
        let what = telling(&self.next().await?)?;
        Some(Record::Told { number, told: Told { at: now(), what } })
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

impl Watch for LeaderWatch {
    const NAME: &str = "watch-leader";

    async fn begin(group: &Group) -> tooz::Result<Self> {
        group.watch_leader().await
    }

    fn begun(number: u64, worker: String, at: u64) -> Record {
        Record::WatchingLeader { number, worker, at }
    }

    async fn told(&mut self, number: u64) -> Option<Record> {
        let epoch = match self.next().await? {
            LeaderEvent::Elected(leader) => Some(leader.epoch.0),
            LeaderEvent::Vacant => None,
            _ => return None,
        };
        Some(Record::ToldLeader { number, told: ToldLeader { at: now(), epoch } })
    }
}
