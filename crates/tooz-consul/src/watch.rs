//! What is told of a group or a lock, in core's words: by questions that the server answers when something has changed.
//!
//! Consul can't be asked to tell of a prefix without sending its content. So the watch of a group reads the whole group at each change, compares, and
//! takes a pause after that which grows with its size. The watch of a lock asks about the one key at its head, whose change is all
//! that changes the holder, and about all of the lock only where that is free or shared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tooz_core::driver::{Backoff, Change, PushStream, Pushed, Pusher, push_channel};
use tooz_core::{LockMode, Result, RosterEntry};

use crate::client::{Client, Lane, Scope};
use crate::idle::Idle;
use crate::layout::{GroupFolder, LockFolder, count_holders};
use crate::request::{KeyEntry, Page};

/// The pause for each member between two readings of a group: so a change of a group of a thousand costs a reader a tenth of its time at most.
const FOR_EACH: Duration = Duration::from_micros(100);
/// How often it is looked where as many questions are waiting already as may be.
const ASIDE: Duration = Duration::from_millis(500);

/// By what a watch asks.
pub(crate) struct Poller {
    pub(crate) client: Arc<Client>,
    /// How long one question waits.
    pub(crate) wait: Duration,
}

impl Poller {
    /// What stands there when something has changed after that index, or after some time.
    async fn change(&self, key: &str, scope: Scope, index: u64) -> Result<Page> {
        if let Some(page) = self.client.poll(Lane::Poll, key, scope, index, self.wait).await {
            return page;
        }
        tokio::time::sleep(ASIDE).await;
        self.client.glance(Lane::Duty, key, scope).await
    }
}

/// Runs until the watcher has gone, or until there is nothing more to watch.
fn run(watch: impl Future<Output = ()> + Send + 'static, pusher: &Arc<Pusher>) {
    let pusher = Arc::clone(pusher);
    tokio::spawn(async move {
        tokio::select! {
            () = watch => {}
            () = pusher.closed() => {}
        }
    });
}

/// After which index to ask. After a failure the servers may be far from it, and would be deaf to a question about it.
fn since(index: u64, has_failed: bool) -> u64 {
    // That of zero would not wait.
    if has_failed { 0 } else { index.max(1) }
}

fn pauses() -> Backoff {
    Backoff::between(Duration::from_millis(50), Duration::from_secs(1))
}

/// Every change of a group after that page.
pub(crate) fn group(watching: Poller, folder: GroupFolder, page: &Page) -> PushStream {
    let (pusher, stream) = push_channel();
    let pusher = Arc::new(pusher);
    pusher.push(Pushed::Ready);
    let (members, index) = (members(&folder, page), page.index);
    let watch = GroupWatch { members, index, has_failed: false, folder, pusher: Arc::clone(&pusher) };
    run(watch.follow(watching), &pusher);
    stream
}

/// The members of a page, by their keys, with the index of the last change of each.
fn members(folder: &GroupFolder, page: &Page) -> BTreeMap<String, (u64, RosterEntry)> {
    let entry = |found: &KeyEntry| Some((found.key.clone(), (found.modified, folder.entry(found)?)));
    page.entries.iter().filter_map(entry).collect()
}

struct GroupWatch {
    folder: GroupFolder,
    pusher: Arc<Pusher>,
    members: BTreeMap<String, (u64, RosterEntry)>,
    index: u64,
    has_failed: bool,
}

impl GroupWatch {
    async fn follow(mut self, watching: Poller) {
        let mut pauses = pauses();
        let mut idle = Idle::new();
        loop {
            let asked_at = Instant::now();
            let followed = self.follow_once(&watching).await;
            self.has_failed = followed.is_err();
            match followed {
                Ok(Some(has_told)) => {
                    pauses.reset();
                    idle.pace(has_told, asked_at).await;
                }
                Ok(None) => return self.pusher.push(Pushed::Gone),
                // Nothing is missed: what is read next is compared with what was read last.
                Err(_) => pauses.pause().await,
            }
        }
    }

    /// Whether there was anything to tell; `None`: the group is gone.
    async fn follow_once(&mut self, watching: &Poller) -> Result<Option<bool>> {
        let marker = self.folder.marker().to_owned();
        let mut page = watching.change(&marker, Scope::Below, since(self.index, self.has_failed)).await?;
        if !page.has(&marker) {
            // A leader that was just elected may not have read its own log.
            match watching.client.read_folder(Lane::Duty, &marker).await? {
                Some(read) => page = read,
                None => return Ok(None),
            }
        }
        let number = u32::try_from(page.entries.len()).unwrap_or(u32::MAX);
        let has_told = self.tell(&page);
        if has_told {
            tokio::time::sleep(FOR_EACH.saturating_mul(number).min(watching.wait)).await;
        }
        Ok(Some(has_told))
    }

    /// Tells what is new in a page, if anything is.
    fn tell(&mut self, page: &Page) -> bool {
        let now = members(&self.folder, page);
        let changes = changes(&self.members, &now);
        // The index of a prefix goes back when Consul forgets what was deleted there: that alone is no change.
        let grows = page.index > self.index;
        (self.members, self.index) = (now, page.index);
        let mut changes = changes.into_iter();
        match (changes.next(), changes.next()) {
            (None, _) => false,
            (Some(change), None) if grows => {
                self.pusher.push(Pushed::Delta { after: None, version: page.index, change });
                true
            }
            _ => {
                self.pusher.push(Pushed::Dirty);
                true
            }
        }
    }
}

/// What has changed between two readings.
fn changes(before: &BTreeMap<String, (u64, RosterEntry)>, now: &BTreeMap<String, (u64, RosterEntry)>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, (modified, entry)) in now {
        match before.get(key) {
            Some((known, _)) if known == modified => {}
            Some((_, known)) if known.id == entry.id => changes.push(Change::Updated(entry.clone())),
            Some(_) => {
                changes.push(Change::Left(entry.member.clone()));
                changes.push(Change::Joined(entry.clone()));
            }
            None => changes.push(Change::Joined(entry.clone())),
        }
    }
    let gone = before.iter().filter(|(key, _)| !now.contains_key(*key));
    changes.extend(gone.map(|(_, (_, entry))| Change::Left(entry.member.clone())));
    changes
}

/// A hint at every change of the holders of a lock, whose queue at that index was this.
pub(crate) fn lock(watching: Poller, folder: LockFolder, line: Vec<KeyEntry>, index: u64) -> PushStream {
    let (pusher, stream) = push_channel();
    let pusher = Arc::new(pusher);
    pusher.push(Pushed::Ready);
    let watch = LockWatch { folder, pusher: Arc::clone(&pusher), line, index, has_failed: false };
    run(watch.follow(watching), &pusher);
    stream
}

struct LockWatch {
    folder: LockFolder,
    pusher: Arc<Pusher>,
    line: Vec<KeyEntry>,
    /// Of the last reading of the whole lock.
    index: u64,
    has_failed: bool,
}

impl LockWatch {
    async fn follow(mut self, watching: Poller) {
        let mut pauses = pauses();
        let mut idle = Idle::new();
        loop {
            let asked_at = Instant::now();
            let followed = self.follow_once(&watching).await;
            self.has_failed = followed.is_err();
            if let Ok(has_told) = followed {
                pauses.reset();
                idle.pace(has_told, asked_at).await;
            } else {
                pauses.pause().await;
            }
        }
    }

    /// Whether there was anything to tell.
    async fn follow_once(&mut self, watching: &Poller) -> Result<bool> {
        let since = since(self.index, self.has_failed);
        if let Some(head) = self.line.first()
            && self.folder.mode_of(&head.key) == LockMode::Exclusive
        {
            // The waiters behind it change nothing.
            let page = watching.change(&head.key, Scope::One, since).await?;
            if page.entries.first().is_some_and(|there| there.created == head.created) {
                self.index = page.index;
                return Ok(false);
            }
            let all = watching.client.glance(Lane::Duty, self.folder.all(), Scope::Below).await?;
            Ok(self.tell(all))
        } else {
            let all = watching.change(self.folder.all(), Scope::Below, since).await?;
            Ok(self.tell(all))
        }
    }

    fn tell(&mut self, page: Page) -> bool {
        let before = self.holders();
        (self.line, self.index) = (page.entries, page.index);
        self.line.sort_unstable_by_key(|entry| entry.created);
        let is_new = self.holders() != before;
        if is_new {
            self.pusher.push(Pushed::Dirty);
        }
        is_new
    }

    /// Those that hold the lock.
    fn holders(&self) -> Vec<u64> {
        let count = count_holders(self.line.iter().map(|entry| self.folder.mode_of(&entry.key)));
        self.line.iter().take(count).map(|entry| entry.created).collect()
    }
}

#[cfg(test)]
mod tests {
    use tooz_core::Capabilities;
    use tooz_core::driver::RequestId;

    use super::*;

    fn of(members: &[(&str, u128, u64)]) -> BTreeMap<String, (u64, RosterEntry)> {
        let entry = |&(name, id, modified): &(&str, u128, u64)| {
            (
                name.to_owned(),
                (modified, RosterEntry::new(name.parse().unwrap(), RequestId(id), Capabilities::default())),
            )
        };
        members.iter().map(entry).collect()
    }

    /// Consul forgets after some time what was deleted below a prefix, and its index goes back.
    #[test]
    fn an_index_that_goes_back_is_no_change() {
        let folder = crate::layout::Layout::new(&"n".parse().unwrap()).unwrap().group(&"g".parse().unwrap());
        let (pusher, mut stream) = push_channel();
        let (members, index, has_failed) = (BTreeMap::new(), 20, false);
        let mut watch = GroupWatch { folder, pusher: Arc::new(pusher), members, index, has_failed };
        assert!(!watch.tell(&Page { entries: Vec::new(), index: 10 }) && watch.index == 10);
        watch.members = of(&[("a", 1, 5)]);
        assert!(watch.tell(&Page { entries: Vec::new(), index: 7 }), "what has changed is told all the same");
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let told = stream.as_mut().poll_next(&mut context);
        assert!(matches!(told, std::task::Poll::Ready(Some(Pushed::Dirty))), "told {told:?}");
    }

    #[test]
    fn two_readings_are_compared() {
        let before = of(&[("a", 1, 10), ("b", 2, 11), ("c", 3, 12)]);
        assert!(changes(&before, &before).is_empty());
        let now = of(&[("a", 1, 10), ("b", 2, 20), ("d", 4, 21)]);
        let found = changes(&before, &now);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(matches!(&found[0], Change::Updated(entry) if entry.member.as_str() == "b"));
        assert!(matches!(&found[1], Change::Joined(entry) if entry.member.as_str() == "d"));
        assert!(matches!(&found[2], Change::Left(member) if member.as_str() == "c"));
        let again = changes(&before, &of(&[("a", 9, 30), ("b", 2, 11), ("c", 3, 12)]));
        assert!(
            matches!(&again[..], [Change::Left(_), Change::Joined(_)]),
            "another join is another member: {again:?}"
        );
    }
}
