//! All records of a store together, and each step that a server would take at once: a lock is taken, a member enters, a session ends.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tooz_core::driver::{
    Change, Granted, JoinConflict, JoinRequest, LockKey, LockRequest, Moment, Pushed, Reporter, RequestId, Roster,
};
use tooz_core::{Error, ErrorKind, FencingToken, GroupId, Holder, MemberId, Result, RosterEntry, Waiter};

use crate::fault::Fault;
use crate::record::{GroupRecord, LockRecord, QueuedRequest, SessionRecord};

/// A lock or a group, with its namespace.
pub(crate) type InNamespace<K> = (Arc<str>, K);

pub(crate) struct StoreState {
    pub(crate) sessions: HashMap<u64, SessionRecord>,
    /// By namespace and key.
    pub(crate) locks: HashMap<(Arc<str>, LockKey), LockRecord>,
    pub(crate) groups: BTreeMap<(Arc<str>, GroupId), GroupRecord>,
    pub(crate) script: Vec<Fault>,
    pub(crate) cut_off: Vec<MemberId>,
    pub(crate) last_token: u64,
    pub(crate) last_session: u64,
    /// Whether any request was ever taken back before it arrived.
    pub(crate) has_void: bool,
    /// No session ends before this moment: a lower bound, so that most calls need not look.
    pub(crate) next_expiry: Moment,
}

/// The answer to a request that is ready to wait.
pub(crate) enum LockReply {
    Granted(Granted),
    Queued(oneshot::Receiver<Granted>),
}

impl StoreState {
    pub(crate) fn open_session(&mut self, record: SessionRecord) -> u64 {
        self.last_session += 1;
        self.next_expiry = self.next_expiry.min(record.expires);
        self.sessions.insert(self.last_session, record);
        self.last_session
    }

    /// Ends a session and all that it owns. Nothing is left for a second time.
    pub(crate) fn end_session(&mut self, id: u64) -> Option<SessionRecord> {
        let record = self.sessions.remove(&id)?;
        self.end_locks_of(id);
        for group in self.groups.values_mut() {
            group.end_session(id);
        }
        Some(record)
    }

    /// That request of that session was taken back before it has arrived: whenever it does, it does nothing.
    pub(crate) fn void(&mut self, session: u64, request: RequestId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.void.add(request);
            self.has_void = true;
        }
    }

    pub(crate) fn is_void(&self, session: u64, request: RequestId) -> bool {
        self.has_void && self.sessions.get(&session).is_some_and(|session| session.void.has(request))
    }

    pub(crate) fn sweep(&mut self, now: Moment) {
        let over: Vec<_> =
            self.sessions.iter().filter(|(_, session)| session.expires <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.end_session(id);
        }
        self.next_expiry = self.sessions.values().map(|session| session.expires).min().unwrap_or(Moment::NEVER);
    }

    pub(crate) fn reporters_of(&self, member: &MemberId) -> Vec<Reporter> {
        self.sessions
            .values()
            .filter(|session| session.member == *member)
            .map(|session| session.reporter.clone())
            .collect()
    }
}

impl StoreState {
    /// Takes the lock if no holder is in the way and no request waits. A repeated request finds its own grant.
    pub(crate) fn try_lock(
        &mut self,
        key: &InNamespace<LockKey>,
        session: u64,
        member: &MemberId,
        request: &LockRequest,
    ) -> Option<Granted> {
        let lock = self.locks.entry(key.clone()).or_default();
        if let Some(token) = lock.tokens.get(&request.id) {
            return Some(Granted::new(*token));
        }
        let free = lock.queue.is_empty() && lock.admits(request.mode);
        if free {
            let granted = lock.grant(&mut self.last_token, session, member.clone(), request.mode, request.id);
            lock.tell();
            return Some(granted);
        }
        None
    }

    /// Takes the lock or a place at the end of its queue.
    pub(crate) fn lock(
        &mut self,
        key: &InNamespace<LockKey>,
        session: u64,
        member: &MemberId,
        request: &LockRequest,
    ) -> LockReply {
        if let Some(granted) = self.try_lock(key, session, member, request) {
            return LockReply::Granted(granted);
        }
        let (sender, granted) = oneshot::channel();
        let lock = self.locks.entry(key.clone()).or_default();
        // A repetition takes its old place again.
        if let Some(waiter) = lock.queue.iter_mut().find(|waiter| waiter.request == request.id) {
            waiter.granted = sender;
        } else {
            lock.queue.push_back(QueuedRequest {
                request: request.id,
                session,
                waiter: Waiter::new(member.clone(), request.mode).since(SystemTime::now()),
                granted: sender,
            });
        }
        LockReply::Queued(granted)
    }

    /// Gives back what that request has, a grant or a place in the queue. False: it has nothing.
    pub(crate) fn release(&mut self, key: &InNamespace<LockKey>, request: RequestId) -> bool {
        let mut had_something = false;
        self.change_lock(key, |lock| {
            if let Some(token) = lock.tokens.get(&request) {
                lock.remove(*token);
                had_something = true;
            } else if let Some(at) = lock.queue.iter().position(|waiter| waiter.request == request) {
                lock.queue.remove(at);
                had_something = true;
            }
        });
        had_something
    }

    /// Whose grant has that token, and how its session is told. It is told before another gets the lock, and without a lock of this
    /// store: the listener may ask the store something there and then.
    pub(crate) fn revoke(
        &mut self,
        key: &InNamespace<LockKey>,
        token: FencingToken,
    ) -> Result<(RequestId, Option<Reporter>)> {
        let grant = self.locks.get(key).and_then(|lock| lock.holders.get(&token));
        let Some((session, request)) = grant.map(|grant| (grant.session, grant.request)) else {
            return Err(Error::new(ErrorKind::NotFound, format!("no holder has it with token {token} any more")));
        };
        let session = self.sessions.get_mut(&session);
        let reporter = session.map(|session| {
            session.revoked.push(request);
            session.reporter.clone()
        });
        Ok((request, reporter))
    }

    pub(crate) fn holders(&self, key: &InNamespace<LockKey>) -> Vec<Holder> {
        self.locks
            .get(key)
            .map(|lock| lock.holders.values().map(|grant| grant.holder.clone()).collect())
            .unwrap_or_default()
    }

    pub(crate) fn waiters(&self, key: &InNamespace<LockKey>) -> Vec<Waiter> {
        let queue = self.locks.get(key).map(|lock| lock.queue.iter().map(|queued| queued.waiter.clone()).collect());
        queue.unwrap_or_default()
    }

    /// Watched locks that are free are not in use.
    pub(crate) fn locks_in_use(&self, namespace: &str) -> Vec<LockKey> {
        let here = self.locks.iter().filter(|((there, _), lock)| **there == *namespace && !lock.is_free());
        here.map(|((_, key), _)| key.clone()).collect()
    }

    pub(crate) fn locks_of(&self, session: u64) -> Vec<(LockKey, RequestId)> {
        let mut owned = Vec::new();
        for ((_, key), lock) in &self.locks {
            let grants = lock.holders.values().filter(|grant| grant.session == session).map(|grant| grant.request);
            let places = lock.queue.iter().filter(|waiter| waiter.session == session).map(|waiter| waiter.request);
            owned.extend(grants.chain(places).map(|request| (key.clone(), request)));
        }
        owned
    }

    pub(crate) fn end_locks_of(&mut self, session: u64) {
        let touched: Vec<_> = self
            .locks
            .iter()
            .filter(|(_, lock)| {
                lock.holders.values().any(|grant| grant.session == session)
                    || lock.queue.iter().any(|waiter| waiter.session == session)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in touched {
            self.change_lock(&key, |lock| {
                let own = lock.holders.iter().filter(|(_, grant)| grant.session == session);
                let own: Vec<_> = own.map(|(token, _)| *token).collect();
                for token in own {
                    lock.remove(token);
                }
                lock.queue.retain(|waiter| waiter.session != session);
            });
        }
    }

    /// Changes a lock, hands over what became free, tells the watchers, and forgets a lock of which nothing is left.
    fn change_lock(&mut self, key: &InNamespace<LockKey>, change: impl FnOnce(&mut LockRecord)) {
        let Entry::Occupied(mut entry) = self.locks.entry(key.clone()) else { return };
        let lock = entry.get_mut();
        let before = lock.changes;
        change(lock);
        while let Some(head) = lock.queue.front() {
            if !lock.admits(head.waiter.mode) {
                break;
            }
            let Some(first) = lock.queue.pop_front() else { break };
            let Waiter { member, mode, .. } = first.waiter;
            let granted = lock.grant(&mut self.last_token, first.session, member, mode, first.request);
            if first.granted.send(granted).is_err() {
                // No task listens any more: the wait was ended together with its session.
                lock.remove(granted.token);
            }
        }
        if lock.changes != before {
            lock.tell();
        }
        if lock.is_free() && lock.watchers.is_empty() {
            entry.remove();
        }
    }
}

impl StoreState {
    pub(crate) fn group(&mut self, key: &InNamespace<GroupId>) -> Result<&mut GroupRecord> {
        self.groups.get_mut(key).ok_or_else(|| Error::no_group(&key.1))
    }

    pub(crate) fn create_group(&mut self, key: InNamespace<GroupId>) -> Result<()> {
        if self.groups.contains_key(&key) {
            return Err(Error::group_exists(&key.1));
        }
        self.groups.insert(key, GroupRecord::default());
        Ok(())
    }

    pub(crate) fn delete_group(&mut self, key: &InNamespace<GroupId>) -> Result<()> {
        let count = self.group(key)?.members.len();
        if count > 0 {
            return Err(Error::group_not_empty(&key.1, count));
        }
        if let Some(mut group) = self.groups.remove(key) {
            group.watchers.push(&Pushed::Gone);
        }
        Ok(())
    }

    /// Enters the member. Answers whose entry it has replaced: that session is to be told without a lock of this store.
    pub(crate) fn join(
        &mut self,
        key: &InNamespace<GroupId>,
        session: u64,
        request: &JoinRequest,
        timeout: Duration,
    ) -> Result<Option<(Reporter, RequestId)>> {
        let mut replaced = None;
        let old = self.group(key)?.members.get(&request.member).map(|(owner, entry)| (*owner, entry.id));
        if let Some((owner, id)) = old {
            match request.meets(id) {
                JoinConflict::Itself => return Ok(None),
                JoinConflict::Refused => return Err(Error::namesake(request).with_retry_after(timeout)),
                JoinConflict::Replaces => {}
            }
            replaced = self.sessions.get(&owner).map(|owner| (owner.reporter.clone(), id));
            self.group(key)?.remove(&request.member);
        }
        let entry = RosterEntry::new(request.member.clone(), request.id, request.capabilities.clone());
        let group = self.group(key)?;
        group.members.insert(request.member.clone(), (session, entry.clone()));
        group.change(&Change::Joined(entry));
        Ok(replaced)
    }

    pub(crate) fn update(&mut self, key: &InNamespace<GroupId>, request: &JoinRequest) -> Result<()> {
        let group = self.group(key)?;
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
    pub(crate) fn leave(&mut self, key: &InNamespace<GroupId>, request: &JoinRequest) -> bool {
        if let Ok(group) = self.group(key)
            && group.members.get(&request.member).is_some_and(|(_, entry)| entry.id == request.id)
        {
            group.remove(&request.member);
            return true;
        }
        false
    }

    pub(crate) fn members(&mut self, key: &InNamespace<GroupId>) -> Result<Roster> {
        let group = self.group(key)?;
        Ok(Roster::new(group.members.values().map(|(_, entry)| entry.clone()).collect(), group.version))
    }
}
