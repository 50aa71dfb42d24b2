//! Writing down what the session holds, once it is held for longer than a moment, for those that ask who holds what.
//!
//! Writing costs more than the lock itself, and most locks are held for less time than it takes to ask for their holders.
//! The named lock alone is the truth; a row tells the token and the time of what is locked by its session.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::driver::RequestId;
use tooz_core::{ErrorKind, LockMode, Result};

use crate::connection::Connection;
use crate::error;
use crate::holdings::{Held, Holdings, PATIENCE};
use crate::layout::{self, space};
use crate::packet::{Packets, name};
use crate::record::{NOW, bytes};

/// How old a grant is when it is written down, unless a reader has asked before.
pub(crate) const MOMENT: Duration = Duration::from_millis(20);
/// How many grants are written down by one statement.
const BATCH: usize = 200;

/// Writes down what the session holds, as long as it lives.
pub(crate) async fn keep_written(connection: Arc<Connection>, holdings: Arc<Holdings>, limit: Duration) {
    loop {
        holdings.granted.notified().await;
        while holdings.has_unwritten() {
            sleep(MOMENT).await;
            if holdings.unwritten(MOMENT, 1).is_empty() {
                continue;
            }
            let theirs = Arc::clone(&holdings);
            let written = connection
                .run(limit, "write down who holds what", move |packets| {
                    Box::pin(async move {
                        // Only now: a lock that was given back in between is held no more.
                        let due: Vec<_> = theirs.unwritten(MOMENT, BATCH).into_iter().map(|(id, _)| id).collect();
                        write_down(packets, &theirs, &due).await
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

/// Writes down these grants.
pub(crate) async fn write_down(packets: &mut Packets, holdings: &Holdings, ids: &[RequestId]) -> Result<()> {
    let grants: Vec<_> = ids.iter().filter_map(|id| Some((*id, holdings.held(*id)?))).collect();
    if grants.is_empty() {
        return Ok(());
    }
    let rows: Vec<String> = grants.iter().map(|(id, held)| row(holdings, *id, held)).collect();
    let statement = format!(
        "INSERT IGNORE INTO {} (lk, request, session, conn, held, exclusive, token, since, member, namespace, space, name) VALUES {}",
        holdings.layout.table("grants"),
        rows.join(", ")
    );
    packets.ask(&statement).await.map_err(|error| error::on_session(error, "write down who holds what"))?;
    for (id, _) in &grants {
        holdings.note_written(*id);
    }
    Ok(())
}

fn row(holdings: &Holdings, id: RequestId, held: &Held) -> String {
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
