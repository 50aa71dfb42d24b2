//! The line of one lock, as a pure state machine: all waiters of this coordinator, what is asked of the backend for them, and what
//! the backend has granted.
//!
//! Each event is a method, and what is to be done about it is the answer of that method. Nothing here waits, wakes or asks.
//!
//! | in flight | at the head | what happens next |
//! |---|---|---|
//! | nothing | no waiter | nothing |
//! | nothing | a waiter, and no grant of this coordinator is in its way | one request, for its mode |
//! | nothing | a wait, and a grant is in its way | nothing, until that grant is back at the backend |
//! | nothing | a try, and a grant is in its way that is held | the try is refused; one that is being given back is waited for |
//! | a wait | a wait of that mode | the grant is for the head, however often the head has changed |
//! | a wait | anything else | the request is not wanted; a grant that comes all the same goes to a head of its mode, or back |
//! | a try | anything | the answer is for the waiter that tried; a grant goes to the head of its mode, or back |

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tokio::sync::oneshot;

use crate::base::error::{Error, Result};
use crate::driver::lock::{FencingToken, LockMode};
use crate::driver::wanted::{Wanted, Wish, WishChange};
use crate::engine::held::Held;
use crate::engine::hold::Hold;

/// What a waiter is willing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitMode {
    Try,
    Wait,
}

/// A grant on its way to a waiter.
pub(crate) struct Grant {
    pub(crate) hold: Arc<Hold>,
    pub(crate) token: FencingToken,
}

/// What a waiter hears.
pub(crate) type Answer = Result<Option<Grant>>;

#[derive(Default)]
pub(crate) struct Line {
    waiters: VecDeque<LineWaiter>,
    numbers: u64,
    in_flight: Option<InFlight>,
    /// Grants that the backend has not got back yet.
    held: Held,
    /// Why the request in flight does not get through: the latest word, gone as soon as it stands in the queue.
    trouble: Option<Error>,
    /// In an election: which grant was won as which membership.
    won: Vec<(Weak<Hold>, Weak<Hold>)>,
}

pub(crate) struct LineWaiter {
    number: u64,
    mode: LockMode,
    patience: WaitMode,
    /// Whether it has stood in a line that moved: then it is kept up also where the backend refuses.
    has_stood: bool,
    pub(crate) answer: oneshot::Sender<Answer>,
}

struct InFlight {
    /// For which waiter it was begun.
    number: u64,
    mode: LockMode,
    patience: WaitMode,
    wanted: Wish,
}

/// One request that is to be made of the backend.
pub(crate) struct BackendRequest {
    /// The waiter at the head as it was begun.
    pub(crate) number: u64,
    pub(crate) mode: LockMode,
    pub(crate) patience: WaitMode,
    pub(crate) wanted: Wanted,
}

/// What is to be done next.
#[derive(Default)]
pub(crate) struct Actions {
    pub(crate) ask: Option<BackendRequest>,
    /// Tries that fail, since the lock is held here.
    pub(crate) refused: Vec<LineWaiter>,
    /// Holds that were found lost. They are dropped without a lock: the last of a session may go with them.
    pub(crate) spent: Vec<Arc<Hold>>,
}

/// What is in the way of a waiter, as far as this line knows.
pub(crate) enum Blocker {
    /// A grant of this coordinator.
    OurGrant,
    /// The backend's answer: whether the request stands in the queue there, and what it suffers from.
    Backend { is_queued: bool, trouble: Option<Error> },
}

impl Line {
    /// A waiter comes. `None`: it is a try, and another waits. Otherwise its number, and a change of what is wanted.
    pub(crate) fn come(
        &mut self,
        mode: LockMode,
        patience: WaitMode,
        answer: oneshot::Sender<Answer>,
    ) -> Option<(u64, Option<WishChange>)> {
        if patience == WaitMode::Try && self.waiters.iter().any(|waiter| waiter.patience == WaitMode::Wait) {
            return None;
        }
        self.numbers += 1;
        let (number, has_stood) = (self.numbers, self.moves());
        self.waiters.push_back(LineWaiter { number, mode, patience, has_stood, answer });
        Some((number, self.update_wanted()))
    }

    /// A waiter has gone before it was answered.
    pub(crate) fn leave(&mut self, number: u64) -> (Option<LineWaiter>, Option<WishChange>) {
        (self.take(number), self.update_wanted())
    }

    /// No waiter is answered by the backend any more.
    pub(crate) fn clear(&mut self) -> VecDeque<LineWaiter> {
        std::mem::take(&mut self.waiters)
    }

    /// The next request, and the tries that fail without one.
    pub(crate) fn next(&mut self) -> Actions {
        let mut next = Actions::default();
        if self.in_flight.is_some() {
            return next;
        }
        while let Some(head) = self.waiters.front() {
            let (number, mode, patience) = (head.number, head.mode, head.patience);
            if self.held.admits(mode) {
                let (wish, wanted) = Wanted::channel();
                self.in_flight = Some(InFlight { number, mode, patience, wanted: wish });
                next.ask = Some(BackendRequest { number, mode, patience, wanted });
                break;
            }
            // A grant that is being given back will be free in a moment; one that is held will not.
            if patience == WaitMode::Wait || self.held.is_coming_back(mode) {
                break;
            }
            next.refused.extend(self.waiters.pop_front());
        }
        next.spent = self.held.take_spent();
        next
    }

    /// The request in flight is answered: the waiter for which that is, and what is left to be dropped.
    pub(crate) fn answered(
        &mut self,
        number: u64,
        mode: LockMode,
        patience: WaitMode,
        answer: &Answer,
    ) -> (Option<LineWaiter>, impl Sized + use<>) {
        self.note_who_stood();
        let garbage = (self.in_flight.take(), self.trouble.take());
        let waiter = match answer {
            Ok(Some(grant)) => {
                self.held.add(&grant.hold);
                let waiter = self.take_head(|head| head.mode == mode);
                // All behind it stand in a line that has moved.
                self.note_who_stood();
                waiter
            }
            // A try is answered for itself alone.
            _ if patience == WaitMode::Try => self.take(number),
            // A waiter that came after the withdrawal keeps its place: the next request is for it.
            Ok(None) => None,
            Err(_) => self.take_head(|head| head.mode == mode && head.patience == WaitMode::Wait),
        };
        (waiter, garbage)
    }

    /// A grant of that mode has no taker: the waiter at the head, if it is of that mode. The request in flight may be unwanted by that.
    pub(crate) fn next_in(&mut self, mode: LockMode) -> (Option<LineWaiter>, Option<WishChange>) {
        (self.take_head(|head| head.mode == mode), self.update_wanted())
    }

    /// A grant is back at the backend, or lost. Answers what is left to be dropped, and whether a waiter may profit.
    pub(crate) fn gone(&mut self, hold: &Hold) -> (Option<Arc<Hold>>, bool) {
        (self.held.remove(hold), !self.waiters.is_empty())
    }

    /// The request in flight suffers from that. Answers what it suffered from before.
    pub(crate) fn set_trouble(&mut self, trouble: Option<Error>) -> Option<Error> {
        std::mem::replace(&mut self.trouble, trouble)
    }

    /// The waiters of now have stood, if the line moves. Whether the head has.
    pub(crate) fn head_has_stood(&mut self) -> bool {
        self.note_who_stood();
        self.waiters.front().is_some_and(|head| head.has_stood)
    }

    /// What is in the way of a waiter of that mode, and what is left to be dropped.
    pub(crate) fn in_the_way(&mut self, mode: LockMode) -> (Blocker, Vec<Arc<Hold>>) {
        // A grant that is just being given back has no holder, but may not get through.
        if !self.held.admits(mode) && !self.held.is_coming_back(mode) {
            return (Blocker::OurGrant, self.held.take_spent());
        }
        let is_queued = self.in_flight.as_ref().is_some_and(|in_flight| in_flight.wanted.is_queued());
        (Blocker::Backend { is_queued, trouble: self.trouble.clone() }, self.held.take_spent())
    }

    /// Notes that a grant was won as that member.
    pub(crate) fn enlist(&mut self, membership: &Arc<Hold>, grant: &Arc<Hold>) {
        self.won.retain(|(_, grant)| grant.strong_count() > 0);
        self.won.push((Arc::downgrade(membership), Arc::downgrade(grant)));
    }

    /// The grants that were won as that member.
    pub(crate) fn discharge(&mut self, membership: &Arc<Hold>) -> Vec<Arc<Hold>> {
        let won = self.won.extract_if(.., |(member, _)| std::ptr::eq(member.as_ptr(), Arc::as_ptr(membership)));
        won.filter_map(|(_, grant)| grant.upgrade()).collect()
    }

    fn take(&mut self, number: u64) -> Option<LineWaiter> {
        let index = self.waiters.iter().position(|waiter| waiter.number == number)?;
        self.waiters.remove(index)
    }

    fn take_head(&mut self, is_meant: impl FnOnce(&LineWaiter) -> bool) -> Option<LineWaiter> {
        self.waiters.front().is_some_and(is_meant).then(|| self.waiters.pop_front())?
    }

    /// A wait in flight is wanted as long as the head waits in its mode; a try, as long as its waiter is there.
    fn update_wanted(&mut self) -> Option<WishChange> {
        let in_flight = self.in_flight.as_ref()?;
        let wanted = match in_flight.patience {
            WaitMode::Try => self.waiters.iter().any(|waiter| waiter.number == in_flight.number),
            WaitMode::Wait => {
                self.waiters.front().is_some_and(|head| head.mode == in_flight.mode && head.patience == WaitMode::Wait)
            }
        };
        in_flight.wanted.set(wanted)
    }

    /// Whether the lock is held here, or the request has stood at the backend: then a waiter that comes now stands in a line that moves.
    fn moves(&self) -> bool {
        !self.held.is_empty() || self.in_flight.as_ref().is_some_and(|in_flight| in_flight.wanted.has_stood())
    }

    /// All that are in the line while it moves have stood.
    fn note_who_stood(&mut self) {
        if self.moves() {
            for waiter in &mut self.waiters {
                waiter.has_stood = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
