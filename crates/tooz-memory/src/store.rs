//! The store: what a server would keep, in one mutex, with a clock that a test can move.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tooz_core::driver::{Clock, LockKey, Moment, Mutex, MutexGuard, Reporter};
use tooz_core::{FencingToken, MemberId, Result};

use crate::error::cut_off;
use crate::fault::Fault;
use crate::record::{GroupRecord, LockRecord};
use crate::state::{InNamespace, StoreState};

/// One store by its name: what `memory://NAME` connects to, and what a test does to it. A cheap clone.
///
/// A store lives as long as the process.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<StoreInner>);

pub(crate) struct StoreInner {
    pub(crate) name: String,
    pub(crate) clock: Clock,
    state: Mutex<StoreState>,
}

impl Store {
    /// The store of that name; made when it is first asked for.
    pub fn named(name: &str) -> Self {
        static STORES: OnceLock<Mutex<HashMap<String, Store>>> = OnceLock::new();
        let stores = STORES.get_or_init(Mutex::default);
        let mut stores = stores.lock();
        stores.entry(name.to_owned()).or_insert_with(|| Store::new(name)).clone()
    }

    fn new(name: &str) -> Self {
        Store(Arc::new(StoreInner {
            name: name.to_owned(),
            clock: Clock::movable(),
            state: Mutex::new(StoreState {
                sessions: HashMap::new(),
                locks: HashMap::new(),
                groups: BTreeMap::new(),
                script: Vec::new(),
                cut_off: Vec::new(),
                last_token: 0,
                last_session: 0,
                has_void: false,
                next_expiry: Moment::NEVER,
            }),
        }))
    }

    /// Moves the clock of the store, and of all that is connected to it, forward. Sessions whose time is over end.
    pub fn advance(&self, by: Duration) {
        self.0.clock.advance(by);
        drop(self.0.state());
    }

    /// Ends the sessions of this member, as a server does that gave up on it. The member is told before another gets what it had.
    pub fn expire(&self, member: &MemberId) {
        let sessions: Vec<_> = {
            let state = self.0.state();
            let own = state.sessions.iter().filter(|(_, session)| session.member == *member);
            own.map(|(id, session)| (*id, session.reporter.clone())).collect()
        };
        // The listener may ask the store something there and then, so nothing of it is locked meanwhile.
        for (id, reporter) in sessions {
            reporter.session_lost("the session was expired");
            self.0.state().end_session(id);
        }
    }

    /// Cuts the member off: whatever it asks fails until [`heal`](Self::heal), and its sessions run out.
    pub fn partition(&self, member: &MemberId) {
        let reporters = {
            let mut state = self.0.state();
            state.cut_off.push(member.clone());
            state.reporters_of(member)
        };
        for reporter in reporters {
            reporter.disconnected(cut_off());
        }
    }

    /// Connects the member again.
    pub fn heal(&self, member: &MemberId) {
        let reporters = {
            let mut state = self.0.state();
            state.cut_off.retain(|one| one != member);
            state.reporters_of(member)
        };
        reporters.iter().for_each(Reporter::connected);
    }

    /// Adds a line to the fault script.
    pub fn script(&self, fault: Fault) {
        self.0.state().script.push(fault);
    }

    /// Whether every line of the fault script has happened. Lines for [each](Fault::each) operation never have.
    pub fn is_script_done(&self) -> bool {
        self.0.state().script.is_empty()
    }

    /// Takes every line out of the fault script: from here on nothing goes wrong.
    pub fn clear_script(&self) {
        self.0.state().script.clear();
    }

    /// What is in the store: after all have closed, nothing but groups.
    pub fn census(&self) -> Census {
        let state = self.0.state();
        let mut census = Census { sessions: state.sessions.len(), groups: state.groups.len(), ..Census::default() };
        for [held, waiting, watching] in state.locks.values().map(LockRecord::count) {
            census.held += held;
            census.waiting += waiting;
            census.watching += watching;
        }
        for [members, watching] in state.groups.values().map(GroupRecord::count) {
            census.members += members;
            census.watching += watching;
        }
        census
    }
}

/// How much of everything is in a [`Store`]: see [`Store::census`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Open sessions.
    pub sessions: usize,
    /// Grants of locks and elections.
    pub held: usize,
    /// Places in queues.
    pub waiting: usize,
    /// Groups, with and without members.
    pub groups: usize,
    /// Members of all groups.
    pub members: usize,
    /// Watches of groups and elections.
    pub watching: usize,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Store").field(&self.0.name).finish()
    }
}

impl StoreInner {
    /// The state as of now: sessions whose time is over have ended.
    pub(crate) fn state(&self) -> MutexGuard<'_, StoreState> {
        let mut state = self.state.lock();
        let now = self.clock.now();
        if now >= state.next_expiry {
            state.sweep(now);
        }
        state
    }

    pub(crate) fn next_expiry(&self) -> Moment {
        self.state().next_expiry
    }

    pub(crate) fn break_lock(&self, key: &InNamespace<LockKey>, token: FencingToken) -> Result<()> {
        let (request, reporter) = self.state().revoke(key, token)?;
        if let Some(reporter) = reporter {
            reporter.grant_lost(request);
        }
        self.state().release(key, request);
        Ok(())
    }
}
