//! The journal of a namespace's groups by name. It only says where to look: each group's own journal says whether it is there.
//!
//! | entry | what it says |
//! |---|---|
//! | `+ id name` | a group of that name is about to be made by the entry with that id |
//! | `- id` | it was not, or is deleted |

use std::collections::{BTreeMap, BTreeSet};

use tooz_core::{GroupId, Result};

use crate::journal::{BETWEEN, SessionId, entries};

/// What the journal says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupsJournal {
    names: BTreeMap<u64, GroupId>,
    entries: usize,
}

pub(crate) fn come(id: u64, name: &GroupId) -> String {
    format!("+{BETWEEN}{id}{BETWEEN}{name}\n")
}

pub(crate) fn gone(id: u64) -> String {
    format!("-{BETWEEN}{id}\n")
}

impl GroupsJournal {
    pub(crate) fn read(text: &[u8]) -> Result<Self> {
        let mut journal = GroupsJournal::default();
        for mut fields in entries(text)? {
            journal.entries += 1;
            match fields.text()? {
                "+" => {
                    let id = fields.read()?;
                    journal.names.insert(id, fields.read()?);
                }
                "-" => {
                    journal.names.remove(&fields.read()?);
                }
                _ => return fields.strange(),
            }
        }
        Ok(journal)
    }

    /// Whether the group is listed that was made by the entry with that id.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.names.contains_key(&id)
    }

    /// The names, each once.
    pub(crate) fn names(&self) -> BTreeSet<&GroupId> {
        self.names.values().collect()
    }

    /// Whether the text says little for its length.
    pub(crate) fn is_mostly_over(&self) -> bool {
        self.entries > 2 * (self.names.len() + 1)
    }

    /// A text that means the same, without what is over.
    pub(crate) fn compacted(&self) -> String {
        self.names.iter().map(|(id, name)| come(*id, name)).collect()
    }
}

/// A text that means the same as this one, without what is over.
pub(crate) fn compact(text: &[u8], _gone: &BTreeSet<SessionId>) -> Result<String> {
    GroupsJournal::read(text).map(|journal| journal.compacted())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_end_takes_no_later_group_away() {
        let name: GroupId = "a group".parse().unwrap();
        let text = come(1, &name) + &come(2, &name) + &gone(1);
        let journal = GroupsJournal::read(text.as_bytes()).unwrap();
        assert_eq!(journal.names(), [&name].into());
        assert_eq!(journal.compacted(), come(2, &name));
        assert!(journal.has(2) && !journal.has(1));
        assert!(GroupsJournal::read(b"+\t1\n").is_err());
    }
}
