//! The journal of a lock.
//!
//! | entry | what it says |
//! |---|---|
//! | `A request session mode time member` | wants the lock. Its token is the larger of the last token + 1 and the server's time |
//! | `R request` | gives back |
//! | `W request session` | gives back what was asked in doubt: voids an `A` before it or behind it, and is kept as long as its session lives |
//! | `B request` | takes the lock away from a holder |
//! | `X session` | that session was seen to be gone |
//! | `F token` | the last token was at least this one |
//!
//! Holders are the first in line, or the run of shared ones there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use tooz_core::driver::RequestId;
use tooz_core::{LockMode, MemberId, Result};

use crate::journal::{BETWEEN, End, SessionId, entries};

/// How long the last token of a free lock is kept, in seconds: a journal that begins then begins at a later time.
pub(crate) const FREE: u32 = 3600;

/// How long a lock with places in it is kept, in seconds: longer than the longest session timeout, and each holder looks after it far more often. A lock in
/// which all places are those of the dead ends by that, where no client asks for it.
pub(crate) const KEPT: u32 = 25 * 3600;

/// What a journal says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LockJournal {
    /// Those who want the lock, first come first.
    pub(crate) line: Vec<QueuedRequest>,
    /// The last token that was given to a place.
    pub(crate) last_token: u64,
    /// Requests whose later entries have no effect, by whose sessions keep it so.
    pub(crate) withdrawn: BTreeMap<RequestId, SessionId>,
    /// How the requests ended that are over as far as this text tells.
    ended: BTreeMap<RequestId, End>,
    dead: BTreeSet<SessionId>,
    /// How many entries there are.
    entries: usize,
}

/// A request in the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueuedRequest {
    pub(crate) request: RequestId,
    pub(crate) session: SessionId,
    pub(crate) mode: LockMode,
    pub(crate) token: u64,
    pub(crate) member: MemberId,
}

impl QueuedRequest {
    /// The entry that asks for it, `token` being the server's time in µs.
    pub(crate) fn entry(&self) -> String {
        let QueuedRequest { request, session, mode, token, member } = self;
        let mode = match mode {
            LockMode::Exclusive => 'x',
            LockMode::Shared => 's',
        };
        format!("A{BETWEEN}{request}{BETWEEN}{session}{BETWEEN}{mode}{BETWEEN}{token}{BETWEEN}{member}\n")
    }
}

/// Gives back.
pub(crate) fn release(request: RequestId) -> String {
    format!("R{BETWEEN}{request}\n")
}

/// Gives back in doubt.
pub(crate) fn withdraw(request: RequestId, session: SessionId) -> String {
    format!("W{BETWEEN}{request}{BETWEEN}{session}\n")
}

/// Takes away.
pub(crate) fn break_off(request: RequestId) -> String {
    format!("B{BETWEEN}{request}\n")
}

/// What is left of a lock that is free.
pub(crate) fn free(last_token: u64) -> String {
    format!("F{BETWEEN}{last_token}\n")
}

impl LockJournal {
    pub(crate) fn read(text: &[u8]) -> Result<Self> {
        let mut journal = LockJournal::default();
        for mut fields in entries(text)? {
            journal.entries += 1;
            match fields.text()? {
                "A" => journal.ask(QueuedRequest {
                    request: fields.read()?,
                    session: fields.read()?,
                    mode: match fields.text()? {
                        "x" => LockMode::Exclusive,
                        "s" => LockMode::Shared,
                        _ => return fields.strange(),
                    },
                    token: fields.read()?,
                    member: fields.read()?,
                }),
                "R" => journal.end(fields.read()?, End::Given),
                "W" => {
                    let request = fields.read()?;
                    journal.end(request, End::Given);
                    journal.withdrawn.insert(request, fields.read()?);
                }
                "B" => {
                    let request = fields.read()?;
                    if journal.holders().iter().any(|place| place.request == request) {
                        journal.end(request, End::Taken);
                    }
                }
                "X" => journal.bury(fields.read()?),
                "F" => journal.last_token = journal.last_token.max(fields.read()?),
                _ => return fields.strange(),
            }
        }
        Ok(journal)
    }

    fn ask(&mut self, mut place: QueuedRequest) {
        let is_over = self.ended.contains_key(&place.request) || self.withdrawn.contains_key(&place.request);
        if is_over || self.place_of(place.request).is_some() {
            return;
        }
        if self.dead.contains(&place.session) {
            self.ended.insert(place.request, End::Died);
            return;
        }
        place.token = place.token.max(self.last_token + 1);
        self.last_token = place.token;
        self.line.push(place);
    }

    fn end(&mut self, request: RequestId, how: End) {
        if let Some(index) = self.line.iter().position(|place| place.request == request) {
            self.line.remove(index);
            self.ended.insert(request, how);
        }
    }

    fn bury(&mut self, session: SessionId) {
        self.dead.insert(session);
        for place in self.line.extract_if(.., |place| place.session == session) {
            self.ended.insert(place.request, End::Died);
        }
    }

    /// Those that have the lock.
    pub(crate) fn holders(&self) -> &[QueuedRequest] {
        let shared = self.line.iter().take_while(|place| place.mode == LockMode::Shared).count();
        &self.line[..shared.max(1).min(self.line.len())]
    }

    /// Those that wait for it.
    pub(crate) fn waiters(&self) -> &[QueuedRequest] {
        &self.line[self.holders().len()..]
    }

    /// The place of a request.
    pub(crate) fn place_of(&self, request: RequestId) -> Option<&QueuedRequest> {
        self.line.iter().find(|place| place.request == request)
    }

    /// The places that have to go before that request has the lock; `None`: it has no place.
    pub(crate) fn in_the_way(&self, request: RequestId) -> Option<Vec<&QueuedRequest>> {
        let index = self.line.iter().position(|place| place.request == request)?;
        let (before, own) = (&self.line[..index], &self.line[index]);
        // A reader has to wait for all who came before the last writer before it, too.
        let until = match own.mode {
            LockMode::Exclusive => before.len(),
            LockMode::Shared => {
                before.iter().rposition(|place| place.mode == LockMode::Exclusive).map_or(0, |writer| writer + 1)
            }
        };
        Some(before[..until].iter().collect())
    }

    /// How that request ended, as far as this text tells.
    pub(crate) fn end_of(&self, request: RequestId) -> Option<End> {
        self.ended.get(&request).copied()
    }

    /// Whether the text says little for its length.
    pub(crate) fn is_mostly_over(&self) -> bool {
        self.entries > 2 * (self.line.len() + self.withdrawn.len() + 1)
    }

    /// A text that means the same, without what is over; `gone` are sessions that were seen to be gone.
    pub(crate) fn compacted(&self, gone: &BTreeSet<SessionId>) -> String {
        let mut text: String = self.line.iter().map(QueuedRequest::entry).collect();
        text += &self.remembered(gone);
        // Writing to a text never fails.
        let _ = write!(text, "{}", free(self.last_token));
        text
    }

    /// What is to be remembered of requests in doubt.
    pub(crate) fn remembered(&self, gone: &BTreeSet<SessionId>) -> String {
        let living = self.withdrawn.iter().filter(|(_, by)| !gone.contains(by) && !self.dead.contains(by));
        living.map(|(request, session)| withdraw(*request, *session)).collect()
    }
}

/// How long a text is kept: one without places is needed for the last token alone.
pub(crate) fn kept_for(text: &str) -> u32 {
    if text.starts_with('F') { FREE } else { KEPT }
}

pub(crate) fn compact(text: &[u8], gone: &BTreeSet<SessionId>) -> Result<String> {
    LockJournal::read(text).map(|journal| journal.compacted(gone))
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
