//! Sessions in the table: how one comes to its slot, and how what it had ends.

use std::sync::atomic::Ordering;

use crate::critical::{Critical, now};
use crate::error::TableError;
use crate::layout::{
    AT_CURSOR, AT_SWEPT, BlockKind, GENERATION, IN_USE, MEMBER, MEMBER_LENGTH, MISSED, PID, SLOTS, slot,
};
use crate::list::List;
use crate::process::Process;

/// How many things of a session end in one go: some ten µs' work.
const STEP: usize = 64;
/// How many slots are looked at in one go.
const SWEEP: usize = 256;
/// How often, in ms, by all sessions together.
const SWEEP_EVERY: u64 = 1000;

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remainder {
    Nothing,
    Some,
}

impl Critical<'_> {
    /// Begins a session in our slot, once nothing of the one before it is left. It takes no block: who only looks has to get into a full table, too.
    pub(crate) fn begin_session(&mut self) -> Result<Remainder, TableError> {
        let ours = self.table.slot();
        if self.end_session(ours)? == Remainder::Some {
            return Ok(Remainder::Some);
        }
        let generation = self.get(slot(ours, GENERATION))?.wrapping_add(1);
        for (field, value) in [(GENERATION, generation), (MEMBER, 0), (MEMBER_LENGTH, 0), (MISSED, 0), (IN_USE, 1)] {
            self.set(slot(ours, field), value)?;
        }
        self.commit()?;
        self.table.generation.store(generation, Ordering::Relaxed);
        Ok(Remainder::Nothing)
    }

    /// Notes whose session it is, before it has anything that others could ask about.
    pub(crate) fn name_session(&mut self, member: &str) -> Result<(), TableError> {
        let ours = self.table.slot();
        if self.get(slot(ours, MEMBER))? != 0 {
            return Ok(());
        }
        let text = self.write_text(member.as_bytes())?;
        self.set(slot(ours, MEMBER), text as u64)?;
        self.set(slot(ours, MEMBER_LENGTH), member.len() as u64)?;
        self.commit()
    }

    /// Ends some of what that session has, and the session when nothing is left.
    pub(crate) fn end_session(&mut self, of: usize) -> Result<Remainder, TableError> {
        for _ in 0..STEP {
            let thing = self.first(List::owned(of))?;
            if thing == 0 {
                break;
            }
            match self.kind(thing)? {
                Some(BlockKind::Place) => self.leave_queue(thing)?,
                Some(BlockKind::Membership) => self.end_membership(thing)?,
                Some(BlockKind::Watch) => self.end_watch(thing)?,
                _ => return Err(TableError::Garbled("a session that has what no session can have")),
            }
        }
        if self.first(List::owned(of))? != 0 {
            return Ok(Remainder::Some);
        }
        if self.get(slot(of, IN_USE))? != 0 {
            self.set(slot(of, IN_USE), 0)?;
            let text = self.number(slot(of, MEMBER))?;
            self.set(slot(of, MEMBER), 0)?;
            if text != 0 {
                self.free(text)?;
            }
            self.commit()?;
        }
        Ok(Remainder::Nothing)
    }

    /// Ends what a session has if it is dead.
    pub(crate) fn bury(&mut self, of: usize) -> Result<Remainder, TableError> {
        if of >= SLOTS || of == self.table.slot() || self.get(slot(of, IN_USE))? == 0 || self.table.is_locked(of)? {
            return Ok(Remainder::Nothing);
        }
        self.end_session(of)
    }

    /// Looks after some sessions, if none has done so within a second. Answers which of them are dead.
    pub(crate) fn sweep(&mut self) -> Result<Vec<usize>, TableError> {
        let (now, mut dead) = (now() / 1000, Vec::new());
        if now.abs_diff(self.get(AT_SWEPT)?) < SWEEP_EVERY {
            return Ok(dead);
        }
        self.put(AT_SWEPT, now)?;
        let from = self.number(AT_CURSOR)? % SLOTS;
        let cursor = self.find_dead((from..SLOTS).chain(0..from), &mut dead)?;
        self.put(AT_CURSOR, cursor.unwrap_or(from) as u64)?;
        Ok(dead)
    }

    /// The dead among some sessions, from a slot on; and with which one to go on.
    pub(crate) fn dead_from(&self, from: usize) -> Result<(Vec<usize>, Option<usize>), TableError> {
        let mut dead = Vec::new();
        let rest = self.find_dead(from..SLOTS, &mut dead)?;
        Ok((dead, rest))
    }

    /// Asks after as many sessions as are looked at in one go. Answers the slot after the last of them. `None`: those were all.
    fn find_dead(
        &self,
        slots: impl Iterator<Item = usize>,
        dead: &mut Vec<usize>,
    ) -> Result<Option<usize>, TableError> {
        let mut looked_at = 0;
        for at in slots {
            if self.get(slot(at, IN_USE))? != 0 {
                looked_at += 1;
                if at != self.table.slot() && !self.table.is_locked(at)? {
                    dead.push(at);
                }
            }
            if looked_at == SWEEP {
                return Ok(Some(at + 1));
            }
        }
        Ok(None)
    }

    /// The member whose session has that slot, and its process.
    pub(crate) fn session(&self, of: usize) -> Result<(String, Process), TableError> {
        let text = self.read_text(self.number(slot(of, MEMBER))?, self.number(slot(of, MEMBER_LENGTH))?)?;
        let member = String::from_utf8(text).map_err(|_| TableError::Garbled("a member that is no text"))?;
        Ok((member, Process::of(self.get(slot(of, PID))?)))
    }

    /// How many sessions there are, and how many of them are dead.
    pub(crate) fn count_sessions(&self) -> Result<(usize, usize), TableError> {
        let (mut all, mut dead) = (0, 0);
        for at in 0..SLOTS {
            if self.get(slot(at, IN_USE))? != 0 {
                all += 1;
                dead += usize::from(at != self.table.slot() && !self.table.is_locked(at)?);
            }
        }
        Ok((all, dead))
    }
}
