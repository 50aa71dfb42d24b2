//! The list of all groups: a name is noted there before its group is made, and anew where it was lost with the list.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tooz_core::Result;

use crate::client::{Client, Lane, SeenList};
use crate::error::of_list;
use crate::journal::LONG;
use crate::journal::group::FOR_EVER;
use crate::journal::groups::{self, GroupsJournal};
use crate::record::{Append, IfMissing};
use crate::reply::{Batch, Version};

/// How many bytes of the list a session reads in a second on average, to see whether its own groups are in it: a long one is read seldom.
const A_SECOND: usize = 1024;

/// How many names are noted in one write.
const AT_ONCE: usize = 64;

impl Client {
    /// Adds to the list.
    pub(crate) async fn note_name(&self, entry: &str) -> Result<()> {
        let key = self.layout.groups();
        let append = Append {
            key: &key,
            entry,
            missing: IfMissing::Make,
            seconds: FOR_EVER,
            lane: Lane::Wish,
            owned: false,
            compact: groups::compact,
        };
        let seen = self.append(&append).await.map_err(of_list)?;
        let text = seen.text.as_deref().unwrap_or_default();
        if text.len() > LONG && GroupsJournal::read(text)?.is_mostly_over() {
            let _ = self.tidy(&key, &seen, |_| FOR_EVER, groups::compact).await;
        }
        Ok(())
    }

    /// Sees that the list is kept, by a server that evicts what was not used for long, and that the groups of which this session is a member are in
    /// it: it may have been lost, and made anew with the next group.
    pub(crate) async fn look_after_list(&self) -> Result<()> {
        let key = self.layout.groups();
        let mut done = self.run(Batch::default().touch(&key, FOR_EVER), Lane::Duty).await?;
        let seen = *self.list.lock();
        if let Some(flags) = done.next().flags()? {
            let is_same = seen.version == Version { epoch: done.epoch, cas: flags.cas };
            if is_same || seen.due.is_some_and(|due| Instant::now() < due) {
                return Ok(());
            }
        }
        let reading = self.read(&key).await?;
        let text = reading.text.unwrap_or_default();
        self.note_what_misses(&GroupsJournal::read(&text)?).await?;
        let pause = Duration::from_secs((text.len() / A_SECOND) as u64);
        *self.list.lock() = SeenList { version: reading.version, due: Some(Instant::now() + pause) };
        Ok(())
    }

    async fn note_what_misses(&self, list: &GroupsJournal) -> Result<()> {
        // A member that leaves takes turns with that: a group that may be deleted is not listed anew.
        let _turn = self.memberships.lock().await;
        let joined = self.holdings.joined();
        let missing = joined.iter().filter(|(_, membership)| !list.has(membership.made_by));
        let names: BTreeMap<_, _> = missing.map(|(_, of)| (of.made_by, &of.request.group)).collect();
        let entries: Vec<_> = names.into_iter().map(|(made_by, name)| groups::come(made_by, name)).collect();
        for some in entries.chunks(AT_ONCE) {
            self.note_name(&some.concat()).await?;
        }
        Ok(())
    }
}
