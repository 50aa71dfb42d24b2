//! What the session believes it holds, its locks and memberships: changed only in the order in which things happen on its connection.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tooz_core::driver::{LockKey, LockRequest, Mutex, MutexGuard, Owned, Reporter, RequestId};
use tooz_core::{Error, FencingToken, GroupId, LockMode};

use crate::error;
use crate::layout::Doors;
use crate::pool::GateOpening;

/// How long a reader waits for a young grant to be written down, and a session that was asked goes on writing each one down at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// What one session holds.
pub(crate) struct Holdings {
    /// The session's number.
    pub(crate) session: i64,
    pub(crate) namespace: String,
    pub(crate) reporter: Reporter,
    state: Mutex<HoldingsState>,
    /// Something was granted that is not written down yet.
    pub(crate) granted: Notify,
    /// A reader wants to know what is held and not written down yet.
    asked: Notify,
}

#[derive(Default)]
struct HoldingsState {
    locks: HashMap<RequestId, HeldLock>,
    /// How many shared grants of the session stand behind one shared advisory lock.
    shared: HashMap<i64, usize>,
    memberships: HashMap<RequestId, GroupId>,
    /// Grants that are not written down yet.
    unwritten: usize,
    /// Until when each grant is written down at once.
    attentive_until: Option<Instant>,
    /// Gates that are just being opened behind a grant.
    gates: HashMap<RequestId, GateOpening>,
}

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

/// What taking or giving back a grant means for the advisory lock. It is taken once by a session however many shared grants
/// stand on it, so that after a failure it is known what is to be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grip {
    /// Nothing: other shared grants of this session stand on it.
    Had = 0,
    Shared = 1,
    Exclusive = 2,
}

impl Grip {
    /// As the statements take it.
    pub(crate) fn number(self) -> i32 {
        self as i32
    }
}

impl Holdings {
    pub(crate) fn new(session: i64, namespace: &str, reporter: Reporter) -> Self {
        Holdings {
            session,
            namespace: namespace.to_owned(),
            reporter,
            state: Mutex::default(),
            granted: Notify::new(),
            asked: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, HoldingsState> {
        self.state.lock()
    }

    pub(crate) fn held(&self, id: RequestId) -> Option<HeldLock> {
        self.state().locks.get(&id).cloned()
    }

    /// What has to be taken for one more grant.
    pub(crate) fn grip_to_take(&self, doors: Doors, mode: LockMode) -> Grip {
        match mode {
            LockMode::Exclusive => Grip::Exclusive,
            LockMode::Shared if self.state().shared.contains_key(&doors.lock) => Grip::Had,
            LockMode::Shared => Grip::Shared,
        }
    }

    /// What has to be given back with this grant.
    pub(crate) fn grip_to_give(&self, held: &HeldLock) -> Grip {
        match held.mode {
            LockMode::Exclusive => Grip::Exclusive,
            LockMode::Shared if self.state().shared.get(&held.doors.lock).is_some_and(|count| *count > 1) => Grip::Had,
            LockMode::Shared => Grip::Shared,
        }
    }

    pub(crate) fn note(&self, request: &LockRequest, doors: Doors, token: FencingToken) {
        let held = HeldLock {
            key: request.key.clone(),
            doors,
            mode: request.mode,
            token,
            since: Instant::now(),
            written: false,
        };
        {
            let mut state = self.state();
            if held.mode == LockMode::Shared {
                *state.shared.entry(doors.lock).or_default() += 1;
            }
            state.unwritten += 1;
            state.locks.insert(request.id, held);
        }
        self.granted.notify_one();
    }

    pub(crate) fn strike(&self, id: RequestId) {
        let mut state = self.state();
        let Some(held) = state.locks.remove(&id) else { return };
        state.gates.remove(&id);
        if !held.written {
            state.unwritten -= 1;
        }
        if held.mode == LockMode::Shared
            && let Some(count) = state.shared.get_mut(&held.doors.lock)
        {
            *count -= 1;
            if *count == 0 {
                state.shared.remove(&held.doors.lock);
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

    /// A connection was found to lead to another process of the server than before: behind it are other clients.
    pub(crate) fn shared_connection(&self) -> Error {
        self.reporter.session_lost("the session's connection is shared with others");
        error::behind_pooler()
    }

    /// A reader looks, and will look again: for a while everything is written down at once.
    pub(crate) fn be_attentive(&self) {
        self.state().attentive_until = Some(Instant::now() + PATIENCE);
        self.asked.notify_one();
    }

    /// Ends when a reader looks.
    pub(crate) async fn attention(&self) {
        while self.state().attentive_until.is_none_or(|until| until < Instant::now()) {
            self.asked.notified().await;
        }
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

    /// How many memberships there are.
    pub(crate) fn memberships(&self) -> i64 {
        i64::try_from(self.state().memberships.len()).unwrap_or(i64::MAX)
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

    /// Tells core of all memberships that are not among those that the server has.
    pub(crate) fn robbed_of_all_but(&self, there: &HashSet<RequestId>) {
        let gone: Vec<_> = self.state().memberships.keys().filter(|id| !there.contains(id)).copied().collect();
        for id in gone {
            self.robbed(id);
        }
    }
}
