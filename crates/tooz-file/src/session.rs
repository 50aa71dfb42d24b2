//! One session: a locked file among the sessions, and all that this process holds. The kernel ends it with the process.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use nix::libc;
use tokio::task::AbortHandle;
use tooz_core::{
    Characteristic, Characteristics, ConnectArgs, Error, ErrorKind, FencingToken, Granted, GroupId, Holder,
    JoinRequest, LockKey, LockRequest, MemberId, PushStream, Result, Roster, Session, Space, Terms, Wanted,
};

use crate::alive::{self, AliveFile, Seen};
use crate::error;
use crate::group::Groups;
use crate::layout::Layout;
use crate::lock::Locks;
use crate::options;
use crate::watch::Feed;

/// How often the session looks whether its files are still in place, where nothing tells it.
const ROUND: Duration = Duration::from_secs(1);
/// How many files of other sessions a new one looks at, to remove those of the dead.
const SWEPT: usize = 64;

/// Reads the URL and looks at the folder. Makes nothing.
pub(crate) fn connect(args: &ConnectArgs) -> Result<Arc<dyn Session>> {
    let settings = options::read(args)?;
    let layout = Layout::new(&settings, &args.namespace);
    let remote = layout.is_remote()?;
    let state = Arc::new(State {
        locks: Locks::new(layout.clone(), args.member.clone(), args.reporter.clone()),
        groups: Groups::new(layout.clone(), args.statement_timeout(), args.session_timeout, args.reporter.clone()),
        layout,
        remote,
        pushes: AtomicBool::new(settings.inotify && !remote),
        feed: Mutex::default(),
    });
    Ok(Arc::new(FileSession { member: args.member.clone(), state, file: Mutex::default(), rounds: Mutex::default() }))
}

struct FileSession {
    member: MemberId,
    state: Arc<State>,
    file: Mutex<Option<AliveFile>>,
    rounds: Mutex<Option<AbortHandle>>,
}

/// What the rounds look after as well.
struct State {
    layout: Layout,
    remote: bool,
    locks: Locks,
    groups: Groups,
    /// Whether changes are pushed; false as soon as the kernel refused to.
    pushes: AtomicBool,
    feed: Mutex<Option<Feed>>,
}

impl FileSession {
    /// Looks after the session's files each second, from the first watch or possession on.
    fn begin_rounds(&self) {
        let mut rounds = lock(&self.rounds);
        if rounds.is_none() {
            *rounds = Some(tokio::spawn(look_after(Arc::downgrade(&self.state))).abort_handle());
        }
    }

    /// Does something with the feed. `None`: there is none, or the kernel refuses more watches: core polls.
    fn with_feed<T>(&self, act: impl FnOnce(&Feed) -> std::io::Result<T>) -> std::io::Result<Option<T>> {
        if !self.state.pushes.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.begin_rounds();
        let mut feed = lock(&self.state.feed);
        let result = match &*feed {
            Some(feed) => act(feed),
            None => Feed::start(Arc::clone(self.state.groups.memberships())).and_then(|new| act(feed.insert(new))),
        };
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOSPC | libc::ENOMEM)) =>
            {
                // The user's share of instances or watches is used up. The terms say so from now on.
                self.state.pushes.store(false, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the files of sessions whose processes have gone, some at a time.
    fn sweep(&self, folder: &PathBuf) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten().take(SWEPT) {
            // What has no name yet may be about to be locked.
            if !entry.file_name().as_encoded_bytes().starts_with(b".")
                && matches!(alive::look(&self.state.layout, &entry.path()), Ok(Seen::Dead))
            {
                // Names are never used again, so this removes no other file.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

async fn look_after(state: Weak<State>) {
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(state) = state.upgrade() else { return };
        state.locks.report_losses();
        let memberships = state.groups.memberships();
        memberships.report_losses(|_| true);
        if let Some(feed) = &*lock(&state.feed) {
            feed.forget_unwatched(|folder| memberships.has(&state.layout, folder));
        }
    }
}

#[async_trait]
impl Session for FileSession {
    fn terms(&self) -> Terms {
        let mut characteristics = crate::BEST;
        if self.state.remote {
            characteristics = Characteristics::of(&[
                Characteristic::Groups,
                Characteristic::SharedLocks,
                Characteristic::DistributedAcrossThreads,
                Characteristic::DistributedAcrossProcesses,
            ]);
        }
        if !self.state.pushes.load(Ordering::Relaxed) {
            characteristics = characteristics.without(Characteristic::PushedWatches);
        }
        Terms::new(None, characteristics)
    }

    async fn open(&self) -> Result<()> {
        let folder = self.state.layout.sessions();
        self.state.layout.make_folder(&folder)?;
        self.sweep(&folder);
        let pid = std::process::id();
        let name = format!("{pid}-{:016x}", fastrand::u64(..));
        let about = serde_json::json!({ "member": self.member.as_str(), "pid": pid });
        let file = AliveFile::create(&self.state.layout, &folder, &name, format!("{about}\n").as_bytes())?;
        *lock(&self.file) = Some(file);
        self.begin_rounds();
        Ok(())
    }

    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        self.state.locks.try_lock(request).await
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        self.state.locks.lock(request, wanted).await
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        self.state.locks.release(request);
        Ok(())
    }

    fn holds(&self, request: &LockRequest) -> bool {
        self.state.locks.holds(request.id)
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        self.state.locks.holders(key)
    }

    async fn break_lock(&self, _key: &LockKey, _token: FencingToken) -> Result<()> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "a file lock is the kernel's and can't be broken: end the process whose pid its holder shows",
        ))
    }

    async fn create_group(&self, group: &GroupId) -> Result<()> {
        self.state.groups.create(group)
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        self.state.groups.delete(group).await
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        self.state.groups.list()
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        self.state.groups.join(request).await?;
        let folder = self.state.layout.group(&request.group);
        // Without it the rounds find out within a second that somebody took the membership over.
        let _ = self.with_feed(|feed| feed.keep_an_eye_on(&folder, &request.group));
        self.state.groups.memberships().report_losses(|group| *group == request.group);
        Ok(())
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        self.state.groups.update(request).await
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        self.state.groups.leave(request).await
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        self.state.groups.members(group).await
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        let folder = self.state.layout.group(group);
        self.with_feed(|feed| feed.watch_group(&folder, group)).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => Error::no_group(group),
            _ => error::at(error, "watch group", &folder),
        })
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        // Locks ring no bell: nobody follows their holders, and it would cost each grant two writes.
        if key.space == Space::Lock || !self.state.pushes.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // There must be a file to watch. Who may not make one can still look from time to time.
        let Ok(file) = self.state.locks.file_to_watch(key) else { return Ok(None) };
        self.with_feed(|feed| feed.watch_lock(file.path()))
            .map_err(|error| error::at(error, "watch lock file", file.path()))
    }

    fn descriptors(&self) -> Vec<OwnedFd> {
        let session = lock(&self.file).as_ref().and_then(|file| file.duplicate().ok());
        let mut all: Vec<OwnedFd> = session.map(OwnedFd::from).into_iter().collect();
        all.extend(self.state.locks.descriptors());
        all.extend(self.state.groups.memberships().descriptors());
        all
    }

    async fn close(&self) -> Result<()> {
        self.state.locks.close();
        self.state.groups.close().await;
        self.end();
        Ok(())
    }
}

impl FileSession {
    /// What is left when everything was given back.
    fn end(&self) {
        if let Some(rounds) = lock(&self.rounds).take() {
            rounds.abort();
        }
        lock(&self.state.feed).take();
        if let Some(file) = lock(&self.file).take() {
            let _ = file.remove();
        }
    }
}

/// Whoever forgets to close loses nothing but good manners: descriptions are closed here, and dead files are swept by others.
impl Drop for FileSession {
    fn drop(&mut self) {
        self.state.locks.close();
        self.state.groups.memberships().drop_all();
        self.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
