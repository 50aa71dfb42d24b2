//! The grants of one lock that the backend has not got back yet: what of it stands in the way of whom.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::RequestId;
use crate::loss::{Hold, LossReason};
use crate::session::LockMode;

/// Grants by their request, those of each mode apart: thousands may share one lock, and no question looks at all of them.
#[derive(Default)]
pub(crate) struct Held {
    exclusive: Grants,
    shared: Grants,
    /// What was found lost. With it may go the last of a session, which is not to be dropped under a lock.
    spent: Vec<Arc<Hold>>,
}

type Grants = BTreeMap<RequestId, Arc<Hold>>;

impl Held {
    pub(crate) fn add(&mut self, hold: &Arc<Hold>) {
        self.of(mode_of(hold)).insert(hold.id, Arc::clone(hold));
    }

    pub(crate) fn remove(&mut self, hold: &Hold) -> Option<Arc<Hold>> {
        self.of(mode_of(hold)).remove(&hold.id)
    }

    /// What is to be dropped once no lock is held.
    pub(crate) fn take_spent(&mut self) -> Vec<Arc<Hold>> {
        std::mem::take(&mut self.spent)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.exclusive.is_empty() && self.shared.is_empty()
    }

    /// Whether nothing is in the way of that mode. Takes out what is lost, as far as it looks.
    pub(crate) fn admits(&mut self, mode: LockMode) -> bool {
        let Held { exclusive, shared, spent } = self;
        !stands(exclusive, spent) && (mode == LockMode::Shared || !stands(shared, spent))
    }

    /// Whether all that is in the way was given back, and only has not arrived yet.
    pub(crate) fn is_coming_back(&self, mode: LockMode) -> bool {
        let coming = |grants: &Grants| grants.values().all(|hold| hold.lost.get().is_some());
        coming(&self.exclusive) && (mode == LockMode::Shared || coming(&self.shared))
    }

    fn of(&mut self, mode: LockMode) -> &mut Grants {
        match mode {
            LockMode::Exclusive => &mut self.exclusive,
            LockMode::Shared => &mut self.shared,
        }
    }
}

/// Whether one of them is in the way. The lost ones before it are taken out: each is looked at once.
fn stands(grants: &mut Grants, spent: &mut Vec<Arc<Hold>>) -> bool {
    while let Some(first) = grants.first_entry() {
        let is_over = match first.get().lost.get() {
            // Given back, but not yet at the backend: it is in the way as long as its session lives.
            None | Some(LossReason::Released) => first.get().live.is_over(),
            Some(_) => true,
        };
        if !is_over {
            return true;
        }
        spent.push(first.remove());
    }
    false
}

pub(crate) fn mode_of(hold: &Hold) -> LockMode {
    hold.request.as_ref().map_or(LockMode::Exclusive, |request| request.mode)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::LockName;
    use crate::fake::Fake;
    use crate::life::Live;
    use crate::session::{LockKey, LockRequest};

    fn hold(live: &Arc<Live>, id: u128, mode: LockMode) -> Arc<Hold> {
        let key = LockKey::lock(&LockName::new("l").unwrap());
        live.hold(RequestId(id), Some(LockRequest::new(key, mode, RequestId(id))))
    }

    #[test]
    fn only_what_conflicts_is_in_the_way_until_it_is_back_or_lost() {
        let (live, _clock) = Fake::live(Duration::from_secs(10));
        let mut held = Held::default();
        assert!(held.admits(LockMode::Exclusive));
        let readers = [1, 2, 3].map(|id| hold(&live, id, LockMode::Shared));
        for reader in &readers {
            held.add(reader);
        }
        assert!(held.admits(LockMode::Shared) && !held.admits(LockMode::Exclusive));
        // The first is lost, the second given back, the third held.
        live.reporter().grant_lost(RequestId(1));
        readers[1].lost.set(LossReason::Released);
        assert!(!held.admits(LockMode::Exclusive) && !held.is_coming_back(LockMode::Exclusive));
        held.remove(&readers[2]);
        assert!(!held.admits(LockMode::Exclusive) && held.is_coming_back(LockMode::Exclusive), "it is on its way");
        live.lose(LossReason::SessionEnded);
        assert!(held.admits(LockMode::Exclusive) && held.is_empty());
    }
}
