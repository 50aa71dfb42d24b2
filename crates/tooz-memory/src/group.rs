//! Groups: members by name, each change with a version, pushed as a difference.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tooz_core::driver::{
    Change, Groups, JoinConflict, JoinRequest, PushStream, Pushed, Reporter, RequestId, Roster, Watchers, async_trait,
    push_channel,
};
use tooz_core::{Error, GroupId, MemberId, Result, RosterEntry};

use crate::error::taken_back;
use crate::fault::Operation;
use crate::session::MemorySession;
use crate::store::State;

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

#[async_trait]
impl Groups for MemorySession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        let reply = self.enter(Operation::ChangeGroup).await?;
        let result = self.store.state().create_group(self.group_place(group));
        reply.answer(result)
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        let reply = self.enter(Operation::ChangeGroup).await?;
        let result = self.store.state().delete_group(&self.group_place(group));
        reply.answer(result)
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        let reply = self.enter(Operation::Look).await?;
        let groups = {
            let state = self.store.state();
            state
                .groups
                .keys()
                .filter(|(namespace, _)| *namespace == self.namespace)
                .map(|(_, group)| group.clone())
                .collect()
        };
        reply.answer(Ok(groups))
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        let reply = self.enter(Operation::Join).await?;
        let replaced = {
            let (mut state, id) = self.living()?;
            if state.is_void(id, request.id) {
                return Err(taken_back());
            }
            state.join(&self.group_place(&request.group), id, request, self.timeout)
        };
        let joined = replaced.map(|replaced| {
            if let Some((reporter, old)) = replaced {
                reporter.membership_lost(&request.group, old);
            }
        });
        reply.answer(joined)
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        let reply = self.enter(Operation::Update).await?;
        let result = self.living()?.0.update(&self.group_place(&request.group), request);
        reply.answer(result)
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        let reply = self.enter(Operation::Leave).await?;
        let mut state = self.store.state();
        if !state.leave(&self.group_place(&request.group), request) {
            state.void(self.id.load(Ordering::Acquire), request.id);
        }
        drop(state);
        reply.answer(Ok(()))
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let reply = self.enter(Operation::Look).await?;
        let result = self.store.state().members(&self.group_place(group));
        reply.answer(result)
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        self.enter(Operation::Watch).await?;
        let (pusher, stream) = push_channel();
        pusher.push(Pushed::Ready);
        self.store.state().group(&self.group_place(group))?.watchers.add(pusher);
        Ok(Some(stream))
    }
}
