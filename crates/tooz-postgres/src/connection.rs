//! One connection, which never reconnects, with a task of its own that does one job after the other on it and notices at once when it dies.
//!
//! The order in which things are asked is the order in which the server does them. What was begun is ended, also when
//! the caller has given it up: so the task always knows what the connection holds. A job is in one of these states:
//!
//! | state | what happens |
//! |---|---|
//! | queued | it waits behind all that was asked before → begun, or given up |
//! | begun | it is on its way to the server, and is ended: the caller that waits no longer gets no answer |
//! | given up | the caller waited for too long, or has gone: its turn passes without it |

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::Acquire as _;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tooz_core::driver::Mutex;
use tooz_core::{Outcome, Result};

use crate::dispatch::Dispatch;
use crate::error;
use crate::options::Settings;
use crate::setup::{self, Role};

/// A future that borrows the connection.
pub(crate) type Work<'c, T> = Pin<Box<dyn Future<Output = T> + Send + 'c>>;
type Job = Box<dyn for<'c> FnOnce(&'c mut PgListener) -> Work<'c, ()> + Send>;

/// Shared by all that use it; it ends with the last one.
pub(crate) struct Connection {
    jobs: mpsc::UnboundedSender<Job>,
    /// What goes before all that waits.
    urgent: mpsc::UnboundedSender<Job>,
    /// How many jobs were done.
    done: Arc<AtomicU64>,
    dead: watch::Receiver<bool>,
    /// Routes what the server tells on it.
    pub(crate) dispatch: Arc<Dispatch>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// How much longer than its limit a job waits for its turn while nothing gets done. A session's connection is dead by then.
    patience: Duration,
    pub(crate) pid: i32,
}

/// How far a job is: either its turn comes, or the caller gives it up before.
#[derive(Default)]
struct JobState(AtomicU8);

impl JobState {
    const QUEUED: u8 = 0;
    const BEGUN: u8 = 1;
    const GIVEN_UP: u8 = 2;

    fn leave_queue(&self, to: u8) -> bool {
        self.0.compare_exchange(Self::QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn begin(&self) -> bool {
        self.leave_queue(Self::BEGUN)
    }

    fn give_up(&self) -> bool {
        self.leave_queue(Self::GIVEN_UP)
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::BEGUN
    }
}

impl Connection {
    /// Connects. What the server tells on it goes to `dispatch`.
    pub(crate) async fn open(settings: &Settings, role: Role, dispatch: Dispatch) -> Result<Self> {
        let doing = || format!("connect to {}", setup::place(settings));
        let reading = tokio::time::timeout(settings.connect_timeout, settings.connect_options()).await;
        let options = reading
            .unwrap_or_else(|_| Err(error::timed_out(settings.connect_timeout, "read the user and the password")))?;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .min_connections(0)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            // Short of the limit, so that there is time to find out why.
            .acquire_timeout(settings.connect_timeout * 3 / 4)
            .connect_lazy_with(options);
        let mut wire = match PgListener::connect_with(&pool).await {
            Ok(listener) => Wire(Some(listener)),
            // The pool keeps to itself why it could not connect; a bare connection tells.
            Err(sqlx::Error::PoolTimedOut) => {
                return Err(match setup::connect(settings, Role::Client).await {
                    Ok(_) => error::of(sqlx::Error::PoolTimedOut, doing()),
                    Err(error) => error,
                });
            }
            Err(error) => return Err(error::of(error, doing())),
        };
        let Some(listener) = wire.0.as_mut() else { return Err(error::lost(doing())) };
        // It must never come back by itself: what the old connection held is gone.
        listener.eager_reconnect(false);
        listener.ignore_pool_close_event(true);
        let connection = listener.acquire().await.map_err(|error| error::of(error, doing()))?;
        let limited = tokio::time::timeout(settings.connect_timeout, setup::begin(connection, settings, role)).await;
        let pid = limited.unwrap_or_else(|_| Err(error::timed_out(settings.connect_timeout, doing())))?;
        let (jobs, queue) = mpsc::unbounded_channel();
        let (urgent, urgent_queue) = mpsc::unbounded_channel();
        let (death, dead) = watch::channel(false);
        let done = Arc::new(AtomicU64::new(0));
        let dispatch = Arc::new(dispatch);
        let told = Arc::clone(&dispatch);
        let task = tokio::spawn(serve(wire, queue, urgent_queue, Arc::clone(&done), Death(death), told));
        let patience = settings.session_timeout;
        Ok(Connection { jobs, urgent, done, dead, dispatch, task: Mutex::new(Some(task)), patience, pid })
    }

    /// Does `work` on the connection, after all that was asked before. What is still in the queue when its caller waits for it no
    /// longer is not begun. The limit is for one statement: it is over when the connection got nothing done for so long. What has not begun
    /// waits for longer: one statement that is late must not fail the thousands behind it, which would all be asked again at once.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c mut PgListener) -> Work<'c, Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.put(&self.jobs, limit, doing, work).await
    }

    /// Runs a heartbeat before all that waits: it must not stand behind thousands of others.
    pub(crate) async fn run_first<T: Send + 'static>(
        &self,
        limit: Duration,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c mut PgListener) -> Work<'c, Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.put(&self.urgent, limit, doing, work).await
    }

    async fn put<T: Send + 'static>(
        &self,
        queue: &mpsc::UnboundedSender<Job>,
        limit: Duration,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c mut PgListener) -> Work<'c, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let state = Arc::new(JobState::default());
        let its_state = Arc::clone(&state);
        let job: Job = Box::new(move |connection| {
            Box::pin(async move {
                if !reply.is_closed() && its_state.begin() {
                    let result = work(connection).await;
                    let _ = reply.send(result);
                }
            })
        });
        let mut done = self.done.load(Ordering::Acquire);
        queue.send(job).map_err(|_| error::lost(doing).with_outcome(Outcome::NotApplied))?;
        tokio::pin!(answer);
        let mut idle = Duration::ZERO;
        loop {
            match tokio::time::timeout(limit, &mut answer).await {
                Ok(Ok(result)) => return result,
                Ok(Err(_)) => return Err(error::cut_short(doing)),
                Err(_) => idle += limit,
            }
            let past = std::mem::replace(&mut done, self.done.load(Ordering::Acquire));
            if past != done {
                idle = Duration::ZERO;
            } else if state.has_begun() {
                return Err(error::timed_out(limit, doing));
            } else if idle > self.patience && state.give_up() {
                return Err(error::timed_out(idle, doing).with_outcome(Outcome::NotApplied));
            }
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// Ends when the connection has: by itself, or because it was closed. Keeps no hold of it.
    pub(crate) fn died(&self) -> impl Future<Output = ()> + use<> {
        let mut dead = self.dead.clone();
        async move {
            let _ = dead.wait_for(|dead| *dead).await;
        }
    }

    /// Ends the connection now, whatever it is doing.
    pub(crate) fn cut(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Work that hangs would keep the connection open, and no caller is left.
        self.cut();
    }
}

/// The connection as its task has it: when that ends, so does the connection, at once.
///
/// The library would say goodbye first and wait for the answer with the socket open, which a server that stands still does not give: then
/// it would take the session for alive when it goes on. So what the library still wants to do is given to a runtime that ends before it begins.
struct Wire(Option<PgListener>);

impl Drop for Wire {
    fn drop(&mut self) {
        let Some(listener) = self.0.take() else { return };
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
        let entered = runtime.enter();
        drop(listener);
        drop(entered);
        runtime.shutdown_background();
    }
}

async fn serve(
    mut wire: Wire,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    mut urgent: mpsc::UnboundedReceiver<Job>,
    done: Arc<AtomicU64>,
    // Goes with this task, also when that is aborted: those that watch must hear of it.
    _death: Death,
    dispatch: Arc<Dispatch>,
) {
    let Some(connection) = wire.0.as_mut() else { return };
    loop {
        let job = tokio::select! {
            biased;
            job = urgent.recv() => job,
            job = jobs.recv() => job,
            // May be dropped half-way: what was not read completely stays in the buffer. Called again after it answered
            // `None`, it would connect anew.
            word = connection.try_recv() => match word {
                Ok(Some(notification)) => {
                    dispatch.tell(&notification);
                    continue;
                }
                Ok(None) | Err(_) => return,
            },
        };
        // No caller is left.
        let Some(job) = job else { return };
        job(connection).await;
        done.fetch_add(1, Ordering::AcqRel);
    }
}

struct Death(watch::Sender<bool>);

impl Drop for Death {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}
