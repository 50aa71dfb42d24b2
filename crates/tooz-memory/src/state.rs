//! What a server would keep: sessions, locks, groups, and what a test has ordered to go wrong. Each change of it is one step.

pub(crate) mod groups;
pub(crate) mod locks;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tooz_core::driver::{LockKey, Moment, Reporter, RequestId};
use tooz_core::{GroupId, MemberId};

use crate::fault::Fault;
use crate::state::groups::GroupRecord;
use crate::state::locks::LockRecord;

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

impl Default for State {
    fn default() -> Self {
        State {
            sessions: HashMap::new(),
            locks: HashMap::new(),
            groups: BTreeMap::new(),
            script: Vec::new(),
            cut_off: Vec::new(),
            last_token: 0,
            last_session: 0,
            has_void: false,
            next_expiry: Moment::NEVER,
        }
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

    /// No session ends before this moment.
    pub(crate) fn next_expiry(&self) -> Moment {
        self.next_expiry
    }

    pub(crate) fn end_what_is_over(&mut self, now: Moment) {
        if now < self.next_expiry {
            return;
        }
        let over: Vec<_> =
            self.sessions.iter().filter(|(_, session)| session.expires <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.end_session(id);
        }
        self.next_expiry = self.sessions.values().map(|session| session.expires).min().unwrap_or(Moment::NEVER);
    }

    pub(crate) fn reporters_of(&self, member: &MemberId) -> Vec<Reporter> {
        self.sessions
            .values()
            .filter(|session| session.member == *member)
            .map(|session| session.reporter.clone())
            .collect()
    }
}
