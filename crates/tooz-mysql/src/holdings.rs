//! What the session believes it holds, its locks and memberships: changed only in the order in which things happen on its connection.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tooz_core::driver::{LockKey, LockRequest, Mutex, MutexGuard, Owned, Reporter, RequestId};
use tooz_core::{Error, FencingToken, GroupId, LockMode, MemberId};

use crate::fence::Fence;
use crate::layout::{Doors, Layout, Name};
use crate::pool::GateOpening;
use crate::summons::Summons;
use crate::{error, server};

/// How long a reader waits for a young grant to be written down.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// How many grants are remembered that were given back and still stand in the table.
const LEFTOVERS: usize = 20_000;

/// What one session holds.
pub(crate) struct Holdings {
    /// The session's name, which is that of the named lock by which it is known to live.
    pub(crate) session: Name,
    /// The number by which the server knows its connection.
    pub(crate) number: i64,
    pub(crate) member: MemberId,
    pub(crate) layout: Layout,
    pub(crate) fence: Fence,
    pub(crate) reporter: Reporter,
    state: Mutex<HoldingsState>,
    /// Something was granted that is not written down yet, or given back that is still written down.
    pub(crate) granted: Notify,
    /// Another session may have taken a membership over.
    pub(crate) news: Notify,
    /// Where the watchdog is asked whether the server is at work for the session's connection.
    pub(crate) summons: Summons,
    /// How many heartbeats there were: what is written down is to be looked at behind each.
    pub(crate) beats: watch::Sender<u64>,
}

#[derive(Default)]
struct HoldingsState {
    locks: HashMap<RequestId, HeldLock>,
    /// How many shared grants of the session stand behind one named lock.
    shared: HashMap<Name, usize>,
    /// The locks of which it is written down what stands for a share of this session, and since when none is held, at the earliest.
    written_shares: BTreeMap<Name, Instant>,
    memberships: HashMap<RequestId, GroupId>,
    /// Grants that are not written down yet.
    unwritten: usize,
    /// The grants that were given back and still stand in the table, by their locks.
    leftovers: HashMap<Name, Vec<RequestId>>,
    /// How many there are.
    left: usize,
    /// Gates that are just being opened behind a grant.
    gates: HashMap<RequestId, GateOpening>,
}

impl HoldingsState {
    fn leave(&mut self, lock: &Name, id: RequestId) {
        // What is not remembered is found by the look behind a heartbeat.
        if self.left < LEFTOVERS {
            let ids = self.leftovers.entry(lock.clone()).or_default();
            if !ids.contains(&id) {
                ids.push(id);
                self.left += 1;
            }
        }
    }

    fn forget(&mut self, lock: &Name, id: RequestId) {
        let Some(ids) = self.leftovers.get_mut(lock) else { return };
        let before = ids.len();
        ids.retain(|one| *one != id);
        self.left -= before - ids.len();
        if ids.is_empty() {
            self.leftovers.remove(lock);
        }
    }
}

/// A grant as it is known in the table: its lock and its request.
pub(crate) type Row = (String, RequestId);

/// One grant.
#[derive(Clone, Debug)]
pub(crate) struct HeldLock {
    pub(crate) key: LockKey,
    pub(crate) doors: Doors,
    pub(crate) mode: LockMode,
    pub(crate) token: FencingToken,
    pub(crate) since: Instant,
    /// Whether it stands in the table.
    pub(crate) written: bool,
}

/// What taking or giving back a grant means for the named lock. It is taken once by a session however many shared grants
/// stand on it, so that after a failure it is known what is to be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grip {
    /// Nothing: other shared grants of this session stand on it.
    Had,
    Shared,
    Exclusive,
}

impl Holdings {
    pub(crate) fn new(
        session: Name,
        number: i64,
        member: MemberId,
        layout: Layout,
        fence: Fence,
        reporter: Reporter,
    ) -> Self {
        Holdings {
            session,
            number,
            member,
            layout,
            fence,
            reporter,
            state: Mutex::default(),
            granted: Notify::new(),
            news: Notify::new(),
            summons: Summons::default(),
            beats: watch::Sender::new(0),
        }
    }

    /// The condition that the connection is the session's: behind a pooler it may be another's. A number is used again after a restart of the
    /// server, a name is not.
    pub(crate) fn is_ours(&self) -> String {
        format!("IS_USED_LOCK('{}') = CONNECTION_ID()", self.session)
    }

    fn state(&self) -> MutexGuard<'_, HoldingsState> {
        self.state.lock()
    }

    pub(crate) fn held(&self, id: RequestId) -> Option<HeldLock> {
        self.state().locks.get(&id).cloned()
    }

    /// What has to be taken for one more grant.
    pub(crate) fn grip_to_take(&self, doors: &Doors, mode: LockMode) -> Grip {
        match mode {
            LockMode::Exclusive => Grip::Exclusive,
            LockMode::Shared if self.state().shared.contains_key(&doors.lock) => Grip::Had,
            LockMode::Shared => Grip::Shared,
        }
    }

    /// What has to be given back with this grant, where so many other shares of its lock are given back before it.
    pub(crate) fn grip_to_give(&self, held: &HeldLock, before: usize) -> Grip {
        let others = |count: &usize| *count > before + 1;
        match held.mode {
            LockMode::Exclusive => Grip::Exclusive,
            LockMode::Shared if self.state().shared.get(&held.doors.lock).is_some_and(others) => Grip::Had,
            LockMode::Shared => Grip::Shared,
        }
    }

    pub(crate) fn note(&self, request: &LockRequest, doors: &Doors, token: FencingToken) {
        let held = HeldLock {
            key: request.key.clone(),
            doors: doors.clone(),
            mode: request.mode,
            token,
            since: Instant::now(),
            written: false,
        };
        {
            let mut state = self.state();
            if held.mode == LockMode::Shared {
                *state.shared.entry(doors.lock.clone()).or_default() += 1;
            }
            state.unwritten += 1;
            state.locks.insert(request.id, held);
        }
        self.granted.notify_one();
    }

    /// The grant is given back. What was written of it is taken away soon.
    pub(crate) fn strike(&self, id: RequestId) {
        let mut state = self.state();
        let Some(held) = state.locks.remove(&id) else { return };
        state.gates.remove(&id);
        if held.written {
            state.leave(&held.doors.lock, id);
            self.granted.notify_one();
        } else {
            state.unwritten -= 1;
        }
        if held.mode == LockMode::Shared
            && let Some(count) = state.shared.get_mut(&held.doors.lock)
        {
            *count -= 1;
            if *count == 0 {
                state.shared.remove(&held.doors.lock);
                if let Some(since) = state.written_shares.get_mut(&held.doors.lock) {
                    *since = Instant::now();
                }
            }
        }
    }

    /// The gate of the lock that was granted is about to open.
    pub(crate) fn opens_its_gate(&self, id: RequestId, opened: GateOpening) {
        let mut state = self.state();
        // A grant that was given back meanwhile has no gate to wait for.
        if state.locks.contains_key(&id) {
            state.gates.insert(id, opened);
        }
    }

    /// Waits until no request finds the gate shut because of this grant.
    pub(crate) async fn gate_is_open(&self, id: RequestId) {
        let opening = self.state().gates.remove(&id);
        if let Some(opened) = opening {
            // An error: its connection was closed, and the server opens the gate.
            let _ = opened.await;
        }
    }

    /// The connection was found not to be the session's any more: behind it are other clients.
    pub(crate) fn shared_connection(&self) -> Error {
        self.reporter.session_lost("the session's connection does not hold the session's own lock");
        error::behind_pooler()
    }

    /// The server was found to be read-only: this session must not go on there.
    pub(crate) fn read_only(&self) -> Error {
        let why = server::read_only("read_only");
        self.reporter.session_lost(&why);
        error::lost(why)
    }

    /// Whether the session has a share of that lock.
    pub(crate) fn shares(&self, lock: &Name) -> bool {
        self.state().shared.contains_key(lock)
    }

    /// Whether it is written down what stands for a share of that lock.
    pub(crate) fn has_written_share(&self, lock: &str) -> bool {
        self.state().written_shares.contains_key(lock)
    }

    pub(crate) fn note_written_share(&self, lock: &Name) {
        self.state().written_shares.insert(lock.clone(), Instant::now());
    }

    /// At most `most` locks of which a share is written down, and none was held for so long.
    pub(crate) fn idle_shares(&self, age: Duration, most: usize) -> Vec<Name> {
        let state = self.state();
        let is_idle = |lock: &Name, since: &Instant| since.elapsed() >= age && !state.shared.contains_key(lock);
        let idle = state.written_shares.iter().filter(|(lock, since)| is_idle(lock, since));
        idle.take(most).map(|(lock, _)| lock.clone()).collect()
    }

    /// What was written down of these shares is gone.
    pub(crate) fn forget_shares(&self, locks: &[Name]) {
        let mut state = self.state();
        for lock in locks {
            state.written_shares.remove(lock);
        }
    }

    pub(crate) fn has_written_shares(&self) -> bool {
        !self.state().written_shares.is_empty()
    }

    /// At most `most` locks behind `from`, up to `to`, of which a share is written down, and whose names are not among `there`.
    pub(crate) fn shares_missing(&self, from: &str, to: Option<&str>, there: &HashSet<Name>, most: usize) -> Vec<Name> {
        let state = self.state();
        let range = (Bound::Excluded(from), to.map_or(Bound::Unbounded, Bound::Included));
        let known = state.written_shares.range::<str, _>(range).map(|(lock, _)| lock);
        known.filter(|lock| !there.contains(*lock)).take(most).cloned().collect()
    }

    /// The grants that share one of these locks, and which.
    pub(crate) fn sharing(&self, locks: &HashSet<Name>) -> Vec<(RequestId, Name)> {
        let state = self.state();
        let grants = state.locks.iter().filter(|(_, held)| held.mode == LockMode::Shared);
        let theirs = grants.filter(|(_, held)| locks.contains(&held.doors.lock));
        theirs.map(|(id, held)| (*id, held.doors.lock.clone())).collect()
    }

    /// Whether anything waits to be written down, however young.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.state().unwritten > 0
    }

    /// At most `most` grants that are not written down although they are this old.
    pub(crate) fn unwritten(&self, age: Duration, most: usize) -> Vec<(RequestId, HeldLock)> {
        let state = self.state();
        if state.unwritten == 0 {
            return Vec::new();
        }
        let due = state.locks.iter().filter(|(_, held)| !held.written && held.since.elapsed() >= age);
        due.take(most).map(|(id, held)| (*id, held.clone())).collect()
    }

    pub(crate) fn has_leftovers(&self) -> bool {
        self.state().left > 0
    }

    /// At least one of the leftovers, if there are any, and about `most` of them.
    pub(crate) fn leftovers(&self, most: usize) -> Vec<(Name, RequestId)> {
        let state = self.state();
        let each = state.leftovers.iter().flat_map(|(lock, ids)| ids.iter().map(|id| (lock.clone(), *id)));
        each.take(most).collect()
    }

    /// The leftovers of that lock.
    pub(crate) fn leftovers_of(&self, lock: &Name) -> Vec<(Name, RequestId)> {
        let state = self.state();
        state.leftovers.get(lock).into_iter().flatten().map(|id| (lock.clone(), *id)).collect()
    }

    /// These do not stand in the table any more.
    pub(crate) fn forget_leftovers(&self, gone: &[(Name, RequestId)]) {
        let mut state = self.state();
        for (lock, id) in gone {
            state.forget(lock, *id);
        }
    }

    /// Compares what stands in the table of this session's grants, behind `from` and up to `to`, with what it holds: what is missing there is written once
    /// more, and what is there too much is taken away.
    pub(crate) fn reconcile(&self, from: &Row, to: Option<&Row>, there: &HashSet<Row>) {
        let mut state = self.state();
        let state = &mut *state;
        let mut missing = 0;
        for (id, held) in &mut state.locks {
            let row = (held.doors.lock.to_string(), *id);
            if held.written && row > *from && to.is_none_or(|to| row <= *to) && !there.contains(&row) {
                held.written = false;
                missing += 1;
            }
        }
        state.unwritten += missing;
        for (lock, id) in there {
            if !state.locks.contains_key(id) {
                state.leave(&Name::from(lock.as_str()), *id);
            }
        }
        self.granted.notify_one();
    }

    /// Whether any grant stands in the table.
    pub(crate) fn has_written(&self) -> bool {
        let state = self.state();
        state.locks.len() > state.unwritten
    }

    pub(crate) fn note_written(&self, id: RequestId) {
        let mut state = self.state();
        if let Some(held) = state.locks.get_mut(&id)
            && !std::mem::replace(&mut held.written, true)
        {
            state.unwritten -= 1;
        }
    }

    pub(crate) fn owned(&self) -> Owned {
        Owned::new(self.state().locks.iter().map(|(id, held)| (held.key.clone(), *id)).collect())
    }

    pub(crate) fn enter(&self, id: RequestId, group: GroupId) {
        self.state().memberships.insert(id, group);
    }

    /// Whether there are any memberships.
    pub(crate) fn has_memberships(&self) -> bool {
        !self.state().memberships.is_empty()
    }

    pub(crate) fn leave(&self, id: RequestId) {
        self.state().memberships.remove(&id);
    }

    /// Tells core of a membership that another session took away.
    pub(crate) fn robbed(&self, id: RequestId) {
        let group = self.state().memberships.remove(&id);
        if let Some(group) = group {
            self.reporter.membership_lost(&group, id);
        }
    }

    /// The memberships that are not among those that the server has.
    pub(crate) fn memberships_missing(&self, there: &HashSet<RequestId>) -> Vec<RequestId> {
        self.state().memberships.keys().filter(|id| !there.contains(id)).copied().collect()
    }
}
