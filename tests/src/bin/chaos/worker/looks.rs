//! Looking: who is a member, who leads, and which member owns which key.

use tooz::{Group, Partitioner, RosterEntry};
use tooz_conformance::history::{Listed, Mode, Reading, Share, Sighting, now};

use crate::record::{Contest, GROUP, Record};
use crate::worker::Desk;

/// So many keys are divided.
const KEYS: usize = 24;

/// Looks until the end.
pub(crate) async fn look(desk: Desk) {
    let mut random = desk.random(1000);
    let Ok(group) = desk.coordinator.group(GROUP) else { return };
    let mut partitioner = None;
    while !desk.is_ending() {
        match random.u8(..6) {
            0..3 => read(&desk, &group).await,
            3 => see_leader(&desk, &group).await,
            _ => share(&desk, &group, &mut partitioner).await,
        }
        let pause = desk.pause(&mut random) * 4;
        desk.rest(pause).await;
    }
}

/// What a member says of itself; nothing of a member that is not of this run.
pub(crate) fn listed(entry: &RosterEntry) -> Listed {
    let word = entry.capabilities.get::<serde_json::Value>().ok().and_then(|value| value["word"].as_u64());
    Listed { member: entry.member.as_str().to_owned(), word: word.unwrap_or_default() }
}

async fn read(desk: &Desk, group: &Group) {
    let asked = now();
    let Ok(members) = group.members().await else { return };
    let (worker, group) = (format!("{}/look", desk.role.member), GROUP.to_owned());
    let members = members.iter().map(listed).collect();
    desk.say(&Record::Read(Reading { worker, group, asked, at: now(), members }));
}

async fn see_leader(desk: &Desk, group: &Group) {
    let asked = now();
    let Ok(leader) = group.leader().await else { return };
    let (worker, lock) = (format!("{}/look", desk.role.member), GROUP.to_owned());
    let holders = leader.iter().map(|leader| (Mode::Exclusive, leader.epoch.0)).collect();
    let sighting = Sighting { worker, lock, asked, at: now(), holders };
    desk.say(&Record::Saw { of: Contest::Leadership, sighting });
}

async fn share(desk: &Desk, group: &Group, partitioner: &mut Option<Partitioner>) {
    if partitioner.is_none() {
        *partitioner = group.partitioner().await.ok();
    }
    let Some(follower) = partitioner else { return };
    let ring = |number: usize| follower.members_for(format!("key-{number}"), 1).into_iter().next();
    let at = now();
    // The ring may change between two keys, so all are asked twice: what is the same both times is of one ring.
    let ask = || (0..KEYS).filter_map(|number| ring(number).map(|one| one.as_str().to_owned())).collect::<Vec<_>>();
    let (owners, again) = (ask(), ask());
    if owners == again && owners.len() == KEYS {
        let (worker, group) = (format!("{}/look", desk.role.member), GROUP.to_owned());
        desk.say(&Record::Shared(Share { worker, group, at, owners }));
    }
}
