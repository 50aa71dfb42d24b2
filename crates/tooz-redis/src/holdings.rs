//! What the session believes to have at the server: grants, places in queues, memberships; and in which turn that is looked after.
//!
//! | a request is | and becomes | by |
//! |---|---|---|
//! | unknown | waiting | [`Holdings::expect`], before it is sent |
//! | waiting | unknown, its waiter is told | [`Holdings::granted`], a miss, a reconnect ([`Holdings::ask_again`]); or the waiter goes |
//! | unknown | held, joined | [`Holdings::hold`], [`Holdings::join`], once the server has said so |
//! | held, joined | unknown, and core is told | a miss (a membership: the second on one connection), [`Holdings::broken`], [`Holdings::ousted`] |
//! | held, joined | unknown | [`Holdings::forget`], [`Holdings::leave`], before it is given back |

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use tokio::sync::oneshot;
use tooz_core::GroupId;
use tooz_core::driver::{Granted, Mutex, MutexGuard, Reporter, RequestId};

/// How many of the grants and as many of the waiting requests each beat looks after, so that it costs the same whatever is held.
const LOOKED_AFTER: usize = 16;

/// How many memberships each beat looks after.
const MEMBERSHIPS: usize = 4;

/// How many are looked after in one request besides the beats.
const AT_ONCE: usize = 64;

/// How many grants a beat looks at at most, beside those that it looks after: of 128 each has its turn within a session timeout. Few enough
/// that the beat stays short.
const LOOKED_AT: usize = 64;

/// Within this time each grant and each membership has its turn, however many there are: its keys are kept for thrice as long
/// (`common.lua`).
const ROUND: Duration = Duration::from_hours(20 * 24);

pub(crate) struct Holdings {
    reporter: Reporter,
    state: Mutex<HoldingsState>,
}

#[derive(Default)]
struct HoldingsState {
    /// No wait begins any more.
    ended: bool,
    /// Requests that wait for a lock, and which.
    waiting: BTreeMap<RequestId, (String, oneshot::Sender<Answer>)>,
    /// Grants, and of which lock.
    held: BTreeMap<RequestId, String>,
    /// Memberships by their joins.
    joined: BTreeMap<RequestId, HeldMembership>,
    cursors: Cursors,
}

/// Up to where waiting requests, grants and memberships were looked after.
#[derive(Default)]
struct Cursors {
    waiting: Option<RequestId>,
    held: Option<RequestId>,
    /// The grants that are only looked at.
    there: Option<RequestId>,
    joined: Option<RequestId>,
}

struct HeldMembership {
    group: GroupId,
    /// Where it stands in what a session owns.
    place: String,
    /// The connection on which it was missed once.
    missed: Option<u64>,
}

/// A request whose grant, place or entry should be at the server.
pub(crate) struct Holding {
    pub(crate) request: RequestId,
    /// The lock, or the membership.
    pub(crate) place: String,
    pub(crate) kind: HoldingKind,
}

/// What a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldingKind {
    Grant,
    /// A grant that is only looked at, which writes nothing.
    GrantSeen,
    PlaceInQueue,
    Membership,
}

/// What a waiter for a lock hears.
#[derive(Debug)]
pub(crate) enum Answer {
    Granted(Granted),
    /// The place in the queue may be gone, or have become a grant: ask again.
    AskAgain,
}

/// What is not at the server as it was thought to be.
enum Discrepancy {
    Grant,
    PlaceInQueue(oneshot::Sender<Answer>),
    Membership(GroupId),
}

impl HoldingKind {
    /// As `upkeep.lua` reads it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            HoldingKind::Grant => "held",
            HoldingKind::GrantSeen => "there",
            HoldingKind::PlaceInQueue => "waiting",
            HoldingKind::Membership => "joined",
        }
    }
}

impl HoldingsState {
    /// A request that waited when the question was sent may have been asked for before it reached the server itself, and may have the
    /// lock by now: what is missed must be what was looked after.
    fn miss(&mut self, missing: &Holding, epoch: u64) -> Option<Discrepancy> {
        match missing.kind {
            HoldingKind::PlaceInQueue => {
                self.waiting.remove(&missing.request).map(|(_, waiter)| Discrepancy::PlaceInQueue(waiter))
            }
            HoldingKind::Grant | HoldingKind::GrantSeen => {
                self.held.remove(&missing.request).map(|_| Discrepancy::Grant)
            }
            HoldingKind::Membership => {
                // What a fail-over has forgotten core says again soon after the reconnect; what is missing a round later on the same
                // connection was taken away.
                let joined = self.joined.get_mut(&missing.request)?;
                if joined.missed.replace(epoch) != Some(epoch) {
                    return None;
                }
                self.joined.remove(&missing.request).map(|joined| Discrepancy::Membership(joined.group))
            }
        }
    }

    fn waiting_in_turn(&mut self, count: usize) -> Vec<Holding> {
        next_few(&self.waiting, &mut self.cursors.waiting, count)
            .into_iter()
            .map(|(request, (lock, _))| Holding { request, place: lock.clone(), kind: HoldingKind::PlaceInQueue })
            .collect()
    }
}

/// Where a grant arrives. Dropping it says that the request waits no more.
pub(crate) struct GrantReceiver<'a> {
    holdings: &'a Holdings,
    request: RequestId,
    answer: oneshot::Receiver<Answer>,
}

impl GrantReceiver<'_> {
    /// What there is to hear; `None`: there will be nothing any more.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub(crate) async fn hear(&mut self) -> Option<Answer> {
        (&mut self.answer).await.ok()
    }

    /// What has come already.
    pub(crate) fn heard(&mut self) -> Option<Answer> {
        self.answer.try_recv().ok()
    }
}

impl Drop for GrantReceiver<'_> {
    fn drop(&mut self) {
        self.holdings.state().waiting.remove(&self.request);
    }
}

impl Holdings {
    pub(crate) fn new(reporter: Reporter) -> Self {
        Holdings { reporter, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, HoldingsState> {
        self.state.lock()
    }

    /// Begins to listen for the grant of a request, which must not have been sent yet.
    pub(crate) fn expect(&self, request: RequestId, lock: &str) -> GrantReceiver<'_> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state();
        if !state.ended {
            state.waiting.insert(request, (lock.to_owned(), sender));
        }
        GrantReceiver { holdings: self, request, answer }
    }

    /// The server has pushed a grant.
    pub(crate) fn granted(&self, request: RequestId, granted: Granted) {
        let waiter = self.state().waiting.remove(&request);
        if let Some((_, waiter)) = waiter {
            // A wait that was given up gives the grant back by its request.
            let _ = waiter.send(Answer::Granted(granted));
        }
    }

    /// From now on the beats look after this grant.
    pub(crate) fn hold(&self, request: RequestId, lock: String) {
        self.state().held.insert(request, lock);
    }

    /// The grant is about to be given back: it won't be missed.
    pub(crate) fn forget(&self, request: RequestId) {
        self.state().held.remove(&request);
    }

    /// The grant was taken away.
    pub(crate) fn broken(&self, request: RequestId) {
        self.forget(request);
        self.reporter.grant_lost(request);
    }

    /// All grants that should be at the server.
    pub(crate) fn held(&self) -> Vec<Holding> {
        let grant = |(request, lock): (&RequestId, &String)| Holding {
            request: *request,
            place: lock.clone(),
            kind: HoldingKind::Grant,
        };
        self.state().held.iter().map(grant).collect()
    }

    /// From now on the beats look after this membership.
    pub(crate) fn join(&self, request: RequestId, group: GroupId, place: String) {
        self.state().joined.insert(request, HeldMembership { group, place, missed: None });
    }

    /// The membership is about to end.
    pub(crate) fn leave(&self, request: RequestId) {
        self.state().joined.remove(&request);
    }

    /// The membership was taken over.
    pub(crate) fn ousted(&self, group: &GroupId, request: RequestId) {
        self.leave(request);
        self.reporter.membership_lost(group, request);
    }

    /// The next few of what should still be at the server, for one of the beats that are so far apart. Whatever is there has its turn.
    pub(crate) fn look_after(&self, interval: Duration) -> Vec<Holding> {
        let mut state = self.state();
        let mut all = state.waiting_in_turn(LOOKED_AFTER);
        let HoldingsState { held, joined, cursors, .. } = &mut *state;
        for (request, lock) in next_few(held, &mut cursors.held, share(held.len(), interval).max(LOOKED_AFTER)) {
            all.push(Holding { request, place: lock.clone(), kind: HoldingKind::Grant });
        }
        if held.len() > LOOKED_AFTER {
            let count = held.len().div_ceil(2).min(LOOKED_AT);
            for (request, lock) in next_few(held, &mut cursors.there, count) {
                all.push(Holding { request, place: lock.clone(), kind: HoldingKind::GrantSeen });
            }
        }
        for (request, entry) in next_few(joined, &mut cursors.joined, share(joined.len(), interval).max(MEMBERSHIPS)) {
            all.push(Holding { request, place: entry.place.clone(), kind: HoldingKind::Membership });
        }
        all
    }

    /// What is to be looked after besides each beat, so that every waiting request has had its turn after two beats: in parts, each for
    /// one request.
    pub(crate) fn the_rest(&self) -> Vec<Vec<Holding>> {
        let mut state = self.state();
        let mut left = state.waiting.len().div_ceil(2).saturating_sub(LOOKED_AFTER);
        let mut parts = Vec::new();
        while left > 0 {
            let part = state.waiting_in_turn(left.min(AT_ONCE));
            if part.is_empty() {
                break;
            }
            left = left.saturating_sub(part.len());
            parts.push(part);
        }
        parts
    }

    /// The server has something else of that request than was thought, as the connection of that number has told.
    pub(crate) fn miss(&self, missing: &Holding, epoch: u64) {
        let missed = self.state().miss(missing, epoch);
        match missed {
            Some(Discrepancy::Grant) => self.reporter.grant_lost(missing.request),
            Some(Discrepancy::PlaceInQueue(waiter)) => drop(waiter.send(Answer::AskAgain)),
            Some(Discrepancy::Membership(group)) => self.reporter.membership_lost(&group, missing.request),
            None => {}
        }
    }

    /// The server may have lost what was written last: every request that waits asks again.
    pub(crate) fn ask_again(&self) {
        let waiting = std::mem::take(&mut self.state().waiting);
        for (_, waiter) in waiting.into_values() {
            let _ = waiter.send(Answer::AskAgain);
        }
    }

    /// Whether any request waits for a lock.
    pub(crate) fn any_waits(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Ends every wait, and looks after nothing any more.
    pub(crate) fn end(&self) {
        *self.state() = HoldingsState { ended: true, ..HoldingsState::default() };
    }
}

/// How many of so many each beat has to look after, so that all have had their turn in time.
fn share(all: usize, interval: Duration) -> usize {
    let each = interval.as_secs_f64() / ROUND.as_secs_f64();
    // Far below the number of all, which fits.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let share = (all as f64 * each).ceil() as usize;
    share
}

/// The next few behind `cursor`, which moves on, and begins anew behind the last.
fn next_few<'a, V>(
    all: &'a BTreeMap<RequestId, V>,
    cursor: &mut Option<RequestId>,
    count: usize,
) -> Vec<(RequestId, &'a V)> {
    let behind = (cursor.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
    let few: Vec<_> = all.range(behind).take(count).map(|(request, value)| (*request, value)).collect();
    *cursor = few.last().filter(|_| few.len() == count).map(|(request, _)| *request);
    few
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_their_turn_in_time_however_many_they_are() {
        let day = Duration::from_hours(24);
        assert_eq!(share(10_000, Duration::from_secs(3)), 1);
        assert_eq!(share(1_000, day), 50);
        let all: BTreeMap<_, _> = (0..5).map(|number| (RequestId(number), number)).collect();
        let mut cursor = None;
        let mut few =
            |count| next_few(&all, &mut cursor, count).into_iter().map(|(request, _)| request.0).collect::<Vec<_>>();
        assert_eq!([few(2), few(2), few(2), few(2)], [vec![0, 1], vec![2, 3], vec![4], vec![0, 1]]);
    }

    #[test]
    fn a_grant_is_not_missed_that_was_a_wish_when_the_question_was_sent() {
        let mut state = HoldingsState::default();
        let request = RequestId(1);
        let asked = |kind| Holding { request, place: "l:x".into(), kind };
        // The question was on its way before the request was, and the answers to both have come.
        state.held.insert(request, "l:x".into());
        assert!(state.miss(&asked(HoldingKind::PlaceInQueue), 1).is_none());
        assert!(state.held.contains_key(&request));
        assert!(matches!(state.miss(&asked(HoldingKind::Grant), 1), Some(Discrepancy::Grant)));
        // The other way round: it waits again under the same request.
        let (sender, _receiver) = oneshot::channel();
        state.waiting.insert(request, ("l:x".into(), sender));
        assert!(state.miss(&asked(HoldingKind::Grant), 1).is_none());
        assert!(matches!(state.miss(&asked(HoldingKind::PlaceInQueue), 1), Some(Discrepancy::PlaceInQueue(_))));
    }

    #[test]
    fn a_membership_is_missed_when_it_is_for_the_second_time_on_one_connection() {
        let mut state = HoldingsState::default();
        let request = RequestId(1);
        let group: GroupId = "g".parse().unwrap();
        let asked = Holding { request, place: "g:g\nm".into(), kind: HoldingKind::Membership };
        state.joined.insert(request, HeldMembership { group, place: asked.place.clone(), missed: None });
        assert!(state.miss(&asked, 1).is_none());
        assert!(state.miss(&asked, 2).is_none());
        assert!(matches!(state.miss(&asked, 2), Some(Discrepancy::Membership(_))));
        assert!(state.miss(&asked, 2).is_none());
    }
}
