//! Back ends of the server that hang in a write to a client that does not read. Where that client is reached by a Unix socket no timeout of the server
//! ends them, so the sessions of the same user do.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tooz_core::Result;
use tooz_core::driver::spread;

use crate::connection::Connection;
use crate::error;

/// After how many session timeouts each session looks, unless it has a reason before.
const SELDOM: u32 = 5;
/// In so many looks within a session timeout a back end has to be found hanging, without a statement of its client between them.
const LOOKS: u32 = 3;

/// One stay of a back end in one write, as the server shows it: its process, and when it last ended a statement.
type Stay = (i32, String);

/// Looks for them as long as the session lives: seldom, or soon where a wait of this session takes long.
///
/// | found | next |
/// |---|---|
/// | none | after some session timeouts, or with the next suspicion |
/// | some | half a session timeout later: those that are found in three looks are ended |
pub(crate) async fn end_them(connection: Arc<Connection>, suspicion: Arc<Notify>, limit: Duration, session: Duration) {
    let pause = session / (LOOKS - 1);
    loop {
        // Not in step with all other sessions.
        let _ = timeout(spread(session * SELDOM, 1.0..2.0), suspicion.notified()).await;
        let mut looks = 0;
        let mut found: Vec<Stay> = Vec::new();
        loop {
            let Ok(now) = look(&connection, limit).await else { break };
            looks += 1;
            found = if looks == 1 { now } else { found.into_iter().filter(|one| now.contains(one)).collect() };
            if found.is_empty() || looks == LOOKS {
                break;
            }
            sleep(pause).await;
        }
        if looks == LOOKS && !found.is_empty() {
            // An error: of a back end that has gone, or the connection is dead.
            let _ = terminate(&connection, limit, found).await;
        }
        sleep(pause).await;
    }
}

/// The back ends of this user's members that are writing to their clients at this moment.
async fn look(connection: &Connection, limit: Duration) -> Result<Vec<Stay>> {
    const DOING: &str = "look for hung back ends";
    const LOOK: &str = "SELECT pid, state_change::text AS since FROM pg_stat_activity WHERE datname = current_database() \
        AND usename = current_user AND application_name LIKE 'tooz:%' AND wait_event = 'ClientWrite' AND state_change IS NOT NULL";
    let looking = connection.run(limit, DOING, |listener| {
        Box::pin(async move {
            let rows = sqlx::query(LOOK).fetch_all(listener).await.map_err(|error| error::of(error, DOING))?;
            let stays: Result<_, sqlx::Error> =
                rows.iter().map(|row| Ok((row.try_get("pid")?, row.try_get("since")?))).collect();
            stays.map_err(|error| error::of(error, DOING))
        })
    });
    looking.await
}

async fn terminate(connection: &Connection, limit: Duration, stays: Vec<Stay>) -> Result<()> {
    const DOING: &str = "end hung back ends";
    const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        JOIN unnest($1::integer[], $2::text[]) AS hung (pid, since) USING (pid) \
        WHERE usename = current_user AND wait_event = 'ClientWrite' AND state_change::text = hung.since";
    let (pids, sinces): (Vec<i32>, Vec<String>) = stays.into_iter().unzip();
    let ending = connection.run(limit, DOING, move |listener| {
        Box::pin(async move {
            let ended = sqlx::query(TERMINATE).bind(pids).bind(sinces).execute(listener).await;
            ended.map(drop).map_err(|error| error::of(error, DOING))
        })
    });
    ending.await
}
