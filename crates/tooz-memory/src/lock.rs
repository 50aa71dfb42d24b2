//! Locks: a FIFO queue for each, a grant for the longest compatible run at its head.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tooz_core::{
    Error, ErrorKind, FencingToken, Granted, Holder, LockKey, LockMode, LockRequest, MemberId, Pushed, Pusher,
    RequestId, Result,
};

use crate::store::State;

/// What a lock has of a request, and where: each request is found at once, however many there are.
#[derive(Default)]
pub(crate) struct LockRecord {
    /// By their tokens, so in the order in which they were granted.
    holders: BTreeMap<u64, Grant>,
    exclusive: usize,
    /// By the numbers of their coming.
    queue: BTreeMap<u64, Waiter>,
    last_place: u64,
    requests: BTreeMap<RequestId, Standing>,
    pub(crate) watchers: Vec<Pusher>,
}

#[derive(Clone, Copy)]
enum Standing {
    Holds(u64),
    Waits(u64),
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
        if let Some(Standing::Holds(token)) = lock.requests.get(&request.id) {
            return Some(Granted::new(FencingToken(*token)));
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
        let old = match lock.requests.get(&request.id) {
            Some(Standing::Waits(number)) => lock.queue.get_mut(number),
            _ => None,
        };
        if let Some(waiter) = old {
            waiter.granted = sender;
        } else {
            lock.last_place += 1;
            lock.requests.insert(request.id, Standing::Waits(lock.last_place));
            let waiter =
                Waiter { request: request.id, session, member: member.clone(), mode: request.mode, granted: sender };
            lock.queue.insert(lock.last_place, waiter);
        }
        Place::Queued(granted)
    }

    /// Gives back what that request has, a grant or a place in the queue.
    pub(crate) fn release(&mut self, place: &(Arc<str>, LockKey), request: RequestId) {
        self.take_back(place, [request]);
    }

    pub(crate) fn break_lock(&mut self, place: &(Arc<str>, LockKey), token: FencingToken) -> Result<()> {
        let broken = self
            .locks
            .get(place)
            .and_then(|lock| lock.holders.get(&token.0))
            .map(|grant| (grant.session, grant.request));
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
            .map(|lock| lock.holders.values().map(|grant| grant.holder.clone()).collect())
            .unwrap_or_default()
    }

    pub(crate) fn locks_of(&self, session: u64) -> Vec<(LockKey, RequestId)> {
        let of_lock = |((_, key), lock): (&(Arc<str>, LockKey), &LockRecord)| {
            lock.requests_of(session).into_iter().map(|request| (key.clone(), request)).collect::<Vec<_>>()
        };
        self.locks.iter().flat_map(of_lock).collect()
    }

    pub(crate) fn end_locks_of(&mut self, session: u64) {
        let of_lock = |(place, lock): (&(Arc<str>, LockKey), &LockRecord)| (place.clone(), lock.requests_of(session));
        let owned: Vec<_> = self.locks.iter().map(of_lock).filter(|(_, requests)| !requests.is_empty()).collect();
        for (place, requests) in owned {
            self.take_back(&place, requests);
        }
    }

    /// Takes requests out of a lock, hands over what became free, tells the watchers, and forgets a lock of which nothing is left.
    fn take_back(&mut self, place: &(Arc<str>, LockKey), requests: impl IntoIterator<Item = RequestId>) {
        let Some(lock) = self.locks.get_mut(place) else { return };
        let mut changed = false;
        for request in requests {
            match lock.requests.remove(&request) {
                Some(Standing::Holds(token)) => {
                    lock.end(token);
                    changed = true;
                }
                Some(Standing::Waits(number)) => drop(lock.queue.remove(&number)),
                None => {}
            }
        }
        while let Some(head) = lock.queue.first_entry() {
            let mode = head.get().mode;
            if lock.exclusive > 0 || (mode == LockMode::Exclusive && !lock.holders.is_empty()) {
                break;
            }
            let waiter = head.remove();
            lock.requests.remove(&waiter.request);
            let granted = lock.grant(&mut self.last_token, waiter.session, waiter.member, waiter.mode, waiter.request);
            let token = granted.token.0;
            if waiter.granted.send(granted).is_err() {
                // Nobody listens any more: the wait was ended together with its session.
                lock.requests.remove(&waiter.request);
                lock.end(token);
            } else {
                changed = true;
            }
        }
        if changed {
            lock.tell();
        }
        if lock.holders.is_empty() && lock.queue.is_empty() && lock.watchers.is_empty() {
            self.locks.remove(place);
        }
    }
}

impl LockRecord {
    fn admits(&self, mode: LockMode) -> bool {
        self.exclusive == 0 && (mode == LockMode::Shared || self.holders.is_empty())
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
        self.exclusive += usize::from(mode == LockMode::Exclusive);
        self.requests.insert(request, Standing::Holds(token.0));
        self.holders.insert(token.0, Grant { request, session, holder });
        Granted::new(token)
    }

    fn end(&mut self, token: u64) {
        if let Some(grant) = self.holders.remove(&token) {
            self.exclusive -= usize::from(grant.holder.mode == LockMode::Exclusive);
        }
    }

    /// What a session has of it, grants and places in the queue.
    fn requests_of(&self, session: u64) -> Vec<RequestId> {
        let grants = self.holders.values().filter(|grant| grant.session == session).map(|grant| grant.request);
        let places = self.queue.values().filter(|waiter| waiter.session == session).map(|waiter| waiter.request);
        grants.chain(places).collect()
    }

    fn tell(&mut self) {
        self.watchers.retain(|watcher| !watcher.is_closed());
        for watcher in &self.watchers {
            watcher.push(Pushed::Dirty);
        }
    }
}
