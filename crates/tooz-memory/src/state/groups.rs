//! The groups of the store: members by name, each change with a version, pushed as a difference.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tooz_core::driver::{Change, JoinConflict, JoinRequest, Pushed, Reporter, RequestId, Roster, Watchers};
use tooz_core::{Error, GroupId, MemberId, Result, RosterEntry};

use crate::state::State;

#[derive(Default)]
pub(crate) struct GroupRecord {
    members: BTreeMap<MemberId, (u64, RosterEntry)>,
    version: u64,
    pub(crate) watchers: Watchers,
}

impl GroupRecord {
    fn change(&mut self, change: &Change) {
        let after = Some(self.version);
        self.version += 1;
        self.watchers.push(&Pushed::Delta { after, version: self.version, change: change.clone() });
    }

    fn remove(&mut self, member: &MemberId) {
        if self.members.remove(member).is_some() {
            self.change(&Change::Left(member.clone()));
        }
    }

    /// How many are in it, and watch it.
    pub(crate) fn count(&self) -> [usize; 2] {
        [self.members.len(), self.watchers.count()]
    }

    pub(crate) fn end_session(&mut self, session: u64) {
        let gone: Vec<_> =
            self.members.iter().filter(|(_, (owner, _))| *owner == session).map(|(member, _)| member.clone()).collect();
        for member in gone {
            self.remove(&member);
        }
    }
}

impl State {
    pub(crate) fn group(&mut self, place: &(Arc<str>, GroupId)) -> Result<&mut GroupRecord> {
        self.groups.get_mut(place).ok_or_else(|| Error::no_group(&place.1))
    }

    pub(crate) fn create_group(&mut self, place: (Arc<str>, GroupId)) -> Result<()> {
        if self.groups.contains_key(&place) {
            return Err(Error::group_exists(&place.1));
        }
        self.groups.insert(place, GroupRecord::default());
        Ok(())
    }

    pub(crate) fn delete_group(&mut self, place: &(Arc<str>, GroupId)) -> Result<()> {
        let count = self.group(place)?.members.len();
        if count > 0 {
            return Err(Error::group_not_empty(&place.1, count));
        }
        if let Some(mut group) = self.groups.remove(place) {
            group.watchers.push(&Pushed::Gone);
        }
        Ok(())
    }

    /// Enters the member. Answers whose entry it has replaced, who is to be told without a lock of this store.
    pub(crate) fn join(
        &mut self,
        place: &(Arc<str>, GroupId),
        session: u64,
        request: &JoinRequest,
        timeout: Duration,
    ) -> Result<Option<(Reporter, RequestId)>> {
        let mut replaced = None;
        let old = self.group(place)?.members.get(&request.member).map(|(owner, entry)| (*owner, entry.id));
        if let Some((owner, id)) = old {
            match request.meets(id) {
                JoinConflict::Itself => return Ok(None),
                JoinConflict::Refused => return Err(Error::namesake(request).with_retry_after(timeout)),
                JoinConflict::Replaces => {}
            }
            replaced = self.sessions.get(&owner).map(|owner| (owner.reporter.clone(), id));
            self.group(place)?.remove(&request.member);
        }
        let entry = RosterEntry::new(request.member.clone(), request.id, request.capabilities.clone());
        let group = self.group(place)?;
        group.members.insert(request.member.clone(), (session, entry.clone()));
        group.change(&Change::Joined(entry));
        Ok(replaced)
    }

    pub(crate) fn update(&mut self, place: &(Arc<str>, GroupId), request: &JoinRequest) -> Result<()> {
        let group = self.group(place)?;
        match group.members.get_mut(&request.member) {
            Some((_, entry)) if entry.id == request.id => {
                entry.capabilities = request.capabilities.clone();
                let entry = entry.clone();
                group.change(&Change::Updated(entry));
                Ok(())
            }
            _ => Err(Error::not_member(request)),
        }
    }

    /// False: there was nothing to leave.
    pub(crate) fn leave(&mut self, place: &(Arc<str>, GroupId), request: &JoinRequest) -> bool {
        if let Ok(group) = self.group(place)
            && group.members.get(&request.member).is_some_and(|(_, entry)| entry.id == request.id)
        {
            group.remove(&request.member);
            return true;
        }
        false
    }

    pub(crate) fn members(&mut self, place: &(Arc<str>, GroupId)) -> Result<Roster> {
        let group = self.group(place)?;
        Ok(Roster::new(group.members.values().map(|(_, entry)| entry.clone()).collect(), group.version))
    }
}
