//! The members of a group as the ensemble shows them: their entries, and the count of changes.

use tooz_core::{Result, RosterEntry};
use zookeeper_client::{Client as ZooKeeper, Error as ZkError, Stat};

use crate::batch;
use crate::record::{self, MemberRecord};

/// What stands at a node below a group.
pub(crate) enum Member {
    Here(RosterEntry),
    /// Other programs have made it.
    Foreign,
    Gone,
}

impl Member {
    /// The entry, if there is one.
    pub(crate) fn entry(self) -> Option<RosterEntry> {
        match self {
            Member::Here(entry) => Some(entry),
            Member::Foreign | Member::Gone => None,
        }
    }

    fn of(data: &[u8]) -> Self {
        let entry = record::read::<MemberRecord>("a member", data).and_then(|record: MemberRecord| record.entry());
        entry.map_or(Member::Foreign, Member::Here)
    }
}

/// Reads members of a group in one round trip.
pub(crate) async fn read(zookeeper: &ZooKeeper, group: &str, nodes: &[String]) -> Result<Vec<Member>, ZkError> {
    let contents = batch::read(zookeeper, group, nodes).await?;
    Ok(contents.into_iter().map(|content| content.map_or(Member::Gone, |(data, _)| Member::of(&data))).collect())
}

/// The count of changes of a group: of members that came and went, and of updates. A group that was deleted and made again goes on
/// counting higher up, since no transaction changes a group more often than four times.
pub(crate) fn version(group: &Stat) -> u64 {
    let born = u64::try_from(group.czxid).unwrap_or(0) << 2;
    let changes = i64::from(group.cversion) + i64::from(group.version);
    born.wrapping_add_signed(changes)
}
