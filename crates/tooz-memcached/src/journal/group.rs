//! The journal of a group.
//!
//! | entry | what it says |
//! |---|---|
//! | `C id` | makes the group, if there is none |
//! | `D id` | deletes it, if it has no member |
//! | `J request session replace count member capabilities` | enters the member, if there is a group and no other member of that name that it may not replace |
//! | `U request count capabilities` | changes the capabilities, if the member stands and the count is a higher one |
//! | `L request` | leaves |
//! | `W request session` | leaves in doubt: voids a `J` before it or behind it, and is kept as long as its session lives |
//! | `X session` | that session was seen to be gone |
//!
//! Each entry is judged where it stands: a join that was refused there is refused for ever.

use std::collections::{BTreeMap, BTreeSet};

use tooz_core::driver::{JoinConflict, JoinRequest, Replace, RequestId};
use tooz_core::{Capabilities, MemberId, Result, RosterEntry};

use crate::error::strange;
use crate::journal::{BETWEEN, End, SessionId, entries};
use crate::reply::KEPT;

/// Groups are kept without a time limit.
pub(crate) const FOR_EVER: u32 = 0;

/// What a journal says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GroupJournal {
    /// By which entry the group was made; `None`: there is no group.
    pub(crate) made_by: Option<u64>,
    /// The members, in the order in which they came.
    pub(crate) members: Vec<MemberEntry>,
    /// Requests whose later entries have no effect, by whose sessions keep it so.
    pub(crate) withdrawn: BTreeMap<RequestId, SessionId>,
    /// What was taken over, by which join.
    pub(crate) replaced: Vec<(RequestId, MemberEntry)>,
    ended: BTreeMap<RequestId, End>,
    /// Which entries deleted the group, and by which it had been made.
    deleted_by: BTreeMap<u64, u64>,
    dead: BTreeSet<SessionId>,
    entries: usize,
}

/// A member that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberEntry {
    pub(crate) request: RequestId,
    pub(crate) session: SessionId,
    /// How often its capabilities were changed.
    pub(crate) count: u64,
    pub(crate) member: MemberId,
    pub(crate) capabilities: String,
}

impl MemberEntry {
    fn line(&self, replace: Replace) -> String {
        let MemberEntry { request, session, count, member, capabilities } = self;
        let replace = match replace {
            Replace::Nobody => "-".to_owned(),
            Replace::Own(before) => before.to_string(),
            Replace::Anybody => "*".to_owned(),
        };
        format!(
            "J{BETWEEN}{request}{BETWEEN}{session}{BETWEEN}{replace}{BETWEEN}{count}{BETWEEN}{member}{BETWEEN}{capabilities}\n"
        )
    }

    /// As core lists it.
    pub(crate) fn listed(&self) -> Result<RosterEntry> {
        let capabilities = Capabilities::from_json(&self.capabilities).map_err(strange)?;
        Ok(RosterEntry::new(self.member.clone(), self.request, capabilities))
    }
}

/// In one line. These stand in JSON only between its parts, where one blank is as good as another; later control characters may stand in texts.
pub(crate) fn in_a_line(capabilities: &Capabilities) -> String {
    capabilities.as_json().replace(['\t', '\n', '\r'], " ")
}

/// Makes a group.
pub(crate) fn create(id: u64) -> String {
    format!("C{BETWEEN}{id}\n")
}

/// Deletes a group.
pub(crate) fn delete(id: u64) -> String {
    format!("D{BETWEEN}{id}\n")
}

/// Joins.
pub(crate) fn join(request: &JoinRequest, session: SessionId) -> String {
    entry(request, session, 0).line(request.replace)
}

/// Joins once more where the record was lost. The group is the one that it was, also for all other members that do the same.
pub(crate) fn join_again(made_by: u64, request: &JoinRequest, session: SessionId, count: u64) -> String {
    create(made_by) + &entry(request, session, count).line(Replace::Nobody)
}

fn entry(request: &JoinRequest, session: SessionId, count: u64) -> MemberEntry {
    let capabilities = in_a_line(&request.capabilities);
    MemberEntry { request: request.id, session, count, member: request.member.clone(), capabilities }
}

/// Changes the capabilities.
pub(crate) fn update(request: &JoinRequest, count: u64) -> String {
    format!("U{BETWEEN}{}{BETWEEN}{count}{BETWEEN}{}\n", request.id, in_a_line(&request.capabilities))
}

/// Leaves.
pub(crate) fn leave(request: RequestId) -> String {
    format!("L{BETWEEN}{request}\n")
}

/// Leaves in doubt.
pub(crate) fn withdraw(request: RequestId, session: SessionId) -> String {
    format!("W{BETWEEN}{request}{BETWEEN}{session}\n")
}

impl GroupJournal {
    pub(crate) fn read(text: &[u8]) -> Result<Self> {
        let mut journal = GroupJournal::default();
        for mut fields in entries(text)? {
            journal.entries += 1;
            match fields.text()? {
                "C" => {
                    let id = fields.read()?;
                    journal.made_by.get_or_insert(id);
                }
                "D" => {
                    let id = fields.read()?;
                    if journal.members.is_empty()
                        && let Some(made_by) = journal.made_by.take()
                    {
                        journal.deleted_by.insert(id, made_by);
                    }
                }
                "J" => {
                    let (request, session) = (fields.read()?, fields.read()?);
                    let replace = match fields.text()? {
                        "-" => Replace::Nobody,
                        "*" => Replace::Anybody,
                        before => Replace::Own(before.parse().map_err(strange)?),
                    };
                    let (count, member, capabilities) = (fields.read()?, fields.read()?, fields.text()?.to_owned());
                    journal.join(MemberEntry { request, session, count, member, capabilities }, replace);
                }
                "U" => {
                    let (request, count, capabilities) = (fields.read()?, fields.read()?, fields.text()?);
                    journal.update(request, count, capabilities);
                }
                "L" => journal.end(fields.read()?, End::Given),
                "W" => {
                    let request = fields.read()?;
                    journal.end(request, End::Given);
                    journal.withdrawn.insert(request, fields.read()?);
                }
                "X" => journal.bury(fields.read()?),
                _ => return fields.strange(),
            }
        }
        Ok(journal)
    }

    fn join(&mut self, entry: MemberEntry, replace: Replace) {
        let is_over = self.ended.contains_key(&entry.request) || self.withdrawn.contains_key(&entry.request);
        let stands = self.entry_of(entry.request).is_some();
        if self.made_by.is_none() || is_over || stands || self.dead.contains(&entry.session) {
            return;
        }
        if let Some(there) = self.members.iter().position(|there| there.member == entry.member) {
            match meets(entry.request, replace, self.members[there].request) {
                JoinConflict::Itself | JoinConflict::Refused => return,
                JoinConflict::Replaces => {
                    let old = self.members.remove(there);
                    self.ended.insert(old.request, End::Taken);
                    self.replaced.push((entry.request, old));
                }
            }
        }
        self.members.push(entry);
    }

    fn update(&mut self, request: RequestId, count: u64, capabilities: &str) {
        if let Some(entry) = self.members.iter_mut().find(|entry| entry.request == request && entry.count < count) {
            entry.count = count;
            capabilities.clone_into(&mut entry.capabilities);
        }
    }

    fn end(&mut self, request: RequestId, how: End) {
        if let Some(index) = self.members.iter().position(|entry| entry.request == request) {
            self.members.remove(index);
            self.ended.insert(request, how);
        }
    }

    fn bury(&mut self, session: SessionId) {
        self.dead.insert(session);
        for entry in self.members.extract_if(.., |entry| entry.session == session) {
            self.ended.insert(entry.request, End::Died);
        }
    }

    /// The member that this request has made.
    pub(crate) fn entry_of(&self, request: RequestId) -> Option<&MemberEntry> {
        self.members.iter().find(|entry| entry.request == request)
    }

    /// The member of that name.
    pub(crate) fn member(&self, member: &MemberId) -> Option<&MemberEntry> {
        self.members.iter().find(|entry| entry.member == *member)
    }

    /// By which entry the group had been made that this one has deleted; `None`: it has deleted none.
    pub(crate) fn deleted_by(&self, id: u64) -> Option<u64> {
        self.deleted_by.get(&id).copied()
    }

    /// How that membership ended, as far as this text tells.
    pub(crate) fn end_of(&self, request: RequestId) -> Option<End> {
        self.ended.get(&request).copied()
    }

    /// Whether the text says little for its length.
    pub(crate) fn is_mostly_over(&self) -> bool {
        self.entries > 2 * (self.members.len() + self.withdrawn.len() + 1)
    }

    /// Whether there is nothing to be remembered.
    pub(crate) fn is_nothing(&self) -> bool {
        self.made_by.is_none() && self.withdrawn.is_empty()
    }

    /// A text that means the same, without what is over; `gone` are sessions that were seen to be gone.
    pub(crate) fn compacted(&self, gone: &BTreeSet<SessionId>) -> String {
        let mut text = self.made_by.map(create).unwrap_or_default();
        text.extend(self.members.iter().map(|entry| entry.line(Replace::Nobody)));
        for (request, session) in &self.withdrawn {
            if !gone.contains(session) && !self.dead.contains(session) {
                text += &withdraw(*request, *session);
            }
        }
        text
    }
}

/// How long a text is kept: one without a group only remembers what may come late.
pub(crate) fn kept_for(text: &str) -> u32 {
    if text.starts_with('C') { FOR_EVER } else { KEPT }
}

pub(crate) fn compact(text: &[u8], gone: &BTreeSet<SessionId>) -> Result<String> {
    GroupJournal::read(text).map(|journal| journal.compacted(gone))
}

/// What a join means for a living member of its name: see [`JoinRequest::meets`].
fn meets(request: RequestId, replace: Replace, there: RequestId) -> JoinConflict {
    match replace {
        _ if there == request => JoinConflict::Itself,
        Replace::Own(_) if there.is_before(request) => JoinConflict::Replaces,
        Replace::Anybody => JoinConflict::Replaces,
        Replace::Nobody | Replace::Own(_) => JoinConflict::Refused,
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
