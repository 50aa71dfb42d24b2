//! Locks in the table: a list of places for each, those that hold it first, then those that wait, in the order in which they came.
//!
//! | a place | token | leaves it by |
//! |---|---|---|
//! | waits | 0 | its turn; a release of its request; the end of its session |
//! | holds | its own | a release, a break; the end of its session |
//!
//! Whatever takes a place away hands over: the longest run of waiters at the head that the mode admits gets the lock, each with a new token, and is rung for.
//! A process may die between the two; then the next session that looks at the lock does it (`settle`).

use tooz_core::LockMode;
use tooz_core::driver::RequestId;

use crate::critical::{Critical, now};
use crate::doorbell::RingReason;
use crate::error::TableError;
use crate::layout::{
    BlockKind, GRANTED, HOLDERS_MODE, ID_HIGH, ID_LOW, MODE, NEXT, RECORD, SINCE, TOKEN, WAITING, block,
};
use crate::list::List;
use crate::owner::Owner;
use crate::slots::Remainder;

/// How many of the living that share a lock are looked at by a request that wants it alone. The dead behind them are found by the sweep.
const LOOKED_AT: usize = 64;
/// How many of the dead are taken out before others have their turn.
const TAKEN_OUT: usize = 64;

/// What a place in a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaceState {
    pub(crate) block: usize,
    /// `None`: it waits.
    pub(crate) token: Option<u64>,
}

/// What came of asking for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AskEnd {
    Place(PlaceState),
    /// It is not to be had at once.
    Refused,
    /// Many dead were in the way, and there may be more: nothing was asked yet.
    DeadAhead,
}

/// A place as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Occupant {
    pub(crate) owner: Owner,
    pub(crate) mode: LockMode,
    pub(crate) token: Option<u64>,
    /// In µs since 1970.
    pub(crate) since: u64,
}

/// Whether who can't have the lock now waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitMode {
    Try,
    Wait,
}

impl Critical<'_> {
    /// Takes the lock, or a place at the end of its queue.
    pub(crate) fn ask(
        &mut self,
        lock: (BlockKind, &[u8]),
        id: RequestId,
        mode: LockMode,
        patience: WaitMode,
    ) -> Result<AskEnd, TableError> {
        let (kind, name) = lock;
        let record = match self.find(kind, name)? {
            None => self.make(kind, name)?,
            Some(record) => {
                if !self.admits(record, mode)? {
                    let rest = self.settle(record)?;
                    self.commit()?;
                    if !self.admits(record, mode)? {
                        match (rest, patience) {
                            (Remainder::Some, _) => return Ok(AskEnd::DeadAhead),
                            (Remainder::Nothing, WaitMode::Try) => return Ok(AskEnd::Refused),
                            (Remainder::Nothing, WaitMode::Wait) => {}
                        }
                    }
                }
                record
            }
        };
        let is_free = self.admits(record, mode)?;
        let place = self.own(BlockKind::Place, record, List::of(record))?;
        let [high, low] = halves(id);
        let since = now();
        for (field, value) in [(ID_HIGH, high), (ID_LOW, low), (MODE, word(mode)), (TOKEN, 0), (SINCE, since)] {
            self.put(block(place, field), value)?;
        }
        let token = if is_free {
            Some(self.grant(record, place, since)?)
        } else {
            if self.get(block(record, WAITING))? == 0 {
                self.set(block(record, WAITING), place as u64)?;
            }
            None
        };
        self.commit()?;
        Ok(AskEnd::Place(PlaceState { block: place, token }))
    }

    /// How the place of that request stands. `None`: it has none.
    pub(crate) fn place(&self, place: usize, id: RequestId) -> Result<Option<PlaceState>, TableError> {
        let there = [self.get(block(place, ID_HIGH))?, self.get(block(place, ID_LOW))?];
        if !self.is_ours(place, BlockKind::Place)? || there != halves(id) {
            return Ok(None);
        }
        let token = self.get(block(place, TOKEN))?;
        Ok(Some(PlaceState { block: place, token: (token != 0).then_some(token) }))
    }

    /// How the place of that request stands, after a look whether those before it still live; and whether more of the dead may be in its way.
    pub(crate) fn look_again(
        &mut self,
        place: usize,
        id: RequestId,
    ) -> Result<(Option<PlaceState>, Remainder), TableError> {
        let mut rest = Remainder::Nothing;
        if let Some(PlaceState { token: None, .. }) = self.place(place, id)? {
            rest = self.settle(self.number(block(place, RECORD))?)?;
            self.commit()?;
        }
        Ok((self.place(place, id)?, rest))
    }

    /// Takes a place away, whosever it is, and hands over.
    pub(crate) fn leave_queue(&mut self, place: usize) -> Result<(), TableError> {
        let lock = self.number(block(place, RECORD))?;
        self.take_out(lock, place)?;
        self.hand_over(lock)?;
        self.forget_if_idle(lock)?;
        self.commit()
    }

    /// Takes the lock away from the holder with that token, and rings for it. `false`: there is none.
    pub(crate) fn break_lock(&mut self, kind: BlockKind, name: &[u8], token: u64) -> Result<bool, TableError> {
        let Some(lock) = self.find(kind, name)? else { return Ok(false) };
        for place in self.all(List::of(lock))? {
            let theirs = self.get(block(place, TOKEN))?;
            if theirs == 0 {
                break;
            }
            if theirs == token {
                let is_alive = self.is_owner_alive(place)?;
                let (slot, _) = self.owner(place)?;
                self.leave_queue(place)?;
                self.ring(slot, RingReason::Broken, place);
                return Ok(is_alive);
            }
        }
        Ok(false)
    }

    /// All places of a lock, in their order: of the living, and of the dead that were not found so far.
    pub(crate) fn places(&mut self, kind: BlockKind, name: &[u8]) -> Result<Vec<Occupant>, TableError> {
        let mut seen = Vec::new();
        let Some(lock) = self.find(kind, name)? else { return Ok(seen) };
        self.settle(lock)?;
        self.commit()?;
        for place in self.all(List::of(lock))? {
            let token = self.get(block(place, TOKEN))?;
            seen.push(Occupant {
                owner: self.owner(place)?,
                mode: mode_of(self.get(block(place, MODE))?)?,
                token: (token != 0).then_some(token),
                since: self.get(block(place, SINCE))?,
            });
        }
        self.forget_if_idle(lock)?;
        self.commit()?;
        Ok(seen)
    }

    /// Whether any living session holds or awaits the lock of that record.
    pub(crate) fn is_in_use(&mut self, lock: usize) -> Result<bool, TableError> {
        self.settle(lock)?;
        self.commit()?;
        for place in self.all(List::of(lock))? {
            if self.is_owner_alive(place)? {
                return Ok(true);
            }
        }
        self.forget_if_idle(lock)?;
        self.commit()?;
        Ok(false)
    }

    /// Takes out the dead that are in the way, so many at a time, and hands over.
    fn settle(&mut self, lock: usize) -> Result<Remainder, TableError> {
        let (mut place, mut living, mut dead) = (self.first(List::of(lock))?, 0, 0);
        while place != 0 && living < LOOKED_AT && dead < TAKEN_OUT {
            let (slot, generation) = self.owner(place)?;
            if self.get(block(place, TOKEN))? == 0 {
                break;
            }
            let next = self.number(block(place, NEXT))?;
            if self.is_alive(slot, generation)? {
                living += 1;
            } else {
                dead += 1;
                self.take_out(lock, place)?;
                self.checkpoint()?;
            }
            place = next;
        }
        self.hand_over(lock)?;
        Ok(if dead == TAKEN_OUT { Remainder::Some } else { Remainder::Nothing })
    }

    /// Gives the lock to those at the head of its queue that may have it. The dead lose their places.
    fn hand_over(&mut self, lock: usize) -> Result<(), TableError> {
        for _ in 0..=self.table.blocks() {
            let place = self.number(block(lock, WAITING))?;
            if place == 0 {
                return Ok(());
            }
            if !self.is_owner_alive(place)? {
                self.take_out(lock, place)?;
            } else if self.is_compatible(lock, mode_of(self.get(block(place, MODE))?)?)? {
                self.set(block(lock, WAITING), self.get(block(place, NEXT))?)?;
                let since = now();
                self.grant(lock, place, since)?;
                self.set(block(place, SINCE), since)?;
                let (slot, _) = self.owner(place)?;
                self.ring(slot, RingReason::Place, place);
            } else {
                return Ok(());
            }
            self.checkpoint()?;
        }
        Err(TableError::Garbled("a queue without an end"))
    }

    fn grant(&mut self, lock: usize, place: usize, now: u64) -> Result<u64, TableError> {
        let token = self.next_token(now)?;
        self.set(block(place, TOKEN), token)?;
        let holders = self.get(block(lock, GRANTED))?;
        self.set(block(lock, GRANTED), holders.wrapping_add(1))?;
        self.set(block(lock, HOLDERS_MODE), self.get(block(place, MODE))?)?;
        self.ring_watchers(lock, RingReason::Record)?;
        Ok(token)
    }

    /// Takes a place away.
    fn take_out(&mut self, lock: usize, place: usize) -> Result<(), TableError> {
        if self.get(block(place, TOKEN))? != 0 {
            let holders = self.get(block(lock, GRANTED))?;
            let left =
                holders.checked_sub(1).ok_or(TableError::Garbled("a lock with more holders than are counted"))?;
            self.set(block(lock, GRANTED), left)?;
            self.ring_watchers(lock, RingReason::Record)?;
        } else if self.number(block(lock, WAITING))? == place {
            self.set(block(lock, WAITING), self.get(block(place, NEXT))?)?;
        }
        self.disown(place, List::of(lock))
    }

    /// Whether a new request gets the lock at once: it may stand beside the holders, and none waits.
    fn admits(&self, lock: usize, mode: LockMode) -> Result<bool, TableError> {
        Ok(self.get(block(lock, WAITING))? == 0 && self.is_compatible(lock, mode)?)
    }

    fn is_compatible(&self, lock: usize, mode: LockMode) -> Result<bool, TableError> {
        if self.get(block(lock, GRANTED))? == 0 {
            return Ok(true);
        }
        Ok(!mode.conflicts_with(mode_of(self.get(block(lock, HOLDERS_MODE))?)?))
    }
}

pub(crate) fn halves(id: RequestId) -> [u64; 2] {
    #[allow(clippy::cast_possible_truncation)] // That is what halves are.
    [(id.0 >> 64) as u64, id.0 as u64]
}

const fn word(mode: LockMode) -> u64 {
    match mode {
        LockMode::Shared => 1,
        LockMode::Exclusive => 2,
    }
}

pub(crate) fn mode_of(word: u64) -> Result<LockMode, TableError> {
    match word {
        1 => Ok(LockMode::Shared),
        2 => Ok(LockMode::Exclusive),
        _ => Err(TableError::Garbled("a mode that is none")),
    }
}

#[cfg(test)]
mod half_done;
#[cfg(test)]
mod model;
