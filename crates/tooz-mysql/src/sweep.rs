//! Clearing up what dead sessions left in the tables: by small steps, by each session that opens or closes, and from time to time. No request has to wait
//! for it, since rows count for nothing without the named lock of their session.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::Result;
use tooz_core::driver::spread;

use crate::answer::text;
use crate::connection::Connection;
use crate::error;
use crate::holdings::Holdings;
use crate::layout::Layout;
use crate::open_session::OpenSession;
use crate::packet::Packets;

const DOING: &str = "take away what the dead left";

/// Between two rounds of one session.
const PERIOD: Duration = Duration::from_mins(1);
/// Between two steps of one round, so that others come to the connection and to the rows meanwhile.
const BREATH: Duration = Duration::from_millis(20);
/// How many sessions one step looks at.
const LOOKS: usize = 500;
/// How many dead ones it takes away at most, and how many rows of each table.
const DEAD: usize = 50;
/// What stands in a statement for each of them: its name, once for each table that is looked at or cleared.
const LONGEST_NAMES: usize = 9 * 48;
const ROWS: usize = 300;

/// Takes away what the dead left, soon after the session has opened and then from time to time.
pub(crate) async fn from_time_to_time(connection: Arc<Connection>, holdings: Arc<Holdings>, limit: Duration) {
    let mut place = String::new();
    loop {
        // Not in step with all others that have just opened.
        sleep(spread(BREATH, 1.0..5.0)).await;
        let (theirs, from) = (Arc::clone(&holdings), place.clone());
        let stepping = connection.run(limit, DOING, move |packets| {
            Box::pin(
                async move { step(packets, &theirs, &from).await.map_err(|error| error::on_session(error, DOING)) },
            )
        });
        match stepping.await {
            Ok(Some(next)) => place = next,
            // What fails is left to the next round.
            Ok(None) | Err(_) if connection.is_dead() => return,
            Ok(None) | Err(_) => {
                place.clear();
                sleep(spread(PERIOD, 0.5..1.5)).await;
            }
        }
    }
}

/// One step, from behind that session on. Answers where the next one begins; `None`: the round is over, or another session is at it.
async fn step(packets: &mut Packets, holdings: &Holdings, from: &str) -> Result<Option<String>, sqlx::Error> {
    let layout = &holdings.layout;
    let (sessions, sweeping, most) = (layout.table("sessions"), layout.sweeping(), packets.fits(LONGEST_NAMES, DEAD));
    let look = format!(
        "SELECT GET_LOCK('{sweeping}', 0); \
         SELECT session, IS_USED_LOCK(session) <=> conn FROM {sessions} WHERE session > '{from}' ORDER BY session LIMIT {LOOKS}"
    );
    let looked = match packets.ask(&look).await {
        Ok(answer) if !answer.is(0, 0)? => return Ok(None),
        looked => looked,
    };
    let done = match looked {
        Ok(answer) => {
            let mut dead = Vec::new();
            let mut last = None;
            for row in answer.rows(1) {
                let session = text(row, 0)?.unwrap_or_default();
                if crate::answer::number(row, 1)? == Some(0) && dead.len() < most {
                    dead.push(session.clone());
                }
                last = Some(session);
            }
            let is_whole = answer.rows(1).len() < LOOKS;
            match bury(packets, layout, &dead).await {
                // Not all is done yet: the same ones again.
                Ok(Remainder::More) => Ok(Some(from.to_owned())),
                Ok(Remainder::Nothing) if dead.len() == most => Ok(dead.pop()),
                Ok(Remainder::Nothing) if is_whole => Ok(None),
                Ok(Remainder::Nothing) => Ok(last),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    if !packets.is_dead {
        // Interrupted it would keep all others from clearing up as long as this session lives.
        packets.insist(&format!("DO RELEASE_LOCK('{sweeping}')")).await?;
    }
    done
}

/// Whether anything of these sessions is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remainder {
    More,
    Nothing,
}

/// Takes away at most so many rows of each table of these sessions. The sessions themselves go last: as long as there is one, the rest is found.
async fn bury(packets: &mut Packets, layout: &Layout, dead: &[String]) -> Result<Remainder, sqlx::Error> {
    if dead.is_empty() {
        return Ok(Remainder::Nothing);
    }
    let names: Vec<String> = dead.iter().map(|session| format!("'{session}'")).collect();
    let names = names.join(", ");
    let tables = ["members", "grants", "sharers", "waits"].map(|table| layout.table(table));
    let mut statements: Vec<String> =
        tables.iter().map(|table| format!("DELETE FROM {table} WHERE session IN ({names}) LIMIT {ROWS}")).collect();
    let left: Vec<String> =
        tables.iter().map(|table| format!("EXISTS (SELECT 1 FROM {table} WHERE session IN ({names}))")).collect();
    statements.push(format!("SET @tooz_left = {}", left.join(" OR ")));
    let sessions = layout.table("sessions");
    statements.push(format!("DELETE FROM {sessions} WHERE session IN ({names}) AND NOT @tooz_left"));
    statements.push("SELECT @tooz_left".to_owned());
    let answer = packets.ask(&statements.join("; ")).await?;
    Ok(if answer.is(statements.len() - 1, 0)? { Remainder::More } else { Remainder::Nothing })
}

/// Takes away the rows of this session and of the dead: for what those have left no other member may come. What the server refuses is left to those that
/// clear up; an error says that it does not answer.
pub(crate) async fn bury_own(open: &OpenSession) -> Result<()> {
    let mut place = Some(String::new());
    loop {
        let (holdings, from) = (Arc::clone(&open.holdings), place.take());
        let burying = open.connection.run(open.limit, DOING, move |packets| {
            Box::pin(async move {
                let next = match from {
                    Some(from) => step(packets, &holdings, &from).await.unwrap_or(None),
                    None => None,
                };
                let own = bury(packets, &holdings.layout, &[holdings.session.to_string()]).await;
                match own {
                    Err(error) if error::is_dead(&error) => Err(error::of(error, DOING)),
                    own => Ok((next, own.unwrap_or(Remainder::Nothing))),
                }
            })
        });
        let (next, own) = burying.await.map_err(error::outside)?;
        if own == Remainder::Nothing && next.is_none() {
            return Ok(());
        }
        place = next;
    }
}
