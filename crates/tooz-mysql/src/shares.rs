//! Which named locks stand for the shares of a lock stands in a table. A row stays for a while after its share was given back, so that a lock that is read
//! again and again is written down once; then it is taken away.
//!
//! A request for the lock alone finds shares by these rows only. A row that a user takes away by hand, with its table or its database perhaps, hides a share;
//! so each heartbeat looks at some of them, and a reader whose row is gone has lost its lock.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{ErrorKind, Result};

use crate::answer::text;
use crate::connection::Connection;
use crate::error;
use crate::holdings::Holdings;
use crate::layout::{self, Name};
use crate::packet::Packets;

/// For how long a row stays.
const WHILE: Duration = Duration::from_secs(1);
/// How many are taken away by one statement at most.
const BATCH: usize = 300;
/// What stands for each of them in a statement, and a bit.
const LONGEST_SHARE: usize = 170;
/// How many are looked at behind one heartbeat.
const LOOKS: usize = 2000;

/// Takes away what stands for shares that are not held any more, as long as the session lives.
pub(crate) async fn keep_few(connection: Arc<Connection>, holdings: Arc<Holdings>, limit: Duration) {
    const DOING: &str = "take away what stood for shares";
    loop {
        sleep(WHILE).await;
        if holdings.idle_shares(WHILE, 1).is_empty() {
            continue;
        }
        let theirs = Arc::clone(&holdings);
        let taking = connection.run(limit, DOING, move |packets| {
            Box::pin(async move {
                // Only now: one that was taken again in between stays.
                let idle = theirs.idle_shares(WHILE, packets.fits(LONGEST_SHARE, BATCH));
                if idle.is_empty() {
                    return Ok(());
                }
                let shares: Vec<String> =
                    idle.iter().map(|lock| format!("('{lock}', '{}')", layout::share(&theirs.session, lock))).collect();
                let table = theirs.layout.table("sharers");
                // Forgotten first: if it is not known what became of the rows, they are written again.
                theirs.forget_shares(&idle);
                let statement = format!("DELETE FROM {table} WHERE (lk, name) IN ({})", shares.join(", "));
                packets.ask(&statement).await.map(drop).map_err(|error| error::on_session(error, DOING))
            })
        });
        if taking.await.is_err_and(|error| error.kind() == ErrorKind::Lost) {
            return;
        }
    }
}

/// Looks behind each heartbeat whether what is written down of shares still stands there, some of it at a time, and tells core of shares that others can't find.
pub(crate) async fn keep_checked(connection: Arc<Connection>, holdings: Arc<Holdings>, limit: Duration) {
    let mut beats = holdings.beats.subscribe();
    let mut next = NextLook::Behind(String::new());
    loop {
        if !matches!(next, NextLook::Again(_)) && beats.changed().await.is_err() {
            return;
        }
        let (NextLook::Behind(from) | NextLook::Again(from)) = next;
        if !holdings.has_written_shares() {
            next = NextLook::Behind(String::new());
            continue;
        }
        let (theirs, begin) = (Arc::clone(&holdings), from.clone());
        let looking = connection.run(limit, LOOKING, move |packets| {
            Box::pin(
                async move { look(packets, &theirs, begin).await.map_err(|error| error::on_session(error, LOOKING)) },
            )
        });
        next = match looking.await {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::Lost => return,
            // The next heartbeat comes soon.
            Err(_) => NextLook::Behind(from),
        };
    }
}

const LOOKING: &str = "look for what stands for shares";

/// When the next look is, and where it begins: behind that lock.
enum NextLook {
    /// With the next heartbeat.
    Behind(String),
    /// Now: not all that is lost was found yet.
    Again(String),
}

async fn look(packets: &mut Packets, holdings: &Holdings, from: String) -> Result<NextLook, sqlx::Error> {
    let (table, session) = (holdings.layout.table("sharers"), &holdings.session);
    let question =
        format!("SELECT lk FROM {table} WHERE session = '{session}' AND lk > '{from}' ORDER BY lk LIMIT {LOOKS}");
    let there = match packets.ask(&question).await {
        Ok(answer) => answer.rows(0).iter().map(|row| text(row, 0)).collect::<Result<Vec<_>, _>>()?,
        // Without the table there are none.
        Err(error) if error::is_missing(&error) => Vec::new(),
        Err(error) => return Err(error),
    };
    let there: Vec<Name> = there.into_iter().flatten().map(Name::from).collect();
    let last = if there.len() < LOOKS { None } else { there.last().cloned() };
    let most = packets.fits(LONGEST_SHARE, BATCH);
    let missing = holdings.shares_missing(&from, last.as_deref(), &there.into_iter().collect(), most);
    let is_all = missing.len() < most;
    lose(packets, holdings, missing).await?;
    Ok(match last {
        _ if !is_all => NextLook::Again(from),
        Some(last) => NextLook::Behind(last.to_string()),
        None => NextLook::Behind(String::new()),
    })
}

/// Gives up the shares of these locks: another may have the lock alone by now.
async fn lose(packets: &mut Packets, holdings: &Holdings, locks: Vec<Name>) -> Result<(), sqlx::Error> {
    if locks.is_empty() {
        return Ok(());
    }
    let gone: HashSet<Name> = locks.iter().cloned().collect();
    let grants = holdings.sharing(&gone);
    holdings.forget_shares(&locks);
    for (id, _) in &grants {
        holdings.reporter.grant_lost(*id);
    }
    let held: HashSet<&Name> = grants.iter().map(|(_, lock)| lock).collect();
    let ours = holdings.is_ours();
    let releasing: Vec<String> = held
        .iter()
        .map(|lock| format!("DO IF({ours}, RELEASE_LOCK('{}'), NULL)", layout::share(&holdings.session, lock)))
        .collect();
    if !releasing.is_empty()
        && let Err(error) = packets.insist(&releasing.join("; ")).await
    {
        // It is not known any more what the connection holds.
        holdings.reporter.session_lost("a share that others could not find could not be given back");
        return Err(error);
    }
    for (id, _) in &grants {
        holdings.strike(*id);
    }
    if !held.is_empty() {
        // With its row in the way a share that is taken again would be shown twice.
        let names: Vec<String> = held.iter().map(|lock| format!("'{lock}'")).collect();
        let (table, session) = (holdings.layout.table("grants"), &holdings.session);
        let clearing = format!(
            "DELETE FROM {table} WHERE session = '{session}' AND exclusive = 0 AND lk IN ({})",
            names.join(", ")
        );
        let _ = packets.ask(&clearing).await;
    }
    Ok(())
}
