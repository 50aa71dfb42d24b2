//! Taking and giving back the named locks behind a lock, on the session's own connection, one round trip each.
//!
//! A request for the lock alone takes its named lock and then looks for sharers; a sharer takes a named lock of its own and then looks at that of the
//! lock. So of two that come at once one sees the other at least. The token is taken last, by a statement of its own: after the look at those with whom
//! it must not overlap. (What a statement reads from a table it may have read before it was granted a named lock.)

use std::sync::Arc;

use tooz_core::driver::{Granted, LockRequest, RequestId, Space};
use tooz_core::{FencingToken, Result};

use crate::answer::{Answer, text, unsigned};
use crate::error;
use crate::grants::write_down;
use crate::holdings::{Grip, Held, Holdings};
use crate::layout::{self, Doors, Name, space};
use crate::open_session::OpenSession;
use crate::packet::{Packets, about};
use crate::record::bytes;

/// What a request finds at the gate of the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It looks there, and stops if any other request waits.
    Ask,
    /// A waiting connection of this session holds the gate for it.
    IsOurs,
}

/// What an attempt to take a lock has come to.
#[derive(Debug)]
pub(crate) enum Taken {
    Granted(Granted),
    /// Another has it, or waits for it.
    Held,
    /// These named locks stand for shares of it.
    Shared(Vec<Name>),
}

impl Taken {
    pub(crate) fn granted(self) -> Option<Granted> {
        if let Taken::Granted(granted) = self { Some(granted) } else { None }
    }
}

impl OpenSession {
    /// Takes the lock if it can be had now. A repetition finds its own grant.
    pub(crate) async fn acquire(&self, request: &LockRequest, gate: Gate) -> Result<Taken> {
        let (holdings, request) = (Arc::clone(&self.holdings), request.clone());
        self.connection
            .run(self.limit, DOING, move |packets| {
                Box::pin(async move { acquire(packets, &holdings, &request, gate).await })
            })
            .await
    }
}

const DOING: &str = "take a lock";

/// That the server has not become read-only since the last heartbeat: others lock at another one by now, or soon.
const WRITABLE: &str = "CONCAT(@@GLOBAL.read_only) IN ('0', 'OFF')";

async fn acquire(packets: &mut Packets, holdings: &Holdings, request: &LockRequest, gate: Gate) -> Result<Taken> {
    if let Some(held) = holdings.held(request.id) {
        return Ok(Taken::Granted(Granted::new(held.token)));
    }
    let doors = holdings.layout.doors(&request.key);
    let grip = holdings.grip_to_take(&doors, request.mode);
    let share = layout::share(&holdings.session, &doors.lock);
    let passes = match gate {
        Gate::Ask => format!("{} AND {WRITABLE} AND IS_FREE_LOCK('{}') = 1", holdings.is_ours(), doors.gate),
        Gate::IsOurs => format!("{} AND {WRITABLE}", holdings.is_ours()),
    };
    let writes_share = grip == Grip::Shared && !holdings.has_written_share(&doors.lock);
    let statements = match grip {
        Grip::Exclusive => take_alone(holdings, &doors, &passes),
        Grip::Shared => take_share(holdings, &doors, &share, &passes, writes_share),
        Grip::Had => format!(
            "SELECT IF({passes}, 1, 0), {}, {}, {WRITABLE}; SELECT UUID_SHORT()",
            holdings.is_ours(),
            asked(holdings, &doors)
        ),
    };
    let statements = about(space(request.key.space), &request.key.name) + &statements;
    let answer = match packets.ask(&statements).await {
        Ok(answer) => answer,
        Err(error) => {
            // A named lock that was taken before the error stays.
            if !packets.is_dead {
                undo(packets, holdings, &doors, &share, grip).await?;
            }
            return Err(error::on_session(error, DOING));
        }
    };
    if writes_share {
        holdings.note_written_share(&doors.lock);
    }
    let judged = judge(&answer, holdings, writes_share);
    let (token, is_asked) = match judged {
        Ok(Attempt::Ours { token, is_asked }) => (token, is_asked),
        Ok(Attempt::Held) => return Ok(Taken::Held),
        Ok(Attempt::Shared(names)) => {
            undo(packets, holdings, &doors, &share, grip).await?;
            return Ok(Taken::Shared(names));
        }
        Err(error) => {
            undo(packets, holdings, &doors, &share, grip).await?;
            return Err(error);
        }
    };
    if let Err(error) = reserve(packets, holdings, token).await {
        undo(packets, holdings, &doors, &share, grip).await?;
        return Err(error);
    }
    holdings.note(request, &doors, token);
    if is_asked || request.key.space == Space::Election {
        // The leader must be known to those that ask: an election that can't be told is none.
        let written = write_down(packets, holdings, &[request.id]).await;
        if let Err(error) = written
            && request.key.space == Space::Election
        {
            holdings.strike(request.id);
            undo(packets, holdings, &doors, &share, grip).await?;
            return Err(error);
        }
    }
    Ok(Taken::Granted(Granted::new(token)))
}

/// Whether a reader wants to know who holds it: then it is written down at once.
fn asked(holdings: &Holdings, doors: &Doors) -> String {
    let all = holdings.layout.attention();
    format!("IS_USED_LOCK('{}') IS NOT NULL OR IS_USED_LOCK('{all}') IS NOT NULL", doors.attention)
}

fn take_alone(holdings: &Holdings, doors: &Doors, passes: &str) -> String {
    let (lock, ours, asked) = (&doors.lock, holdings.is_ours(), asked(holdings, doors));
    let sharers = holdings.layout.table("sharers");
    format!(
        "SELECT IF({passes} AND GET_LOCK('{lock}', 0) = 1, 1, 0), {ours}, {asked}, {WRITABLE}; \
         SELECT name FROM {sharers} WHERE lk = '{lock}' AND IS_USED_LOCK(name) IS NOT NULL; SELECT UUID_SHORT()"
    )
}

fn take_share(holdings: &Holdings, doors: &Doors, share: &str, passes: &str, writes: bool) -> String {
    let (lock, ours, asked) = (&doors.lock, holdings.is_ours(), asked(holdings, doors));
    let taking = format!(
        "SELECT IF({passes} AND GET_LOCK('{share}', 0) = 1, IF(IS_FREE_LOCK('{lock}') = 1, 1, RELEASE_LOCK('{share}') - 1), 0), {ours}, {asked}, {WRITABLE}; \
         SELECT UUID_SHORT()"
    );
    if !writes {
        return taking;
    }
    let (sharers, session) = (holdings.layout.table("sharers"), &holdings.session);
    format!("INSERT IGNORE INTO {sharers} (lk, name, session) VALUES ('{lock}', '{share}', '{session}'); {taking}")
}

enum Attempt {
    Ours { token: FencingToken, is_asked: bool },
    Held,
    Shared(Vec<Name>),
}

fn judge(answer: &Answer, holdings: &Holdings, writes_share: bool) -> Result<Attempt> {
    let failed = |error| error::on_session(error, DOING);
    let first = usize::from(writes_share);
    let last = answer.count().saturating_sub(1);
    if !answer.is(first, 1).map_err(failed)? {
        return Err(holdings.shared_connection());
    }
    if !answer.is(first, 3).map_err(failed)? {
        return Err(holdings.read_only());
    }
    if !answer.is(first, 0).map_err(failed)? {
        return Ok(Attempt::Held);
    }
    if last == first + 2 {
        let sharers: Result<Vec<_>, _> = answer.rows(first + 1).iter().map(|row| text(row, 0)).collect();
        let sharers: Vec<Name> = sharers.map_err(failed)?.into_iter().flatten().map(Name::from).collect();
        if !sharers.is_empty() {
            return Ok(Attempt::Shared(sharers));
        }
    }
    let counter = unsigned(answer.first(last).map_err(failed)?, 0).map_err(failed)?.unwrap_or_default();
    let is_asked = answer.is(first, 2).map_err(failed)?;
    Ok(Attempt::Ours { token: holdings.fence.token(counter)?, is_asked })
}

/// Sees to it that the token is below what is reserved.
async fn reserve(packets: &mut Packets, holdings: &Holdings, token: FencingToken) -> Result<()> {
    const DOING: &str = "reserve fencing tokens";
    let Some(until) = holdings.fence.wants(token) else { return Ok(()) };
    let fence = holdings.layout.table("fence");
    let raise = format!("UPDATE {fence} SET reserved = GREATEST(reserved, {until}) WHERE one = 1");
    packets.ask(&raise).await.map_err(|error| error::on_session(error, DOING))?;
    holdings.fence.note_reserved(until);
    Ok(())
}

/// The named lock to give back, if any is.
fn name_of(grip: Grip, doors: &Doors, share: &Name) -> Option<Name> {
    match grip {
        Grip::Exclusive => Some(doors.lock.clone()),
        Grip::Shared => Some(share.clone()),
        Grip::Had => None,
    }
}

/// Gives the named lock back, whether it was taken or not. If that fails it is not known any more what the connection holds.
async fn undo(packets: &mut Packets, holdings: &Holdings, doors: &Doors, share: &Name, grip: Grip) -> Result<()> {
    let Some(name) = name_of(grip, doors, share) else { return Ok(()) };
    let undoing = format!("SELECT IF({}, RELEASE_LOCK('{name}'), NULL)", holdings.is_ours());
    packets.ask(&undoing).await.map(drop).map_err(|error| {
        holdings.reporter.session_lost("a lock that was taken half could not be given back");
        error::lost(format_args!("take a lock, and give it back after it failed ({error})"))
    })
}

/// Gives back what that request has.
pub(crate) async fn give_back(packets: &mut Packets, holdings: &Holdings, held: &Held, id: RequestId) -> Result<()> {
    const DOING: &str = "give a lock back";
    let failed = |error| error::on_session(error, DOING);
    let grip = holdings.grip_to_give(held);
    let share = layout::share(&holdings.session, &held.doors.lock);
    let ours = holdings.is_ours();
    let releasing = match name_of(grip, &held.doors, &share) {
        Some(name) => format!("SELECT {ours}, IF({ours}, RELEASE_LOCK('{name}'), NULL)"),
        None => format!("SELECT {ours}, 1"),
    };
    let releasing = about(space(held.key.space), &held.key.name) + &releasing;
    let answer = packets.ask(&releasing).await.map_err(failed)?;
    if !answer.is(0, 0).map_err(failed)? || !answer.is(0, 1).map_err(failed)? {
        return Err(holdings.shared_connection());
    }
    clear(packets, holdings, held, id).await;
    Ok(())
}

/// Takes away what was written of a grant that is given back. A row without its named lock counts for nothing, so what fails is left to those that clear up.
async fn clear(packets: &mut Packets, holdings: &Holdings, held: &Held, id: RequestId) {
    if held.written {
        let (grants, lock, request) = (holdings.layout.table("grants"), &held.doors.lock, bytes(id));
        let _ = packets.ask(&format!("DELETE FROM {grants} WHERE lk = '{lock}' AND request = {request}")).await;
    }
}
