//! The store: what a server would keep, in one mutex, with a clock that a test can move.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tooz_core::driver::{Clock, LockKey, Moment, Mutex, MutexGuard, Reporter, RequestId};
use tooz_core::{FencingToken, GroupId, MemberId, Result};

use crate::fault::Fault;
use crate::group::GroupRecord;
use crate::lock::LockRecord;

/// One store by its name: what `memory://NAME` connects to, and what a test does to it. A cheap clone.
///
/// A store lives as long as the process.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) clock: Clock,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) sessions: HashMap<u64, SessionRecord>,
    /// By namespace and key.
    pub(crate) locks: HashMap<(Arc<str>, LockKey), LockRecord>,
    pub(crate) groups: BTreeMap<(Arc<str>, GroupId), GroupRecord>,
    pub(crate) script: Vec<Fault>,
    pub(crate) cut_off: Vec<MemberId>,
    pub(crate) last_token: u64,
    last_session: u64,
    /// Whether any request was ever taken back before it arrived.
    has_void: bool,
    /// No session ends before this moment: a lower bound, so that most calls need not look.
    next_expiry: Moment,
}

pub(crate) struct SessionRecord {
    pub(crate) member: MemberId,
    pub(crate) expires: Moment,
    pub(crate) reporter: Reporter,
    /// Grants that were broken since the last beat.
    pub(crate) revoked: Vec<RequestId>,
    /// Requests that were taken back before they arrived.
    pub(crate) void: Voided,
}

/// The last requests that were taken back before they arrived, as one may that was delayed on its way. So many are remembered as can be
/// on their way at once.
#[derive(Default)]
pub(crate) struct Voided(VecDeque<RequestId>);

impl Voided {
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

impl Store {
    /// The store of that name; made when it is first asked for.
    pub fn named(name: &str) -> Self {
        static STORES: OnceLock<Mutex<HashMap<String, Store>>> = OnceLock::new();
        let stores = STORES.get_or_init(Mutex::default);
        let mut stores = stores.lock();
        stores.entry(name.to_owned()).or_insert_with(|| Store::new(name)).clone()
    }

    fn new(name: &str) -> Self {
        Store(Arc::new(Shared {
            name: name.to_owned(),
            clock: Clock::movable(),
            state: Mutex::new(State {
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

    /// Ends the sessions of this member, as a server does that gave up on it. The member is told before anybody else gets what it had.
    pub fn expire(&self, member: &MemberId) {
        let sessions: Vec<_> = {
            let state = self.0.state();
            let own = state.sessions.iter().filter(|(_, session)| session.member == *member);
            own.map(|(id, session)| (*id, session.reporter.clone())).collect()
        };
        // Who is told may ask the store something there and then, so nothing of it is locked meanwhile.
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
        reporters.iter().for_each(Reporter::disconnected);
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

    /// What is in the store: after everybody has closed, nothing but groups.
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

impl Shared {
    /// The state as of now: sessions whose time is over have ended.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
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

    pub(crate) fn break_lock(&self, place: &(Arc<str>, LockKey), token: FencingToken) -> Result<()> {
        let (request, reporter) = self.state().revoke(place, token)?;
        if let Some(reporter) = reporter {
            reporter.grant_lost(request);
        }
        self.state().release(place, request);
        Ok(())
    }
}

impl State {
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

    fn sweep(&mut self, now: Moment) {
        let over: Vec<_> =
            self.sessions.iter().filter(|(_, session)| session.expires <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.end_session(id);
        }
        self.next_expiry = self.sessions.values().map(|session| session.expires).min().unwrap_or(Moment::NEVER);
    }

    fn reporters_of(&self, member: &MemberId) -> Vec<Reporter> {
        self.sessions
            .values()
            .filter(|session| session.member == *member)
            .map(|session| session.reporter.clone())
            .collect()
    }
}
