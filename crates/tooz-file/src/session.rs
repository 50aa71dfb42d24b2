//! One session: a locked file among the sessions, and all that this process holds. The kernel ends it with the process.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use nix::libc;
use tokio::task::AbortHandle;
use tooz_core::driver::{
    ConnectArgs, Granted, Groups, JoinRequest, LockKey, LockRequest, Locks, Mutex, PushStream, Roster, Session, Space,
    Wanted,
};
use tooz_core::{
    Characteristic, Characteristics, Checkup, Error, ErrorKind, FencingToken, GroupId, Holder, MemberId, Result, Terms,
};

use crate::alive::AliveFile;
use crate::group::{GroupFolders, Read};
use crate::layout::Layout;
use crate::lock::HeldLocks;
use crate::sweep::{self, Sweep};
use crate::watch::Feed;
use crate::{checkup, error, options};

/// How often the session looks whether its files are still in place, where nothing tells it.
const ROUND: Duration = Duration::from_secs(1);

/// Reads the URL and looks at the folder. Makes nothing.
pub(crate) fn connect(args: &ConnectArgs) -> Result<Arc<dyn Session>> {
    let settings = options::read(args)?;
    let layout = Layout::new(&settings, &args.namespace);
    let remote = layout.is_remote()?;
    let state = Arc::new(State {
        locks: HeldLocks::new(layout.clone(), args.member.clone(), args.reporter.clone()),
        groups: GroupFolders::new(
            layout.clone(),
            args.statement_timeout(),
            args.session_timeout,
            args.reporter.clone(),
        ),
        layout,
        session_timeout: args.session_timeout,
        remote,
        pushes: AtomicBool::new(settings.inotify && !remote),
        feed: Mutex::default(),
        sweep: Mutex::default(),
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
    session_timeout: Duration,
    remote: bool,
    locks: HeldLocks,
    groups: GroupFolders,
    /// Whether changes are pushed; false as soon as the kernel refused to.
    pushes: AtomicBool,
    feed: Mutex<Option<Feed>>,
    /// What is still to be cleared away.
    sweep: Mutex<Option<Sweep>>,
}

impl FileSession {
    /// Looks after the session's files each second, from the first watch or possession on.
    fn begin_rounds(&self) {
        let mut rounds = self.rounds.lock();
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
        let mut feed = self.state.feed.lock();
        let result = if let Some(feed) = &*feed {
            act(feed)
        } else {
            let memberships = Arc::clone(self.state.groups.memberships());
            Feed::start(self.state.layout.clone(), memberships).and_then(|new| act(feed.insert(new)))
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

    /// Listens to what happens to the file of a membership. Without that the rounds find out.
    fn keep_an_eye_on(&self, file: &Path, group: &GroupId) {
        let _ = self.with_feed(|feed| feed.keep_an_eye_on(file, group));
        // It may have been taken over before that.
        self.state.groups.memberships().report_losses_in(group, &|_| true);
    }
}

impl State {
    fn look_after(&self, round: u64) {
        self.locks.report_losses();
        let memberships = self.groups.memberships();
        match &*self.feed.lock() {
            Some(feed) if self.pushes.load(Ordering::Relaxed) => {
                feed.forget_unwatched();
                // A push is only ever a hint.
                if round.is_multiple_of(self.session_timeout.as_secs().clamp(1, 60)) {
                    memberships.report_losses();
                }
            }
            _ => memberships.report_losses(),
        }
    }

    /// Goes on with what the dead have left. The first round also looks where earlier versions left something.
    fn clear_away(&self) {
        let mut sweep = self.sweep.lock();
        if let Some(rest) = &mut *sweep
            && !rest.go_on()
        {
            *sweep = None;
            sweep::leftovers(&self.layout, &self.layout.groups());
            sweep::leftovers(&self.layout, self.layout.root());
        }
    }
}

async fn look_after(state: Weak<State>) {
    for round in 0.. {
        tokio::time::sleep(ROUND).await;
        let Some(state) = state.upgrade() else { return };
        state.look_after(round);
        state.clear_away();
    }
}

#[async_trait]
impl Session for FileSession {
    fn terms(&self) -> Terms {
        let mut characteristics = crate::BEST;
        if self.state.remote {
            characteristics = Characteristics::ONE_HOST.with(Characteristic::Groups).with(Characteristic::SharedLocks);
        }
        if !self.state.pushes.load(Ordering::Relaxed) {
            characteristics = characteristics.without(Characteristic::PushedWatches);
        }
        Terms::new(None, characteristics)
    }

    async fn open(&self) -> Result<()> {
        let layout = &self.state.layout;
        layout.settle()?;
        let mut sweep = Sweep::begin(layout);
        sweep.go_on();
        *self.state.sweep.lock() = Some(sweep);
        let pid = std::process::id();
        let name = format!("{pid}-{:016x}", fastrand::u64(..));
        let about = serde_json::json!({ "member": self.member.as_str(), "pid": pid });
        let file = AliveFile::create(layout, &layout.sessions(), &name, format!("{about}\n").as_bytes())?;
        *self.file.lock() = Some(file);
        self.begin_rounds();
        Ok(())
    }

    async fn check_up(&self) -> Result<Checkup> {
        checkup::look(&self.state.layout, self.state.remote, self.state.pushes.load(Ordering::Relaxed))
    }

    fn descriptors(&self) -> Vec<OwnedFd> {
        let session = self.file.lock().as_ref().and_then(|file| file.duplicate().ok());
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

#[async_trait]
impl Locks for FileSession {
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
        self.state.layout.compare()?;
        self.state.locks.holders(key)
    }

    async fn break_lock(&self, _key: &LockKey, _token: FencingToken) -> Result<()> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "a file lock is the kernel's and can't be broken: end the process whose pid its holder shows",
        ))
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        // Locks ring no bell: nobody follows their holders, and it would cost each grant two writes.
        if key.space == Space::Lock || !self.state.pushes.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // There must be a file to watch. Who may not make one can still look from time to time.
        self.state.layout.compare()?;
        let Ok(file) = self.state.locks.file_to_watch(key) else { return Ok(None) };
        self.with_feed(|feed| feed.watch_lock(file.path()))
            .map_err(|error| error::at(error, "watch lock file", file.path()))
    }
}

#[async_trait]
impl Groups for FileSession {
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
        let file = self.state.groups.join(request).await?;
        self.keep_an_eye_on(&file, &request.group);
        Ok(())
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        let file = self.state.groups.update(request).await?;
        self.keep_an_eye_on(&file, &request.group);
        Ok(())
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        self.state.groups.leave(request).await
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let feed = &self.state.feed;
        let reading = |read: Read<'_>| match &*feed.lock() {
            Some(feed) => feed.read(group, read),
            None => Ok(read()?.map(|seats| (seats, 0))),
        };
        self.state.groups.members(group, reading).await
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        self.state.layout.compare()?;
        let folder = self.state.layout.group(group);
        self.with_feed(|feed| feed.watch_group(&folder, group)).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => Error::no_group(group),
            _ => error::at(error, "watch group", &folder),
        })
    }
}

impl FileSession {
    /// What is left when everything was given back.
    fn end(&self) {
        if let Some(rounds) = self.rounds.lock().take() {
            rounds.abort();
        }
        self.state.feed.lock().take();
        if let Some(file) = self.file.lock().take() {
            let _ = file.remove();
        }
    }
}

/// Whoever forgets to close loses nothing but good manners: descriptions are closed here, and dead files are swept by others.
impl Drop for FileSession {
    fn drop(&mut self) {
        self.state.locks.close();
        drop(self.state.groups.memberships().end_all());
        self.end();
    }
}
