//! Who holds what: what this session holds is written down once it is held for longer than a moment, for those who ask.
//!
//! Writing costs more than the lock itself, and most locks are held for less time than anybody needs to ask who has them.
//! The advisory lock alone is the truth; a row tells the token and the time of what is locked by its session.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sqlx::Row as _;
use sqlx::postgres::{PgListener, PgRow};
use tokio::time::{Instant, sleep};
use tooz_core::driver::{LockKey, RequestId, Space};
use tooz_core::{Error, ErrorKind, FencingToken, Holder, LockMode, MemberId, Outcome, Result};

use crate::error;
use crate::holdings::Holdings;
use crate::key::{self, Keys, space};
use crate::link::SharedLink;
use crate::look::{Look, Repeat};

/// What is told to a session whose grants somebody wants to see who finds nothing written down of them.
pub(crate) const ASKED: &str = "who holds what?";
/// Tells it to those whose locks are asked for.
const ASK: &str = "SELECT pg_notify(channel, $2) FROM unnest($1::text[]) AS asked (channel)";
/// How old a grant is when it is written down, unless somebody asks before.
const MOMENT: Duration = Duration::from_millis(20);
/// How long who asks waits for a young grant to be written down, and whoever was asked goes on writing down all at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// How many grants are written down by one statement.
const BATCH: usize = 500;

/// Writes down what the session holds, as long as it lives.
pub(crate) async fn keep_written(link: SharedLink, holdings: Arc<Holdings>, limit: Duration) {
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
            let written = link
                .run(limit, "write down who holds what", move |connection| {
                    Box::pin(async move {
                        // Only now: a lock that was given back in between is not in the book any more.
                        let due: Vec<_> = theirs.unwritten(age, BATCH).into_iter().map(|(id, _)| id).collect();
                        write_down(connection, &theirs, &due, None).await
                    })
                })
                .await;
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Lost => return,
                // Who asks for holders meanwhile is told that they can't be known yet.
                Err(_) => sleep(PATIENCE).await,
            }
        }
    }
}

/// Writes down these grants, and tells it on a channel.
pub(crate) async fn write_down(
    connection: &mut PgListener,
    holdings: &Holdings,
    ids: &[RequestId],
    channel: Option<String>,
) -> Result<()> {
    let grants: Vec<_> = ids.iter().filter_map(|id| Some((*id, holdings.held(*id)?))).collect();
    if grants.is_empty() {
        return Ok(());
    }
    let each =
        |value: fn(&crate::holdings::Held) -> i64| grants.iter().map(|(_, held)| value(held)).collect::<Vec<_>>();
    let requests: Vec<Vec<u8>> = grants.iter().map(|(id, _)| id.0.to_be_bytes().to_vec()).collect();
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
        .execute(connection)
        .await
        .map_err(|error| error::on_session(error, "write down who holds what"))?;
    for (id, _) in &grants {
        holdings.note_written(*id);
    }
    Ok(())
}

/// Who holds the lock.
pub(crate) async fn holders(look: &Look, keys: &Keys, namespace: &str, key: &LockKey) -> Result<Vec<Holder>> {
    const DOING: &str = "ask who holds a lock";
    let until = Instant::now() + PATIENCE;
    let mut pause = MOMENT / 8;
    let doors = keys.doors(key);
    let (namespace, name) = (namespace.to_owned(), key.name.to_string());
    let space = space(key.space);
    // A leader is written down by the time it is one.
    let look_for_young = key.space == Space::Lock;
    loop {
        let question = || {
            sqlx::query(include_str!("sql/holders.sql"))
                .bind(doors.lock)
                .bind(look_for_young)
                .bind(namespace.clone())
                .bind(space)
                .bind(name.clone())
        };
        let rows = look.ask(DOING, Repeat::Allowed, question).await?.unwrap_or_default();
        let mut holders = Vec::new();
        let (mut young, mut theirs) = (None, Vec::new());
        for row in &rows {
            let failed = |error| error::of(error, DOING);
            match read(row).map_err(failed)?? {
                (_, Some(holder)) => holders.push(holder),
                (member, None) => {
                    young = Some(member);
                    theirs.push(key::channel(row.try_get("session").map_err(failed)?));
                }
            }
        }
        match young {
            None => return Ok(without_former(holders)),
            Some(member) if Instant::now() >= until => {
                let word = format!("{member:?} holds {key}, but has not told its token yet; ask again");
                return Err(Error::new(ErrorKind::Unavailable, word).with_outcome(Outcome::NotApplied));
            }
            Some(_) => {
                // By the time they are heard of, most locks are given back: so whoever holds one now is asked to tell at once from now on.
                let asking = || sqlx::query(ASK).bind(theirs.clone()).bind(ASKED);
                look.ask(DOING, Repeat::Allowed, asking).await?;
                sleep(pause).await;
                pause = (pause * 2).min(MOMENT);
            }
        }
    }
}

type Named = (MemberId, Option<Holder>);

fn read(row: &PgRow) -> Result<Result<Named>, sqlx::Error> {
    let member = match MemberId::new(row.try_get::<&str, _>("member")?) {
        Ok(member) => member,
        Err(error) => return Ok(Err(error)),
    };
    let Some(token) = row.try_get::<Option<i64>, _>("token")? else { return Ok(Ok((member, None))) };
    let mode = if row.try_get("exclusive")? { LockMode::Exclusive } else { LockMode::Shared };
    let since = Duration::try_from_secs_f64(row.try_get("since")?).unwrap_or_default();
    let holder = Holder::new(member.clone(), mode, FencingToken(token.cast_unsigned()));
    Ok(Ok((member, Some(holder.since(SystemTime::UNIX_EPOCH + since)))))
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
