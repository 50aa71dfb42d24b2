//! The watchdog of a session: a second connection, which waits for the named lock that the session's connection holds. The client library does not read a
//! connection on which nothing was asked, so without it the end of a session would be found with the next heartbeat.
//!
//! | what it hears | what that means |
//! |---|---|
//! | the lock is its own | the session's connection has ended: the session is lost |
//! | the time is over | it waits again |
//! | it was killed | a membership may have been taken over ([`news`]); or an operator's deed. The session is looked at |
//! | an error | its own connection has ended. The session's is looked at, and may have too; another watchdog comes |

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
    while !connection.is_dead() {
        let stood = async {
            let (mut packets, _) = setup::connect(&settings, Role::Wait).await?;
            pauses.reset();
            listen(&mut packets, &connection, &holdings, settings.statement_timeout).await
        };
        if stood.await.is_ok() {
            return;
        }
        check(&connection, &holdings, settings.statement_timeout).await;
        pauses.pause().await;
    }
}

/// Ends well when the session has ended, and with an error when this connection has.
async fn listen(
    packets: &mut Packets,
    connection: &Connection,
    holdings: &Holdings,
    limit: Duration,
) -> tooz_core::Result<()> {
    const DOING: &str = "watch over the session";
    let (own, session, slice) = (news(&holdings.session), &holdings.session, seconds(SLICE));
    let begin = format!("SELECT GET_LOCK('{own}', 0)");
    let watch = format!("SELECT IF(IS_USED_LOCK('{own}') = CONNECTION_ID(), GET_LOCK('{session}', {slice}), NULL)");
    packets.ask(&begin).await.map_err(|error| error::of(error, DOING))?;
    loop {
        let heard = match tokio::time::timeout(SLICE + limit, packets.ask(&watch)).await {
            Err(_) => return Err(error::timed_out(SLICE + limit, DOING)),
            Ok(Err(error)) if error::is_cancelled(&error) || error::is_deadlock(&error) => WatchdogEvent::News,
            Ok(Err(error)) => return Err(error::of(error, DOING)),
            Ok(Ok(answer)) => match answer.number(0, 0).map_err(|error| error::of(error, DOING))? {
                Some(1) => WatchdogEvent::Death,
                Some(_) => WatchdogEvent::Nothing,
                None => WatchdogEvent::News,
            },
        };
        match heard {
            WatchdogEvent::Nothing => {}
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
