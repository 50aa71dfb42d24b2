//! What the session believes it holds: its grants, its places in queues and its memberships, and which of them are looked at next.
//!
//! Of the requests that make the key of a holding, one of these is known:
//!
//! | state | what was sent | to be rid of the key takes |
//! |---|---|---|
//! | [`Making::Begun`] | a first request, or none yet | a withdrawal |
//! | [`Making::Answered`] | requests that all were answered | its deletion |
//! | [`Making::Doubtful`] | one that was not answered, and may still arrive at any time; that stays so | a withdrawal |

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tooz_core::driver::{LockKey, Mutex, MutexGuard, RequestId};
use tooz_core::{Error, GroupId, Result};

/// How many keys one session may have. When it dies, Consul deletes all of them in one step.
const MOST: usize = 20_000;

/// What a key is to the session.
pub(crate) enum HoldingKind {
    /// A place in a lock's queue. The request that waits there is woken by this.
    Place(LockKey, Arc<Notify>),
    /// A grant.
    Grant(LockKey),
    /// A membership.
    Membership(GroupId),
}

/// What is known of the requests that make a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Making {
    Begun,
    Answered,
    Doubtful,
}

/// A key of the session.
pub(crate) struct Holding {
    pub(crate) key: String,
    pub(crate) kind: HoldingKind,
    /// The index that made it what it is, of the last change by its owner; 0: it is not known to be there yet.
    pub(crate) modified: u64,
    making: Making,
    /// Whether a deletion of it was sent that was not answered.
    pub(crate) maybe_deleted: bool,
}

/// Whether a request may still be under way of which nothing more is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// All that was sent was answered.
    Certain,
    /// Something was sent that was not answered, and may arrive later.
    Doubtful,
}

impl Holding {
    /// A key that is about to be made.
    pub(crate) fn new(key: String, kind: HoldingKind) -> Self {
        Holding { key, kind, modified: 0, making: Making::Begun, maybe_deleted: false }
    }

    /// Whether deleting the key is enough to be rid of it.
    pub(crate) fn certainty(&self) -> Certainty {
        match self.making {
            Making::Answered => Certainty::Certain,
            Making::Begun | Making::Doubtful => Certainty::Doubtful,
        }
    }
}

/// What one session holds.
#[derive(Default)]
pub(crate) struct Holdings {
    all: Mutex<BTreeMap<u128, Holding>>,
    /// Where the next look begins.
    next: Mutex<u128>,
    /// Told of every holding that was made.
    made: Notify,
    /// Whether the servers were set back since it was last asked what is owned.
    set_back: AtomicBool,
}

impl Holdings {
    pub(crate) fn all(&self) -> MutexGuard<'_, BTreeMap<u128, Holding>> {
        self.all.lock()
    }

    /// Notes a key before it is made, unless it is known from an earlier sending.
    pub(crate) fn enlist(&self, id: RequestId, new: Holding) -> Result<()> {
        let mut all = self.all();
        if all.len() >= MOST && !all.contains_key(&id.0) {
            return Err(Error::config(format!(
                "this coordinator has {MOST} locks, places in queues and memberships, and may have no more, since Consul ends them all in \
                 one step: spread them over several coordinators"
            )));
        }
        all.entry(id.0).or_insert(new);
        Ok(())
    }

    /// Puts a key back that was struck.
    pub(crate) fn restore(&self, id: RequestId, struck: Holding) {
        self.all().insert(id.0, struck);
    }

    /// Notes that something was sent that may make this key later.
    pub(crate) fn doubt_making(&self, id: RequestId) {
        if let Some(holding) = self.all().get_mut(&id.0) {
            holding.making = Making::Doubtful;
        }
    }

    /// Notes that the key is there, made what it is by that index.
    pub(crate) fn confirm(&self, id: RequestId, modified: u64) {
        if let Some(holding) = self.all().get_mut(&id.0) {
            holding.modified = modified;
            if holding.making == Making::Begun {
                holding.making = Making::Answered;
            }
        }
        self.made.notify_one();
    }

    /// Forgets a key of which nothing was ever made, nor will be. Answers whether that is so.
    pub(crate) fn strike_unmade(&self, id: RequestId) -> Certainty {
        let mut all = self.all();
        if all.get(&id.0).is_some_and(|holding| holding.making == Making::Doubtful) {
            return Certainty::Doubtful;
        }
        all.remove(&id.0);
        Certainty::Certain
    }

    /// A place has become a grant.
    pub(crate) fn grant(&self, id: RequestId, key: &LockKey) {
        if let Some(holding) = self.all().get_mut(&id.0) {
            holding.kind = HoldingKind::Grant(key.clone());
        }
    }

    /// Forgets a key.
    pub(crate) fn strike(&self, id: RequestId) -> Option<Holding> {
        self.all().remove(&id.0)
    }

    pub(crate) fn clear(&self) {
        self.all().clear();
    }

    /// Ends when something was made.
    pub(crate) async fn made(&self) {
        self.made.notified().await;
    }

    /// The servers may have been set back to an earlier state, in which keys stand that were given back since.
    pub(crate) fn note_set_back(&self) {
        self.set_back.store(true, Ordering::Release);
    }

    /// Whether they were, since this was asked last.
    pub(crate) fn take_set_back(&self) -> bool {
        self.set_back.swap(false, Ordering::AcqRel)
    }

    /// The next keys whose turn it is to be looked at, so many at most, each with its request.
    pub(crate) fn turn(&self, most: usize) -> Vec<(RequestId, String)> {
        let all = self.all();
        let mut next = self.next.lock();
        let known =
            |(id, holding): (&u128, &Holding)| (holding.modified > 0).then(|| (RequestId(*id), holding.key.clone()));
        let mut turn: Vec<_> = all.range(*next..).filter_map(known).take(most).collect();
        let before = all.range((Bound::Unbounded, Bound::Excluded(*next))).filter_map(known);
        turn.extend(before.take(most - turn.len()));
        *next = turn.last().map_or(0, |(id, _)| id.0.wrapping_add(1));
        turn
    }

    /// How many turns it takes to look at all of them.
    pub(crate) fn turns(&self, most: usize) -> usize {
        self.all().len().div_ceil(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Holding {
        Holding::new("k".to_owned(), HoldingKind::Membership("g".parse().unwrap()))
    }

    #[test]
    fn requests_that_are_under_way_count() {
        let holdings = Holdings::default();
        let enlist = |id| holdings.enlist(RequestId(id), membership());
        for id in 0..MOST as u128 {
            enlist(id).unwrap();
        }
        let words = enlist(MOST as u128).unwrap_err().to_string();
        assert!(words.contains("20000") && enlist(0).is_ok(), "a repetition is no more than it was: {words}");
    }

    #[test]
    fn what_was_once_in_doubt_stays_so() {
        let holdings = Holdings::default();
        let certainty = |id: u128| holdings.all().get(&id).map(Holding::certainty);
        for id in [1, 2, 3] {
            holdings.enlist(RequestId(id), membership()).unwrap();
            assert_eq!(certainty(id), Some(Certainty::Doubtful), "it was not answered yet");
        }
        holdings.confirm(RequestId(1), 7);
        assert_eq!(certainty(1), Some(Certainty::Certain));
        holdings.doubt_making(RequestId(1));
        holdings.confirm(RequestId(1), 8);
        assert_eq!(certainty(1), Some(Certainty::Doubtful));
        assert_eq!(holdings.strike_unmade(RequestId(1)), Certainty::Doubtful);
        assert_eq!(holdings.strike_unmade(RequestId(2)), Certainty::Certain);
        assert_eq!(certainty(2), None, "nothing was made of it");
        assert!(holdings.strike(RequestId(3)).is_some());
    }

    #[test]
    fn each_has_its_turn() {
        let holdings = Holdings::default();
        for id in [1, 2, 3, 4, 5] {
            holdings.enlist(RequestId(id), membership()).unwrap();
            if id != 3 {
                holdings.confirm(RequestId(id), 7);
            }
        }
        let turn = |most| holdings.turn(most).iter().map(|(id, _)| id.0).collect::<Vec<_>>();
        assert_eq!(turn(2), [1, 2]);
        assert_eq!(turn(2), [4, 5], "one that is not there yet has no turn");
        assert_eq!(turn(3), [1, 2, 4]);
        assert_eq!(turn(3), [5, 1, 2]);
        assert_eq!(turn(9).len(), 4, "none has two turns at once");
    }
}
