//! A member that follows its group by every way there is, to be compared with what the backend has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tooz_core::{
    Coordinator, GroupEvent, GroupWatch, LeaderEvent, LeaderWatch, MemberId, Membership, Partitioner, Result,
    RosterEntry, SessionState,
};

pub(crate) struct Follower {
    pub(crate) coordinator: Coordinator,
    pub(crate) membership: Arc<Membership>,
    watch: GroupWatch,
    leaders: LeaderWatch,
    partitioner: Partitioner,
    observer: Partitioner,
    members: BTreeMap<MemberId, RosterEntry>,
    leader: Option<LeaderEvent>,
}

impl Follower {
    pub(crate) async fn start(coordinator: Coordinator, group: &str) -> Result<Self> {
        let group = coordinator.group(group)?;
        let membership = group.join_or_create(&0).await?;
        Ok(Follower {
            watch: group.watch().await?,
            leaders: group.watch_leader().await?,
            partitioner: membership.partitioner().await?,
            observer: group.partitioner().await?,
            membership: Arc::new(membership),
            coordinator,
            members: BTreeMap::new(),
            leader: None,
        })
    }

    /// In what its views differ from the truth, as a coordinator with a good connection sees it.
    pub(crate) async fn differs(&mut self, truth: &Coordinator, capabilities: Option<&str>) -> Result<(), String> {
        let who = self.coordinator.member().clone();
        let group = truth.group(self.membership.group().clone()).map_err(|error| error.to_string())?;
        let members = group.members().await.map_err(|error| format!("the truth is not to be had: {error}"))?;
        let leader = group.leader().await.map_err(|error| format!("the truth is not to be had: {error}"))?;
        if self.coordinator.state() != SessionState::Open {
            return Err(format!("{who:?}: its state is {:?}", self.coordinator.state()));
        }
        if !self.membership.is_member() {
            return Err(format!("{who:?}: is_member() is false, the loss is {:?}", self.membership.loss().reason()));
        }
        let own = members.iter().find(|entry| entry.member == who);
        if own.is_none_or(|own| capabilities.is_some_and(|wanted| own.capabilities.as_json() != wanted)) {
            return Err(format!("{who:?}: the backend has {own:?}, it has said {capabilities:?}"));
        }
        self.take_in().await?;
        if !self.members.values().eq(&members) {
            let believed = self.members.values();
            return Err(format!("{who:?}: its watch believes in {believed:?}, the backend has {members:?}"));
        }
        for partitioner in [&self.partitioner, &self.observer] {
            let mut owners = partitioner.members_for("key", 100);
            owners.sort();
            if !owners.iter().eq(members.iter().map(|entry| &entry.member)) {
                return Err(format!("{who:?}: a partitioner divides between {owners:?}, the backend has {members:?}"));
            }
        }
        let told = match &self.leader {
            Some(LeaderEvent::Elected(leader)) => Some(leader),
            _ => None,
        };
        if told != leader.as_ref() {
            return Err(format!("{who:?}: its leader watch says {told:?}, the backend {leader:?}"));
        }
        let mine = self.coordinator.group(group.name().clone()).map_err(|error| error.to_string())?;
        let mine = mine.members().await.map_err(|error| format!("{who:?}: members() fails: {error}"))?;
        if mine == members { Ok(()) } else { Err(format!("{who:?}: members() says {mine:?}, another {members:?}")) }
    }

    /// Takes in what the watches have told meanwhile.
    async fn take_in(&mut self) -> Result<(), String> {
        let who = self.coordinator.member();
        loop {
            match tokio::time::timeout(Duration::ZERO, self.watch.next()).await {
                Err(_nothing_new) => break,
                Ok(None | Some(GroupEvent::Deleted)) => return Err(format!("{who:?}: its watch has ended")),
                Ok(Some(GroupEvent::Snapshot(all) | GroupEvent::Reset(all))) => {
                    self.members = all.into_iter().map(|entry| (entry.member.clone(), entry)).collect();
                }
                Ok(Some(GroupEvent::Joined(entry))) => {
                    let before = self.members.insert(entry.member.clone(), entry);
                    assert!(before.is_none(), "{who:?}: {before:?} has joined twice");
                }
                Ok(Some(GroupEvent::Updated(entry))) => {
                    let before = self.members.insert(entry.member.clone(), entry);
                    assert!(before.is_some(), "{who:?}: a member that is not there is updated");
                }
                Ok(Some(GroupEvent::Left(member))) => {
                    assert!(self.members.remove(&member).is_some(), "{who:?}: {member:?} leaves and was not there");
                }
                Ok(Some(other)) => return Err(format!("{other:?} is unknown")),
            }
        }
        loop {
            match tokio::time::timeout(Duration::ZERO, self.leaders.next()).await {
                Err(_nothing_new) => return Ok(()),
                Ok(None) => return Err(format!("{who:?}: its leader watch has ended")),
                Ok(Some(event)) => {
                    let follows = match (&self.leader, &event) {
                        (Some(LeaderEvent::Elected(_)), LeaderEvent::Elected(_)) => false,
                        (Some(before), now) => before != now,
                        (None, _) => true,
                    };
                    assert!(follows, "{who:?}: {event:?} after {:?}", self.leader);
                    self.leader = Some(event);
                }
            }
        }
    }
}
