//! What the kernel tells of changes: one inotify instance for a session, which begins with the first watch.
//!
//! | event | means |
//! |---|---|
//! | a file came under a name | a member joined, updated, or was taken over |
//! | a file was deleted | a member left, or a dead one was cleared away |
//! | a file that was open for writing was closed | its member is dead, or has another file now |
//! | the folder moved away | the group was deleted |
//! | a lock file was written or closed | it has another holder |

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use tooz_core::{GroupId, PushStream, Pushed, Pusher, push_channel};

use crate::group::Memberships;

/// The kernel tells of a closed file just before it drops the file's locks: who looks at once may see the dead alive, so
/// everybody looks again after a moment, and once more in case that processor was busy.
const ECHOES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(40)];

/// The watches of one session.
pub(crate) struct Feed {
    table: Arc<Table>,
    watches: Watches,
    task: AbortHandle,
}

struct Table {
    memberships: Arc<Memberships>,
    watched: Mutex<HashMap<WatchDescriptor, Watched>>,
}

struct Watched {
    path: PathBuf,
    what: What,
    pushers: Vec<Pusher>,
}

#[derive(Clone)]
enum What {
    Group(GroupId),
    Lock,
}

impl Feed {
    /// Begins to listen. The kernel allows a user some 128 instances; there may be no more.
    pub(crate) fn start(memberships: Arc<Memberships>) -> io::Result<Self> {
        let inotify = readable(Inotify::init()?)?;
        let watches = inotify.get_ref().watches();
        let table = Arc::new(Table { memberships, watched: Mutex::default() });
        let task = tokio::spawn(listen(inotify, Arc::clone(&table))).abort_handle();
        Ok(Feed { table, watches, task })
    }

    /// Watches the folder of a group.
    pub(crate) fn watch_group(&self, folder: &Path, group: &GroupId) -> io::Result<PushStream> {
        let (pusher, stream) = push_channel();
        self.add(folder, What::Group(group.clone()), Some(pusher))?;
        Ok(stream)
    }

    /// Listens to what happens to a membership of ours.
    pub(crate) fn keep_an_eye_on(&self, folder: &Path, group: &GroupId) -> io::Result<()> {
        self.add(folder, What::Group(group.clone()), None)
    }

    /// Watches the file of a lock.
    pub(crate) fn watch_lock(&self, file: &Path) -> io::Result<PushStream> {
        let (pusher, stream) = push_channel();
        self.add(file, What::Lock, Some(pusher))?;
        Ok(stream)
    }

    /// Forgets what nobody watches any more. `keep` names the folders that stay watched all the same.
    pub(crate) fn forget_unwatched(&self, keep: impl Fn(&Path) -> bool) {
        let mut watches = self.watches.clone();
        self.table.watched().retain(|descriptor, watched| {
            watched.pushers.retain(|pusher| !pusher.is_closed());
            let stays = !watched.pushers.is_empty() || (matches!(watched.what, What::Group(_)) && keep(&watched.path));
            if !stays {
                let _ = watches.remove(descriptor.clone());
            }
            stays
        });
    }

    fn add(&self, path: &Path, what: What, pusher: Option<Pusher>) -> io::Result<()> {
        let mask = match what {
            What::Group(_) => {
                WatchMask::MOVED_TO
                    | WatchMask::MOVED_FROM
                    | WatchMask::DELETE
                    | WatchMask::CLOSE_WRITE
                    | WatchMask::DELETE_SELF
                    | WatchMask::MOVE_SELF
                    | WatchMask::ONLYDIR
            }
            // A deleted file that is still open changes its attributes, no more.
            What::Lock => {
                WatchMask::MODIFY
                    | WatchMask::CLOSE_WRITE
                    | WatchMask::ATTRIB
                    | WatchMask::DELETE_SELF
                    | WatchMask::MOVE_SELF
            }
        };
        // The listener waits for the table: no event is read before its watch is in.
        let mut table = self.table.watched();
        let descriptor = self.watches.clone().add(path, mask)?;
        let watched =
            table.entry(descriptor).or_insert_with(|| Watched { path: path.to_owned(), what, pushers: Vec::new() });
        if let Some(pusher) = pusher {
            pusher.push(Pushed::Ready);
            watched.pushers.push(pusher);
        }
        Ok(())
    }
}

/// The streams end with the session.
impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
        self.table.watched().clear();
    }
}

/// What one reading of events means for one watch.
#[derive(Clone, Copy, Default)]
struct News {
    dirty: bool,
    closed: bool,
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
    let mut echoes: Vec<(Instant, WatchDescriptor)> = Vec::new();
    loop {
        let next = echoes.iter().map(|(due, _)| *due).min();
        let due = async {
            match next {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = inotify.readable_mut() => {
                let Ok(mut ready) = ready else { break };
                match ready.try_io(|inotify| read(inotify.get_mut(), &mut buffer, &table)) {
                    Ok(Ok(closed)) => {
                        let now = Instant::now();
                        for descriptor in closed {
                            echoes.retain(|(_, other)| *other != descriptor);
                            echoes.extend(ECHOES.map(|echo| (now + echo, descriptor.clone())));
                        }
                    }
                    // Nothing more to read.
                    Err(_) => {}
                    // The instance is of no use any more: the streams end, core watches anew or polls.
                    Ok(Err(_)) => break,
                }
            }
            () = due => {
                let now = Instant::now();
                for (_, descriptor) in echoes.extract_if(.., |(due, _)| *due <= now) {
                    table.tell(&descriptor, News { dirty: true, ..News::default() });
                }
            }
        }
    }
    table.watched().clear();
}

/// Reads some events and tells of them; answers the watches in which a file was closed.
fn read(inotify: &mut Inotify, buffer: &mut [u8], table: &Table) -> io::Result<Vec<WatchDescriptor>> {
    let mut all: HashMap<WatchDescriptor, News> = HashMap::new();
    let mut overflowed = false;
    for event in inotify.read_events(buffer)? {
        let name = event.name.map_or(&b""[..], |name| name.as_encoded_bytes());
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            overflowed = true;
            continue;
        }
        let news = all.entry(event.wd).or_default();
        let gone =
            EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT | EventMask::ATTRIB | EventMask::IGNORED;
        if event.mask.intersects(gone) {
            news.over = true;
        } else if name == b".group" && event.mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
            // Somebody removes the folder by hand.
            news.over = true;
        } else if !name.starts_with(b".") {
            // What begins with a dot is the group's own file, or has no name yet.
            news.dirty = true;
            news.closed |= event.mask.contains(EventMask::CLOSE_WRITE);
        }
    }
    for (descriptor, news) in &all {
        table.tell(descriptor, *news);
    }
    if overflowed {
        table.tell_of_gap();
    }
    Ok(all.into_iter().filter_map(|(descriptor, news)| (news.closed && !news.over).then_some(descriptor)).collect())
}

impl Table {
    fn tell(&self, descriptor: &WatchDescriptor, news: News) {
        let what = {
            let mut table = self.watched();
            let Some(watched) = table.get(descriptor) else { return };
            let what = watched.what.clone();
            if news.dirty || news.over {
                let pushed = match (&what, news.over) {
                    (What::Group(_), true) => Pushed::Gone,
                    // A lock file that was deleted or replaced: the stream ends, core looks and watches the new one.
                    _ => Pushed::Dirty,
                };
                for pusher in &watched.pushers {
                    pusher.push(pushed.clone());
                }
            }
            if news.over {
                table.remove(descriptor);
            }
            what
        };
        if let What::Group(group) = what {
            self.memberships.report_losses(|one| *one == group);
        }
    }

    fn tell_of_gap(&self) {
        for pusher in self.watched().values().flat_map(|watched| &watched.pushers) {
            pusher.push(Pushed::Gap);
        }
        self.memberships.report_losses(|_| true);
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<WatchDescriptor, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
