//! What the session believes it holds: its grants, its places in queues and its memberships, and what of that has to be looked at.
//!
//! Of the requests that make the key of a holding, one of these is known:
//!
//! | state | what was sent | to be rid of the key takes |
//! |---|---|---|
//! | [`Making::Begun`] | a first request, or none yet | a withdrawal |
//! | [`Making::Answered`] | requests that all were answered | its deletion |
//! | [`Making::Doubtful`] | one that was not answered, and may still arrive at any time; that stays so | a withdrawal |

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tooz_core::driver::{Mutex, MutexGuard, RequestId};
use tooz_core::{Error, GroupId, Result};

use crate::dispatch::WatchHandle;

/// A key that is given back sooner is never watched: most locks are held for a moment.
const MOMENT: Duration = Duration::from_millis(50);
/// How many keys one session may have. When it dies, etcd deletes all of them in one step, at 20 to 60 µs each.
const MOST: usize = 20_000;

/// What a key is to the session.
pub(crate) enum HoldingKind {
    /// A place in a lock's queue. The request that waits there is woken by this.
    Place(Arc<Notify>),
    /// A grant.
    Grant,
    /// A membership, which is none any more when the key is gone by which its group exists.
    Membership { group: GroupId, marker: Vec<u8> },
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
    pub(crate) key: Vec<u8>,
    pub(crate) kind: HoldingKind,
    /// The revision that made it what it is: of its creation, or of the last change by its owner.
    pub(crate) revision: i64,
    making: Making,
    /// Whether a deletion of it was sent that was not answered.
    pub(crate) maybe_deleted: bool,
    pub(crate) watches: Vec<WatchHandle>,
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
    pub(crate) fn new(key: &[u8], kind: HoldingKind) -> Self {
        Holding { key: key.into(), kind, revision: 0, making: Making::Begun, maybe_deleted: false, watches: Vec::new() }
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
pub(crate) struct Holdings {
    all: Mutex<HashMap<RequestId, Holding>>,
    doubts: Mutex<Doubts>,
    doubted: Notify,
    /// Places that were deleted, while requests that may still be on their way there could not be shut out.
    owed: Mutex<Vec<Vec<u8>>>,
    owing: Notify,
    confirmed: mpsc::UnboundedSender<(Instant, RequestId)>,
}

/// What has to be looked at, since something was told of it.
#[derive(Default)]
pub(crate) struct Doubts {
    pub(crate) keys: Vec<RequestId>,
    /// Whether the session's own key is one of them.
    pub(crate) session: bool,
}

/// What was made, in the order of its coming of age: the moment in which a key is worth a watch.
pub(crate) struct Confirmations(pub(crate) mpsc::UnboundedReceiver<(Instant, RequestId)>);

impl Holdings {
    pub(crate) fn new() -> (Self, Confirmations) {
        let (confirmed, receiver) = mpsc::unbounded_channel();
        let (all, doubts, owed) = (Mutex::default(), Mutex::default(), Mutex::default());
        let holdings = Holdings { all, doubts, doubted: Notify::new(), owed, owing: Notify::new(), confirmed };
        (holdings, Confirmations(receiver))
    }

    pub(crate) fn all(&self) -> MutexGuard<'_, HashMap<RequestId, Holding>> {
        self.all.lock()
    }

    /// Notes a key before it is made, unless it is known from an earlier sending.
    pub(crate) fn enlist(&self, id: RequestId, new: Holding) -> Result<()> {
        let mut all = self.all();
        if all.len() >= MOST && !all.contains_key(&id) {
            return Err(Error::config(format!(
                "this coordinator has {MOST} locks, places in queues and memberships, and may have no more, since etcd ends them all in \
                 one step: spread them over several coordinators"
            )));
        }
        all.entry(id).or_insert(new);
        Ok(())
    }

    /// Puts a key back that was struck.
    pub(crate) fn restore(&self, id: RequestId, struck: Holding) {
        self.all().insert(id, struck);
    }

    /// Notes that something was sent that may make this key later.
    pub(crate) fn doubt_making(&self, id: RequestId) {
        if let Some(holding) = self.all().get_mut(&id) {
            holding.making = Making::Doubtful;
        }
    }

    /// Notes that the key is there, made what it is by that revision. It is watched if it is still there after a moment.
    pub(crate) fn confirm(&self, id: RequestId, revision: i64) {
        if let Some(holding) = self.all().get_mut(&id) {
            holding.revision = revision;
            if holding.making == Making::Begun {
                holding.making = Making::Answered;
            }
        }
        let _ = self.confirmed.send((Instant::now() + MOMENT, id));
    }

    /// Forgets a key of which nothing was ever made, nor will be. Answers whether that is so.
    pub(crate) fn strike_unmade(&self, id: RequestId) -> Certainty {
        let mut all = self.all();
        if all.get(&id).is_some_and(|holding| holding.making == Making::Doubtful) {
            return Certainty::Doubtful;
        }
        all.remove(&id);
        Certainty::Certain
    }

    /// A place has become a grant.
    pub(crate) fn grant(&self, id: RequestId) {
        if let Some(holding) = self.all().get_mut(&id) {
            holding.kind = HoldingKind::Grant;
        }
    }

    /// Forgets a key, and its watch.
    pub(crate) fn strike(&self, id: RequestId) -> Option<Holding> {
        let struck = self.all().remove(&id);
        struck.map(|mut holding| {
            holding.watches.clear();
            holding
        })
    }

    /// Ends all watches. Answers the keys that there were.
    pub(crate) fn clear(&self) -> Vec<Vec<u8>> {
        let all = std::mem::take(&mut *self.all());
        all.into_values().map(|holding| holding.key).collect()
    }

    /// Something was told of that key.
    pub(crate) fn doubt(&self, id: RequestId) {
        self.doubts.lock().keys.push(id);
        self.doubted.notify_one();
    }

    /// Something was told of the session's key.
    pub(crate) fn doubt_session(&self) {
        self.doubts.lock().session = true;
        self.doubted.notify_one();
    }

    /// Doubts everything.
    pub(crate) fn doubt_all(&self) {
        let keys: Vec<_> = self.all().keys().copied().collect();
        *self.doubts.lock() = Doubts { keys, session: true };
        self.doubted.notify_one();
    }

    /// Ends when there may be doubts.
    pub(crate) async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// Takes at most so many doubts; `None`: there are none.
    pub(crate) fn take_doubts(&self, most: usize) -> Option<Doubts> {
        let mut doubts = self.doubts.lock();
        let count = doubts.keys.len().min(most);
        let keys: Vec<_> = doubts.keys.drain(..count).collect();
        let session = std::mem::take(&mut doubts.session);
        (session || !keys.is_empty()).then_some(Doubts { keys, session })
    }

    /// Puts back what could not be looked at.
    pub(crate) fn restore_doubts(&self, taken: Doubts) {
        let mut doubts = self.doubts.lock();
        doubts.keys.extend(taken.keys);
        doubts.session |= taken.session;
    }

    /// Notes places of which only the deletion could be written.
    pub(crate) fn owe(&self, places: &[Vec<u8>]) {
        self.owed.lock().extend_from_slice(places);
        self.owing.notify_one();
    }

    /// Ends when something may be owed.
    pub(crate) async fn owing(&self) {
        self.owing.notified().await;
    }

    /// Takes at most so many places of those that are owed.
    pub(crate) fn take_owed(&self, most: usize) -> Vec<Vec<u8>> {
        let mut owed = self.owed.lock();
        let count = owed.len().min(most);
        owed.drain(..count).collect()
    }

    /// Puts back what could not be paid.
    pub(crate) fn restore_owed(&self, places: Vec<Vec<u8>>) {
        self.owed.lock().extend(places);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_are_under_way_count() {
        let (holdings, _confirmed) = Holdings::new();
        let enlist = |id| holdings.enlist(RequestId(id), Holding::new(b"k", HoldingKind::Grant));
        for id in 0..MOST as u128 {
            enlist(id).unwrap();
        }
        let words = enlist(MOST as u128).unwrap_err().to_string();
        assert!(words.contains("20000") && enlist(0).is_ok(), "a repetition is no more than it was: {words}");
    }

    #[test]
    fn what_was_once_in_doubt_stays_so() {
        let (holdings, _confirmed) = Holdings::new();
        let certainty = |id| holdings.all().get(&RequestId(id)).map(Holding::certainty);
        for id in [1, 2, 3] {
            holdings.enlist(RequestId(id), Holding::new(b"k", HoldingKind::Grant)).unwrap();
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
        assert!(holdings.strike(RequestId(3)).is_some() && holdings.clear().len() == 1);
    }

    #[tokio::test]
    async fn doubts_are_taken_in_bounded_steps_and_none_is_lost() {
        let (holdings, _confirmed) = Holdings::new();
        for id in 0..5 {
            holdings.enlist(RequestId(id), Holding::new(b"k", HoldingKind::Grant)).unwrap();
        }
        holdings.doubt_all();
        holdings.doubted().await;
        let first = holdings.take_doubts(3).unwrap();
        assert!(first.session && first.keys.len() == 3);
        holdings.restore_doubts(first);
        let counts = [3, 3].map(|most| holdings.take_doubts(most).map(|doubts| (doubts.keys.len(), doubts.session)));
        assert_eq!(counts, [Some((3, true)), Some((2, false))]);
        assert!(holdings.take_doubts(3).is_none());
        holdings.owe(&[b"a".to_vec(), b"b".to_vec()]);
        let owed = holdings.take_owed(1);
        assert_eq!(owed, [b"a"]);
        holdings.restore_owed(owed);
        assert_eq!(holdings.take_owed(9), [b"b", b"a"]);
    }
}
