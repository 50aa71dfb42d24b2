//! Writing down what the session holds, once it is held for longer than a moment, for those that ask who holds what.
//!
//! Writing costs more than the lock itself, and most locks are held for less time than it takes to ask for their holders.
//! The named lock alone is the truth; a row tells the token and the time of what is locked by its session.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::driver::RequestId;
use tooz_core::{ErrorKind, LockMode, Outcome, Result};

use crate::answer::{bytes as raw, text};
use crate::connection::Connection;
use crate::error;
use crate::holdings::{HeldLock, Holdings, PATIENCE, Row};
use crate::layout::{self, Name, space};
use crate::packet::{Packets, name};
use crate::record::{NOW, bytes, request_id};

/// How old a grant is when it is written down, unless a reader has asked before.
pub(crate) const MOMENT: Duration = Duration::from_millis(20);
/// How many grants are written down or taken away by one statement at most.
const BATCH: usize = 200;
/// How many are looked at behind one heartbeat.
const LOOKS: usize = 2000;

/// Writes down what the session holds, and takes away what it gave back, as long as it lives.
pub(crate) async fn keep_written(connection: Arc<Connection>, holdings: Arc<Holdings>, limit: Duration) {
    loop {
        holdings.granted.notified().await;
        while holdings.has_unwritten() || holdings.has_leftovers() {
            sleep(MOMENT).await;
            if holdings.unwritten(MOMENT, 1).is_empty() && !holdings.has_leftovers() {
                continue;
            }
            let theirs = Arc::clone(&holdings);
            let written = connection
                .run(limit, DOING, move |packets| {
                    Box::pin(async move {
                        // Only now: a lock that was given back in between is held no more.
                        let due: Vec<_> = theirs.unwritten(MOMENT, BATCH).into_iter().map(|(id, _)| id).collect();
                        let written = write_down(packets, &theirs, &due).await;
                        clear(packets, &theirs, &theirs.leftovers(BATCH)).await.and(written)
                    })
                })
                .await;
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Lost => return,
                // A reader that asks meanwhile is told that it can't be known yet.
                Err(_) => sleep(PATIENCE).await,
            }
        }
    }
}

const DOING: &str = "write down who holds what";

/// Takes these rows away where their lock is held or about to be: they would pass for grants. What fails is tried again later.
pub(crate) async fn clear_leftovers(
    packets: &mut Packets,
    holdings: &Holdings,
    rows: Vec<(Name, RequestId)>,
) -> Result<()> {
    for some in rows.chunks(BATCH) {
        match clear(packets, holdings, some).await {
            Err(error) if packets.is_dead => return Err(error.with_outcome(Outcome::NotApplied)),
            _ => {}
        }
    }
    Ok(())
}

/// What stands in a statement for one row that is taken away, and a bit.
const LONGEST_CONDITION: usize = 120;

async fn clear(packets: &mut Packets, holdings: &Holdings, rows: &[(Name, RequestId)]) -> Result<()> {
    for some in rows.chunks(packets.fits(LONGEST_CONDITION, BATCH)) {
        clear_at_once(packets, holdings, some).await?;
    }
    Ok(())
}

async fn clear_at_once(packets: &mut Packets, holdings: &Holdings, rows: &[(Name, RequestId)]) -> Result<()> {
    // MariaDB would read the whole table for pairs behind an `IN`.
    let each: Vec<String> =
        rows.iter().map(|(lock, id)| format!("(lk = '{lock}' AND request = {})", bytes(*id))).collect();
    let statement = format!("DELETE FROM {} WHERE {}", holdings.layout.table("grants"), each.join(" OR "));
    match packets.ask(&statement).await {
        Err(error) if !error::is_missing(&error) => Err(error::on_session(error, DOING)),
        // Without the table there are none.
        _ => {
            holdings.forget_leftovers(rows);
            Ok(())
        }
    }
}

/// Looks behind each heartbeat whether what is written down still stands there, some of it at a time: what others took away is written once more,
/// and what a failure has left is taken away.
pub(crate) async fn keep_checked(connection: Arc<Connection>, holdings: Arc<Holdings>, limit: Duration) {
    let mut beats = holdings.beats.subscribe();
    let mut place = beginning();
    while beats.changed().await.is_ok() {
        if !holdings.has_written() {
            place = beginning();
            continue;
        }
        let (theirs, from) = (Arc::clone(&holdings), place.clone());
        let looking = connection.run(limit, DOING, move |packets| {
            Box::pin(async move { look(packets, &theirs, from).await.map_err(|error| error::on_session(error, DOING)) })
        });
        match looking.await {
            Ok(next) => place = next,
            Err(error) if error.kind() == ErrorKind::Lost => return,
            // The next heartbeat comes soon.
            Err(_) => {}
        }
    }
}

/// Before all rows.
fn beginning() -> Row {
    (String::new(), RequestId(0))
}

/// One look, behind that row. Answers where the next one begins.
async fn look(packets: &mut Packets, holdings: &Holdings, from: Row) -> Result<Row, sqlx::Error> {
    let (table, session, (lock, id)) = (holdings.layout.table("grants"), &holdings.session, &from);
    let question = format!(
        "SELECT lk, request FROM {table} WHERE session = '{session}' AND (lk > '{lock}' OR (lk = '{lock}' AND request > {id})) \
         ORDER BY lk, request LIMIT {LOOKS}",
        id = bytes(*id),
    );
    let answer = match packets.ask(&question).await {
        // Once the table is there again, they are written once more.
        Err(error) if error::is_missing(&error) => return Ok(beginning()),
        answer => answer?,
    };
    let mut there = Vec::new();
    for row in answer.rows(0) {
        if let (Some(lock), Some(id)) = (text(row, 0)?, raw(row, 1)?.as_deref().and_then(request_id)) {
            there.push((lock, id));
        }
    }
    let last = if answer.rows(0).len() < LOOKS { None } else { there.last().cloned() };
    holdings.reconcile(&from, last.as_ref(), &there.into_iter().collect());
    Ok(last.unwrap_or_else(beginning))
}

/// Writes down these grants.
pub(crate) async fn write_down(packets: &mut Packets, holdings: &Holdings, ids: &[RequestId]) -> Result<()> {
    let rows: Vec<_> =
        ids.iter().filter_map(|id| holdings.held(*id).map(|held| (*id, row(holdings, *id, &held)))).collect();
    // Names may be long: with 200 of these a row each the server would end the connection where it takes small packets only.
    let longest = rows.iter().map(|(_, row)| row.len() + 2).max().unwrap_or_default();
    for some in rows.chunks(packets.fits(longest, BATCH)) {
        let values: Vec<&str> = some.iter().map(|(_, row)| row.as_str()).collect();
        let statement = format!(
            "INSERT IGNORE INTO {} (lk, request, session, conn, held, exclusive, token, since, member, namespace, space, name) VALUES {}",
            holdings.layout.table("grants"),
            values.join(", ")
        );
        packets.ask(&statement).await.map_err(|error| error::on_session(error, DOING))?;
        for (id, _) in some {
            holdings.note_written(*id);
        }
    }
    Ok(())
}

fn row(holdings: &Holdings, id: RequestId, held: &HeldLock) -> String {
    let lock = &held.doors.lock;
    let (exclusive, named) = match held.mode {
        LockMode::Exclusive => (1, lock.clone()),
        LockMode::Shared => (0, layout::share(&holdings.session, lock)),
    };
    format!(
        "('{lock}', {request}, '{session}', {number}, '{named}', {exclusive}, {token}, {NOW} - {age}, {member}, {namespace}, '{space}', {name})",
        request = bytes(id),
        session = holdings.session,
        number = holdings.number,
        token = held.token.0,
        age = held.since.elapsed().as_micros(),
        member = name(holdings.member.as_str()),
        namespace = name(holdings.layout.namespace()),
        space = space(held.key.space),
        name = name(&held.key.name),
    )
}
