//! What a session looks after each second while it has or watches something: whether its files are still in place where nothing tells it, and
//! what the dead have left.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::libc;
use tokio::task::AbortHandle;
use tooz_core::GroupId;
use tooz_core::driver::{Mutex, MutexGuard};

use crate::dispatch::Dispatch;
use crate::holdings::Holdings;
use crate::layout::Layout;
use crate::sweep::{self, Remainder, Sweep};

const ROUND: Duration = Duration::from_secs(1);

/// What is looked after, and the task that does so.
pub(crate) struct Upkeep {
    layout: Layout,
    session_timeout: Duration,
    pub(crate) holdings: Arc<Holdings>,
    /// Whether changes are pushed; false as soon as the kernel refused to.
    is_pushed: AtomicBool,
    dispatch: Mutex<Option<Dispatch>>,
    /// What is still to be cleared away.
    sweep: Mutex<Option<Sweep>>,
    rounds: Mutex<Option<AbortHandle>>,
}

impl Upkeep {
    pub(crate) fn new(layout: Layout, session_timeout: Duration, holdings: Arc<Holdings>, is_pushed: bool) -> Self {
        Upkeep {
            layout,
            session_timeout,
            holdings,
            is_pushed: AtomicBool::new(is_pushed),
            dispatch: Mutex::default(),
            sweep: Mutex::default(),
            rounds: Mutex::default(),
        }
    }

    /// Whether the kernel tells of changes.
    pub(crate) fn is_pushed(&self) -> bool {
        self.is_pushed.load(Ordering::Relaxed)
    }

    pub(crate) fn dispatch(&self) -> MutexGuard<'_, Option<Dispatch>> {
        self.dispatch.lock()
    }

    /// Does something with the dispatch. `None`: there is none, or the kernel refuses more watches: core polls.
    pub(crate) fn with_dispatch<T>(
        self: &Arc<Self>,
        act: impl FnOnce(&Dispatch) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        if !self.is_pushed() {
            return Ok(None);
        }
        self.begin_rounds();
        let mut dispatch = self.dispatch();
        let result = if let Some(dispatch) = &*dispatch {
            act(dispatch)
        } else {
            Dispatch::start(Arc::clone(&self.holdings)).and_then(|new| act(dispatch.insert(new)))
        };
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOSPC | libc::ENOMEM)) =>
            {
                // The user's share of instances or watches is used up. The terms say so from now on.
                self.is_pushed.store(false, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Follows what happens to the file of a membership. Without that the rounds find out.
    pub(crate) fn follow_own(self: &Arc<Self>, file: &std::path::Path, group: &GroupId) {
        let _ = self.with_dispatch(|dispatch| dispatch.follow_own(file, group));
        // It may have been taken over before that.
        self.holdings.report_lost_memberships_in(group);
    }

    /// Begins with what lies among the sessions now.
    pub(crate) fn begin_sweep(&self) {
        *self.sweep.lock() = Some(Sweep::begin(&self.layout));
    }

    /// Looks after everything each second, from the first watch or possession on.
    pub(crate) fn begin_rounds(self: &Arc<Self>) {
        let mut rounds = self.rounds.lock();
        if rounds.is_none() {
            *rounds = Some(tokio::spawn(go_round(Arc::downgrade(self))).abort_handle());
        }
    }

    /// Ends the rounds and the watches.
    pub(crate) fn end(&self) {
        if let Some(rounds) = self.rounds.lock().take() {
            rounds.abort();
        }
        self.dispatch().take();
    }

    fn look_after(&self, round: u64) {
        self.holdings.report_lost_grants();
        match &*self.dispatch() {
            Some(dispatch) if self.is_pushed() => {
                dispatch.forget_unwatched();
                // A push is only ever a hint.
                if round.is_multiple_of(self.session_timeout.as_secs().clamp(1, 60)) {
                    self.holdings.report_lost_memberships();
                }
            }
            _ => self.holdings.report_lost_memberships(),
        }
    }

    /// Goes on with what the dead have left. The last step also looks where earlier versions left something.
    fn clear_away(&self) {
        let mut sweep = self.sweep.lock();
        if let Some(rest) = &mut *sweep
            && rest.go_on() == Remainder::Nothing
        {
            *sweep = None;
            sweep::leftovers(&self.layout.groups());
            sweep::leftovers(self.layout.root());
        }
    }
}

async fn go_round(upkeep: Weak<Upkeep>) {
    for round in 0.. {
        tokio::time::sleep(ROUND).await;
        let Some(upkeep) = upkeep.upgrade() else { return };
        upkeep.look_after(round);
        upkeep.clear_away();
    }
}
