//! Locks as core asks for them, each with the faults of the script before it and after it.

use tooz_core::driver::{Granted, LockKey, LockRequest, Locks, PushStream, Pushed, Wanted, async_trait, push_channel};
use tooz_core::{FencingToken, Holder, Result, Waiter};

use crate::error::{lost, reply_lost, taken_back};
use crate::fault::Operation;
use crate::session::{LoseReply, MemorySession};
use crate::state::LockReply;

#[async_trait]
impl Locks for MemorySession {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        let reply = self.enter(Operation::Lock).await?;
        let granted = {
            let (mut state, id) = self.living()?;
            if state.is_void(id, request.id) {
                return Err(taken_back());
            }
            state.try_lock(&self.lock_key(&request.key), id, &self.member, request)
        };
        reply.answer(Ok(granted))
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        let reply = self.enter(Operation::Lock).await?;
        let key = self.lock_key(&request.key);
        let queued = {
            let (mut state, id) = self.living()?;
            if state.is_void(id, request.id) {
                return Err(taken_back());
            }
            state.lock(&key, id, &self.member, request)
        };
        let mut granted = match queued {
            LockReply::Granted(granted) => return reply.answer(Ok(Some(granted))),
            LockReply::Queued(granted) => granted,
        };
        if reply == LoseReply::Yes {
            return Err(reply_lost());
        }
        wanted.queued();
        tokio::select! {
            biased;
            granted = &mut granted => granted.map(Some).map_err(|_| lost()),
            () = wanted.unwanted() => {
                let mut state = self.store.state();
                // The grant may have come just before: then it is not given up, but handed in.
                if let Ok(granted) = granted.try_recv() {
                    return Ok(Some(granted));
                }
                state.release(&key, request.id);
                Ok(None)
            }
        }
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        let reply = self.enter(Operation::Release).await?;
        // A session that has ended owns nothing that could be given back, and its holder must hear of it: the lock
        // may have been another's before it was released.
        let released = self.living().map(|(mut state, id)| {
            if !state.release(&self.lock_key(&request.key), request.id) {
                state.void(id, request.id);
            }
        });
        reply.answer(released)
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        let reply = self.enter(Operation::Look).await?;
        let holders = self.store.state().holders(&self.lock_key(key));
        reply.answer(Ok(holders))
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        let reply = self.enter(Operation::Break).await?;
        reply.answer(self.store.break_lock(&self.lock_key(key), token))
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        self.enter(Operation::Watch).await?;
        let (pusher, stream) = push_channel();
        pusher.push(Pushed::Ready);
        self.store.state().locks.entry(self.lock_key(key)).or_default().watchers.add(pusher);
        Ok(Some(stream))
    }

    async fn locks(&self) -> Result<Vec<LockKey>> {
        let reply = self.enter(Operation::Look).await?;
        let keys = self.store.state().locks_in_use(&self.namespace);
        reply.answer(Ok(keys))
    }

    async fn waiters(&self, key: &LockKey) -> Result<Vec<Waiter>> {
        let reply = self.enter(Operation::Look).await?;
        let waiters = self.store.state().waiters(&self.lock_key(key));
        reply.answer(Ok(waiters))
    }
}
