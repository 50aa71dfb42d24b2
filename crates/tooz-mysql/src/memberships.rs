//! The memberships of the session as the server has them: another session may have taken one over.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tooz_core::{ErrorKind, Result};

use crate::answer::bytes as raw;
use crate::connection::Connection;
use crate::error;
use crate::holdings::Holdings;
use crate::record::request_id;

/// Looks, whenever there may be news, which memberships are still the session's own, and tells core of those that another has taken over.
pub(crate) async fn keep_checked(connection: Arc<Connection>, holdings: Arc<Holdings>, limit: Duration) {
    const DOING: &str = "look for the session's memberships";
    let (members, session) = (holdings.layout.table("members"), Arc::clone(&holdings.session));
    let list = format!("SELECT request FROM {members} WHERE session = '{session}'");
    loop {
        holdings.news.notified().await;
        if !holdings.has_memberships() {
            continue;
        }
        let (theirs, asked) = (Arc::clone(&holdings), list.clone());
        let looking = connection.run(limit, DOING, move |wire| {
            Box::pin(async move {
                let failed = |error| error::on_session(error, DOING);
                let answer = wire.ask(&asked).await.map_err(failed)?;
                let there: Result<HashSet<_>, _> = answer.rows(0).iter().map(|row| raw(row, 0)).collect();
                let there = there.map_err(failed)?.into_iter().flatten();
                theirs.robbed_of_all_but(&there.filter_map(|id| request_id(&id)).collect());
                Ok(())
            })
        });
        if looking.await.is_err_and(|error| error.kind() == ErrorKind::Lost) {
            return;
        }
    }
}
