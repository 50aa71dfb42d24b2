//! Locks: a FIFO queue for each, a grant for the longest compatible run at its head.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tooz_core::{
    Error, ErrorKind, FencingToken, Granted, Holder, LockKey, LockMode, LockRequest, MemberId, Pushed, Pusher,
    RequestId, Result,
};

use crate::store::State;

#[derive(Default)]
pub(crate) struct LockRecord {
    holders: Vec<Grant>,
    queue: VecDeque<Waiter>,
    pub(crate) watchers: Vec<Pusher>,
}

struct Grant {
    request: RequestId,
    session: u64,
    holder: Holder,
}

struct Waiter {
    request: RequestId,
    session: u64,
    member: MemberId,
    mode: LockMode,
    granted: oneshot::Sender<Granted>,
}

/// The answer to one who is ready to wait.
pub(crate) enum Place {
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
        if let Some(grant) = lock.holders.iter().find(|grant| grant.request == request.id) {
            return Some(Granted::new(grant.holder.token));
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
    ) -> Place {
        if let Some(granted) = self.try_lock(place, session, member, request) {
            return Place::Granted(granted);
        }
        let (sender, granted) = oneshot::channel();
        let lock = self.locks.entry(place.clone()).or_default();
        // A repetition takes its old place again.
        if let Some(waiter) = lock.queue.iter_mut().find(|waiter| waiter.request == request.id) {
            waiter.granted = sender;
        } else {
            lock.queue.push_back(Waiter {
                request: request.id,
                session,
                member: member.clone(),
                mode: request.mode,
                granted: sender,
            });
        }
        Place::Queued(granted)
    }

    /// Gives back what that request has, a grant or a place in the queue.
    pub(crate) fn release(&mut self, place: &(Arc<str>, LockKey), request: RequestId) {
        self.change_lock(place, |lock| {
            lock.holders.retain(|grant| grant.request != request);
            lock.queue.retain(|waiter| waiter.request != request);
        });
    }

    pub(crate) fn break_lock(&mut self, place: &(Arc<str>, LockKey), token: FencingToken) -> Result<()> {
        let broken = self.locks.get(place).and_then(|lock| {
            let grant = lock.holders.iter().find(|grant| grant.holder.token == token)?;
            Some((grant.session, grant.request))
        });
        let Some((session, request)) = broken else {
            return Err(Error::new(ErrorKind::NotFound, format!("nobody holds it with token {token} any more")));
        };
        // The holder is told before the next one has the lock.
        if let Some(session) = self.sessions.get_mut(&session) {
            session.revoked.push(request);
            session.reporter.grant_lost(request);
        }
        self.release(place, request);
        Ok(())
    }

    pub(crate) fn holders(&self, place: &(Arc<str>, LockKey)) -> Vec<Holder> {
        self.locks
            .get(place)
            .map(|lock| lock.holders.iter().map(|grant| grant.holder.clone()).collect())
            .unwrap_or_default()
    }

    pub(crate) fn locks_of(&self, session: u64) -> Vec<(LockKey, RequestId)> {
        let mut owned = Vec::new();
        for ((_, key), lock) in &self.locks {
            let grants = lock.holders.iter().filter(|grant| grant.session == session).map(|grant| grant.request);
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
                lock.holders.iter().any(|grant| grant.session == session)
                    || lock.queue.iter().any(|waiter| waiter.session == session)
            })
            .map(|(place, _)| place.clone())
            .collect();
        for place in touched {
            self.change_lock(&place, |lock| {
                lock.holders.retain(|grant| grant.session != session);
                lock.queue.retain(|waiter| waiter.session != session);
            });
        }
    }

    /// Changes a lock, hands over what became free, tells the watchers, and forgets a lock of which nothing is left.
    fn change_lock(&mut self, place: &(Arc<str>, LockKey), change: impl FnOnce(&mut LockRecord)) {
        let Some(lock) = self.locks.get_mut(place) else { return };
        let before: Vec<_> = lock.holders.iter().map(|grant| grant.request).collect();
        change(lock);
        while let Some(head) = lock.queue.front() {
            if !lock.admits(head.mode) {
                break;
            }
            let Some(waiter) = lock.queue.pop_front() else { break };
            let granted = lock.grant(&mut self.last_token, waiter.session, waiter.member, waiter.mode, waiter.request);
            if waiter.granted.send(granted).is_err() {
                // Nobody listens any more: the wait was ended together with its session.
                lock.holders.pop();
            }
        }
        if !lock.holders.iter().map(|grant| grant.request).eq(before) {
            lock.tell();
        }
        if lock.holders.is_empty() && lock.queue.is_empty() && lock.watchers.is_empty() {
            self.locks.remove(place);
        }
    }
}

impl LockRecord {
    fn admits(&self, mode: LockMode) -> bool {
        !self.holders.iter().any(|grant| grant.holder.mode.conflicts_with(mode))
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
        self.holders.push(Grant { request, session, holder });
        Granted::new(token)
    }

    fn tell(&mut self) {
        self.watchers.retain(|watcher| !watcher.is_closed());
        for watcher in &self.watchers {
            watcher.push(Pushed::Dirty);
        }
    }
}
