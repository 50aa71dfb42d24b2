//! Writing down what the session holds, once it is held for longer than a moment, for those that ask who holds what.
//!
//! Writing costs more than the lock itself, and most locks are held for less time than it takes to ask for their holders.
//! The advisory lock alone is the truth; a row tells the token and the time of what is locked by its session.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::time::sleep;
use tooz_core::driver::RequestId;
use tooz_core::{ErrorKind, LockMode, Result};

use crate::connection::Connection;
use crate::error;
use crate::holdings::{HeldLock, Holdings, PATIENCE};
use crate::layout::space;
use crate::record::bytes;

/// How old a grant is when it is written down, unless a reader asks before.
pub(crate) const MOMENT: Duration = Duration::from_millis(20);
/// How many grants are written down by one statement.
const BATCH: usize = 500;

/// Writes down what the session holds, as long as it lives.
pub(crate) async fn keep_written(connection: Arc<Connection>, holdings: Arc<Holdings>, limit: Duration) {
    loop {
        holdings.granted.notified().await;
        while holdings.has_unwritten() {
            let age = tokio::select! {
                () = holdings.attention() => Duration::ZERO,
                () = sleep(MOMENT) => MOMENT,
            };
            if holdings.unwritten(age, 1).is_empty() {
                continue;
            }
            let theirs = Arc::clone(&holdings);
            let written = connection
                .run(limit, "write down who holds what", move |listener| {
                    Box::pin(async move {
                        // Only now: a lock that was given back in between is held no more.
                        let due: Vec<_> = theirs.unwritten(age, BATCH).into_iter().map(|(id, _)| id).collect();
                        write_down(listener, &theirs, &due, None).await
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

/// Writes down these grants, and tells it on a channel.
pub(crate) async fn write_down(
    listener: &mut PgListener,
    holdings: &Holdings,
    ids: &[RequestId],
    channel: Option<String>,
) -> Result<()> {
    let grants: Vec<_> = ids.iter().filter_map(|id| Some((*id, holdings.held(*id)?))).collect();
    if grants.is_empty() {
        return Ok(());
    }
    let each = |value: fn(&HeldLock) -> i64| grants.iter().map(|(_, held)| value(held)).collect::<Vec<_>>();
    let requests: Vec<Vec<u8>> = grants.iter().map(|(id, _)| bytes(*id)).collect();
    let exclusive: Vec<bool> = grants.iter().map(|(_, held)| held.mode == LockMode::Exclusive).collect();
    let spaces: Vec<&'static str> = grants.iter().map(|(_, held)| space(held.key.space)).collect();
    let ages: Vec<f64> = grants.iter().map(|(_, held)| held.since.elapsed().as_secs_f64()).collect();
    let names: Vec<String> = grants.iter().map(|(_, held)| held.key.name.to_string()).collect();
    sqlx::query(include_str!("sql/publish.sql"))
        .bind(holdings.session)
        .bind(holdings.namespace.clone())
        .bind(each(|held| held.doors.lock))
        .bind(requests)
        .bind(exclusive)
        .bind(each(|held| held.token.0.cast_signed()))
        .bind(spaces)
        .bind(ages)
        .bind(channel)
        .bind(names)
        .execute(listener)
        .await
        .map_err(|error| error::on_session(error, "write down who holds what"))?;
    for (id, _) in &grants {
        holdings.note_written(*id);
    }
    Ok(())
}
