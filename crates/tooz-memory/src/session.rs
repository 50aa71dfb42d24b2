//! The session: one client of the store, with the faults of the script in front of every call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;
use tooz_core::driver::{
    Clock, ConnectArgs, ConnectFuture, LockKey, MutexGuard, Owned, Reporter, RequestId, Session, async_trait,
};
use tooz_core::{Characteristic, Characteristics, GroupId, MemberId, Result, Terms};

use crate::error::{cut_off, lost, reply_lost};
use crate::fault::{Effect, Operation, scripted};
use crate::options;
use crate::record::{SessionRecord, VoidRequests};
use crate::state::{InNamespace, StoreState};
use crate::store::{Store, StoreInner};

/// What one process gives.
pub(crate) const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .with(Characteristic::DistributedAcrossThreads)
    .with(Characteristic::Serializable);

/// The id of a session that is not open.
const NONE: u64 = 0;

pub(crate) struct MemorySession {
    pub(crate) store: Arc<StoreInner>,
    pub(crate) namespace: Arc<str>,
    pub(crate) member: MemberId,
    pub(crate) timeout: Duration,
    reporter: Reporter,
    pub(crate) id: AtomicU64,
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

/// What the clock of a server would do: ends sessions when their time is over, although no client asks.
async fn tick(store: Arc<StoreInner>) {
    loop {
        let next = store.next_expiry().min(store.clock.now() + Duration::from_secs(1));
        store.clock.sleep_until(next).await;
    }
}

impl MemorySession {
    /// Lets the script have its way before the operation; answers whether its reply is to be lost.
    pub(crate) async fn enter(&self, operation: Operation) -> Result<LoseReply> {
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
    pub(crate) fn living(&self) -> Result<(MutexGuard<'_, StoreState>, u64)> {
        let state = self.store.state();
        let id = self.id.load(Ordering::Acquire);
        if state.sessions.contains_key(&id) { Ok((state, id)) } else { Err(lost()) }
    }

    pub(crate) fn lock_key(&self, key: &LockKey) -> InNamespace<LockKey> {
        (Arc::clone(&self.namespace), key.clone())
    }

    pub(crate) fn group_key(&self, group: &GroupId) -> InNamespace<GroupId> {
        (Arc::clone(&self.namespace), group.clone())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoseReply {
    No,
    Yes,
}

impl LoseReply {
    pub(crate) fn answer<T>(self, result: Result<T>) -> Result<T> {
        match self {
            LoseReply::No => result,
            LoseReply::Yes => Err(reply_lost()),
        }
    }
}

#[async_trait]
impl Session for MemorySession {
    fn terms(&self) -> Terms {
        Terms::new(Some(self.timeout), BEST)
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
            void: VoidRequests::default(),
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
