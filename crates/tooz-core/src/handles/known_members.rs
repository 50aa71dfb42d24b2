//! The members of a group as a watch knows them, and how many they are, for operators.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::id::{GroupId, MemberId};
use crate::base::mutex::{Mutex, MutexGuard};
use crate::driver::roster::RosterEntry;
use crate::engine::inner::Inner;
use crate::engine::telemetry::Telemetry;

/// The members as the watch knows them, changed in one step with what is told of it.
pub(super) struct KnownMembers {
    members: Mutex<Members>,
    telemetry: Arc<Telemetry>,
    group: Arc<str>,
}

pub(super) type Members = BTreeMap<MemberId, RosterEntry>;

impl KnownMembers {
    pub(super) fn new(inner: &Inner, group: &GroupId) -> Arc<Self> {
        let telemetry = Arc::clone(&inner.telemetry);
        Arc::new(KnownMembers { members: Mutex::default(), telemetry, group: group.as_str().into() })
    }

    /// Takes the members as they are from now on in place of those that were known.
    pub(super) fn replace(&self, known: &mut Members, new: Members) {
        self.telemetry.members(&self.group, new.len().cast_signed() - known.len().cast_signed());
        *known = new;
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock()
    }
}

impl Drop for KnownMembers {
    fn drop(&mut self) {
        let known = std::mem::take(&mut *self.members.lock());
        self.telemetry.members(&self.group, -known.len().cast_signed());
    }
}
