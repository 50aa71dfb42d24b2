//! Groups in the table: a list of members for each, and a number that grows with every change.

use tooz_core::driver::{JoinConflict, RequestId};

use crate::critical::Critical;
use crate::doorbell::RingReason;
use crate::error::TableError;
use crate::index::hash_of;
use crate::layout::{
    BlockKind, CAPABILITIES, CAPABILITIES_LENGTH, COUNT, ID_HIGH, ID_LOW, MEMBER_HASH, MEMBER_NAME, MEMBER_NAME_LENGTH,
    RECORD, REVISION, block,
};
use crate::list::List;
use crate::owner::Owner;
use crate::queue::halves;

/// A new membership.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newcomer<'a> {
    pub(crate) group: &'a str,
    pub(crate) member: &'a str,
    pub(crate) id: RequestId,
    pub(crate) capabilities: &'a str,
}

/// What came of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinEnd {
    /// This block is the membership.
    Done(usize),
    NoGroup,
    /// A living member has that name.
    Refused,
}

/// What came of deleting a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeleteEnd {
    Done,
    NoGroup,
    /// It has so many living members.
    Inhabited(usize),
}

/// A member as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberEntry {
    pub(crate) member: String,
    pub(crate) id: RequestId,
    pub(crate) capabilities: String,
    pub(crate) owner: Owner,
}

impl Critical<'_> {
    /// `false`: there is one.
    pub(crate) fn create_group(&mut self, group: &str) -> Result<bool, TableError> {
        if self.find(BlockKind::Group, group.as_bytes())?.is_some() {
            return Ok(false);
        }
        self.make(BlockKind::Group, group.as_bytes())?;
        self.commit()?;
        Ok(true)
    }

    pub(crate) fn delete_group(&mut self, group: &str) -> Result<DeleteEnd, TableError> {
        let Some(record) = self.find(BlockKind::Group, group.as_bytes())? else { return Ok(DeleteEnd::NoGroup) };
        let living = self.living(record)?.len();
        if living > 0 {
            return Ok(DeleteEnd::Inhabited(living));
        }
        self.ring_watchers(record, RingReason::Gone)?;
        for watch in self.all(List::watches(record))? {
            self.disown(watch, List::watches(record))?;
            self.checkpoint()?;
        }
        self.forget(record)?;
        self.commit()?;
        Ok(DeleteEnd::Done)
    }

    /// The members of a group: the living, and the dead that were not found so far.
    pub(crate) fn members(&self, group: &str) -> Result<Option<Vec<MemberEntry>>, TableError> {
        let Some(record) = self.find(BlockKind::Group, group.as_bytes())? else { return Ok(None) };
        let mut listed = Vec::new();
        for membership in self.all(List::of(record))? {
            let text = |name, length| {
                let text =
                    self.read_text(self.number(block(membership, name))?, self.number(block(membership, length))?)?;
                String::from_utf8(text).map_err(|_| TableError::Garbled("a member that is no text"))
            };
            listed.push(MemberEntry {
                member: text(MEMBER_NAME, MEMBER_NAME_LENGTH)?,
                id: self.id(membership)?,
                capabilities: text(CAPABILITIES, CAPABILITIES_LENGTH)?,
                owner: self.owner(membership)?,
            });
        }
        Ok(Some(listed))
    }

    /// Enters a member. `meets` judges a living one of the same name by its request, and the session of one that is replaced is rung for.
    pub(crate) fn join(
        &mut self,
        newcomer: &Newcomer<'_>,
        meets: impl Fn(RequestId) -> JoinConflict,
    ) -> Result<JoinEnd, TableError> {
        let Some(record) = self.find(BlockKind::Group, newcomer.group.as_bytes())? else { return Ok(JoinEnd::NoGroup) };
        let old = self.member(record, newcomer.member)?;
        let mut robbed = None;
        if let Some(old) = old
            && self.is_owner_alive(old)?
        {
            match meets(self.id(old)?) {
                JoinConflict::Itself => return Ok(JoinEnd::Done(old)),
                JoinConflict::Refused => return Ok(JoinEnd::Refused),
                JoinConflict::Replaces => robbed = Some(self.owner(old)?.0),
            }
        }
        // What is new is taken before what is old is given back.
        let (name, capabilities) =
            (self.write_text(newcomer.member.as_bytes())?, self.write_text(newcomer.capabilities.as_bytes())?);
        let membership = self.own(BlockKind::Membership, record, List::of(record))?;
        let [high, low] = halves(newcomer.id);
        for (field, value) in [
            (ID_HIGH, high),
            (ID_LOW, low),
            (MEMBER_NAME, name as u64),
            (MEMBER_NAME_LENGTH, newcomer.member.len() as u64),
            (MEMBER_HASH, hash_of(BlockKind::Membership, newcomer.member.as_bytes())),
            (CAPABILITIES, capabilities as u64),
            (CAPABILITIES_LENGTH, newcomer.capabilities.len() as u64),
        ] {
            self.put(block(membership, field), value)?;
        }
        let count = self.get(block(record, COUNT))?;
        self.set(block(record, COUNT), count.wrapping_add(1))?;
        if let Some(old) = old {
            self.remove_member(record, old)?;
        }
        self.revise(record)?;
        self.commit()?;
        if let (Some(slot), Some(old)) = (robbed, old) {
            self.ring(slot, RingReason::Replaced, old);
        }
        Ok(JoinEnd::Done(membership))
    }

    /// New capabilities. `false`: the membership of that request is over.
    pub(crate) fn update(&mut self, membership: usize, id: RequestId, capabilities: &str) -> Result<bool, TableError> {
        if !self.is_membership(membership, id)? {
            return Ok(false);
        }
        let (new, old) = (self.write_text(capabilities.as_bytes())?, self.number(block(membership, CAPABILITIES))?);
        self.set(block(membership, CAPABILITIES), new as u64)?;
        self.set(block(membership, CAPABILITIES_LENGTH), capabilities.len() as u64)?;
        self.free(old)?;
        self.revise(self.number(block(membership, RECORD))?)?;
        self.commit()?;
        Ok(true)
    }

    /// Whether that block is the membership of that request of ours.
    pub(crate) fn is_membership(&self, membership: usize, id: RequestId) -> Result<bool, TableError> {
        Ok(self.is_ours(membership, BlockKind::Membership)? && self.id(membership)? == id)
    }

    /// Takes a membership away, whosever it is.
    pub(crate) fn end_membership(&mut self, membership: usize) -> Result<(), TableError> {
        let record = self.number(block(membership, RECORD))?;
        self.remove_member(record, membership)?;
        self.revise(record)?;
        self.commit()
    }

    /// The members that live. The dead are taken away.
    fn living(&mut self, record: usize) -> Result<Vec<usize>, TableError> {
        let mut living = Vec::new();
        for membership in self.all(List::of(record))? {
            if self.is_owner_alive(membership)? {
                living.push(membership);
            } else {
                self.end_membership(membership)?;
            }
        }
        Ok(living)
    }

    fn member(&self, record: usize, name: &str) -> Result<Option<usize>, TableError> {
        let hash = hash_of(BlockKind::Membership, name.as_bytes());
        for membership in self.all(List::of(record))? {
            if self.get(block(membership, MEMBER_HASH))? == hash {
                let text = self.number(block(membership, MEMBER_NAME))?;
                if self.is_text(text, self.number(block(membership, MEMBER_NAME_LENGTH))?, name.as_bytes())? {
                    return Ok(Some(membership));
                }
            }
        }
        Ok(None)
    }

    fn id(&self, of: usize) -> Result<RequestId, TableError> {
        let (high, low) = (self.get(block(of, ID_HIGH))?, self.get(block(of, ID_LOW))?);
        Ok(RequestId(u128::from(high) << 64 | u128::from(low)))
    }

    fn remove_member(&mut self, record: usize, membership: usize) -> Result<(), TableError> {
        let count = self.get(block(record, COUNT))?;
        let left = count.checked_sub(1).ok_or(TableError::Garbled("a group with more members than are counted"))?;
        self.set(block(record, COUNT), left)?;
        self.free(self.number(block(membership, MEMBER_NAME))?)?;
        self.free(self.number(block(membership, CAPABILITIES))?)?;
        self.disown(membership, List::of(record))
    }

    fn revise(&mut self, record: usize) -> Result<(), TableError> {
        let revision = self.get(block(record, REVISION))?;
        self.set(block(record, REVISION), revision.wrapping_add(1))?;
        self.ring_watchers(record, RingReason::Record)
    }
}
