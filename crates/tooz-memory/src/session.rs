//! The session: one client of the store, with the faults of the script in front of every call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::task::AbortHandle;
use tooz_core::driver::{
    Clock, ConnectArgs, ConnectFuture, Granted, JoinRequest, LockKey, LockRequest, Owned, PushStream, Pushed, Reporter,
    RequestId, Roster, Session, Wanted, async_trait, push_channel,
};
use tooz_core::{FencingToken, GroupId, Holder, MemberId, Result, Terms};

use crate::error::{cut_off, lost, reply_lost, taken_back};
use crate::fault::{Effect, Operation, scripted};
use crate::lock::Place;
use crate::store::{SessionRecord, Shared, State, Store, Voided};
use crate::{DRIVER, options};

/// The id of a session that is not open.
const NONE: u64 = 0;

struct MemorySession {
    store: Arc<Shared>,
    namespace: Arc<str>,
    member: MemberId,
    timeout: Duration,
    reporter: Reporter,
    id: AtomicU64,
    ticker: AbortHandle,
}

pub(crate) fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let store = Store::named(&options::store_name(&args.url)?).0;
        let ticker = tokio::spawn(tick(Arc::clone(&store))).abort_handle();
        let session = MemorySession {
            store,
            namespace: args.namespace.as_str().into(),
            member: args.member,
            timeout: args.session_timeout,
            reporter: args.reporter,
            id: AtomicU64::new(NONE),
            ticker,
        };
        session.enter(Operation::Connect).await?;
        Ok(Arc::new(session) as Arc<dyn Session>)
    })
}

/// What the clock of a server would do: ends sessions when their time is over, although nobody asks.
async fn tick(store: Arc<Shared>) {
    loop {
        let next = store.next_expiry().min(store.clock.now() + Duration::from_secs(1));
        store.clock.sleep_until(next).await;
    }
}

impl MemorySession {
    /// Lets the script have its way before the operation; answers whether its reply is to be lost.
    async fn enter(&self, operation: Operation) -> Result<LoseReply> {
        let (effect, now) = {
            let mut state = self.store.state();
            if state.cut_off.contains(&self.member) {
                return Err(cut_off());
            }
            if state.script.is_empty() {
                return Ok(LoseReply::No);
            }
            let next = state.script.iter().position(|fault| fault.matches(&self.member, operation));
            // A delay counts from when its line is gone from the script: then a test may move the clock.
            let effect = next.map(|index| {
                let repeats = state.script[index].repeats;
                if repeats { state.script[index].effect } else { state.script.remove(index).effect }
            });
            (effect, self.store.clock.now())
        };
        match effect {
            None => Ok(LoseReply::No),
            Some(Effect::LoseReply) => Ok(LoseReply::Yes),
            Some(Effect::Fail(kind)) => Err(scripted(kind)),
            Some(Effect::Delay(delay)) => {
                self.store.clock.sleep_until(now + delay).await;
                Ok(LoseReply::No)
            }
        }
    }

    /// The state, if this session is among the living.
    fn living(&self) -> Result<(MutexGuard<'_, State>, u64)> {
        let state = self.store.state();
        let id = self.id.load(Ordering::Acquire);
        if state.sessions.contains_key(&id) { Ok((state, id)) } else { Err(lost()) }
    }

    fn lock_place(&self, key: &LockKey) -> (Arc<str>, LockKey) {
        (Arc::clone(&self.namespace), key.clone())
    }

    fn group_place(&self, group: &GroupId) -> (Arc<str>, GroupId) {
        (Arc::clone(&self.namespace), group.clone())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LoseReply {
    No,
    Yes,
}

impl LoseReply {
    fn answer<T>(self, result: Result<T>) -> Result<T> {
        match self {
            LoseReply::No => result,
            LoseReply::Yes => Err(reply_lost()),
        }
    }
}

#[async_trait]
impl Session for MemorySession {
    fn terms(&self) -> Terms {
        Terms::new(Some(self.timeout), DRIVER.most_characteristics())
    }

    fn clock(&self) -> Clock {
        self.store.clock.clone()
    }

    async fn open(&self) -> Result<()> {
        let reply = self.enter(Operation::Open).await?;
        let mut state = self.store.state();
        let record = SessionRecord {
            member: self.member.clone(),
            expires: self.store.clock.now() + self.timeout,
            reporter: self.reporter.clone(),
            revoked: Vec::new(),
            void: Voided::default(),
        };
        self.id.store(state.open_session(record), Ordering::Release);
        drop(state);
        reply.answer(Ok(()))
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        let reply = self.enter(Operation::Beat).await?;
        let revoked = {
            let (mut state, id) = self.living()?;
            let expires = self.store.clock.now() + self.timeout;
            let Some(session) = state.sessions.get_mut(&id) else { return Err(lost()) };
            session.expires = expires;
            std::mem::take(&mut session.revoked)
        };
        reply.answer(Ok(revoked))
    }

    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        let reply = self.enter(Operation::Lock).await?;
        let granted = {
            let (mut state, id) = self.living()?;
            if state.is_void(id, request.id) {
                return Err(taken_back());
            }
            state.try_lock(&self.lock_place(&request.key), id, &self.member, request)
        };
        reply.answer(Ok(granted))
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        let reply = self.enter(Operation::Lock).await?;
        let place = self.lock_place(&request.key);
        let queued = {
            let (mut state, id) = self.living()?;
            if state.is_void(id, request.id) {
                return Err(taken_back());
            }
            state.lock(&place, id, &self.member, request)
        };
        let mut granted = match queued {
            Place::Granted(granted) => return reply.answer(Ok(Some(granted))),
            Place::Queued(granted) => granted,
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
                state.release(&place, request.id);
                Ok(None)
            }
        }
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        let reply = self.enter(Operation::Release).await?;
        // A session that has ended owns nothing that could be given back, and whoever held until then must hear of it: the lock
        // may have been another's before it was released.
        let released = self.living().map(|(mut state, id)| {
            if !state.release(&self.lock_place(&request.key), request.id) {
                state.void(id, request.id);
            }
        });
        reply.answer(released)
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        let reply = self.enter(Operation::Look).await?;
        let holders = self.store.state().holders(&self.lock_place(key));
        reply.answer(Ok(holders))
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        let reply = self.enter(Operation::Break).await?;
        reply.answer(self.store.break_lock(&self.lock_place(key), token))
    }

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
        self.store.state().group(&self.group_place(group))?.watchers.push(pusher);
        Ok(Some(stream))
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        self.enter(Operation::Watch).await?;
        let (pusher, stream) = push_channel();
        pusher.push(Pushed::Ready);
        self.store.state().locks.entry(self.lock_place(key)).or_default().watchers.push(pusher);
        Ok(Some(stream))
    }

    async fn owned(&self) -> Result<Owned> {
        let reply = self.enter(Operation::Look).await?;
        let owned = self.living().map(|(state, id)| Owned::new(state.locks_of(id)));
        reply.answer(owned)
    }

    async fn close(&self) -> Result<()> {
        let reply = self.enter(Operation::Close).await?;
        self.store.state().end_session(self.id.load(Ordering::Acquire));
        reply.answer(Ok(()))
    }
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        self.ticker.abort();
        self.store.state().end_session(self.id.load(Ordering::Acquire));
    }
}
