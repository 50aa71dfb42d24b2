//! Taking and giving back the advisory lock behind a lock, on the session's own connection, one round trip each.

use std::sync::Arc;

use sqlx::Row as _;
use sqlx::postgres::PgListener;
use tooz_core::driver::{Granted, LockRequest, RequestId, Space};
use tooz_core::{Error, FencingToken, Result};

use crate::error;
use crate::grants::write_down;
use crate::holdings::{Grip, HeldLock, Holdings};
use crate::layout::{self, Doors};
use crate::open_session::OpenSession;
use crate::record::bytes;

/// What a request finds at the gate of the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It asks there, and stops if any other request waits.
    Ask,
    /// A waiting connection of this session holds the gate for it.
    IsOurs,
}

impl OpenSession {
    /// Takes the lock if it can be had now. A repetition finds its own grant.
    pub(crate) async fn acquire(&self, request: &LockRequest, gate: Gate) -> Result<Option<Granted>> {
        let (holdings, request) = (Arc::clone(&self.holdings), request.clone());
        let (doors, pid) = (self.layout.doors(&request.key), self.connection.pid);
        self.connection
            .run(self.limit, "take a lock", move |listener| {
                Box::pin(async move { acquire(listener, &holdings, &request, doors, gate, pid).await })
            })
            .await
    }

    /// Fails if what is held under the key of this lock has another name.
    pub(crate) async fn refuse_collision(&self, request: &LockRequest) -> Result<()> {
        const DOING: &str = "see whose lock it is";
        let (holdings, request, key) =
            (Arc::clone(&self.holdings), request.clone(), self.layout.doors(&request.key).lock);
        self.connection
            .run(self.limit, DOING, move |listener| {
                Box::pin(async move {
                    let looking = sqlx::query_scalar::<_, String>(include_str!("sql/rival.sql"))
                        .bind(key)
                        .bind(holdings.namespace.clone())
                        .bind(layout::space(request.key.space))
                        .bind(request.key.name.to_string());
                    match looking.fetch_optional(listener).await {
                        Ok(None) => Ok(()),
                        Ok(Some(rival)) => Err(collision(&request, &rival)),
                        Err(error) => Err(error::on_session(error, DOING)),
                    }
                })
            })
            .await
    }
}

fn collision(request: &LockRequest, rival: &str) -> Error {
    let key = &request.key;
    Error::config(format!("the 64-bit key of {key} is that of {rival} too, which is held: choose another name"))
}

async fn acquire(
    listener: &mut PgListener,
    holdings: &Holdings,
    request: &LockRequest,
    doors: Doors,
    gate: Gate,
    pid: i32,
) -> Result<Option<Granted>> {
    const DOING: &str = "take a lock";
    if let Some(held) = holdings.held(request.id) {
        return Ok(Some(Granted::new(held.token)));
    }
    let grip = holdings.grip_to_take(doors, request.mode);
    let taking = sqlx::query(include_str!("sql/acquire.sql"))
        .bind(gate == Gate::IsOurs)
        .bind(doors.gate)
        .bind(doors.lock)
        .bind(grip.number())
        .bind(holdings.namespace.as_str())
        .bind(layout::space(request.key.space))
        .bind(&*request.key.name)
        .bind(pid);
    let row = match taking.fetch_one(&mut *listener).await {
        Ok(row) => row,
        Err(error) => {
            // The statement failed, but an advisory lock that it had taken by then stays: no transaction takes it back.
            if !error::is_dead(&error) {
                Box::pin(undo(listener, holdings, doors, grip, pid)).await?;
            }
            return Err(error::on_session(error, DOING));
        }
    };
    let failed = |error| error::on_session(error, DOING);
    if row.try_get::<i32, _>("pid").map_err(failed)? != pid {
        return Err(holdings.shared_connection());
    }
    let Some(token) = row.try_get::<Option<i64>, _>("token").map_err(failed)? else {
        return match row.try_get::<Option<String>, _>("rival").map_err(failed)? {
            None => Ok(None),
            Some(rival) => Err(collision(request, &rival)),
        };
    };
    let token = FencingToken(token.cast_unsigned());
    holdings.note(request, doors, token);
    if request.key.space == Space::Election {
        let told = Some(layout::channel(doors.lock));
        if let Err(error) = Box::pin(write_down(listener, holdings, &[request.id], told)).await {
            // The leader must be known to those that ask: an election that can't be told is none.
            Box::pin(undo(listener, holdings, doors, grip, pid)).await?;
            holdings.strike(request.id);
            return Err(error);
        }
    }
    Ok(Some(Granted::new(token)))
}

/// Gives the advisory lock back, whether it was taken or not. If that fails it is not known any more what the connection holds.
async fn undo(listener: &mut PgListener, holdings: &Holdings, doors: Doors, grip: Grip, pid: i32) -> Result<()> {
    let undoing = sqlx::query(include_str!("sql/release.sql")).bind(doors.lock).bind(grip.number()).bind(pid);
    undoing.execute(listener).await.map(drop).map_err(|error| {
        holdings.reporter.session_lost("a lock that was taken half could not be given back");
        error::lost(format_args!("take a lock, and give it back after it failed ({error})"))
    })
}

/// Gives back what that request has.
pub(crate) async fn give_back(
    listener: &mut PgListener,
    holdings: &Holdings,
    held: &HeldLock,
    id: RequestId,
    pid: i32,
) -> Result<()> {
    let grip = holdings.grip_to_give(held);
    let releasing = if held.written {
        let told = (held.key.space == Space::Election).then(|| layout::channel(held.doors.lock));
        sqlx::query(include_str!("sql/retract.sql"))
            .bind(held.doors.lock)
            .bind(grip.number())
            .bind(pid)
            .bind(bytes(id))
            .bind(told)
    } else {
        sqlx::query(include_str!("sql/release.sql")).bind(held.doors.lock).bind(grip.number()).bind(pid)
    };
    let failed = |error| error::on_session(error, "give a lock back");
    let row = releasing.fetch_one(listener).await.map_err(failed)?;
    if row.try_get::<bool, _>("is_ours").map_err(failed)? { Ok(()) } else { Err(holdings.shared_connection()) }
}
