//! A session for the screen to show: opened, and after a loss opened anew, beside whatever else goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tooz::driver::Mutex;
use tooz::{Coordinator, LockGuard, LossReason};

use crate::exit;
use crate::failure::CommandFailure;
use crate::speech::words::{in_words, on_one_line};

/// The lock that a session for looking has: it shares it with others of its kind.
const LOCK: &str = "tooz-status";

/// How long a single look waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// After an error that is none of the way to the backend.
const PAUSE: Duration = Duration::from_secs(1);

/// How it stands.
pub(super) enum Standing {
    /// Since when it is asked for, and what kept it from being had last.
    Opening(Instant, Option<String>),
    Open(LockGuard),
}

pub(super) struct KeptSession {
    standing: Arc<Mutex<Standing>>,
    keeping: JoinHandle<()>,
}

impl KeptSession {
    /// One that is open, for a single look.
    pub(super) async fn open(coordinator: &Coordinator) -> Result<Self, CommandFailure> {
        match coordinator.lock(LOCK)?.shared().acquire_within(PATIENCE).await? {
            Some(guard) => Ok(Self::keep(coordinator.clone(), Standing::Open(guard))),
            None => Err(CommandFailure::not_acquired(
                exit::NOT_ACQUIRED,
                format!("lock {LOCK:?} is held exclusively by another"),
            )),
        }
    }

    /// One that will be open.
    pub(super) fn begin(coordinator: &Coordinator) -> Self {
        Self::keep(coordinator.clone(), Standing::Opening(Instant::now(), None))
    }

    fn keep(coordinator: Coordinator, standing: Standing) -> Self {
        let standing = Arc::new(Mutex::new(standing));
        let kept = Arc::clone(&standing);
        let keeping = tokio::spawn(async move {
            loop {
                let why = match one(&coordinator, &kept).await {
                    Ok(reason) => format!("lost: {reason}"),
                    Err(error) => {
                        sleep(PAUSE).await;
                        on_one_line(&in_words(&error))
                    }
                };
                *kept.lock() = Standing::Opening(Instant::now(), Some(why));
            }
        });
        KeptSession { standing, keeping }
    }

    /// Looks at it as it stands now.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Standing) -> T) -> T {
        look(&self.standing.lock())
    }

    pub(super) async fn close(self) {
        self.keeping.abort();
        // What it was doing has ended, or been dropped, by then.
        let _ = self.keeping.await;
        let standing = std::mem::replace(&mut *self.standing.lock(), Standing::Opening(Instant::now(), None));
        if let Standing::Open(guard) = standing {
            // What could not be released ends with the session, right after this.
            let _ = guard.release().await;
        }
    }
}

/// From its opening, unless it is open, to its loss.
async fn one(coordinator: &Coordinator, standing: &Mutex<Standing>) -> tooz::Result<LossReason> {
    let loss = match &*standing.lock() {
        Standing::Open(guard) => Some(guard.loss()),
        Standing::Opening(..) => None,
    };
    if let Some(loss) = loss {
        return Ok(loss.wait().await);
    }
    let guard = coordinator.lock(LOCK)?.shared().acquire().await?;
    let loss = guard.loss();
    *standing.lock() = Standing::Open(guard);
    Ok(loss.wait().await)
}
