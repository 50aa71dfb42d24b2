//! What a session owns at the server: after a fail-over that may be less than it was given, or more than it has given back.

use std::collections::{BTreeMap, BTreeSet};

use tooz_core::Result;
use tooz_core::driver::Owned;

use crate::connection::Connection;
use crate::error::strange;
use crate::group::{entry, group_of};
use crate::lock::key_of;
use crate::reply::{FROM_THE_FIRST, request_id};
use crate::script::Script;

/// Also finds every grant that the server does not know of any more, where the beats look after a few each time.
pub(crate) async fn owned(connection: &Connection) -> Result<Owned> {
    let believed = connection.feed().held();
    let (mut locks, mut members, mut held) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut place = FROM_THE_FIRST.to_owned();
    let mut last = None;
    while last.as_deref() != Some(FROM_THE_FIRST) {
        let reply = connection.run(Script::Owned, vec![place.as_str().into()]).await?;
        let texts = reply.texts(0)?;
        let (next, owned) = texts.split_first().ok_or_else(|| strange(&reply))?;
        // A part may tell again what an earlier one has told.
        for owned in owned.chunks_exact(4) {
            let [request, what, how, capabilities] = owned else { return reply.strange() };
            let id = request_id(request)?;
            if let Some(group) = what.strip_prefix("g:") {
                members.insert(id, (group_of(group)?, entry(how, request, capabilities)?));
                continue;
            }
            if how == "held" {
                held.insert(id);
            }
            locks.extend(key_of(what).map(|key| (id, key)));
        }
        place.clone_from(next);
        last = Some(place.clone());
    }
    for grant in believed.iter().filter(|grant| !held.contains(&grant.request)) {
        connection.feed().miss(grant, 0);
    }
    let locks = locks.into_iter().map(|(id, key)| (key, id)).collect();
    Ok(Owned::new(locks).with_members(members.into_values().collect()))
}
