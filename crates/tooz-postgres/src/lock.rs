//! Taking and giving back locks on the session's own connection, one round trip each.

use sqlx::Row as _;
use sqlx::postgres::PgListener;
use tooz_core::driver::{Granted, LockRequest, Space};
use tooz_core::{Error, FencingToken, Result};

use crate::error;
use crate::holders::write_down;
use crate::holdings::{Grip, Held, Holdings};
use crate::key::{self, Doors};
use crate::session::Own;

/// How a request comes to the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It asks at the gate, and stops there if anybody waits.
    AskAtGate,
    /// A waiting connection of this session holds the gate for it.
    GateIsOurs,
}

impl Own {
    /// Takes the lock if it can be had now. A repetition finds its own grant.
    pub(crate) async fn acquire(&self, request: &LockRequest, way: Way) -> Result<Option<Granted>> {
        let (holdings, request) = (self.holdings.clone(), request.clone());
        let (doors, pid) = (self.keys.doors(&request.key), self.link.pid);
        self.link
            .run(self.limit, "take a lock", move |connection| {
                Box::pin(async move { acquire(connection, &holdings, &request, doors, way, pid).await })
            })
            .await
    }

    /// Fails if what is held under the key of this lock has another name.
    pub(crate) async fn refuse_collision(&self, request: &LockRequest) -> Result<()> {
        const DOING: &str = "see whose lock it is";
        let (holdings, request, key) = (self.holdings.clone(), request.clone(), self.keys.doors(&request.key).lock);
        self.link
            .run(self.limit, DOING, move |connection| {
                Box::pin(async move {
                    let looking = sqlx::query_scalar::<_, String>(include_str!("sql/rival.sql"))
                        .bind(key)
                        .bind(holdings.namespace.clone())
                        .bind(key::space(request.key.space))
                        .bind(request.key.name.to_string());
                    match looking.fetch_optional(connection).await {
                        Ok(None) => Ok(()),
                        Ok(Some(rival)) => Err(collision(&request, &rival)),
                        Err(error) => Err(error::on_session(error, DOING)),
                    }
                })
            })
            .await
    }

    /// Gives back what that request has. It comes after whatever was asked for the request before, answered or not.
    pub(crate) async fn release(&self, request: &LockRequest) -> Result<()> {
        let (holdings, id, pid) = (self.holdings.clone(), request.id, self.link.pid);
        holdings.gate_is_open(id).await;
        self.link
            .run(self.limit, "give a lock back", move |connection| {
                Box::pin(async move {
                    let Some(held) = holdings.held(id) else { return Ok(()) };
                    release(connection, &holdings, &held, id.0.to_be_bytes(), pid).await?;
                    holdings.strike(id);
                    Ok(())
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
    connection: &mut PgListener,
    holdings: &Holdings,
    request: &LockRequest,
    doors: Doors,
    way: Way,
    pid: i32,
) -> Result<Option<Granted>> {
    const DOING: &str = "take a lock";
    if let Some(held) = holdings.held(request.id) {
        return Ok(Some(Granted::new(held.token)));
    }
    let grip = holdings.grip_to_take(doors, request.mode);
    let taking = sqlx::query(include_str!("sql/acquire.sql"))
        .bind(way == Way::GateIsOurs)
        .bind(doors.gate)
        .bind(doors.lock)
        .bind(grip.number())
        .bind(holdings.namespace.clone())
        .bind(key::space(request.key.space))
        .bind(request.key.name.to_string())
        .bind(pid);
    let row = match taking.fetch_one(&mut *connection).await {
        Ok(row) => row,
        Err(error) => {
            // The statement failed, but an advisory lock that it had taken by then stays: no transaction takes it back.
            if !error::is_dead(&error) {
                undo(connection, holdings, doors, grip, pid).await?;
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
    if request.key.space == Space::Election
        && let Err(error) = write_down(connection, holdings, &[request.id], Some(key::channel(doors.lock))).await
    {
        // Who leads must be known to those who ask: an election that can't be told is none.
        undo(connection, holdings, doors, grip, pid).await?;
        holdings.strike(request.id);
        return Err(error);
    }
    Ok(Some(Granted::new(token)))
}

/// Gives the advisory lock back, whether it was taken or not. If that fails nobody knows any more what the connection holds.
async fn undo(connection: &mut PgListener, holdings: &Holdings, doors: Doors, grip: Grip, pid: i32) -> Result<()> {
    let undoing = sqlx::query(include_str!("sql/release.sql")).bind(doors.lock).bind(grip.number()).bind(pid);
    undoing.execute(connection).await.map(drop).map_err(|error| {
        holdings.reporter.session_lost("a lock that was taken half could not be given back");
        error::lost(format_args!("take a lock, and give it back after it failed ({error})"))
    })
}

async fn release(connection: &mut PgListener, holdings: &Holdings, held: &Held, id: [u8; 16], pid: i32) -> Result<()> {
    let grip = holdings.grip_to_give(held);
    let releasing = if held.written {
        let told = (held.key.space == Space::Election).then(|| key::channel(held.doors.lock));
        sqlx::query(include_str!("sql/retract.sql"))
            .bind(held.doors.lock)
            .bind(grip.number())
            .bind(pid)
            .bind(id.to_vec())
            .bind(told)
    } else {
        sqlx::query(include_str!("sql/release.sql")).bind(held.doors.lock).bind(grip.number()).bind(pid)
    };
    let failed = |error| error::on_session(error, "give a lock back");
    let row = releasing.fetch_one(connection).await.map_err(failed)?;
    if row.try_get::<bool, _>("is_ours").map_err(failed)? { Ok(()) } else { Err(holdings.shared_connection()) }
}
