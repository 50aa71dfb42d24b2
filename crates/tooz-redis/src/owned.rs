//! What a session owns at the server: after a fail-over that may be less than it was given, or more than it has given back.

use std::collections::BTreeSet;

use tooz_core::{Owned, Result};

use crate::connection::Connection;
use crate::group::{entry, group_of};
use crate::lock::key_of;
use crate::reply::request_id;
use crate::script::Script;

/// Also finds every grant that the server does not know of any more, where the beats look after a few each time.
pub(crate) async fn owned(connection: &Connection) -> Result<Owned> {
    let believed = connection.feed().held();
    let reply = connection.run(Script::Owned, Vec::new()).await?;
    let (mut locks, mut members, mut held) = (Vec::new(), Vec::new(), BTreeSet::new());
    for owned in reply.texts(0)?.chunks_exact(4) {
        let [request, what, how, capabilities] = owned else { return reply.strange() };
        if let Some(group) = what.strip_prefix("g:") {
            members.push((group_of(group)?, entry(how, request, capabilities)?));
            continue;
        }
        let request = request_id(request)?;
        if how == "held" {
            held.insert(request);
        }
        locks.extend(key_of(what).map(|key| (key, request)));
    }
    for grant in believed.iter().filter(|grant| !held.contains(&grant.request)) {
        connection.feed().miss(grant);
    }
    Ok(Owned::new(locks).with_members(members))
}
