//! One connection, which never reconnects, and notices at once when it dies. What is asked on it is done by the one that asks, in turns.
//!
//! The order in which things are asked is the order in which the server does them. What was begun is ended, also when the one
//! that asked has given it up: so it is always known what the connection holds. A job is in one of these states:
//!
//! | state | what happens |
//! |---|---|
//! | queued | it waits behind all that was asked before → begun, or given up |
//! | begun | it is on its way to the server, polled by the one that asked. That one waits no longer, or has gone → left |
//! | left | a task of the heart ends it, and its answer is of no interest |
//! | given up | the one that asked waited for too long, or has gone: its turn passes without it |
//!
//! While nothing is asked, a task of the heart listens to what the server tells by itself.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sqlx::Acquire as _;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tooz_core::{Error, Outcome, Result};

use crate::dispatch::Dispatch;
use crate::error;
use crate::job::{RunningJob, Work};
use crate::lanes::{Admission, Lane, Lanes, Listen as _, WirePlace, WireTurn};
use crate::options::Settings;
use crate::setup::{self, Role};
use crate::wire::Wire;

/// Shared by all that use it; it ends with the last one.
pub(crate) struct Connection {
    lanes: Arc<Lanes<Wire>>,
    /// Routes what the server tells on it.
    pub(crate) dispatch: Arc<Dispatch>,
    /// The heart's.
    runtime: Handle,
    /// How long a job waits for its turn while nothing gets done. A session's connection is dead by then.
    patience: Duration,
    pub(crate) pid: i32,
}

impl Connection {
    /// Connects. What the server tells on it goes to `dispatch`.
    pub(crate) async fn open(settings: &Settings, role: Role, dispatch: Dispatch) -> Result<Self> {
        let doing = || format!("connect to {}", setup::place(settings));
        let reading = timeout(settings.connect_timeout, settings.connect_options()).await;
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
        let listener = match PgListener::connect_with(&pool).await {
            Ok(listener) => listener,
            // The pool keeps to itself why it could not connect; a bare connection tells.
            Err(sqlx::Error::PoolTimedOut) => {
                return Err(match setup::connect(settings, Role::Client).await {
                    Ok(_) => error::of(sqlx::Error::PoolTimedOut, doing()),
                    Err(error) => error,
                });
            }
            Err(error) => return Err(error::of(error, doing())),
        };
        let dispatch = Arc::new(dispatch);
        let mut wire = Wire::new(listener, Arc::clone(&dispatch));
        let Some(listener) = wire.connection() else { return Err(error::lost(doing())) };
        let connection = listener.acquire().await.map_err(|error| error::of(error, doing()))?;
        let limited = timeout(settings.connect_timeout, setup::begin(connection, settings, role)).await;
        let pid = limited.unwrap_or_else(|_| Err(error::timed_out(settings.connect_timeout, doing())))?;
        let lanes = Lanes::new(wire);
        let runtime = Handle::current();
        runtime.spawn(Listening(Arc::clone(&lanes)));
        Ok(Connection { lanes, dispatch, runtime, patience: settings.session_timeout, pid })
    }

    /// Does `work` on the connection, after all that was asked before. What is still in the queue when its caller waits for it no
    /// longer is not begun. The limit is for what has begun. What has not waits
    /// for longer: one statement that is late must not fail the thousands behind it, which would all be asked again at once.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c mut PgListener) -> Work<'c, Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.put(Lane::InOrder, limit, doing, work).await
    }

    /// Runs a heartbeat before all that waits: it must not stand behind thousands of others.
    pub(crate) async fn run_first<T: Send + 'static>(
        &self,
        limit: Duration,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c mut PgListener) -> Work<'c, Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.put(Lane::First, limit, doing, work).await
    }

    async fn put<T: Send + 'static>(
        &self,
        lane: Lane,
        limit: Duration,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c mut PgListener) -> Work<'c, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let turn = match self.lanes.ask(lane) {
            Admission::Turn(turn) => turn,
            Admission::Place(place) => Box::pin(self.wait(place, doing)).await?,
            Admission::Ended => return Err(gone(doing)),
        };
        let begun = RunningJob::new(turn, work, &self.runtime);
        match timeout(limit, begun).await {
            Ok(Some(result)) => result,
            Ok(None) => Err(error::cut_short(doing)),
            Err(_) => Err(error::timed_out(limit, doing)),
        }
    }

    /// Waits for the turn at that place, as long as others get something done. It looks for that seldom: thousands may wait.
    async fn wait(&self, mut place: WirePlace<Wire>, doing: &'static str) -> Result<WireTurn<Wire>> {
        let mut done = self.lanes.done();
        loop {
            match timeout(self.patience, &mut place).await {
                Ok(turn) => return turn.map_err(|_| gone(doing)),
                Err(_) if self.lanes.done() != done => done = self.lanes.done(),
                Err(_) => return Err(error::timed_out(self.patience, doing).with_outcome(Outcome::NotApplied)),
            }
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.lanes.has_ended()
    }

    /// Ends when the connection has: by itself, or because it was closed. Keeps no hold of it.
    pub(crate) fn died(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.lanes.ended();
        async move {
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// Ends the connection now, whatever it is doing.
    pub(crate) fn cut(&self) {
        self.lanes.end();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Work that hangs would keep the connection open, and no caller is left.
        self.cut();
    }
}

/// The connection had ended before this was begun.
fn gone(doing: &'static str) -> Error {
    error::lost(doing).with_outcome(Outcome::NotApplied)
}

/// The task that listens while nothing is asked. The connection ends with it, also where the heart's runtime ends: those that watch must hear of it.
struct Listening(Arc<Lanes<Wire>>);

impl Future for Listening {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll_idle(context)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.end();
    }
}
