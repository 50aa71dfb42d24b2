//! A connection with a task of its own that does one thing after the other on it, and notices at once when it dies.
//!
//! The order in which things are asked is the order in which the server does them. What was begun is ended, also when
//! whoever asked has given up: so the task always knows what the connection holds.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::Acquire as _;
use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tooz_core::driver::Mutex;
use tooz_core::{Outcome, Result};

use crate::error;
use crate::options::Settings;
use crate::setup::{self, Role};

/// A future that borrows the connection.
pub(crate) type Work<'c, T> = Pin<Box<dyn Future<Output = T> + Send + 'c>>;
type Job = Box<dyn for<'c> FnOnce(&'c mut PgListener) -> Work<'c, ()> + Send>;

pub(crate) struct Link {
    jobs: mpsc::UnboundedSender<Job>,
    /// What goes before all that waits.
    urgent: mpsc::UnboundedSender<Job>,
    /// How many jobs were done.
    done: Arc<AtomicU64>,
    dead: watch::Receiver<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// How much longer than its limit a job waits for its turn while nothing gets done. A session's connection is dead by then.
    patience: Duration,
    pub(crate) pid: i32,
}

/// How far a job is: either its turn comes, or whoever asked gives it up before.
#[derive(Default)]
struct Stage(AtomicU8);

impl Stage {
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

impl Link {
    /// Connects. Notifications go to `news`.
    pub(crate) async fn open(
        settings: &Settings,
        role: Role,
        news: impl Fn(PgNotification) + Send + 'static,
    ) -> Result<Self> {
        let doing = || format!("connect to {}", setup::place(settings));
        let reading = tokio::time::timeout(settings.connect_timeout, settings.connect_options()).await;
        let options =
            reading.unwrap_or_else(|_| Err(error::timed_out(settings.connect_timeout, "read who logs in")))?;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .min_connections(0)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            // Short of the limit, so that there is time to find out why.
            .acquire_timeout(settings.connect_timeout * 3 / 4)
            .connect_lazy_with(options);
        let mut own = match PgListener::connect_with(&pool).await {
            Ok(listener) => OwnConnection(Some(listener)),
            // The pool keeps to itself why it could not connect; a bare connection tells.
            Err(sqlx::Error::PoolTimedOut) => {
                return Err(match setup::connect(settings, Role::Look).await {
                    Ok(_) => error::of(sqlx::Error::PoolTimedOut, doing()),
                    Err(error) => error,
                });
            }
            Err(error) => return Err(error::of(error, doing())),
        };
        let Some(listener) = own.0.as_mut() else { return Err(error::lost(doing())) };
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
        let task = tokio::spawn(serve(own, queue, urgent_queue, Arc::clone(&done), Death(death), news));
        let patience = settings.session_timeout;
        Ok(Link { jobs, urgent, done, dead, task: Mutex::new(Some(task)), patience, pid })
    }

    /// Does `work` on the connection, after all that was asked before. What is still in the queue when nobody waits for it any
    /// more is not begun. The limit is for one statement: it is over when the connection got nothing done for so long. What has not begun
    /// waits for longer: one statement that is late must not fail the thousands behind it, which would all be asked again at once.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c mut PgListener) -> Work<'c, Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.put(&self.jobs, limit, doing, work).await
    }

    /// The same for a heartbeat, which must not stand behind thousands of others.
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
        let stage = Arc::new(Stage::default());
        let its_stage = Arc::clone(&stage);
        let job: Job = Box::new(move |connection| {
            Box::pin(async move {
                if !reply.is_closed() && its_stage.begin() {
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
            } else if stage.has_begun() {
                return Err(error::timed_out(limit, doing));
            } else if idle > self.patience && stage.give_up() {
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

impl Drop for Link {
    fn drop(&mut self) {
        // Work that hangs would keep the connection open: nobody waits for it any more.
        self.cut();
    }
}

/// The connection as its task has it: when that ends, so does the connection, at once.
///
/// The library would say goodbye first and wait for the answer with the socket open, which a server that stands still does not give: then
/// it would take the session for alive when it goes on. So what the library still wants to do is given to a runtime that ends before it begins.
struct OwnConnection(Option<PgListener>);

impl Drop for OwnConnection {
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
    mut own: OwnConnection,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    mut urgent: mpsc::UnboundedReceiver<Job>,
    done: Arc<AtomicU64>,
    // Goes with this task, also when that is aborted: whoever watches must hear of it.
    _death: Death,
    news: impl Fn(PgNotification) + Send,
) {
    let Some(connection) = own.0.as_mut() else { return };
    loop {
        let job = tokio::select! {
            biased;
            job = urgent.recv() => job,
            job = jobs.recv() => job,
            // May be dropped half-way: what was not read completely stays in the buffer. Called again after it answered
            // `None`, it would connect anew.
            word = connection.try_recv() => match word {
                Ok(Some(notification)) => {
                    news(notification);
                    continue;
                }
                Ok(None) | Err(_) => return,
            },
        };
        // Nobody is left who could ask.
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

/// Shared by all who use it; the connection ends when the last one lets go.
pub(crate) type SharedLink = Arc<Link>;
