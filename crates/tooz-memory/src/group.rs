//! Groups as core asks for them, each with the faults of the script before it and after it.

use std::sync::atomic::Ordering;

use tooz_core::driver::{Groups, JoinRequest, PushStream, Pushed, Roster, async_trait, push_channel};
use tooz_core::{GroupId, Result};

use crate::error::taken_back;
use crate::fault::Operation;
use crate::session::MemorySession;

#[async_trait]
impl Groups for MemorySession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        let reply = self.enter(Operation::ChangeGroup).await?;
        let result = self.store.state().create_group(self.group_key(group));
        reply.answer(result)
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        let reply = self.enter(Operation::ChangeGroup).await?;
        let result = self.store.state().delete_group(&self.group_key(group));
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
            state.join(&self.group_key(&request.group), id, request, self.timeout)
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
        let result = self.living()?.0.update(&self.group_key(&request.group), request);
        reply.answer(result)
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        let reply = self.enter(Operation::Leave).await?;
        let mut state = self.store.state();
        if !state.leave(&self.group_key(&request.group), request) {
            state.void(self.id.load(Ordering::Acquire), request.id);
        }
        drop(state);
        reply.answer(Ok(()))
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let reply = self.enter(Operation::Look).await?;
        let result = self.store.state().members(&self.group_key(group));
        reply.answer(result)
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        self.enter(Operation::Watch).await?;
        let (pusher, stream) = push_channel();
        pusher.push(Pushed::Ready);
        self.store.state().group(&self.group_key(group))?.watchers.add(pusher);
        Ok(Some(stream))
    }
}
