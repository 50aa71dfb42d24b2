//! The grants of one lock that the backend has not got back yet, and the modes in whose way they stand.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::id::RequestId;
use crate::base::loss_reason::LossReason;
use crate::driver::lock::LockMode;
use crate::engine::hold::Hold;

/// Grants by their request, those of each mode apart: thousands may share one lock, and no question looks at all of them.
#[derive(Default)]
pub(crate) struct Held {
    exclusive: Grants,
    shared: Grants,
    /// Holds that were found lost. With them may go the last of a session, which is not to be dropped under a lock.
    spent: Vec<Arc<Hold>>,
}

/// Most locks have one holder, which costs no node of a tree.
#[derive(Default)]
struct Grants {
    one: Option<Arc<Hold>>,
    others: BTreeMap<RequestId, Arc<Hold>>,
}

impl Grants {
    fn add(&mut self, hold: Arc<Hold>) {
        if self.one.is_none() {
            self.one = Some(hold);
        } else {
            self.others.insert(hold.id, hold);
        }
    }

    fn remove(&mut self, id: RequestId) -> Option<Arc<Hold>> {
        self.one.take_if(|one| one.id == id).or_else(|| self.others.remove(&id))
    }

    fn is_empty(&self) -> bool {
        self.one.is_none() && self.others.is_empty()
    }

    fn are_all_lost(&self) -> bool {
        self.one.iter().chain(self.others.values()).all(|hold| hold.lost.get().is_some())
    }

    /// Whether one of them is in the way. The lost ones before it are taken out: each is looked at once.
    fn stand(&mut self, spent: &mut Vec<Arc<Hold>>) -> bool {
        if self.one.as_ref().is_some_and(|one| is_in_the_way(one)) {
            return true;
        }
        spent.extend(self.one.take());
        while let Some(first) = self.others.first_entry() {
            if is_in_the_way(first.get()) {
                return true;
            }
            spent.push(first.remove());
        }
        false
    }
}

fn is_in_the_way(hold: &Hold) -> bool {
    match hold.lost.get() {
        // Given back, but not yet at the backend: it is in the way as long as its session lives.
        None | Some(LossReason::Released) => !hold.live.is_over(),
        Some(_) => false,
    }
}

impl Held {
    pub(crate) fn add(&mut self, hold: &Arc<Hold>) {
        self.of(hold.mode()).add(Arc::clone(hold));
    }

    pub(crate) fn remove(&mut self, hold: &Hold) -> Option<Arc<Hold>> {
        self.of(hold.mode()).remove(hold.id)
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
        !exclusive.stand(spent) && (mode == LockMode::Shared || !shared.stand(spent))
    }

    /// Whether all that is in the way was given back, and only has not arrived yet.
    pub(crate) fn is_coming_back(&self, mode: LockMode) -> bool {
        self.exclusive.are_all_lost() && (mode == LockMode::Shared || self.shared.are_all_lost())
    }

    fn of(&mut self, mode: LockMode) -> &mut Grants {
        match mode {
            LockMode::Exclusive => &mut self.exclusive,
            LockMode::Shared => &mut self.shared,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::id::LockName;
    use crate::driver::lock::{LockKey, LockRequest};
    use crate::engine::claim::ClaimSubject;
    use crate::engine::fake::Fake;
    use crate::engine::live_session::LiveSession;

    fn hold(live: &Arc<LiveSession>, id: u128, mode: LockMode) -> Arc<Hold> {
        let key = LockKey::lock(&LockName::new("l").unwrap());
        Hold::new(live, RequestId(id), ClaimSubject::Lock(LockRequest::new(key, mode, RequestId(id))))
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
