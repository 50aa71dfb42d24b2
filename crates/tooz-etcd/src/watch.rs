//! What the dispatch tells of a group or a lock, in core's words.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tooz_core::LockMode;
use tooz_core::driver::{Change, PushStream, Pushed, Pusher, push_channel};

use crate::dispatch::{Dispatch, Notice, Scope, WatchHandle};
use crate::layout::{GroupFolder, LockFolder};
use crate::proto::mvccpb::KeyValue;
use crate::queue::count_holders;

/// Every change of a group after that revision.
pub(crate) fn group(dispatch: &Arc<Dispatch>, folder: GroupFolder, revision: i64) -> PushStream {
    let scope = Scope::keys(&folder.everything(), revision + 1);
    let (pusher, stream) = push_channel();
    let pusher = Arc::new(pusher);
    let mut watch = GroupWatch { folder, pusher: Arc::clone(&pusher), last: 0 };
    end_with_reader(&pusher, dispatch.watch(scope, move |notice| watch.tell(notice)));
    stream
}

/// A hint at every change of the holders of a lock, whose queue at that revision was of these keys.
pub(crate) fn lock(dispatch: &Arc<Dispatch>, folder: LockFolder, keys: Vec<KeyValue>, revision: i64) -> PushStream {
    let mut queue = QueueKeys::default();
    for kv in keys {
        queue.add(&folder, kv.key, kv.create_revision);
    }
    let scope = Scope::keys(&folder.all(), revision + 1);
    let (pusher, stream) = push_channel();
    let pusher = Arc::new(pusher);
    let holders = queue.holders();
    let mut watch = LockWatch { folder, pusher: Arc::clone(&pusher), queue, holders, blind: false };
    end_with_reader(&pusher, dispatch.watch(scope, move |notice| watch.tell(notice)));
    stream
}

/// Ends the watch when its reader has gone. The task ends with the reader, which core drops with the session.
fn end_with_reader(pusher: &Arc<Pusher>, watching: WatchHandle) {
    let pusher = Arc::clone(pusher);
    tokio::spawn(async move {
        pusher.closed().await;
        drop(watching);
    });
}

struct GroupWatch {
    folder: GroupFolder,
    pusher: Arc<Pusher>,
    last: i64,
}

impl GroupWatch {
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

/// The keys of one lock as its watch knows them. Most that happens to a lock happens in its queue and changes no holder.
#[derive(Default)]
struct QueueKeys {
    created: HashMap<Vec<u8>, i64>,
    /// In the order of their creation.
    places: BTreeMap<i64, LockMode>,
}

impl QueueKeys {
    fn add(&mut self, folder: &LockFolder, key: Vec<u8>, created: i64) {
        self.places.insert(created, folder.mode_of(&key));
        self.created.insert(key, created);
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(created) = self.created.remove(key) {
            self.places.remove(&created);
        }
    }

    /// Those that hold the lock.
    fn holders(&self) -> Vec<i64> {
        let count = count_holders(self.places.values().copied());
        self.places.keys().take(count).copied().collect()
    }
}

struct LockWatch {
    folder: LockFolder,
    pusher: Arc<Pusher>,
    queue: QueueKeys,
    holders: Vec<i64>,
    /// Something was missed: from now on everything may be a change of holders.
    blind: bool,
}

impl LockWatch {
    fn tell(&mut self, notice: Notice) {
        match notice {
            Notice::Ready { .. } => return self.pusher.push(Pushed::Ready),
            Notice::Gap => self.blind = true,
            Notice::Put(kv) => self.queue.add(&self.folder, kv.key, kv.create_revision),
            Notice::Deleted { key, .. } => self.queue.remove(&key),
        }
        let holders = self.queue.holders();
        if self.blind || holders != self.holders {
            self.holders = holders;
            self.pusher.push(Pushed::Dirty);
        }
    }
}
