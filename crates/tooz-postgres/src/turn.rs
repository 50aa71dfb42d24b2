//! One turn of a request that waits for a lock that is not free: in the server's own queue, on a lent connection.
//!
//! A waiting request takes the gate first, and keeps it until the lock is its own: so no other passes, and the gate's queue is first
//! come, first served. A lent connection never holds the lock itself: it would have a life of its own. It waits until the
//! lock could be had, lets it go with the same statement, and the session's connection takes it while the gate is shut.
//!
//! | state | then |
//! |---|---|
//! | at the gate | the gate is its own → behind the gate |
//! | behind the gate | the lock could be had, and the session takes it → granted. Another request came first, whose gate was lost with its connection → behind the gate |
//! | either | unwanted → the gate is opened, and the wait has ended; others want the connection → the gate is opened, and the next turn comes later |

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tooz_core::driver::{Granted, LockRequest, Wanted};
use tooz_core::{LockMode, Outcome, Result};

use crate::advisory_lock::Gate;
use crate::error;
use crate::layout::waits;
use crate::open_session::OpenSession;
use crate::pool::Loan;
use crate::setup::SLICE;

// Each answers whether it was done by the server's process that is this connection's ($2): behind a pooler it may be another one, whose
// locks are another's. With the gate goes the pair of numbers that tells readers whose wait it is.
const WAIT_FOR_GATE: &str = "SELECT CASE WHEN pg_backend_pid() <> $2 OR pg_advisory_unlock_all() IS NULL \
    OR pg_try_advisory_lock_shared($3, $4) IS NULL THEN false ELSE pg_advisory_lock($1) IS NOT NULL END";
// A request that waits for the lock itself keeps all others waiting: its slices are so short ($3) that the server soon sees whether it still lives.
const WAIT_FOR_LOCK: &str = "SELECT CASE WHEN pg_backend_pid() = $2 AND set_config('lock_timeout', $3, true) IS NOT NULL \
    THEN pg_advisory_xact_lock($1) IS NOT NULL ELSE false END";
const WAIT_FOR_SHARED_LOCK: &str = "SELECT CASE WHEN pg_backend_pid() = $2 AND set_config('lock_timeout', $3, true) IS NOT NULL \
    THEN pg_advisory_xact_lock_shared($1) IS NOT NULL ELSE false END";
const CANCEL: &str = "SELECT pg_cancel_backend($1)";

/// When to look whether it is really this lock that is held, and not one of another name with the same key.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// How a turn ended.
pub(crate) enum TurnEnd {
    Granted(Granted),
    Unwanted,
    /// Others want the connection, or the slice is over.
    Over,
}

/// What a statement waits for.
#[derive(Clone, Copy)]
enum WaitTarget {
    Gate,
    /// The lock itself, at the head of all that wait.
    Lock,
}

/// How one waiting statement ended.
enum WaitEnd {
    Done,
    Unwanted,
    Over,
}

impl OpenSession {
    /// Waits in the server's queue for so long, and longer as long as no other request wants the connection.
    pub(crate) async fn take_turn(
        &self,
        mut lent: Loan,
        request: &LockRequest,
        wanted: &Wanted,
        patience: Duration,
    ) -> Result<TurnEnd> {
        let yields_at = Instant::now() + patience;
        // Errors leave the connection to be closed: with it ends whatever it waits for or holds.
        let mut ended = self.blocked(&mut lent, WaitTarget::Gate, wanted, yields_at, request).await?;
        while let WaitEnd::Done = ended {
            ended = self.blocked(&mut lent, WaitTarget::Lock, wanted, yields_at, request).await?;
            if let WaitEnd::Over = ended
                && !self.pool.is_pressed()
            {
                // The end of a slice alone is no reason to leave the gate to another.
                ended = WaitEnd::Done;
                continue;
            }
            if let WaitEnd::Done = ended {
                // Another request whose gate was lost with its connection may have come first; then this waits again behind the gate.
                if let Some(granted) = self.acquire(request, Gate::IsOurs).await? {
                    let opened = self.pool.take_back(lent);
                    match request.mode {
                        // No other can pass before the lock is given back, and that waits for the gate.
                        LockMode::Exclusive => self.holdings.opens_its_gate(request.id, opened),
                        // Others may have the lock as well, and a try must not find the gate shut with no request waiting.
                        LockMode::Shared => drop(opened.await),
                    }
                    return Ok(TurnEnd::Granted(granted));
                }
            }
        }
        let opened = self.pool.take_back(lent);
        if let WaitEnd::Unwanted = ended {
            // A request that waits no more keeps no other out.
            drop(opened.await);
            return Ok(TurnEnd::Unwanted);
        }
        Ok(TurnEnd::Over)
    }

    /// Runs one waiting statement to its end, which comes early when it is not wanted any more or others want the connection.
    async fn blocked(
        &self,
        lent: &mut Loan,
        queue: WaitTarget,
        wanted: &Wanted,
        yields_at: Instant,
        request: &LockRequest,
    ) -> Result<WaitEnd> {
        const DOING: &str = "wait for a lock";
        let (doors, pid) = (self.layout.doors(&request.key), lent.pid);
        let statement = match (queue, request.mode) {
            (WaitTarget::Gate, mode) => {
                let (high, low) = waits(self.holdings.session, mode);
                sqlx::query_scalar::<_, bool>(WAIT_FOR_GATE).bind(doors.gate).bind(pid).bind(high).bind(low)
            }
            (WaitTarget::Lock, mode) => {
                let sql = if mode == LockMode::Exclusive { WAIT_FOR_LOCK } else { WAIT_FOR_SHARED_LOCK };
                let slice = (self.timeout / 2).min(SLICE).as_millis().max(1).to_string();
                sqlx::query_scalar(sql).bind(doors.lock).bind(pid).bind(slice)
            }
        };
        let statement = statement.fetch_one(&mut lent.connection);
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
                () = wanted.unwanted(), if interrupted.is_none() => interrupted = Some(WaitEnd::Unwanted),
                () = self.must_yield(yields_at), if interrupted.is_none() => interrupted = Some(WaitEnd::Over),
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
            Ok(true) => Ok(interrupted.unwrap_or(WaitEnd::Done)),
            Ok(false) => Err(self.holdings.shared_connection()),
            Err(error) if error::is_end_of_slice(&error) => {
                self.suspicion.notify_one();
                Ok(interrupted.unwrap_or(WaitEnd::Over))
            }
            Err(error) if error::is_cancelled(&error) => Ok(interrupted.unwrap_or(WaitEnd::Over)),
            // A lent connection never holds the lock itself: nothing can have been taken.
            Err(error) => Err(error::of(error, DOING).with_outcome(Outcome::NotApplied)),
        }
    }

    /// Cancels the statement and waits for its end; `None`: it does not end.
    async fn cancel<T>(&self, pid: i32, statement: &mut (impl Future<Output = T> + Unpin)) -> Result<Option<T>> {
        let until = Instant::now() + self.limit;
        while Instant::now() < until {
            self.connection
                .run(self.limit, "cancel a wait", move |listener| {
                    Box::pin(async move {
                        let cancelled = sqlx::query(CANCEL).bind(pid).execute(listener).await;
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
            let pressed = self.pool.pressed.notified();
            if self.pool.is_pressed() {
                return;
            }
            pressed.await;
        }
    }
}
