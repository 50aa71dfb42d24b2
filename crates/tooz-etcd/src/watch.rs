//! Pushes: what the feed tells of a group or a lock, in core's words.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tooz_core::driver::{Change, LockKey, PushStream, Pushed, Pusher, push_channel};
use tooz_core::{GroupId, LockMode, Result};

use crate::cluster::Lane;
use crate::feed::{Notice, Scope, Watching};
use crate::keys::{GroupFolder, LockFolder};
use crate::proto::etcdserverpb::RangeRequest;
use crate::request::all;
use crate::session::{Etcd, PAGE};

impl Etcd {
    /// Every change of a group, from before its members are read.
    pub(crate) async fn push_group(&self, group: &GroupId) -> Result<PushStream> {
        let revision = self.group_revision(group).await?;
        let folder = self.keys.group(group);
        let scope = Scope::keys(&folder.everything(), revision + 1);
        let (pusher, stream) = push_channel();
        let pusher = Arc::new(pusher);
        let mut telling = GroupTelling { folder, pusher: Arc::clone(&pusher), last: 0 };
        let watching = self.feed.watch(scope, move |notice| telling.tell(notice));
        end_with_reader(&pusher, watching);
        Ok(stream)
    }

    /// A hint whenever somebody else holds the lock, or nobody.
    pub(crate) async fn push_lock(&self, key: &LockKey) -> Result<PushStream> {
        let folder = self.keys.lock(key);
        let range = RangeRequest { keys_only: true, limit: PAGE, ..all(&folder.all()) };
        let found = self.range(Lane::Wish, &range).await?;
        let revision = found.header.as_ref().map_or(0, |header| header.revision);
        let mut queue = Queue::default();
        for kv in self.rest(&range, found, revision).await? {
            queue.add(&folder, kv.key, kv.create_revision);
        }
        let holding = queue.holders();
        let scope = Scope::keys(&folder.all(), revision + 1);
        let (pusher, stream) = push_channel();
        let pusher = Arc::new(pusher);
        let mut telling = LockTelling { folder, pusher: Arc::clone(&pusher), queue, holding, blind: false };
        let watching = self.feed.watch(scope, move |notice| telling.tell(notice));
        end_with_reader(&pusher, watching);
        Ok(stream)
    }
}

/// Ends the watch when its reader has gone. The task ends with the reader, which core drops with the session.
fn end_with_reader(pusher: &Arc<Pusher>, watching: Watching) {
    let pusher = Arc::clone(pusher);
    tokio::spawn(async move {
        pusher.closed().await;
        drop(watching);
    });
}

struct GroupTelling {
    folder: GroupFolder,
    pusher: Arc<Pusher>,
    last: i64,
}

impl GroupTelling {
    fn tell(&mut self, notice: Notice) {
        let (revision, change) = match notice {
            Notice::Ready { .. } => return self.pusher.push(Pushed::Ready),
            Notice::Gap => return self.pusher.push(Pushed::Gap),
            Notice::Deleted { key, .. } if key == self.folder.marker() => return self.pusher.push(Pushed::Gone),
            Notice::Put(kv) if kv.key == self.folder.marker() => return,
            Notice::Deleted { key, revision } => (revision, self.folder.member_of(&key).map(Change::Left)),
            Notice::Put(kv) => {
                let entry = self.folder.entry(&kv.key, &kv.value);
                let change =
                    entry.map(|entry| if kv.version == 1 { Change::Joined(entry) } else { Change::Updated(entry) });
                (kv.mod_revision, change)
            }
        };
        // Two changes of one revision have one version, by which core would take the second for known.
        let is_second = std::mem::replace(&mut self.last, revision) == revision;
        self.pusher.push(match change {
            Some(change) if !is_second => Pushed::Delta { after: None, version: revision.unsigned_abs(), change },
            _ => Pushed::Dirty,
        });
    }
}

/// The keys of one lock as the watch knows them. Most that happens to a lock happens in its queue and changes no holder.
#[derive(Default)]
struct Queue {
    created: HashMap<Vec<u8>, i64>,
    /// In the order of their creation.
    places: BTreeMap<i64, LockMode>,
}

impl Queue {
    fn add(&mut self, folder: &LockFolder, key: Vec<u8>, created: i64) {
        let mode = folder.mode_of(&key).unwrap_or(LockMode::Exclusive);
        self.places.insert(created, mode);
        self.created.insert(key, created);
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(created) = self.created.remove(key) {
            self.places.remove(&created);
        }
    }

    /// The creation revisions of those who hold the lock: the first writer, or all readers before it.
    fn holders(&self) -> Vec<i64> {
        let mut first = self.places.iter();
        match first.next() {
            None => Vec::new(),
            Some((writer, LockMode::Exclusive)) => vec![*writer],
            Some((reader, LockMode::Shared)) => {
                let readers = first.take_while(|(_, mode)| **mode == LockMode::Shared);
                std::iter::once(reader).chain(readers.map(|(reader, _)| reader)).copied().collect()
            }
        }
    }
}

struct LockTelling {
    folder: LockFolder,
    pusher: Arc<Pusher>,
    queue: Queue,
    holding: Vec<i64>,
    /// Something was missed: from now on everything may be a change of holders.
    blind: bool,
}

impl LockTelling {
    fn tell(&mut self, notice: Notice) {
        match notice {
            Notice::Ready { .. } => return self.pusher.push(Pushed::Ready),
            Notice::Gap => self.blind = true,
            Notice::Put(kv) => self.queue.add(&self.folder, kv.key, kv.create_revision),
            Notice::Deleted { key, .. } => self.queue.remove(&key),
        }
        let holding = self.queue.holders();
        if self.blind || holding != self.holding {
            self.holding = holding;
            self.pusher.push(Pushed::Dirty);
        }
    }
}
