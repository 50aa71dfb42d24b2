//! One turn of a request that waits for a lock that is not free: in the server's own queue, on a lent connection.
//!
//! A waiting request takes the gate first, and keeps it until the lock is its own: so no other passes, and the gate's queue is first
//! come, first served. A lent connection never holds the lock itself: it would have a life of its own. It waits until the
//! lock could be had, lets it go with the same statement, and the session's connection takes it while the gate is shut.
//!
//! | state | then |
//! |---|---|
//! | at the gate | the gate is its own → behind the gate |
//! | behind the gate | the lock could be had, and the session takes it → granted. Others share it → it waits for each of them, and is behind the gate again |
//! | either | unwanted → the gate is opened, and the wait has ended; others want the connection → the gate is opened, and the next turn comes later |

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tooz_core::driver::{Granted, LockRequest, Wanted};
use tooz_core::{LockMode, Outcome, Result};

use crate::error;
use crate::layout::Name;
use crate::named_lock::{AttemptEnd, Gate};
use crate::open_session::OpenSession;
use crate::packet::{about, name, seconds};
use crate::pool::{Loan, WaitingConnection};
use crate::setup::SLICE;

/// How a turn ended.
pub(crate) enum TurnEnd {
    Granted(Granted),
    Unwanted,
    /// Others want the connection, or the slice is over.
    Over,
}

/// What a statement waits for.
#[derive(Clone)]
enum WaitTarget {
    /// To keep it.
    Gate(Name),
    /// Until it could be had: a named lock of the lock itself, or of one that shares it.
    Lock(Name),
}

/// How one waiting statement ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitEnd {
    Done,
    Unwanted,
    /// The end of a slice.
    Slice,
    /// Others want the connection, or the wait was ended by the server: then it may hold what it waited for.
    Over,
}

const DOING: &str = "wait for a lock";

/// How long one statement of the request at the head waits. Only between two of them the server sees that its client is silent.
fn at_the_head(session_timeout: Duration) -> Duration {
    // In whole seconds, as the server takes it.
    Duration::from_secs(seconds(session_timeout / 2)).min(SLICE)
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
        let doors = self.holdings.layout.doors(&request.key);
        let about = about("wait for", &request.key.name);
        // Errors leave the connection to be closed: with it ends whatever it waits for or holds.
        self.note_wait(&mut lent.waiter, request, &doors.gate).await?;
        let mut ended =
            self.blocked(&mut lent.waiter, WaitTarget::Gate(doors.gate.clone()), &about, wanted, yields_at).await?;
        let mut ahead = vec![doors.lock.clone()];
        while ended == WaitEnd::Done {
            if let Some(next) = ahead.last().cloned() {
                ended = self.blocked(&mut lent.waiter, WaitTarget::Lock(next), &about, wanted, yields_at).await?;
                match ended {
                    WaitEnd::Done => drop(ahead.pop()),
                    // The end of a slice alone is no reason to leave the gate to another.
                    WaitEnd::Slice if !self.pool.is_pressed() || Instant::now() < yields_at => ended = WaitEnd::Done,
                    WaitEnd::Slice | WaitEnd::Over | WaitEnd::Unwanted => {}
                }
                continue;
            }
            match self.acquire(request, Gate::IsOurs).await? {
                AttemptEnd::Granted(granted) => {
                    let opened = self.pool.take_back(lent);
                    match request.mode {
                        // No other can pass before the lock is given back, and that waits for the gate.
                        LockMode::Exclusive => self.holdings.opens_its_gate(request.id, opened),
                        // Others may have the lock as well, and a try must not find the gate shut with no request waiting.
                        LockMode::Shared => drop(opened.await),
                    }
                    return Ok(TurnEnd::Granted(granted));
                }
                // Another request whose gate was lost with its connection has come first.
                AttemptEnd::Held => ahead.push(doors.lock.clone()),
                AttemptEnd::Shared(shares) => ahead = shares,
            }
        }
        let opened = self.pool.take_back(lent);
        if ended == WaitEnd::Unwanted {
            // A request that waits no more keeps no other out.
            drop(opened.await);
            return Ok(TurnEnd::Unwanted);
        }
        Ok(TurnEnd::Over)
    }

    /// Writes down who waits here, for those that ask.
    async fn note_wait(&self, waiter: &mut WaitingConnection, request: &LockRequest, gate: &str) -> Result<()> {
        let holdings = &self.holdings;
        let note = format!(
            "INSERT INTO {waits} (gate, waiter, conn, session, session_conn, member, exclusive) \
             VALUES ('{gate}', '{waiter}', {number}, '{session}', {session_number}, {member}, {exclusive})",
            waits = holdings.layout.table("waits"),
            waiter = waiter.name,
            number = waiter.number,
            session = holdings.session,
            session_number = holdings.number,
            member = name(holdings.member.as_str()),
            exclusive = u8::from(request.mode == LockMode::Exclusive),
        );
        match timeout(self.limit, waiter.packets.ask(&note)).await {
            Ok(Ok(_)) => waiter.is_written = true,
            Ok(Err(error)) if error::is_dead(&error) => {
                return Err(error::of(error, DOING).with_outcome(Outcome::NotApplied));
            }
            // It waits without being listed.
            Ok(Err(_)) => {}
            Err(_) => return Err(error::timed_out(self.limit, DOING).with_outcome(Outcome::NotApplied)),
        }
        Ok(())
    }

    /// Runs one waiting statement to its end, which comes early when it is not wanted any more or others want the connection.
    async fn blocked(
        &self,
        waiter: &mut WaitingConnection,
        queue: WaitTarget,
        about: &str,
        wanted: &Wanted,
        yields_at: Instant,
    ) -> Result<WaitEnd> {
        // A request that waits for the lock itself keeps all others waiting: its slices are so short that the server soon sees whether it still lives.
        let slice = match queue {
            WaitTarget::Gate(_) => SLICE,
            WaitTarget::Lock(_) => at_the_head(self.timeout),
        };
        let (own, most) = (waiter.name.clone(), seconds(slice));
        let ours = format!("IS_USED_LOCK('{own}') = CONNECTION_ID()");
        let waits = match queue {
            WaitTarget::Gate(gate) => format!("IF({ours}, GET_LOCK('{gate}', {most}), NULL)"),
            // What could be had is let go at once.
            WaitTarget::Lock(lock) => {
                format!("IF({ours}, GET_LOCK('{lock}', {most}), NULL), IF({ours}, RELEASE_LOCK('{lock}'), NULL)")
            }
        };
        let statement = format!("{about}SELECT IF({ours}, 1, 0), {waits}");
        let statement = waiter.packets.ask(&statement);
        tokio::pin!(statement);
        let too_long = slice + self.limit;
        let too_late = sleep(too_long);
        tokio::pin!(too_late);
        let mut interrupted = None;
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut statement => break ended,
                () = self.closed() => return Err(error::lost(DOING)),
                () = wanted.unwanted(), if interrupted.is_none() => interrupted = Some(WaitEnd::Unwanted),
                () = self.must_yield(yields_at), if interrupted.is_none() => interrupted = Some(WaitEnd::Over),
                // The server ends every slice itself, if it can be reached.
                () = &mut too_late => return Err(error::timed_out(too_long, DOING).with_outcome(Outcome::NotApplied)),
            }
            if interrupted.is_some() {
                match self.cancel(&own, &mut statement).await? {
                    Some(ended) => break ended,
                    None => return Err(error::timed_out(self.limit, DOING).with_outcome(Outcome::NotApplied)),
                }
            }
        };
        // A lent connection never holds the lock itself: nothing can have been taken.
        let failed = |error| error::of(error, DOING).with_outcome(Outcome::NotApplied);
        match ended {
            Ok(answer) if !answer.is(0, 0).map_err(failed)? => Err(self.holdings.shared_connection()),
            // Null: its wait was ended, by us or by an operator.
            Ok(answer) => match answer.number(0, 1).map_err(failed)? {
                Some(1) => Ok(interrupted.unwrap_or(WaitEnd::Done)),
                Some(_) => Ok(interrupted.unwrap_or(WaitEnd::Slice)),
                None => Ok(interrupted.unwrap_or(WaitEnd::Over)),
            },
            Err(error) if error::is_cancelled(&error) || error::is_deadlock(&error) => {
                Ok(interrupted.unwrap_or(WaitEnd::Over))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Ends the wait and waits for the end of its statement; `None`: it does not end.
    async fn cancel<T>(&self, waiter: &Name, statement: &mut (impl Future<Output = T> + Unpin)) -> Result<Option<T>> {
        let until = Instant::now() + self.limit;
        while Instant::now() < until {
            let kill = format!("KILL QUERY IS_USED_LOCK('{waiter}')");
            let killing = self.connection.run(self.limit, "end a wait", move |packets| {
                Box::pin(async move {
                    match packets.ask(&kill).await {
                        // It has ended by itself.
                        Err(error) if error::is_no_thread(&error) => Ok(()),
                        killed => killed.map(drop).map_err(|error| error::on_session(error, "end a wait")),
                    }
                })
            });
            // To its end, so that it hits no later wait.
            killing.await?;
            // A statement that had not begun when it was killed goes on.
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
