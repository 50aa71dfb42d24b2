//! What the session believes that it holds: its places in queues and its memberships, and how much their paths are together.
//!
//! A server ends a session by one record with the paths of all its nodes. One that is longer than the servers' `jute.maxbuffer` (and as much
//! again, `jute.maxbuffer.extrasize`) is written, and then read by none of them any more: the whole ensemble stands still for good
//! (ZOOKEEPER-4306). So each node of the session is counted before it is made.
//!
//! | status | what is true | what comes next |
//! |---|---|---|
//! | `Waiting` | it was asked for | `Held` when it is had, or forgotten |
//! | `Held` | it is had, and watched after a moment | `Leaving` by its owner, or forgotten when others took it away |
//! | `Leaving` | it is being given back | forgotten |

use std::collections::{HashMap, VecDeque};

use tokio::sync::Notify;
use tokio::time::Instant;
use tooz_core::driver::{LockKey, LockRequest, Mutex, MutexGuard, RequestId};
use tooz_core::{FencingToken, GroupId, Result};

use crate::{error, layout};

/// The node of a request.
#[derive(Clone)]
pub(crate) struct RequestNode {
    pub(crate) name: String,
    pub(crate) token: FencingToken,
}

/// What is known of a request's node.
#[derive(Clone)]
pub(crate) enum NodeState {
    /// There is none yet.
    Unasked,
    /// It was asked for, and the answer did not come.
    Doubtful,
    /// It is there, or was.
    Made(RequestNode),
}

/// A release, before it is asked for.
pub(crate) struct Leaving {
    pub(crate) known: NodeState,
    pub(crate) kind: Leave,
}

/// What a release gives back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// A lock that was held until now.
    Grant,
    /// A place in the queue, or once more a grant: what is not found may have been taken away by an earlier release that was not answered.
    Rest,
}

/// What was taken away.
pub(crate) enum Revocation {
    Lock(RequestId),
    Membership(GroupId, RequestId),
}

/// What one session holds.
pub(crate) struct Holdings {
    state: Mutex<HoldingsState>,
    /// The most that all paths may take.
    most: usize,
    /// There is something to be watched.
    pub(crate) unwatched_came: Notify,
}

#[derive(Default)]
struct HoldingsState {
    locks: HashMap<RequestId, HeldLock>,
    memberships: HashMap<RequestId, HeldMembership>,
    /// What all paths take.
    weight: usize,
    /// What is not watched yet, and since when it is held; the oldest first.
    unwatched: VecDeque<(RequestId, Instant)>,
}

struct HeldLock {
    key: LockKey,
    known: NodeState,
    weight: usize,
    status: Status,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Waiting,
    Held,
    /// It is being given back.
    Leaving,
}

struct HeldMembership {
    group: GroupId,
    path: String,
    status: Status,
}

impl Holdings {
    /// Nothing but the nodes that each session has, which weigh `own`.
    pub(crate) fn new(own: usize, most: usize) -> Self {
        Holdings {
            state: Mutex::new(HoldingsState { weight: own, ..HoldingsState::default() }),
            most,
            unwatched_came: Notify::new(),
        }
    }

    /// The most that all paths may take, and what they take.
    pub(crate) fn weights(&self) -> (usize, usize) {
        (self.most, self.state().weight)
    }

    /// Before a request's node is asked for. It counts until the server has said that there is none.
    pub(crate) fn enter(&self, request: &LockRequest, weight: impl FnOnce() -> usize) -> Result<()> {
        let mut state = self.state();
        if !state.locks.contains_key(&request.id) {
            let weight = weight();
            state.make_room(weight, self.most)?;
            let lock =
                HeldLock { key: request.key.clone(), known: NodeState::Unasked, weight, status: Status::Waiting };
            state.locks.insert(request.id, lock);
        }
        Ok(())
    }

    /// What is known of a request's node.
    pub(crate) fn known(&self, id: RequestId) -> NodeState {
        self.state().locks.get(&id).map_or(NodeState::Unasked, |lock| lock.known.clone())
    }

    /// Which lock that request is for.
    pub(crate) fn key(&self, id: RequestId) -> Option<LockKey> {
        self.state().locks.get(&id).map(|lock| lock.key.clone())
    }

    /// More is known of a request's node.
    pub(crate) fn note(&self, id: RequestId, known: NodeState) {
        if let Some(lock) = self.state().locks.get_mut(&id) {
            lock.known = known;
        }
    }

    /// The request has the lock.
    pub(crate) fn granted(&self, id: RequestId) {
        let mut state = self.state();
        let Some(lock) = state.locks.get_mut(&id) else { return };
        lock.status = Status::Held;
        state.unwatched.push_back((id, Instant::now()));
        self.unwatched_came.notify_one();
    }

    /// The request's node is about to be taken away by its owner.
    pub(crate) fn leave(&self, id: RequestId) -> Leaving {
        let mut state = self.state();
        // An id that is not known, of an earlier request that core gives up, may have a node all the same.
        let Some(lock) = state.locks.get_mut(&id) else {
            return Leaving { known: NodeState::Doubtful, kind: Leave::Rest };
        };
        let before = std::mem::replace(&mut lock.status, Status::Leaving);
        let kind = if before == Status::Held { Leave::Grant } else { Leave::Rest };
        Leaving { known: lock.known.clone(), kind }
    }

    /// There is no node of the request.
    pub(crate) fn forget(&self, id: RequestId) {
        let mut state = self.state();
        if let Some(lock) = state.locks.remove(&id) {
            state.weight -= lock.weight;
        }
    }

    /// Before a member's node is asked for.
    pub(crate) fn join(&self, id: RequestId, group: &GroupId, path: &str) -> Result<()> {
        let mut state = self.state();
        if !state.memberships.contains_key(&id) {
            state.make_room(layout::weight(path), self.most)?;
            let membership = HeldMembership { group: group.clone(), path: path.to_owned(), status: Status::Waiting };
            state.memberships.insert(id, membership);
        }
        Ok(())
    }

    /// The member's node is there.
    pub(crate) fn joined(&self, id: RequestId) {
        let mut state = self.state();
        let Some(membership) = state.memberships.get_mut(&id) else { return };
        membership.status = Status::Held;
        state.unwatched.push_back((id, Instant::now()));
        self.unwatched_came.notify_one();
    }

    /// The member's node is about to be taken away by its owner.
    pub(crate) fn leave_group(&self, id: RequestId) {
        if let Some(membership) = self.state().memberships.get_mut(&id) {
            membership.status = Status::Leaving;
        }
    }

    /// There is no node of the member.
    pub(crate) fn forget_join(&self, id: RequestId) -> Option<GroupId> {
        let mut state = self.state();
        let membership = state.memberships.remove(&id)?;
        state.weight -= layout::weight(&membership.path);
        Some(membership.group)
    }

    /// The node is gone. `None` where its owner gives it back just now, and is told nothing.
    pub(crate) fn taken(&self, id: RequestId) -> Option<Revocation> {
        let status = |state: &HoldingsState| {
            let lock = state.locks.get(&id).map(|lock| lock.status);
            lock.or_else(|| state.memberships.get(&id).map(|membership| membership.status))
        };
        if status(&self.state()) != Some(Status::Held) {
            return None;
        }
        if let Some(group) = self.forget_join(id) {
            return Some(Revocation::Membership(group, id));
        }
        self.forget(id);
        Some(Revocation::Lock(id))
    }

    /// All that is held, with the paths of the nodes.
    pub(crate) fn held(&self, queue: impl Fn(&LockKey) -> String) -> Vec<(RequestId, String)> {
        let state = self.state();
        let ids = state.locks.keys().chain(state.memberships.keys());
        ids.filter_map(|id| Some((*id, state.path(*id, &queue)?))).collect()
    }

    /// Everything is to be watched anew: there is another connection.
    pub(crate) fn watch_all_anew(&self) {
        let mut state = self.state();
        let now = Instant::now();
        let all = state.locks.keys().chain(state.memberships.keys()).copied();
        state.unwatched = all.filter(|id| state.is_held(*id)).map(|id| (id, now)).collect();
        self.unwatched_came.notify_one();
    }

    /// One is to be watched anew.
    pub(crate) fn watch_anew(&self, id: RequestId) {
        self.state().unwatched.push_back((id, Instant::now()));
        self.unwatched_came.notify_one();
    }

    /// Up to so many that are held since that moment or longer, and that are not watched; and when the next one is due.
    pub(crate) fn unwatched(
        &self,
        since: Instant,
        most: usize,
        queue: impl Fn(&LockKey) -> String,
    ) -> (Vec<(RequestId, String)>, Option<Instant>) {
        let mut state = self.state();
        let mut due = Vec::new();
        while due.len() < most && state.unwatched.front().is_some_and(|(_, held)| *held <= since) {
            let Some((id, _)) = state.unwatched.pop_front() else { break };
            due.extend(state.path(id, &queue).map(|path| (id, path)));
        }
        (due, state.unwatched.front().map(|(_, held)| *held))
    }

    fn state(&self) -> MutexGuard<'_, HoldingsState> {
        self.state.lock()
    }
}

impl HoldingsState {
    fn make_room(&mut self, weight: usize, most: usize) -> Result<()> {
        if self.weight + weight > most {
            return Err(error::too_much(self.locks.len() + self.memberships.len(), self.weight, most));
        }
        self.weight += weight;
        Ok(())
    }

    fn is_held(&self, id: RequestId) -> bool {
        let lock = self.locks.get(&id).is_some_and(|lock| lock.status == Status::Held);
        lock || self.memberships.get(&id).is_some_and(|membership| membership.status == Status::Held)
    }

    /// The path of what is held under that id.
    fn path(&self, id: RequestId, queue: impl Fn(&LockKey) -> String) -> Option<String> {
        match self.locks.get(&id) {
            Some(HeldLock { key, known: NodeState::Made(node), status: Status::Held, .. }) => {
                Some(format!("{}/{}", queue(key), node.name))
            }
            Some(_) => None,
            None => {
                let membership = self.memberships.get(&id)?;
                (membership.status == Status::Held).then(|| membership.path.clone())
            }
        }
    }
}
