//! The memberships of the session as the server has them: another session may have taken one over, or a user deleted the group
//! by hand.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tooz_core::driver::RequestId;
use tooz_core::{ErrorKind, Result};

use crate::answer::bytes as raw;
use crate::connection::Connection;
use crate::error;
use crate::holdings::Holdings;
use crate::packet::Packets;
use crate::record::{bytes, request_id};

/// How many entries are taken away by one statement at most.
const BATCH: usize = 300;
/// What stands for each in that statement.
const LONGEST_ID: usize = 40;

/// Looks, whenever there may be news, which memberships are still the session's own, and tells core of those that another has taken over,
/// or whose group is gone: it may have been deleted by hand, or with its table.
pub(crate) async fn keep_checked(connection: Arc<Connection>, holdings: Arc<Holdings>, limit: Duration) {
    const DOING: &str = "look for the session's memberships";
    let (members, groups) = (holdings.layout.table("members"), holdings.layout.table("groups"));
    let session = &holdings.session;
    let list =
        format!("SELECT request FROM {members} JOIN {groups} USING (namespace, name) WHERE session = '{session}'");
    loop {
        holdings.news.notified().await;
        if !holdings.has_memberships() {
            continue;
        }
        let (theirs, asked) = (Arc::clone(&holdings), list.clone());
        let looking = connection.run(limit, DOING, move |packets| {
            Box::pin(async move {
                let failed = |error| error::on_session(error, DOING);
                let there: Result<HashSet<_>, _> = match packets.ask(&asked).await {
                    Ok(answer) => answer.rows(0).iter().map(|row| raw(row, 0)).collect(),
                    // Without the tables there are none.
                    Err(error) if error::is_missing(&error) => Ok(HashSet::new()),
                    Err(error) => Err(error),
                };
                let there = there.map_err(failed)?.into_iter().flatten();
                let missing = theirs.memberships_missing(&there.filter_map(|id| request_id(&id)).collect());
                for some in missing.chunks(packets.fits(LONGEST_ID, BATCH)) {
                    clear(packets, &theirs, some).await.map_err(failed)?;
                    for id in some {
                        theirs.robbed(*id);
                    }
                }
                Ok(())
            })
        });
        if looking.await.is_err_and(|error| error.kind() == ErrorKind::Lost) {
            return;
        }
    }
}

/// Takes away entries of the session whose group is gone: in a group that is created anew they would be members. What another has taken over stays.
async fn clear(packets: &mut Packets, holdings: &Holdings, ids: &[RequestId]) -> Result<(), sqlx::Error> {
    let (members, session) = (holdings.layout.table("members"), &holdings.session);
    let ids: Vec<String> = ids.iter().map(|id| bytes(*id)).collect();
    let clearing = format!("DELETE FROM {members} WHERE session = '{session}' AND request IN ({})", ids.join(", "));
    match packets.ask(&clearing).await {
        Err(error) if !error::is_missing(&error) => Err(error),
        _ => Ok(()),
    }
}
