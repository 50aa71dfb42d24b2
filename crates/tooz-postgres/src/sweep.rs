//! Clearing up what the dead of all namespaces left in the tables: by small steps, one session at a time, whoever comes or watches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{PgExecutor, Row as _};
use tokio::time::sleep;

use crate::error;
use crate::holdings::Holdings;
use crate::link::SharedLink;

pub(crate) const DOING: &str = "take away what the dead left";

/// Between two steps of one round, so that others come to the connection and to the rows meanwhile.
const BREATH: Duration = Duration::from_millis(20);

/// What one step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to do, now.
    More,
    /// A round has ended.
    Done,
    /// Nothing was done: a round has begun this long ago, or somebody else is at it.
    Others(Duration),
}

/// One step, unless a round has begun within `period`; for a connection on which that session lives, or 0.
pub(crate) async fn step(connection: impl PgExecutor<'_>, session: i64, period: Duration) -> Result<Step, sqlx::Error> {
    const STEP: &str = "SELECT swept, more, age FROM clear_up($1, $2)";
    let row = sqlx::query(STEP).bind(session).bind(period.as_secs_f64()).fetch_one(connection).await?;
    Ok(match (row.try_get("swept")?, row.try_get("more")?) {
        (false, _) => Step::Others(Duration::try_from_secs_f64(row.try_get("age")?).unwrap_or_default()),
        (true, true) => Step::More,
        (true, false) => Step::Done,
    })
}

/// Sees to it that a round begins after this session has opened: what died before has nobody else who would come. What fails is left to the
/// next one.
pub(crate) async fn after_opening(link: SharedLink, holdings: Arc<Holdings>, limit: Duration) {
    const PERIOD: Duration = Duration::from_millis(500);
    let opened = Instant::now();
    loop {
        let session = holdings.session;
        let stepping = link.run(limit, DOING, move |connection| {
            Box::pin(async move { step(connection, session, PERIOD).await.map_err(|error| error::of(error, DOING)) })
        });
        match stepping.await {
            Ok(Step::More) => sleep(BREATH).await,
            Ok(Step::Others(age)) if age > opened.elapsed() || age.is_zero() => {
                // Not in step with all others who have just opened.
                sleep(PERIOD.saturating_sub(age).mul_f64(1.0 + fastrand::f64()).max(BREATH)).await;
            }
            Ok(Step::Done | Step::Others(_)) | Err(_) => return,
        }
    }
}

/// How long who watches waits until it looks again.
pub(crate) fn next_look(step: Step, last: Duration, period: Duration, rest: Duration) -> Duration {
    match step {
        Step::More => BREATH,
        Step::Done => period,
        // Others look: however many watch, few of them need to.
        Step::Others(_) => (last * 2).clamp(period, rest.max(period)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_find_others_at_it_look_ever_more_seldom() {
        let (second, rest) = (Duration::from_secs(1), Duration::from_secs(5));
        let others = Step::Others(Duration::ZERO);
        let mut pause = second;
        let looks: Vec<_> = std::iter::repeat_with(|| {
            pause = next_look(others, pause, second, rest);
            pause.as_secs()
        })
        .take(4)
        .collect();
        assert_eq!(looks, [2, 4, 5, 5]);
        assert_eq!(next_look(Step::Done, pause, second, rest), second);
        assert_eq!(next_look(others, BREATH, second, Duration::ZERO), second);
    }
}
