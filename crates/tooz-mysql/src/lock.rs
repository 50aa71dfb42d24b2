//! Locks: named locks of the session's connection, behind a gate at which waiting requests stand in the server's own queue.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::MySqlRow;
use tokio::time::{Instant, sleep};
use tooz_core::driver::{Backoff, Granted, LockKey, LockRequest, Locks, Wanted, async_trait};
use tooz_core::{Error, ErrorKind, Holder, Outcome, Result, Waiter};

use crate::answer::text;
use crate::client::{Client, Repeat};
use crate::error;
use crate::grants::MOMENT;
use crate::holdings::PATIENCE;
use crate::layout::{Doors, Layout};
use crate::named_lock::Gate;
use crate::open_session::OpenSession;
use crate::packet::name;
use crate::pool::Loan;
use crate::record::{Read, holder, lock_key, waiter};
use crate::session::MySqlSession;
use crate::setup::SLICE;
use crate::turn::TurnEnd;

/// When others want the connection, the first turn is this long, and each further one twice as long as the one before: a request in a
/// long queue gets the time that it takes, as far as those that wait for their turn let it.
const FIRST_TURN: Duration = Duration::from_secs(1);
/// All requests that have no connection try once in this time each, together: they leave the session's connection to those that have a lock.
const TRY: Duration = Duration::from_millis(2);

#[async_trait]
impl Locks for MySqlSession {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        Ok(self.opened()?.acquire(request, Gate::Ask).await?.granted())
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        let open = self.opened()?;
        if let Some(granted) = open.acquire(request, Gate::Ask).await?.granted() {
            return Ok(Some(granted));
        }
        wanted.queued();
        let mut patience = FIRST_TURN;
        while wanted.is_wanted() {
            let lent = match until_lent(open, request, wanted).await? {
                LoanEnd::Lent(lent) => lent,
                LoanEnd::Granted(granted) => return Ok(Some(granted)),
                LoanEnd::Unwanted => return Ok(None),
            };
            match open.take_turn(lent, request, wanted, open.pool.turn_length(patience)).await? {
                TurnEnd::Granted(granted) => return Ok(Some(granted)),
                TurnEnd::Unwanted => return Ok(None),
                TurnEnd::Over => patience = (patience * 2).min(SLICE),
            }
        }
        Ok(None)
    }

    /// It comes after whatever was asked for the request before, answered or not. Those that stand right behind it are done together with it.
    async fn release(&self, request: &LockRequest) -> Result<()> {
        let open = self.opened()?;
        let (holdings, id) = (Arc::clone(&open.holdings), request.id);
        holdings.gate_is_open(id).await;
        open.connection.run_together(open.limit, "give a lock back", id, holdings).await
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        const DOING: &str = "ask who holds a lock";
        let doors = self.layout.doors(key);
        let question = holders(&self.layout, &doors);
        let until = Instant::now() + PATIENCE;
        let mut pauses = Backoff::between(MOMENT / 16, MOMENT);
        let mut attention = Attention::new(&self.client, doors.attention.to_string());
        let found = loop {
            let Some(answer) = self.client.consult(DOING, Repeat::Allowed, question.clone()).await? else {
                break self.without_tables(key, &doors).await;
            };
            let (mut holders, mut written, mut unreadable) = (Vec::new(), HashSet::new(), None);
            for row in answer.rows(0) {
                written.insert(text(row, 4).map_err(|error| error::of(error, DOING))?);
                match holder(row).map_err(|error| error::of(error, DOING))? {
                    Ok(holder) => holders.push(holder),
                    Err(error) => unreadable = Some(error),
                }
            }
            let mut young = None;
            for row in answer.rows(1).iter().chain(answer.rows(2)) {
                if !written.contains(&text(row, 0).map_err(|error| error::of(error, DOING))?) {
                    young = text(row, 1).map_err(|error| error::of(error, DOING))?;
                }
            }
            match (young, unreadable) {
                // What can't be read is left out where it is not all there is: a lock that is held must not look free.
                (None, Some(error)) if holders.is_empty() => break Err(error),
                (None, _) => break Ok(without_former(holders)),
                // A holder that stands still keeps no reader from hearing of the others.
                (Some(_), _) if Instant::now() >= until && !holders.is_empty() => break Ok(without_former(holders)),
                (Some(member), _) if Instant::now() >= until => {
                    let word = format!("{member:?} holds {key}, but has not told its token yet; ask again");
                    break Err(Error::new(ErrorKind::Unavailable, word).with_outcome(Outcome::NotApplied));
                }
                // By the time a holder is heard of, most locks are given back: those that take it now write it down at once.
                (Some(_), _) => attention.pay().await?,
            }
            pauses.pause().await;
        };
        attention.end().await;
        found
    }

    /// A lock has its name where its grant is written down, a moment after it was granted. So this takes a few moments; what is taken meanwhile is
    /// written down at once.
    async fn locks(&self) -> Result<Vec<LockKey>> {
        const DOING: &str = "list the locks in use";
        let (grants, namespace) = (self.layout.table("grants"), name(self.layout.namespace()));
        let question = format!(
            "SELECT DISTINCT space, name FROM {grants} WHERE namespace = {namespace} \
             AND IS_USED_LOCK(session) = conn AND IS_USED_LOCK(held) = conn"
        );
        let mut attention = Attention::new(&self.client, self.layout.attention().to_string());
        attention.pay().await?;
        sleep(MOMENT * 4).await;
        let answer = self.client.consult(DOING, Repeat::Allowed, question).await;
        attention.end().await;
        let Some(answer) = answer? else { return Ok(Vec::new()) };
        readable(answer.rows(0), lock_key).map_err(|error| error::of(error, DOING))
    }

    /// Those that stand in the server's queue, each on a connection lent to it.
    async fn waiters(&self, key: &LockKey) -> Result<Vec<Waiter>> {
        const DOING: &str = "ask who waits for a lock";
        let (doors, waits) = (self.layout.doors(key), self.layout.table("waits"));
        let question = format!(
            "SELECT member, exclusive FROM {waits} WHERE gate = '{gate}' AND IS_USED_LOCK(waiter) = conn \
             AND IS_USED_LOCK(session) = session_conn AND NOT (IS_USED_LOCK('{lock}') <=> session_conn) ORDER BY id",
            gate = doors.gate,
            lock = doors.lock,
        );
        let Some(answer) = self.client.consult(DOING, Repeat::Allowed, question).await? else { return Ok(Vec::new()) };
        readable(answer.rows(0), waiter).map_err(|error| error::of(error, DOING))
    }
}

/// What a request that waits for a connection to wait on has come to.
enum LoanEnd {
    Lent(Loan),
    /// The lock was free at a try meanwhile.
    Granted(Granted),
    Unwanted,
}

/// Waits for a connection to wait on: for its turn, and then until there is one, since the server may let no more of them in. Without a connection trying is
/// better than nothing; the place for one is kept. The complaint stands until there is one: given back as an error it would be taken back with each attempt.
async fn until_lent(open: &OpenSession, request: &LockRequest, wanted: &Wanted) -> Result<LoanEnd> {
    let mut pauses = Backoff::between(Duration::from_millis(50), Duration::from_secs(1));
    let turn = open.pool.turn();
    tokio::pin!(turn);
    let mut permit = loop {
        let pace = TRY * u32::try_from(open.pool.queued()).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            permit = &mut turn => break permit?,
            () = wanted.unwanted() => return Ok(LoanEnd::Unwanted),
            () = sleep(pauses.next().max(pace)) => {
                if let Some(granted) = open.acquire(request, Gate::Ask).await?.granted() {
                    return Ok(LoanEnd::Granted(granted));
                }
            }
        }
    };
    pauses.reset();
    loop {
        match open.pool.lend(permit).await {
            Ok(lent) => {
                wanted.queued();
                return Ok(LoanEnd::Lent(lent));
            }
            Err((error, kept)) => {
                wanted.trouble(&error);
                permit = kept;
            }
        }
        tokio::select! {
            biased;
            () = wanted.unwanted() => return Ok(LoanEnd::Unwanted),
            () = sleep(pauses.next()) => {}
        }
        if let Some(granted) = open.acquire(request, Gate::Ask).await?.granted() {
            return Ok(LoanEnd::Granted(granted));
        }
    }
}

impl MySqlSession {
    /// The holders where the tables are not there. A lock that is held must not look free.
    async fn without_tables(&self, key: &LockKey, doors: &Doors) -> Result<Vec<Holder>> {
        const DOING: &str = "ask whether a lock is held";
        let question = format!("SELECT IS_USED_LOCK('{}') IS NOT NULL", doors.lock);
        let answer = self.client.ask(DOING, Repeat::Allowed, question).await?;
        if !answer.is_some_and(|answer| answer.is(0, 0).unwrap_or(false)) {
            return Ok(Vec::new());
        }
        let word = format!("{key} is held, and the tables that tell by whom are gone");
        Err(Error::new(ErrorKind::Unavailable, word).with_outcome(Outcome::NotApplied))
    }
}

/// What can't be read is left out: another program has written it.
fn readable<T>(rows: &[MySqlRow], read: fn(&MySqlRow) -> Read<T>) -> Result<Vec<T>, sqlx::Error> {
    let read: Result<Vec<_>, _> = rows.iter().map(read).collect();
    Ok(read?.into_iter().flatten().collect())
}

/// Three questions in one: the grants that are written down and held, who has the lock alone, and who shares it.
fn holders(layout: &Layout, doors: &Doors) -> String {
    let (grants, sessions, sharers) = (layout.table("grants"), layout.table("sessions"), layout.table("sharers"));
    let lock = &doors.lock;
    format!(
        "SELECT member, exclusive, token, since, session FROM {grants} \
             WHERE lk = '{lock}' AND IS_USED_LOCK(session) = conn AND IS_USED_LOCK(held) = conn; \
         SELECT session, member FROM {sessions} WHERE conn = IS_USED_LOCK('{lock}') AND IS_USED_LOCK(session) = conn; \
         SELECT whose.session, whose.member FROM {sharers} AS had JOIN {sessions} AS whose ON whose.session = had.session \
             WHERE had.lk = '{lock}' AND IS_USED_LOCK(had.name) = whose.conn AND IS_USED_LOCK(whose.session) = whose.conn"
    )
}

/// A reader's wish that what is taken be written down at once: a named lock that it holds meanwhile. One reader is as good as another.
struct Attention<'a> {
    client: &'a Client,
    name: String,
    is_paid: bool,
}

impl<'a> Attention<'a> {
    fn new(client: &'a Client, name: String) -> Self {
        Attention { client, name, is_paid: false }
    }

    async fn pay(&mut self) -> Result<()> {
        if !self.is_paid {
            let asking = format!("SELECT GET_LOCK('{}', 0)", self.name);
            let answer = self.client.ask("ask who holds a lock", Repeat::Allowed, asking).await?;
            self.is_paid = answer.is_some_and(|answer| answer.is(0, 0).unwrap_or(false));
        }
        Ok(())
    }

    async fn end(self) {
        if self.is_paid {
            // With the connection it ends too.
            let ending = format!("DO RELEASE_LOCK('{}')", self.name);
            let _ = self.client.ask("ask who holds a lock", Repeat::Forbidden, ending).await;
        }
    }
}

/// A lock is given back before its row is seen to go: what conflicts with a newer grant is over.
fn without_former(mut holders: Vec<Holder>) -> Vec<Holder> {
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.token));
    if let Some(newest) = holders.first().map(|holder| holder.mode) {
        let mut index = 0;
        holders.retain(|holder| {
            index += 1;
            index == 1 || !holder.mode.conflicts_with(newest)
        });
    }
    holders.reverse();
    holders
}

#[cfg(test)]
mod tests {
    use tooz_core::{FencingToken, LockMode, MemberId};

    use super::*;

    #[test]
    fn a_row_of_a_former_holder_is_not_listed() {
        let holder = |name: &str, mode, token| Holder::new(MemberId::new(name).unwrap(), mode, FencingToken(token));
        let (exclusive, shared) = (LockMode::Exclusive, LockMode::Shared);
        let names = |holders: Vec<Holder>| {
            let left = without_former(holders);
            left.iter().map(|holder| holder.member.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(vec![holder("old", exclusive, 1), holder("new", exclusive, 2)]), ["new"]);
        assert_eq!(
            names(vec![holder("old", exclusive, 1), holder("b", shared, 3), holder("a", shared, 2)]),
            ["a", "b"]
        );
        assert_eq!(names(vec![holder("new", exclusive, 9), holder("b", shared, 3)]), ["new"]);
    }
}
