//! What the session believes to have at the server: grants and memberships; in which turn that is looked after; and which requests are in doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use tooz_core::driver::{JoinRequest, LockKey, Mutex, MutexGuard, Reporter, RequestId};

use crate::reply::Version;

/// How many of each are looked after at once, so that it costs the same whatever is held.
const LOOKED_AFTER: usize = 64;

pub(crate) struct Holdings {
    reporter: Reporter,
    state: Mutex<HoldingsState>,
}

#[derive(Default)]
struct HoldingsState {
    held: BTreeMap<RequestId, HeldLock>,
    joined: BTreeMap<RequestId, HeldMembership>,
    /// Requests that may stand in the record with that key.
    asked: BTreeMap<RequestId, String>,
    /// What was asked without an answer may yet come to the server: it is given back in a way that holds for that, too.
    in_doubt: BTreeSet<RequestId>,
    /// Grants that were taken away before they were known to be given.
    taken: BTreeSet<RequestId>,
    turn: Option<RequestId>,
    members_turn: Option<RequestId>,
}

/// Some of what is held, by its requests.
pub(crate) type Few<V> = Vec<(RequestId, V)>;

/// A grant of this session.
#[derive(Clone, Debug)]
pub(crate) struct HeldLock {
    pub(crate) lock: LockKey,
    /// Where the lock stands.
    pub(crate) key: String,
    /// The last token of the journal: a place behind this one may have had a later one.
    pub(crate) last_token: u64,
    /// In which version of the record it was last seen.
    pub(crate) version: Version,
    /// What stood there beside it, where that was no other place: what is to be remembered of requests in doubt.
    pub(crate) beside: Option<String>,
}

/// A membership of this session.
#[derive(Clone, Debug)]
pub(crate) struct HeldMembership {
    /// With its latest capabilities.
    pub(crate) request: JoinRequest,
    pub(crate) key: String,
    pub(crate) version: Version,
    /// By which entry the group was made.
    pub(crate) made_by: u64,
    /// How often its capabilities were changed.
    pub(crate) count: u64,
}

impl Holdings {
    pub(crate) fn new(reporter: Reporter) -> Self {
        Holdings { reporter, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, HoldingsState> {
        self.state.lock()
    }

    /// From now on this grant is looked after. `false`: it was taken away already.
    pub(crate) fn hold(&self, request: RequestId, grant: HeldLock) -> bool {
        let mut state = self.state();
        if state.taken.remove(&request) {
            return false;
        }
        state.held.insert(request, grant);
        true
    }

    /// The grant is about to be given back: it won't be missed.
    pub(crate) fn forget(&self, request: RequestId) -> Option<HeldLock> {
        let mut state = self.state();
        state.taken.remove(&request);
        state.held.remove(&request)
    }

    /// From now on that request may stand in the record with that key.
    pub(crate) fn ask(&self, request: RequestId, key: &str) {
        self.state().asked.insert(request, key.to_owned());
    }

    /// The records in which this session may stand, or what it has withdrawn.
    pub(crate) fn records(&self) -> BTreeSet<String> {
        self.state().asked.values().cloned().collect()
    }

    /// What was asked by this request may come to the server later.
    pub(crate) fn doubt(&self, request: RequestId) {
        self.state().in_doubt.insert(request);
    }

    pub(crate) fn is_in_doubt(&self, request: RequestId) -> bool {
        self.state().in_doubt.contains(&request)
    }

    /// What was asked has come, and has no effect any more, nor has what may come late.
    pub(crate) fn settle(&self, request: RequestId) {
        let mut state = self.state();
        state.in_doubt.remove(&request);
        state.asked.remove(&request);
    }

    /// Another says that the grant was taken away.
    pub(crate) fn broken(&self, request: RequestId) {
        let mut state = self.state();
        if state.held.remove(&request).is_none() {
            state.taken.insert(request);
        }
        drop(state);
        self.reporter.grant_lost(request);
    }

    /// The grant is not in the record that was read.
    pub(crate) fn miss(&self, request: RequestId) {
        if self.state().held.remove(&request).is_some() {
            self.reporter.grant_lost(request);
        }
    }

    /// The grant was seen in that version.
    pub(crate) fn saw(&self, request: RequestId, seen: HeldLock) {
        if let Some(grant) = self.state().held.get_mut(&request) {
            *grant = seen;
        }
    }

    /// From now on this membership is looked after.
    pub(crate) fn join(&self, request: RequestId, membership: HeldMembership) {
        self.state().joined.entry(request).or_insert(membership);
    }

    /// The membership is about to end. `false`: there was none.
    pub(crate) fn leave(&self, request: RequestId) -> bool {
        self.state().joined.remove(&request).is_some()
    }

    /// Its capabilities are about to be these. Answers the number of that change; `None`: there is no such membership.
    pub(crate) fn change(&self, request: &JoinRequest) -> Option<u64> {
        let mut state = self.state();
        let membership = state.joined.get_mut(&request.id)?;
        membership.request.capabilities = request.capabilities.clone();
        membership.count += 1;
        Some(membership.count)
    }

    /// What this membership is to be at the server; `None`: there is no such membership.
    pub(crate) fn membership(&self, request: RequestId) -> Option<HeldMembership> {
        self.state().joined.get(&request).cloned()
    }

    /// The membership was taken over.
    pub(crate) fn ousted(&self, request: RequestId) {
        let membership = self.state().joined.remove(&request);
        if let Some(membership) = membership {
            self.reporter.membership_lost(&membership.request.group, request);
        }
    }

    /// The membership was seen in that version, in a group that was made by that entry.
    pub(crate) fn saw_membership(&self, request: RequestId, version: Version, made_by: u64) {
        if let Some(membership) = self.state().joined.get_mut(&request) {
            membership.version = version;
            membership.made_by = made_by;
        }
    }

    /// All grants that should be at the server.
    pub(crate) fn held(&self) -> Vec<(RequestId, HeldLock)> {
        self.state().held.iter().map(|(request, grant)| (*request, grant.clone())).collect()
    }

    /// All memberships that should be at the server.
    pub(crate) fn joined(&self) -> Vec<(RequestId, HeldMembership)> {
        self.state().joined.iter().map(|(request, membership)| (*request, membership.clone())).collect()
    }

    /// The next few grants and memberships to look after.
    pub(crate) fn next_few(&self) -> (Few<HeldLock>, Few<HeldMembership>) {
        let mut state = self.state();
        let HoldingsState { held, joined, turn, members_turn, .. } = &mut *state;
        (next_few(held, turn), next_few(joined, members_turn))
    }

    /// Whether there is anything that could be taken away.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state();
        state.held.is_empty() && state.joined.is_empty()
    }
}

/// The next few behind `turn`, which moves on, and begins anew behind the last.
fn next_few<V: Clone>(all: &BTreeMap<RequestId, V>, turn: &mut Option<RequestId>) -> Vec<(RequestId, V)> {
    let behind = (turn.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
    let few: Vec<_> = all.range(behind).take(LOOKED_AFTER).map(|(request, value)| (*request, value.clone())).collect();
    *turn = few.last().filter(|_| few.len() == LOOKED_AFTER).map(|(request, _)| *request);
    few
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_their_turn() {
        let all: BTreeMap<_, _> = (0..150).map(|number| (RequestId(number), number)).collect();
        let mut turn = None;
        let counts = [(); 4].map(|()| next_few(&all, &mut turn).len());
        assert_eq!(counts, [64, 64, 22, 64]);
    }
}
