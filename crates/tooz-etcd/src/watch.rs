//! Pushes: what the feed tells of a group or a lock, in core's words.

use std::collections::HashMap;
use std::sync::Arc;

use tooz_core::{Change, GroupId, LockKey, LockMode, PushStream, Pushed, Pusher, Result, push_channel};

use crate::feed::{Notice, Scope, Watching};
use crate::keys::{GroupFolder, LockFolder, MemberRecord};
use crate::proto::etcdserverpb::RangeRequest;
use crate::request::all;
use crate::session::Etcd;

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
        let found = self.range(&RangeRequest { keys_only: true, ..all(&folder.all()) }).await?;
        let revision = found.header.as_ref().map_or(0, |header| header.revision);
        let mut queue = Queue::default();
        for kv in found.kvs {
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
                let entry = MemberRecord::read(&kv.value).ok();
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
    places: HashMap<Vec<u8>, (LockMode, i64)>,
}

impl Queue {
    fn add(&mut self, folder: &LockFolder, key: Vec<u8>, created: i64) {
        if let Some(mode) = folder.mode_of(&key) {
            self.places.insert(key, (mode, created));
        }
    }

    /// The creation revisions of those who hold the lock: the first writer, or all readers before it.
    fn holders(&self) -> Vec<i64> {
        let of = |wanted| move |(mode, created): &(LockMode, i64)| (*mode == wanted).then_some(*created);
        let writer = self.places.values().filter_map(of(LockMode::Exclusive)).min();
        let readers = self.places.values().filter_map(of(LockMode::Shared));
        let mut holding: Vec<_> = readers.filter(|reader| writer.is_none_or(|writer| *reader < writer)).collect();
        if holding.is_empty() {
            holding.extend(writer);
        }
        holding.sort_unstable();
        holding
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
            Notice::Deleted { key, .. } => drop(self.queue.places.remove(&key)),
        }
        let holding = self.queue.holders();
        if self.blind || holding != self.holding {
            self.holding = holding;
            self.pusher.push(Pushed::Dirty);
        }
    }
}
