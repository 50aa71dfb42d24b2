//! The locks of the store: a FIFO queue for each, a grant for the longest compatible run at its head.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tooz_core::driver::{Granted, LockKey, LockRequest, Pushed, Reporter, RequestId, Watchers};
use tooz_core::{Error, ErrorKind, FencingToken, Holder, LockMode, MemberId, Result, Waiter};

use crate::state::State;

#[derive(Default)]
pub(crate) struct LockRecord {
    /// By token: thousands of readers of one lock cost no more each than one does.
    holders: BTreeMap<FencingToken, Grant>,
    tokens: BTreeMap<RequestId, FencingToken>,
    queue: VecDeque<Queued>,
    pub(crate) watchers: Watchers,
    /// Counts the grants that came and went.
    changes: u64,
}

struct Grant {
    request: RequestId,
    session: u64,
    holder: Holder,
}

struct Queued {
    request: RequestId,
    session: u64,
    waiter: Waiter,
    granted: oneshot::Sender<Granted>,
}

/// The answer to one who is ready to wait.
pub(crate) enum Entered {
    Granted(Granted),
    Queued(oneshot::Receiver<Granted>),
}

impl State {
    /// Takes the lock if nobody is in the way and nobody waits. A repeated request finds its own grant.
    pub(crate) fn try_lock(
        &mut self,
        place: &(Arc<str>, LockKey),
        session: u64,
        member: &MemberId,
        request: &LockRequest,
    ) -> Option<Granted> {
        let lock = self.locks.entry(place.clone()).or_default();
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
        place: &(Arc<str>, LockKey),
        session: u64,
        member: &MemberId,
        request: &LockRequest,
    ) -> Entered {
        if let Some(granted) = self.try_lock(place, session, member, request) {
            return Entered::Granted(granted);
        }
        let (sender, granted) = oneshot::channel();
        let lock = self.locks.entry(place.clone()).or_default();
        // A repetition takes its old place again.
        if let Some(waiter) = lock.queue.iter_mut().find(|waiter| waiter.request == request.id) {
            waiter.granted = sender;
        } else {
            lock.queue.push_back(Queued {
                request: request.id,
                session,
                waiter: Waiter::new(member.clone(), request.mode).since(SystemTime::now()),
                granted: sender,
            });
        }
        Entered::Queued(granted)
    }

    /// Gives back what that request has, a grant or a place in the queue. False: it has nothing.
    pub(crate) fn release(&mut self, place: &(Arc<str>, LockKey), request: RequestId) -> bool {
        let mut had_something = false;
        self.change_lock(place, |lock| {
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

    /// Whose grant has that token, and how its session is told. It is told before anybody else gets the lock, and without a lock of this
    /// store: who hears of it may ask the store something there and then.
    pub(crate) fn revoke(
        &mut self,
        place: &(Arc<str>, LockKey),
        token: FencingToken,
    ) -> Result<(RequestId, Option<Reporter>)> {
        let grant = self.locks.get(place).and_then(|lock| lock.holders.get(&token));
        let Some((session, request)) = grant.map(|grant| (grant.session, grant.request)) else {
            return Err(Error::new(ErrorKind::NotFound, format!("nobody holds it with token {token} any more")));
        };
        let session = self.sessions.get_mut(&session);
        let reporter = session.map(|session| {
            session.revoked.push(request);
            session.reporter.clone()
        });
        Ok((request, reporter))
    }

    pub(crate) fn holders(&self, place: &(Arc<str>, LockKey)) -> Vec<Holder> {
        self.locks
            .get(place)
            .map(|lock| lock.holders.values().map(|grant| grant.holder.clone()).collect())
            .unwrap_or_default()
    }

    pub(crate) fn waiters(&self, place: &(Arc<str>, LockKey)) -> Vec<Waiter> {
        let queue = self.locks.get(place).map(|lock| lock.queue.iter().map(|queued| queued.waiter.clone()).collect());
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
            .map(|(place, _)| place.clone())
            .collect();
        for place in touched {
            self.change_lock(&place, |lock| {
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
    fn change_lock(&mut self, place: &(Arc<str>, LockKey), change: impl FnOnce(&mut LockRecord)) {
        let Entry::Occupied(mut entry) = self.locks.entry(place.clone()) else { return };
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
                // Nobody listens any more: the wait was ended together with its session.
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

impl LockRecord {
    fn is_free(&self) -> bool {
        self.holders.is_empty() && self.queue.is_empty()
    }

    fn admits(&self, mode: LockMode) -> bool {
        // Whoever holds it beside others holds it in the same mode.
        self.holders.values().next().is_none_or(|grant| !grant.holder.mode.conflicts_with(mode))
    }

    fn remove(&mut self, token: FencingToken) {
        if let Some(grant) = self.holders.remove(&token) {
            self.tokens.remove(&grant.request);
            self.changes += 1;
        }
    }

    fn grant(
        &mut self,
        last_token: &mut u64,
        session: u64,
        member: MemberId,
        mode: LockMode,
        request: RequestId,
    ) -> Granted {
        *last_token += 1;
        let token = FencingToken(*last_token);
        let holder = Holder::new(member, mode, token).since(SystemTime::now()).pid(std::process::id());
        self.holders.insert(token, Grant { request, session, holder });
        self.tokens.insert(request, token);
        self.changes += 1;
        Granted::new(token)
    }

    /// How many hold it, wait for it, and watch it.
    pub(crate) fn count(&self) -> [usize; 3] {
        [self.holders.len(), self.queue.len(), self.watchers.count()]
    }

    fn tell(&mut self) {
        self.watchers.push(&Pushed::Dirty);
    }
}
