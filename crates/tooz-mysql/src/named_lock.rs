//! Taking and giving back the named locks behind a lock, on the session's own connection, one round trip each.
//!
//! A request for the lock alone takes its named lock and then looks for sharers; a sharer takes a named lock of its own and then looks at that of the
//! lock. So of two that come at once one sees the other at least. The token is taken last: after the look at those with whom
//! it must not overlap, in another statement than the lock. (What a statement reads from a table it may have read before it was granted a named lock.)

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use tooz_core::driver::{Granted, LockRequest, RequestId, Space};
use tooz_core::{FencingToken, LockMode, Result};

use crate::answer::{ResultSets, text};
use crate::connection::{BulkOperation, Work};
use crate::error;
use crate::fence;
use crate::grants::{clear_leftovers, write_down};
use crate::holdings::{Grip, HeldLock, Holdings};
use crate::layout::{self, Doors, Name, space};
use crate::open_session::OpenSession;
use crate::packet::{Insisted, Packets, about};

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
pub(crate) enum AttemptEnd {
    Granted(Granted),
    /// Another has it, or waits for it.
    Held,
    /// These named locks stand for shares of it.
    Shared(Vec<Name>),
}

impl AttemptEnd {
    pub(crate) fn granted(self) -> Option<Granted> {
        if let AttemptEnd::Granted(granted) = self { Some(granted) } else { None }
    }
}

impl OpenSession {
    /// Takes the lock if it can be had now. A repetition finds its own grant.
    pub(crate) async fn acquire(&self, request: &LockRequest, gate: Gate) -> Result<AttemptEnd> {
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

async fn acquire(packets: &mut Packets, holdings: &Holdings, request: &LockRequest, gate: Gate) -> Result<AttemptEnd> {
    if let Some(held) = holdings.held(request.id) {
        return Ok(AttemptEnd::Granted(Granted::new(held.token)));
    }
    let doors = holdings.layout.doors(&request.key);
    let grip = holdings.grip_to_take(&doors, request.mode);
    let share = layout::share(&holdings.session, &doors.lock);
    // Once the lock is held again, they would pass for grants of it.
    clear_leftovers(packets, holdings, holdings.leftovers_of(&doors.lock)).await?;
    let passes = match gate {
        Gate::Ask => format!("{} AND {WRITABLE} AND IS_FREE_LOCK('{}') = 1", holdings.is_ours(), doors.gate),
        Gate::IsOurs => format!("{} AND {WRITABLE}", holdings.is_ours()),
    };
    let writes_share = grip == Grip::Shared && !holdings.has_written_share(&doors.lock);
    let statements = match grip {
        Grip::Exclusive => take_alone(holdings, &doors, &passes),
        Grip::Shared => take_share(holdings, &doors, &share, &passes, writes_share),
        Grip::Had => format!(
            "SELECT IF({passes}, 1, 0), {}, {}, {WRITABLE}; {}",
            holdings.is_ours(),
            asked(holdings, &doors),
            fence::counted(&holdings.layout)
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
    let judged = judge(&answer, holdings, grip, writes_share);
    let (token, is_asked) = match judged {
        Ok(AttemptAnswer::Ours { token, is_asked }) => (token, is_asked),
        Ok(AttemptAnswer::Held) => return Ok(AttemptEnd::Held),
        Ok(AttemptAnswer::Shared(names)) => {
            undo(packets, holdings, &doors, &share, grip).await?;
            return Ok(AttemptEnd::Shared(names));
        }
        Err(error) => {
            undo(packets, holdings, &doors, &share, grip).await?;
            return Err(error);
        }
    };
    let token = match token {
        Some(token) => token,
        None => match fence::mend(packets, &holdings.layout, &holdings.fence).await {
            Ok(token) => token,
            Err(error) => {
                undo(packets, holdings, &doors, &share, grip).await?;
                return Err(error);
            }
        },
    };
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
    Ok(AttemptEnd::Granted(Granted::new(token)))
}

/// Whether a reader wants to know who holds it: then it is written down at once.
fn asked(holdings: &Holdings, doors: &Doors) -> String {
    let all = holdings.layout.attention();
    format!("IS_USED_LOCK('{}') IS NOT NULL OR IS_USED_LOCK('{all}') IS NOT NULL", doors.attention)
}

fn take_alone(holdings: &Holdings, doors: &Doors, passes: &str) -> String {
    let (lock, ours, asked) = (&doors.lock, holdings.is_ours(), asked(holdings, doors));
    let sharers = holdings.layout.table("sharers");
    let sharing = format!("name FROM {sharers} WHERE lk = '{lock}' AND IS_USED_LOCK(name) IS NOT NULL");
    let counted = fence::counted_behind(&holdings.layout, &sharing);
    format!("SELECT IF({passes} AND GET_LOCK('{lock}', 0) = 1, 1, 0), {ours}, {asked}, {WRITABLE}; {counted}")
}

fn take_share(holdings: &Holdings, doors: &Doors, share: &str, passes: &str, writes: bool) -> String {
    let (lock, ours, asked) = (&doors.lock, holdings.is_ours(), asked(holdings, doors));
    let counted = fence::counted(&holdings.layout);
    let taking = format!(
        "SELECT IF({passes} AND GET_LOCK('{share}', 0) = 1, IF(IS_FREE_LOCK('{lock}') = 1, 1, RELEASE_LOCK('{share}') - 1), 0), {ours}, {asked}, {WRITABLE}; \
         {counted}"
    );
    if !writes {
        return taking;
    }
    let (sharers, session) = (holdings.layout.table("sharers"), &holdings.session);
    format!("INSERT IGNORE INTO {sharers} (lk, name, session) VALUES ('{lock}', '{share}', '{session}'); {taking}")
}

enum AttemptAnswer {
    Ours { token: Option<FencingToken>, is_asked: bool },
    Held,
    Shared(Vec<Name>),
}

fn judge(answer: &ResultSets, holdings: &Holdings, grip: Grip, writes_share: bool) -> Result<AttemptAnswer> {
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
        return Ok(AttemptAnswer::Held);
    }
    if grip == Grip::Exclusive {
        let sharers: Result<Vec<_>, _> = answer.rows(last).iter().map(|row| text(row, fence::FOUND)).collect();
        let sharers: Vec<Name> = sharers.map_err(failed)?.into_iter().flatten().map(Name::from).collect();
        if !sharers.is_empty() {
            return Ok(AttemptAnswer::Shared(sharers));
        }
    }
    let is_asked = answer.is(first, 2).map_err(failed)?;
    Ok(AttemptAnswer::Ours { token: holdings.fence.token(answer.rows(last).last())?, is_asked })
}

/// The named lock to give back, if any is.
fn name_of(grip: Grip, doors: &Doors, share: &Name) -> Option<Name> {
    match grip {
        Grip::Exclusive => Some(doors.lock.clone()),
        Grip::Shared => Some(share.clone()),
        Grip::Had => None,
    }
}

/// Gives the named lock back, whether it was taken or not. What interrupts others interrupts this too, so it is asked until it is done. If that fails it is not
/// known any more what the connection holds.
async fn undo(packets: &mut Packets, holdings: &Holdings, doors: &Doors, share: &Name, grip: Grip) -> Result<()> {
    let Some(name) = name_of(grip, doors, share) else { return Ok(()) };
    let undoing = format!("SELECT IF({}, RELEASE_LOCK('{name}'), NULL)", holdings.is_ours());
    packets.insist(&undoing).await.map(drop).map_err(|error| {
        holdings.reporter.session_lost("a lock that was taken half could not be given back");
        error::lost(format_args!("take a lock, and give it back after it failed ({error})"))
    })
}

impl BulkOperation for Holdings {
    /// Gives back what these requests have.
    fn do_for<'c>(&'c self, packets: &'c mut Packets, ids: Vec<RequestId>) -> Work<'c, Vec<Result<()>>> {
        Box::pin(async move {
            match give_back(packets, self, &ids).await {
                Ok(()) => ids.iter().map(|_| Ok(())).collect(),
                Err(error) => ids.iter().map(|_| Err(error.clone())).collect(),
            }
        })
    }
}

/// The longest piece of a statement that gives named locks back: one of them.
const LONGEST_RELEASE: usize = 170;

/// Gives back what these requests have, in as few statements as the server takes: with the default one for all. What was written of it is taken away afterwards, since a row without its named lock counts for
/// nothing; but at once where another grant stands on that.
async fn give_back(packets: &mut Packets, holdings: &Holdings, ids: &[RequestId]) -> Result<()> {
    // What is asked for twice is given back once.
    let ids: Vec<_> = ids.iter().copied().collect::<HashSet<_>>().into_iter().collect();
    for some in ids.chunks(packets.fits(LONGEST_RELEASE, ids.len().max(1))) {
        give_back_at_once(packets, holdings, some).await?;
    }
    Ok(())
}

async fn give_back_at_once(packets: &mut Packets, holdings: &Holdings, ids: &[RequestId]) -> Result<()> {
    const DOING: &str = "give a lock back";
    let failed = |error| error::on_session(error, DOING);
    let held: Vec<_> = ids.iter().filter_map(|id| holdings.held(*id)).collect();
    let Some(first) = held.first() else { return Ok(()) };
    let ours = holdings.is_ours();
    let mut releasing = about(space(first.key.space), &first.key.name) + "SELECT " + &ours;
    let names = names_to_give(holdings, &held);
    for name in &names {
        let _ = write!(releasing, ", IF({ours}, RELEASE_LOCK('{name}'), NULL)");
    }
    let Insisted { answer, was_interrupted } = packets.insist(&releasing).await.map_err(failed)?;
    // What was interrupted may have given back some of them, or all: of that the next answer says that they are not held. That the connection is the
    // session's is what counts then.
    let proofs = if was_interrupted { 0 } else { names.len() };
    for column in 0..=proofs {
        if !answer.is(0, column).map_err(failed)? {
            return Err(holdings.shared_connection());
        }
    }
    for id in ids {
        holdings.strike(*id);
    }
    let still_shared = held.iter().map(|held| &held.doors.lock).filter(|lock| holdings.shares(lock));
    let leftovers = still_shared.flat_map(|lock| holdings.leftovers_of(lock)).collect();
    // What fails is tried again later. The locks are given back.
    let _ = clear_leftovers(packets, holdings, leftovers).await;
    Ok(())
}

/// The named locks that go with these grants: that of a share goes with the last grant that stands on it.
fn names_to_give(holdings: &Holdings, given: &[HeldLock]) -> Vec<Name> {
    let mut before: HashMap<&Name, usize> = HashMap::new();
    let mut names = Vec::new();
    for held in given {
        let lock = &held.doors.lock;
        let shares = before.entry(lock).or_default();
        let grip = holdings.grip_to_give(held, *shares);
        *shares += usize::from(held.mode == LockMode::Shared);
        names.extend(name_of(grip, &held.doors, &layout::share(&holdings.session, lock)));
    }
    names
}
