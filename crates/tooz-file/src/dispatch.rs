//! What the kernel tells of changes: one inotify instance for a session, which begins with the first watch.
//!
//! | event | means |
//! |---|---|
//! | in a group's folder a file came under a name | a member joined, updated, or was taken over |
//! | … a file was deleted | a member left, or a dead one was cleared away |
//! | … a file that was open for writing was closed | its member is dead, or has another file now |
//! | … the folder moved away | the group was deleted |
//! | a lock file was written or closed | it has another holder |
//! | a file of ours has one name less | our membership was taken over, or its file deleted |
//!
//! Each change costs a look at the one file that it is about, once for all watchers of the session, and wakes them alone.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;
use tooz_core::driver::{Mutex, MutexGuard, PushStream, Pushed, Pusher, Watchers, push_channel};
use tooz_core::{GroupId, Result};

use crate::group_folder::{GroupReader, MemberFiles};
use crate::holdings::Holdings;
use crate::recheck::Rechecks;
use crate::watched_group::WatchedGroup;

/// The watches of one session.
pub(crate) struct Dispatch {
    table: Arc<Table>,
    watches: Watches,
    task: AbortHandle,
}

struct Table {
    holdings: Arc<Holdings>,
    watched: Mutex<All>,
}

#[derive(Default)]
struct All {
    by_descriptor: HashMap<WatchDescriptor, WatchEntry>,
    groups: HashMap<GroupId, WatchDescriptor>,
}

struct WatchEntry {
    path: PathBuf,
    what: Subject,
    watchers: Watchers,
}

enum Subject {
    /// The folder of a group.
    Group(GroupId, WatchedGroup),
    /// The file of a lock.
    Lock,
    /// The file of a membership of ours in that group.
    Own(GroupId),
}

impl Dispatch {
    /// Begins to listen. The kernel allows a user some 128 instances; there may be no more.
    pub(crate) fn start(holdings: Arc<Holdings>) -> io::Result<Self> {
        let inotify = readable(Inotify::init()?)?;
        let watches = inotify.get_ref().watches();
        let table = Arc::new(Table { holdings, watched: Mutex::default() });
        let task = tokio::spawn(listen(inotify, Arc::clone(&table))).abort_handle();
        Ok(Dispatch { table, watches, task })
    }

    /// Watches the folder of a group.
    pub(crate) fn watch_group(&self, folder: &Path, group: &GroupId) -> io::Result<PushStream> {
        let (pusher, stream) = push_channel();
        self.add(folder, Subject::Group(group.clone(), WatchedGroup::default()), Some(pusher))?;
        Ok(stream)
    }

    /// Follows what happens to the file of a membership of ours.
    pub(crate) fn follow_own(&self, file: &Path, group: &GroupId) -> io::Result<()> {
        self.add(file, Subject::Own(group.clone()), None)
    }

    /// Watches the file of a lock.
    pub(crate) fn watch_lock(&self, file: &Path) -> io::Result<PushStream> {
        let (pusher, stream) = push_channel();
        self.add(file, Subject::Lock, Some(pusher))?;
        Ok(stream)
    }

    /// Reads a group. No change is told of while that goes on, so that its watchers know which of them it has seen: by the version.
    pub(crate) fn read(&self, group: &GroupId, read: GroupReader<'_>) -> Result<Option<(MemberFiles, u64)>> {
        let mut all = self.table.watched();
        let Some(found) = read()? else { return Ok(None) };
        let version = match all.group(group) {
            Some(WatchEntry { what: Subject::Group(_, told), watchers, .. }) => told.read(&found, watchers),
            _ => 0,
        };
        Ok(Some((found, version)))
    }

    /// Forgets what is not watched any more.
    pub(crate) fn forget_unwatched(&self) {
        let mut watches = self.watches.clone();
        let mut all = self.table.watched();
        let unwatched: Vec<_> = all
            .by_descriptor
            .iter()
            .filter_map(|(descriptor, watched)| {
                // What is ours is watched until the kernel says that it is gone.
                let stays = !watched.watchers.is_empty() || matches!(watched.what, Subject::Own(_));
                (!stays).then(|| descriptor.clone())
            })
            .collect();
        for descriptor in unwatched {
            all.remove(&descriptor);
            let _ = watches.remove(descriptor);
        }
    }

    fn add(&self, path: &Path, what: Subject, pusher: Option<Pusher>) -> io::Result<()> {
        let mask = match what {
            Subject::Group(..) => {
                WatchMask::MOVED_TO
                    | WatchMask::MOVED_FROM
                    | WatchMask::DELETE
                    | WatchMask::CLOSE_WRITE
                    | WatchMask::DELETE_SELF
                    | WatchMask::MOVE_SELF
                    | WatchMask::ONLYDIR
            }
            // A deleted file that is still open changes its attributes, no more.
            Subject::Lock => {
                WatchMask::MODIFY
                    | WatchMask::CLOSE_WRITE
                    | WatchMask::ATTRIB
                    | WatchMask::DELETE_SELF
                    | WatchMask::MOVE_SELF
            }
            Subject::Own(_) => WatchMask::ATTRIB | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF,
        };
        // The listener waits for the table: no event is read before its watch is in.
        let mut all = self.table.watched();
        let descriptor = self.watches.clone().add(path, mask)?;
        if let Subject::Group(group, _) = &what {
            all.groups.insert(group.clone(), descriptor.clone());
        }
        let watched = all.by_descriptor.entry(descriptor).or_insert_with(|| WatchEntry {
            path: path.to_owned(),
            what,
            watchers: Watchers::default(),
        });
        if let Some(pusher) = pusher {
            pusher.push(Pushed::Ready);
            watched.watchers.add(pusher);
        }
        Ok(())
    }
}

/// The streams end with the session.
impl Drop for Dispatch {
    fn drop(&mut self) {
        self.task.abort();
        self.table.watched().clear();
    }
}

impl All {
    fn group(&mut self, group: &GroupId) -> Option<&mut WatchEntry> {
        self.by_descriptor.get_mut(self.groups.get(group)?)
    }

    fn remove(&mut self, descriptor: &WatchDescriptor) {
        if let Some(WatchEntry { what: Subject::Group(group, _), .. }) = self.by_descriptor.remove(descriptor)
            && self.groups.get(&group) == Some(descriptor)
        {
            self.groups.remove(&group);
        }
    }

    fn clear(&mut self) {
        self.by_descriptor.clear();
        self.groups.clear();
    }
}

/// What one reading of events means for one watch.
#[derive(Default)]
struct News {
    /// Files at which something happened; a lock's own file has no name here.
    names: BTreeSet<OsString>,
    /// Those of them that were closed.
    closed: Vec<OsString>,
    /// A name of the watched file itself came or went.
    itself: bool,
    /// There is nothing to watch any more.
    over: bool,
}

/// The instance as the runtime can wait for it.
fn readable(inotify: Inotify) -> io::Result<AsyncFd<Inotify>> {
    // Tokio renamed this to an unsafe function, because a strange `AsRawFd` could name a descriptor that it does not own.
    // An `Inotify` owns its one descriptor until it is dropped, so that the safe name is as good here.
    #[allow(deprecated)]
    AsyncFd::new(inotify)
}

async fn listen(mut inotify: AsyncFd<Inotify>, table: Arc<Table>) {
    let mut buffer = [0; 8192];
    let mut rechecks = Rechecks::default();
    loop {
        tokio::select! {
            ready = inotify.readable_mut() => {
                let Ok(mut ready) = ready else { break };
                match ready.try_io(|inotify| read(inotify.get_mut(), &mut buffer, &table)) {
                    Ok(Ok(closed)) => rechecks.expect(closed),
                    // Nothing more to read.
                    Err(_) => {}
                    // The instance is of no use any more: the streams end, core watches anew or polls.
                    Ok(Err(_)) => break,
                }
            }
            (descriptor, name) = rechecks.next() => table.look(&descriptor, &name),
        }
    }
    table.watched().clear();
}

/// Reads some events and tells of them; answers the files that were closed.
fn read(inotify: &mut Inotify, buffer: &mut [u8], table: &Table) -> io::Result<Vec<(WatchDescriptor, OsString)>> {
    let mut all: HashMap<WatchDescriptor, News> = HashMap::new();
    let mut overflowed = false;
    for event in inotify.read_events(buffer)? {
        let name = event.name.unwrap_or_default();
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            overflowed = true;
            continue;
        }
        let news = all.entry(event.wd).or_default();
        if event.mask.intersects(EventMask::DELETE_SELF | EventMask::UNMOUNT | EventMask::IGNORED) {
            news.over = true;
        } else if event.mask.intersects(EventMask::MOVE_SELF | EventMask::ATTRIB) {
            news.itself = true;
        } else if name == ".group" && event.mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
            // A user removes the folder by hand.
            news.over = true;
        } else if !name.as_encoded_bytes().starts_with(b".") {
            // What begins with a dot is the group's own file, or has no name yet.
            news.names.insert(name.to_owned());
            if event.mask.contains(EventMask::CLOSE_WRITE) {
                news.closed.push(name.to_owned());
            }
        }
    }
    let mut closed = Vec::new();
    for (descriptor, news) in all {
        table.tell(&descriptor, &news);
        closed.extend(news.closed.into_iter().map(|name| (descriptor.clone(), name)));
    }
    if overflowed {
        table.tell_of_gap();
    }
    Ok(closed)
}

impl Table {
    fn tell(&self, descriptor: &WatchDescriptor, news: &News) {
        let mut all = self.watched();
        let Some(watched) = all.by_descriptor.get_mut(descriptor) else { return };
        let mut over = news.over;
        let mut ours = None;
        match &mut watched.what {
            Subject::Group(_, told) => {
                // The folder moves away when the group is deleted.
                over |= news.itself;
                if over {
                    watched.watchers.push(&Pushed::Gone);
                } else {
                    for name in &news.names {
                        told.look(&watched.path, name, &mut watched.watchers);
                    }
                }
            }
            Subject::Lock => {
                // A lock file that was deleted or replaced: the stream ends, core looks and watches the new one.
                over |= news.itself;
                watched.watchers.push(&Pushed::Dirty);
            }
            Subject::Own(group) => ours = Some(group.clone()),
        }
        if over {
            all.remove(descriptor);
        }
        drop(all);
        if let Some(group) = ours {
            self.holdings.report_lost_memberships_in(&group);
        }
    }

    /// Looks once more at a file that was closed.
    fn look(&self, descriptor: &WatchDescriptor, name: &OsStr) {
        match self.watched().by_descriptor.get_mut(descriptor) {
            Some(WatchEntry { what: Subject::Group(_, told), path, watchers }) => told.look(path, name, watchers),
            Some(WatchEntry { what: Subject::Lock, watchers, .. }) => watchers.push(&Pushed::Dirty),
            Some(WatchEntry { what: Subject::Own(_), .. }) | None => {}
        }
    }

    fn tell_of_gap(&self) {
        for watched in self.watched().by_descriptor.values_mut() {
            watched.watchers.push(&Pushed::Gap);
        }
        self.holdings.report_lost_memberships();
    }

    fn watched(&self) -> MutexGuard<'_, All> {
        self.watched.lock()
    }
}
