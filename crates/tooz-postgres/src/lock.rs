//! Locks: advisory locks of the session's connection, behind a gate at which waiting requests stand in the server's own queue.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use tokio::time::{Instant, sleep};
use tooz_core::driver::{Backoff, Granted, LockKey, LockRequest, Locks, PushStream, Space, Wanted, async_trait};
use tooz_core::{Error, ErrorKind, Holder, Outcome, Result, Waiter};

use crate::advisory_lock::{Gate, give_back};
use crate::client::{Client, Repeat};
use crate::error;
use crate::grants::MOMENT;
use crate::holdings::PATIENCE;
use crate::layout::{channel, space};
use crate::open_session::OpenSession;
use crate::pool::Loan;
use crate::record::{ASKED, GrantRow, grant, lock_key, waiter};
use crate::session::PostgresSession;
use crate::setup::SLICE;
use crate::turn::TurnEnd;

/// When others want the connection, the first turn is this long, and each further one twice as long as the one before: a request in a
/// long queue gets the time that it takes, as far as those that wait for their turn let it.
const FIRST_TURN: Duration = Duration::from_secs(1);
/// All requests that have no connection try once in this time each, together: they leave the session's connection to those that have a lock.
const TRY: Duration = Duration::from_millis(2);

#[async_trait]
impl Locks for PostgresSession {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        self.opened()?.acquire(request, Gate::Ask).await
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        let open = self.opened()?;
        if let Some(granted) = open.acquire(request, Gate::Ask).await? {
            return Ok(Some(granted));
        }
        wanted.queued();
        // What a free lock does not need is not part of each request.
        Box::pin(wait_for(open, request, wanted)).await
    }

    /// It comes after whatever was asked for the request before, answered or not.
    async fn release(&self, request: &LockRequest) -> Result<()> {
        let open = self.opened()?;
        let (holdings, id, pid) = (Arc::clone(&open.holdings), request.id, open.connection.pid);
        holdings.gate_is_open(id).await;
        open.connection
            .run(open.limit, "give a lock back", move |listener| {
                Box::pin(async move {
                    let Some(held) = holdings.held(id) else { return Ok(()) };
                    give_back(listener, &holdings, &held, id, pid).await?;
                    holdings.strike(id);
                    Ok(())
                })
            })
            .await
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        const DOING: &str = "ask who holds a lock";
        let failed = |error| error::of(error, DOING);
        let (doors, namespace, name) = (self.layout.doors(key), self.namespace.clone(), key.name.to_string());
        // A leader is written down by the time it is one.
        let look_for_young = key.space == Space::Lock;
        let question = || {
            sqlx::query(include_str!("sql/holders.sql"))
                .bind(doors.lock)
                .bind(look_for_young)
                .bind(namespace.clone())
                .bind(space(key.space))
                .bind(name.clone())
        };
        let until = Instant::now() + PATIENCE;
        let mut pauses = Backoff::between(MOMENT / 16, MOMENT);
        let mut asked = HashSet::new();
        loop {
            let rows = self.client.consult(DOING, Repeat::Allowed, question).await?.unwrap_or_default();
            let mut holders = Vec::new();
            let (mut young, mut sessions, mut unreadable) = (None, Vec::new(), None);
            for row in &rows {
                match grant(row).map_err(failed)? {
                    Ok(GrantRow::Written(holder)) => holders.push(holder),
                    Ok(GrantRow::Young(member)) => {
                        young = Some(member);
                        sessions.push(row.try_get("session").map_err(failed)?);
                    }
                    Err(error) => unreadable = Some(error),
                }
            }
            asked.retain(|session| {
                let is_young = sessions.contains(session);
                if !is_young {
                    self.client.asking.answered(*session);
                }
                is_young
            });
            match (young, unreadable) {
                // What can't be read is left out where it is not all there is: a lock that is held must not look free.
                (None, Some(error)) if holders.is_empty() => return Err(error),
                (None, _) => return Ok(without_former(holders)),
                // A holder that stands still keeps no reader from hearing of the others.
                (Some(_), _) if Instant::now() >= until && !holders.is_empty() => return Ok(without_former(holders)),
                (Some(member), _) if Instant::now() >= until => {
                    let word = format!("{member:?} holds {key}, but has not told its token yet; ask again");
                    return Err(Error::new(ErrorKind::Unavailable, word).with_outcome(Outcome::NotApplied));
                }
                (Some(_), _) => asked.extend(ask_to_write_down(&self.client, &sessions).await?),
            }
            pauses.pause().await;
        }
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        match key.space {
            Space::Election => self.client.watch(self.layout.doors(key).lock).await.map(Some),
            // Most locks come and go without any question for their holders: that is not told.
            Space::Lock => Ok(None),
        }
    }

    /// A lock has its name where its grant is written down. What is held without that when it is first looked for is asked for; what is taken
    /// after that need not be listed.
    async fn locks(&self) -> Result<Vec<LockKey>> {
        const DOING: &str = "list the locks in use";
        let failed = |error| error::of(error, DOING);
        let (namespace, lifted) = (self.namespace.clone(), self.layout.lifted());
        let question = || sqlx::query(include_str!("sql/locks.sql")).bind(namespace.clone()).bind(lifted);
        let until = Instant::now() + PATIENCE;
        let mut pauses = Backoff::between(MOMENT / 16, MOMENT);
        let mut asked = HashSet::new();
        let mut names = HashMap::<i64, LockKey>::new();
        let mut nameless_at_first: Option<HashSet<i64>> = None;
        loop {
            let rows = self.client.consult(DOING, Repeat::Allowed, question).await?.unwrap_or_default();
            let (mut held, mut nameless) = (Vec::with_capacity(rows.len()), Vec::new());
            for row in &rows {
                let key: i64 = row.try_get("key").map_err(failed)?;
                held.push(key);
                match lock_key(row).map_err(failed)? {
                    Some(Ok(name)) => drop(names.insert(key, name)),
                    // What can't be read is left out.
                    Some(Err(_)) => {}
                    None => nameless.push((key, row.try_get("session").map_err(failed)?)),
                }
            }
            let at_first =
                nameless_at_first.get_or_insert_with(|| nameless.iter().map(|(key, _): &(i64, i64)| *key).collect());
            nameless.retain(|(key, _)| at_first.contains(key) && !names.contains_key(key));
            let sessions: HashSet<i64> = nameless.iter().map(|(_, session)| *session).collect();
            asked.retain(|session| {
                let is_silent = sessions.contains(session);
                if !is_silent {
                    self.client.asking.answered(*session);
                }
                is_silent
            });
            let is_late = Instant::now() >= until;
            // A holder that stands still keeps no reader from hearing of the others.
            if nameless.is_empty() || (is_late && !names.is_empty()) {
                return Ok(held.iter().filter_map(|key| names.remove(key)).collect());
            }
            if is_late {
                let word = format!("{} locks are held that have not told their names yet; ask again", nameless.len());
                return Err(Error::new(ErrorKind::Unavailable, word).with_outcome(Outcome::NotApplied));
            }
            asked.extend(ask_to_write_down(&self.client, &sessions.into_iter().collect::<Vec<_>>()).await?);
            pauses.pause().await;
        }
    }

    /// Those that stand in the server's queue, each on a connection lent to it.
    async fn waiters(&self, key: &LockKey) -> Result<Vec<Waiter>> {
        const DOING: &str = "ask who waits for a lock";
        let doors = self.layout.doors(key);
        let question = || sqlx::query(include_str!("sql/waiters.sql")).bind(doors.gate).bind(doors.lock);
        let rows = self.client.consult(DOING, Repeat::Allowed, question).await?.unwrap_or_default();
        let waiters: Result<Vec<_>, _> = rows.iter().map(waiter).collect();
        // What can't be read is left out.
        Ok(waiters.map_err(|error| error::of(error, DOING))?.into_iter().flatten().collect())
    }
}

/// Waits in turns for a lock that is not free.
async fn wait_for(open: &OpenSession, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
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

/// What a request that is not granted comes to.
enum LoanEnd {
    /// A connection on which it waits in the server's queue.
    Lent(Loan),
    Granted(Granted),
    Unwanted,
}

/// Waits for a connection to wait on. Trying is better than nothing meanwhile: without one the request stands in no queue of the server's. Where none can be
/// made, that is told, and the turn is kept.
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
                if let Some(granted) = open.acquire(request, Gate::Ask).await? {
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
        if let Some(granted) = open.acquire(request, Gate::Ask).await? {
            return Ok(LoanEnd::Granted(granted));
        }
    }
}

/// By the time a holder is heard of, most locks are given back: so a session that holds one now is asked to write all down at once from now on.
/// Answers the sessions that were asked: those that were not for a while.
async fn ask_to_write_down(client: &Client, sessions: &[i64]) -> Result<Vec<i64>> {
    const ASK: &str = "SELECT pg_notify(channel, $2) FROM unnest($1::text[]) AS asked (channel)";
    let due = client.asking.due(sessions, std::time::Instant::now());
    if due.is_empty() {
        return Ok(due);
    }
    let channels: Vec<String> = due.iter().map(|session| channel(*session)).collect();
    let asking = || sqlx::query(ASK).bind(channels.clone()).bind(ASKED);
    client.ask("ask who holds a lock", Repeat::Allowed, asking).await?;
    Ok(due)
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
