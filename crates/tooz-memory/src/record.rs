//! One record of the store, as it stands in memory: a lock with its holders and its queue, a group with its members, each with its watchers; or a session.
//!
//! A request for a lock is in one of these states; each change of a lock grants the longest run at the head of the queue that the mode admits.
//!
//! | state | stands in | leaves it by |
//! |---|---|---|
//! | unknown | nothing | a try that finds the lock free (held); a wait that does not (queued) |
//! | queued | `queue` | its turn (held); a release or the end of its session (unknown) |
//! | held | `holders`, `tokens` | a release, a break, or the end of its session (unknown) |

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use tokio::sync::oneshot;
use tooz_core::driver::{Change, Granted, Moment, Pushed, Reporter, RequestId, Watchers};
use tooz_core::{FencingToken, Holder, LockMode, MemberId, RosterEntry, Waiter};

#[derive(Default)]
pub(crate) struct LockRecord {
    /// By token: thousands of readers of one lock cost no more each than one does.
    pub(crate) holders: BTreeMap<FencingToken, Grant>,
    pub(crate) tokens: BTreeMap<RequestId, FencingToken>,
    pub(crate) queue: VecDeque<QueuedRequest>,
    pub(crate) watchers: Watchers,
    /// Counts the grants that came and went.
    pub(crate) changes: u64,
}

pub(crate) struct Grant {
    pub(crate) request: RequestId,
    pub(crate) session: u64,
    pub(crate) holder: Holder,
}

pub(crate) struct QueuedRequest {
    pub(crate) request: RequestId,
    pub(crate) session: u64,
    pub(crate) waiter: Waiter,
    pub(crate) granted: oneshot::Sender<Granted>,
}

impl LockRecord {
    pub(crate) fn is_free(&self) -> bool {
        self.holders.is_empty() && self.queue.is_empty()
    }

    pub(crate) fn admits(&self, mode: LockMode) -> bool {
        // Holders beside each other hold it in the same mode.
        self.holders.values().next().is_none_or(|grant| !grant.holder.mode.conflicts_with(mode))
    }

    pub(crate) fn remove(&mut self, token: FencingToken) {
        if let Some(grant) = self.holders.remove(&token) {
            self.tokens.remove(&grant.request);
            self.changes += 1;
        }
    }

    pub(crate) fn grant(
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

    pub(crate) fn tell(&mut self) {
        self.watchers.push(&Pushed::Dirty);
    }
}

#[derive(Default)]
pub(crate) struct GroupRecord {
    pub(crate) members: BTreeMap<MemberId, (u64, RosterEntry)>,
    pub(crate) version: u64,
    pub(crate) watchers: Watchers,
}

impl GroupRecord {
    pub(crate) fn change(&mut self, change: &Change) {
        let after = Some(self.version);
        self.version += 1;
        self.watchers.push(&Pushed::Delta { after, version: self.version, change: change.clone() });
    }

    pub(crate) fn remove(&mut self, member: &MemberId) {
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

pub(crate) struct SessionRecord {
    pub(crate) member: MemberId,
    pub(crate) expires: Moment,
    pub(crate) reporter: Reporter,
    /// Grants that were broken since the last beat.
    pub(crate) revoked: Vec<RequestId>,
    /// Requests that were taken back before they arrived.
    pub(crate) void: VoidRequests,
}

/// The last requests that were taken back before they arrived, as one may that was delayed on its way. So many are remembered as can be
/// on their way at once.
#[derive(Default)]
pub(crate) struct VoidRequests(VecDeque<RequestId>);

impl VoidRequests {
    const MOST: usize = 1024;

    pub(crate) fn add(&mut self, request: RequestId) {
        if !self.has(request) {
            if self.0.len() == Self::MOST {
                self.0.pop_front();
            }
            self.0.push_back(request);
        }
    }

    pub(crate) fn has(&self, request: RequestId) -> bool {
        self.0.contains(&request)
    }
}
