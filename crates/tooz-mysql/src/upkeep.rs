//! What is looked after besides requests: that the session stands in the list of the living, and the fence where it was. An operator may have taken the rows
//! away, or made the tables anew.

use std::sync::Arc;
use std::time::Duration;

use tooz_core::{ErrorKind, Result};

use crate::connection::Connection;
use crate::error;
use crate::fence;
use crate::holdings::Holdings;
use crate::packet::{Packets, name};
use crate::record::NOW;

const DOING: &str = "look whether the session is listed";

/// Looks behind each heartbeat, as long as the session lives.
pub(crate) async fn keep_listed(connection: Arc<Connection>, holdings: Arc<Holdings>, limit: Duration) {
    let mut beats = holdings.beats.subscribe();
    while beats.changed().await.is_ok() {
        let theirs = Arc::clone(&holdings);
        let looking =
            connection.run(limit, DOING, move |packets| Box::pin(async move { look(packets, &theirs).await }));
        // What else fails is left to the next heartbeat.
        if looking.await.is_err_and(|error| error.kind() == ErrorKind::Lost) {
            return;
        }
    }
}

async fn look(packets: &mut Packets, holdings: &Holdings) -> Result<()> {
    let failed = |error| error::on_session(error, DOING);
    let (sessions, session) = (holdings.layout.table("sessions"), &holdings.session);
    let question =
        format!("SELECT COUNT(*) FROM {sessions} WHERE session = '{session}'; {}", fence::counted(&holdings.layout));
    let answer = match packets.ask(&question).await {
        // Before the tables are made anew there is nothing to look at.
        Err(error) if error::is_missing(&error) => return Ok(()),
        answer => answer.map_err(failed)?,
    };
    if !answer.is(0, 0).map_err(failed)? {
        let listing = format!(
            "INSERT IGNORE INTO {sessions} (session, namespace, member, conn, since) \
             VALUES ('{session}', {namespace}, {member}, {number}, {NOW})",
            namespace = name(holdings.layout.namespace()),
            member = name(holdings.member.as_str()),
            number = holdings.number,
        );
        packets.ask(&listing).await.map_err(failed)?;
    }
    if holdings.fence.token(answer.rows(1).first())?.is_none() {
        fence::mend(packets, &holdings.layout, &holdings.fence).await?;
    }
    Ok(())
}
