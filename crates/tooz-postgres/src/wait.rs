//! Waiting for a lock that is not free: in the server's own queue, on a lent connection.
//!
//! Who waits takes the gate first, and keeps it until the lock is its own: so nobody passes, and the gate's queue is first
//! come, first served. A lent connection never holds the lock itself: it would have a life of its own. It waits until the
//! lock could be had, lets it go with the same statement, and the session's connection takes it while the gate is shut.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tooz_core::driver::{Granted, LockRequest, Wanted};
use tooz_core::{LockMode, Outcome, Result};

use crate::error;
use crate::lock::Way;
use crate::session::Own;
use crate::setup::SLICE;
use crate::waiter::Waiter;

// Each answers whether it was done by the server's process that is this connection's ($2): behind a pooler it may be another one, whose
// locks are another's.
const WAIT_FOR_GATE: &str = "SELECT CASE WHEN pg_backend_pid() <> $2 OR pg_advisory_unlock_all() IS NULL THEN false \
    ELSE pg_advisory_lock($1) IS NOT NULL END";
const WAIT_FOR_LOCK: &str =
    "SELECT CASE WHEN pg_backend_pid() = $2 THEN pg_advisory_xact_lock($1) IS NOT NULL ELSE false END";
const WAIT_FOR_SHARED_LOCK: &str =
    "SELECT CASE WHEN pg_backend_pid() = $2 THEN pg_advisory_xact_lock_shared($1) IS NOT NULL ELSE false END";
const CANCEL: &str = "SELECT pg_cancel_backend($1)";

/// When others want the connection, the first turn is this long, and each further one twice as long as the one before: whoever stands in a
/// long queue gets the time that it takes, as far as those who wait for their turn let it.
const FIRST_TURN: Duration = Duration::from_secs(1);
/// All who have no connection try once in this time each, together.
const TRY: Duration = Duration::from_millis(2);
/// When to look whether it is really this lock that is held, and not one of another name with the same key.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// How a turn ended.
enum Turn {
    Granted(Granted),
    Unwanted,
    /// Others want the connection, or the slice is over.
    Over,
}

/// How one waiting statement ended.
enum Waited {
    Done,
    Unwanted,
    Over,
}

impl Own {
    /// Waits for the lock; `None` if it is not wanted any more.
    pub(crate) async fn wait(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        if let Some(granted) = self.acquire(request, Way::AskAtGate).await? {
            return Ok(Some(granted));
        }
        wanted.queued();
        let mut patience = FIRST_TURN;
        while wanted.is_wanted() {
            let turn = self.waiters.turn();
            tokio::pin!(turn);
            let mut pause = Duration::from_millis(50);
            let permit = loop {
                tokio::select! {
                    biased;
                    permit = &mut turn => break permit?,
                    () = wanted.unwanted() => return Ok(None),
                    // Without a connection to wait on, trying is better than nothing. The place for a connection is kept.
                    () = sleep(jittered(pause)) => {
                        if let Some(granted) = self.acquire(request, Way::AskAtGate).await? {
                            return Ok(Some(granted));
                        }
                        // However many try, they leave the session's connection to those who have a lock.
                        let longest = TRY * u32::try_from(self.waiters.queued()).unwrap_or(u32::MAX);
                        pause = (pause * 2).min(longest.max(Duration::from_secs(1)));
                    }
                }
            };
            let waiter = self.waiters.lend(permit).await?;
            match self.take_turn(waiter, request, wanted, self.waiters.turn_length(patience)).await? {
                Turn::Granted(granted) => return Ok(Some(granted)),
                Turn::Unwanted => return Ok(None),
                Turn::Over => patience = (patience * 2).min(SLICE),
            }
        }
        Ok(None)
    }

    async fn take_turn(
        &self,
        mut waiter: Waiter,
        request: &LockRequest,
        wanted: &Wanted,
        patience: Duration,
    ) -> Result<Turn> {
        let doors = self.keys.doors(&request.key);
        let yields_at = Instant::now() + patience;
        // Errors leave the connection to be closed: with it ends whatever it waits for or holds.
        let mut ended = self.blocked(&mut waiter, WAIT_FOR_GATE, doors.gate, wanted, yields_at, request).await?;
        while let Waited::Done = ended {
            let sql = match request.mode {
                LockMode::Exclusive => WAIT_FOR_LOCK,
                LockMode::Shared => WAIT_FOR_SHARED_LOCK,
            };
            ended = self.blocked(&mut waiter, sql, doors.lock, wanted, yields_at, request).await?;
            if let Waited::Over = ended
                && !self.waiters.is_pressed()
            {
                // The end of a slice alone is no reason to leave the gate to another.
                ended = Waited::Done;
                continue;
            }
            if let Waited::Done = ended {
                // Somebody whose gate was lost with its connection may have come first; then this goes on at the gate.
                if let Some(granted) = self.acquire(request, Way::GateIsOurs).await? {
                    let opened = self.waiters.take_back(waiter);
                    match request.mode {
                        // Nobody can pass before the lock is given back, and that waits for the gate.
                        LockMode::Exclusive => self.holdings.opens_its_gate(request.id, opened),
                        // Others may have the lock as well, and whoever tries must not find the gate shut with nobody waiting.
                        LockMode::Shared => drop(opened.await),
                    }
                    return Ok(Turn::Granted(granted));
                }
            }
        }
        let opened = self.waiters.take_back(waiter);
        if let Waited::Unwanted = ended {
            // Who does not wait any more keeps nobody out.
            drop(opened.await);
            return Ok(Turn::Unwanted);
        }
        Ok(Turn::Over)
    }

    /// Runs one waiting statement to its end, which comes early when it is not wanted any more or others want the connection.
    async fn blocked(
        &self,
        waiter: &mut Waiter,
        sql: &'static str,
        lock: i64,
        wanted: &Wanted,
        yields_at: Instant,
        request: &LockRequest,
    ) -> Result<Waited> {
        const DOING: &str = "wait for a lock";
        let pid = waiter.pid;
        let statement = sqlx::query_scalar::<_, bool>(sql).bind(lock).bind(pid).fetch_one(&mut waiter.connection);
        tokio::pin!(statement);
        let (first_look, too_long) = (sleep(FIRST_LOOK), sleep(SLICE + self.limit));
        tokio::pin!(first_look, too_long);
        let mut looked = false;
        let mut interrupted = None;
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut statement => break ended,
                () = self.closed() => return Err(error::lost(DOING)),
                () = wanted.unwanted(), if interrupted.is_none() => interrupted = Some(Waited::Unwanted),
                () = self.must_yield(yields_at), if interrupted.is_none() => interrupted = Some(Waited::Over),
                () = &mut first_look, if !looked => {
                    looked = true;
                    self.refuse_collision(request).await?;
                }
                // The server ends every slice itself, if it can be reached.
                () = &mut too_long => return Err(error::timed_out(SLICE + self.limit, DOING).with_outcome(Outcome::NotApplied)),
            }
            if interrupted.is_some() {
                match self.cancel(pid, &mut statement).await? {
                    Some(ended) => break ended,
                    None => return Err(error::timed_out(self.limit, DOING).with_outcome(Outcome::NotApplied)),
                }
            }
        };
        match ended {
            Ok(true) => Ok(interrupted.unwrap_or(Waited::Done)),
            Ok(false) => Err(self.holdings.shared_connection()),
            Err(error) if error::is_end_of_slice(&error) => Ok(interrupted.unwrap_or(Waited::Over)),
            Err(error) if error::is_cancelled(&error) => Ok(interrupted.unwrap_or(Waited::Over)),
            // A lent connection never holds the lock itself: nothing can have been taken.
            Err(error) => Err(error::of(error, DOING).with_outcome(Outcome::NotApplied)),
        }
    }

    /// Cancels the statement and waits for its end; `None`: it does not end.
    async fn cancel<T>(&self, pid: i32, statement: &mut (impl Future<Output = T> + Unpin)) -> Result<Option<T>> {
        let until = Instant::now() + self.limit;
        while Instant::now() < until {
            self.link
                .run(self.limit, "cancel a wait", move |connection| {
                    Box::pin(async move {
                        let cancelled = sqlx::query(CANCEL).bind(pid).execute(connection).await;
                        cancelled.map(drop).map_err(|error| error::on_session(error, "cancel a wait"))
                    })
                })
                .await?;
            // A statement that had not begun when it was cancelled is not cancelled.
            if let Ok(ended) = timeout(Duration::from_millis(100), &mut *statement).await {
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }

    async fn must_yield(&self, at: Instant) {
        sleep_until(at).await;
        loop {
            // Listening begins before the look, so that nothing is missed in between.
            let pressed = self.waiters.pressed.notified();
            if self.waiters.is_pressed() {
                return;
            }
            pressed.await;
        }
    }
}

/// Between half of it and all of it, so that those who try do not try in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + 0.5 * fastrand::f64())
}
