//! The watchdog of a session: a second connection, which waits for the named lock that the session's connection holds. The client library does not read a
//! connection on which nothing was asked, so without it the end of a session would be found with the next heartbeat.
//!
//! | what it hears | what that means |
//! |---|---|
//! | the lock is its own | the session's connection has ended: the session is lost |
//! | the time is over | it testifies, if a heartbeat has asked for a [`witness`](crate::witness), and waits again |
//! | it was killed | a membership may have been taken over ([`news`]); or an operator's deed. The session is looked at |
//! | an error | its own connection has ended. The session's is looked at, and may have too; another watchdog comes |
//!
//! As long as none is there, since the server lets no more connections in for instance, the session's connection is looked at ten times a second, and
//! the application is told what is missing.

use std::sync::Arc;
use std::time::Duration;

use tooz_core::ErrorKind;
use tooz_core::driver::Backoff;

use crate::connection::Connection;
use crate::error;
use crate::holdings::Holdings;
use crate::layout::news;
use crate::options::Settings;
use crate::packet::{Packets, seconds};
use crate::setup::{self, Role, SLICE};
use crate::testimony::obey;

/// Between two looks at a session without a watchdog: by so much later its loss is told.
const LOOK: Duration = Duration::from_millis(100);

/// How long one wait is. The watchdog is heard of only between two of them, and a heartbeat that has to wait wants to hear of it before the session timeout.
pub(crate) fn slice(session_timeout: Duration) -> Duration {
    Duration::from_secs(seconds(session_timeout / 4)).min(SLICE)
}

/// What the watchdog has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchdogEvent {
    Nothing,
    News,
    /// The session's lock is free.
    Death,
}

/// Stands as long as the session lives.
pub(crate) async fn stand(connection: Arc<Connection>, holdings: Arc<Holdings>, settings: Settings) {
    let mut pauses = Backoff::between(Duration::from_millis(100), Duration::from_secs(5));
    let limit = settings.statement_timeout;
    while !connection.is_dead() {
        let came = tokio::select! {
            biased;
            came = setup::connect(&settings, Role::Wait) => came,
            () = look_often(&connection, &holdings, limit) => return,
        };
        match came {
            Err(error) => holdings.reporter.troubled(error.context(
                "the session has no second connection, by which the server tells of its end: it is looked at instead",
            )),
            Ok((mut packets, _)) => {
                pauses.reset();
                holdings.reporter.recovered();
                if listen(&mut packets, &connection, &holdings, &settings).await.is_ok() {
                    return;
                }
                check(&connection, &holdings, limit).await;
            }
        }
        tokio::select! {
            biased;
            () = pauses.pause() => {}
            () = look_often(&connection, &holdings, limit) => return,
        }
    }
}

/// Looks at the session's connection as long as it lives.
async fn look_often(connection: &Connection, holdings: &Holdings, limit: Duration) {
    while !connection.is_dead() {
        tokio::time::sleep(LOOK).await;
        check(connection, holdings, limit).await;
    }
}

/// Ends well when the session has ended, and with an error when this connection has.
async fn listen(
    packets: &mut Packets,
    connection: &Connection,
    holdings: &Holdings,
    settings: &Settings,
) -> tooz_core::Result<()> {
    const DOING: &str = "watch over the session";
    let (slice, limit) = (slice(settings.session_timeout), settings.statement_timeout);
    let (own, session, most) = (news(&holdings.session), &holdings.session, seconds(slice));
    let begin = format!("SELECT GET_LOCK('{own}', 0)");
    let watch = format!("SELECT IF(IS_USED_LOCK('{own}') = CONNECTION_ID(), GET_LOCK('{session}', {most}), NULL)");
    packets.ask(&begin).await.map_err(|error| error::of(error, DOING))?;
    loop {
        let heard = match tokio::time::timeout(slice + limit, packets.ask(&watch)).await {
            Err(_) => return Err(error::timed_out(slice + limit, DOING)),
            Ok(Err(error)) if error::is_cancelled(&error) || error::is_deadlock(&error) => WatchdogEvent::News,
            Ok(Err(error)) => return Err(error::of(error, DOING)),
            Ok(Ok(answer)) => match answer.number(0, 0).map_err(|error| error::of(error, DOING))? {
                Some(1) => WatchdogEvent::Death,
                Some(_) => WatchdogEvent::Nothing,
                None => WatchdogEvent::News,
            },
        };
        match heard {
            WatchdogEvent::Nothing => {
                let obeying = obey(packets, holdings);
                match tokio::time::timeout(limit, obeying).await {
                    Ok(obeyed) => obeyed.map_err(|error| error::of(error, DOING))?,
                    Err(_) => return Err(error::timed_out(limit, DOING)),
                }
            }
            WatchdogEvent::News => {
                holdings.news.notify_one();
                check(connection, holdings, limit).await;
                // A wake-up without news does not start a loop.
                tokio::time::sleep(Duration::from_millis(10)).await;
                packets.ask(&begin).await.map_err(|error| error::of(error, DOING))?;
            }
            WatchdogEvent::Death => {
                holdings.reporter.session_lost("the server has ended the session's connection");
                connection.cut();
                return Ok(());
            }
        }
    }
}

/// Looks at the session's connection: if that has ended, it is known then.
async fn check(connection: &Connection, holdings: &Holdings, limit: Duration) {
    const DOING: &str = "look whether the session lives";
    let question = format!("SELECT {}", holdings.is_ours());
    let looking = connection.run_first(limit, DOING, move |packets| {
        Box::pin(async move {
            let failed = |error| error::on_session(error, DOING);
            packets.ask(&question).await.map_err(failed)?.is(0, 0).map_err(failed)
        })
    });
    match looking.await {
        Ok(false) => {
            holdings.shared_connection();
            connection.cut();
        }
        Err(error) if error.kind() == ErrorKind::Lost => connection.cut(),
        // It lives; or its answer may come yet, and the deadline is the judge.
        Ok(true) | Err(_) => {}
    }
}
