//! Clearing up what dead sessions of all namespaces left in the tables: by small steps, by each session that opens or closes, and by members that
//! watch, since the dead tell nothing.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sqlx::postgres::PgListener;
use sqlx::{Acquire as _, PgExecutor, Row as _};
use tokio::time::sleep;
use tooz_core::Result;
use tooz_core::driver::spread;

use crate::connection::Connection;
use crate::dispatch::Dispatch;
use crate::error;
use crate::holdings::Holdings;
use crate::options::Settings;
use crate::schema::Schema;

const DOING: &str = "take away what the dead left";

/// Between two steps of one round, so that others come to the connection and to the rows meanwhile.
const BREATH: Duration = Duration::from_millis(20);

/// What one step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SweepProgress {
    /// There is more to do, now.
    More,
    /// A round has ended.
    Done,
    /// Nothing was done: a round has begun this long ago, or another member is at it.
    Others(Duration),
}

/// One step: for which session, and unless a round has begun within so many seconds.
pub(crate) const STEP: &str = "SELECT swept, more, age FROM clear_up($1, $2)";

/// One step, unless a round has begun within `period`; for a connection on which that session lives, or 0.
pub(crate) async fn step(
    connection: impl PgExecutor<'_>,
    session: i64,
    period: Duration,
) -> Result<SweepProgress, sqlx::Error> {
    let row = sqlx::query(STEP).bind(session).bind(period.as_secs_f64()).fetch_one(connection).await?;
    Ok(match (row.try_get("swept")?, row.try_get("more")?) {
        (false, _) => SweepProgress::Others(Duration::try_from_secs_f64(row.try_get("age")?).unwrap_or_default()),
        (true, true) => SweepProgress::More,
        (true, false) => SweepProgress::Done,
    })
}

/// Sees to it that a round begins after this session has opened: for what died before no other member may come. What fails is left to the
/// next one.
pub(crate) async fn after_opening(connection: Arc<Connection>, holdings: Arc<Holdings>, limit: Duration) {
    const PERIOD: Duration = Duration::from_millis(500);
    let opened = Instant::now();
    loop {
        let session = holdings.session;
        let stepping = connection.run(limit, DOING, move |listener| {
            Box::pin(async move { step(listener, session, PERIOD).await.map_err(|error| error::of(error, DOING)) })
        });
        match stepping.await {
            Ok(SweepProgress::More) => sleep(BREATH).await,
            Ok(SweepProgress::Others(age)) if age > opened.elapsed() || age.is_zero() => {
                // Not in step with all others that have just opened.
                sleep(spread(PERIOD.saturating_sub(age), 1.0..2.0).max(BREATH)).await;
            }
            Ok(SweepProgress::Done | SweepProgress::Others(_)) | Err(_) => return,
        }
    }
}

/// How long a member that watches waits until it looks again. These are paces, whose lengths the README names.
fn next_look(step: SweepProgress, last: Duration, period: Duration, rest: Duration) -> Duration {
    match step {
        SweepProgress::More => BREATH,
        SweepProgress::Done => period,
        // Others look: however many watch, few of them need to.
        SweepProgress::Others(_) => (last * 2).clamp(period, rest.max(period)),
    }
}

/// The longest time for which the death of a session goes unnoticed by members that watch.
const TICK: Duration = Duration::from_secs(1);

/// For how long a member that watches may leave the looking to others, at least.
const REST: Duration = Duration::from_secs(5);

/// Whether this user may have the dead taken away, as the last look has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    Unknown,
    Given,
}

/// As long as anything is watched on this connection: looks from time to time for the dead, and takes away and tells what they left. However many
/// watch, few of them look; the others see to it from time to time that one does. Sees to it that the watches end with the connection, also when that
/// is cut without a word. Ends with the connection, of which it keeps no hold while it waits.
///
/// | what the last look has come to | the next one comes |
/// |---|---|
/// | there is more to do | at once |
/// | a round has ended | after a period |
/// | others are at it | after twice as long as the last time, up to half of the session timeout, or five seconds where that is longer |
/// | this user has no right to it | after a session timeout, and looks for the right first |
pub(crate) async fn while_watched(connection: Weak<Connection>, dispatch: Arc<Dispatch>, settings: Settings) {
    let period = TICK.min(settings.session_timeout / 4);
    // However short sessions are, a thousand watchers cost no more by this. Should the one that looks die, deaths are found by core's own
    // reading, once in a session timeout.
    let rest = (settings.session_timeout / 2).max(REST);
    let mut pause = period;
    let mut right = Right::Unknown;
    while let Some(died) = connection.upgrade().map(|connection| connection.died()) {
        // Not in step with all others that watch.
        if tokio::time::timeout(spread(pause, 0.75..1.0), died).await.is_ok() {
            break;
        }
        if dispatch.is_of_session() {
            return;
        }
        let Some(connection) = connection.upgrade().filter(|_| !dispatch.is_empty()) else { continue };
        let theirs = settings.clone();
        let looking = connection.run(settings.statement_timeout, DOING, move |listener| {
            Box::pin(async move { look_for_the_dead(listener, &theirs, right, period).await })
        });
        match looking.await {
            Ok(Some(step)) => {
                right = Right::Given;
                pause = next_look(step, pause, period, rest);
            }
            Ok(None) => {
                right = Right::Unknown;
                pause = settings.session_timeout;
            }
            Err(_) => {
                connection.cut();
                break;
            }
        }
    }
    dispatch.end();
}

/// `None`: this user may not, or not yet; it hears of the dead from those that may. That is found out without an error in the server's log.
async fn look_for_the_dead(
    listener: &mut PgListener,
    settings: &Settings,
    right: Right,
    period: Duration,
) -> Result<Option<SweepProgress>> {
    if right == Right::Unknown {
        let plain = listener.acquire().await.map_err(|error| error::of(error, DOING))?;
        if !Schema::look(plain, settings).await?.can_clear_up() {
            return Ok(None);
        }
    }
    // Short of the period, so that a member that looks in every period finds that it is over.
    match step(listener, 0, period.mul_f64(0.7)).await {
        Ok(step) => Ok(Some(step)),
        Err(error) if error::is_dead(&error) => Err(error::of(error, DOING)),
        // The server has no time for it now.
        Err(error) if error::is_cancelled(&error) || error::is_end_of_slice(&error) => Ok(Some(SweepProgress::Done)),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_find_others_at_it_look_ever_more_seldom() {
        let (second, rest) = (Duration::from_secs(1), Duration::from_secs(5));
        let others = SweepProgress::Others(Duration::ZERO);
        let mut pause = second;
        let looks: Vec<_> = std::iter::repeat_with(|| {
            pause = next_look(others, pause, second, rest);
            pause.as_secs()
        })
        .take(4)
        .collect();
        assert_eq!(looks, [2, 4, 5, 5]);
        assert_eq!(next_look(SweepProgress::Done, pause, second, rest), second);
        assert_eq!(next_look(others, BREATH, second, Duration::ZERO), second);
    }
}
