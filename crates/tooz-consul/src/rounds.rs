//! Looking at the keys of a session in turn, some with each heartbeat: so what is taken away by hand is found, at the same cost for ten thousand
//! keys as for one.

use tooz_core::Result;
use tooz_core::driver::{Reporter, RequestId};

use crate::client::{Client, Lane};
use crate::error;
use crate::holdings::{HoldingKind, Holdings};
use crate::request::{BATCH, TxnResult, check_session};
use crate::server_session::ServerSession;

/// How many keys are looked at in one transaction, beside the session's own.
pub(crate) const IN_ONE: usize = BATCH - 1;

/// Whether the session and the keys whose turn it is are still there, by the word of a leader that has proved to be one.
pub(crate) async fn look(
    client: &Client,
    session: &ServerSession,
    holdings: &Holdings,
    reporter: &Reporter,
    lane: Lane,
) -> Result<()> {
    let turn = holdings.turn(IN_ONE);
    let mut ops = vec![check_session(&session.key, &session.id)];
    ops.extend(turn.iter().map(|(_, key)| check_session(key, &session.id)));
    let verdict = client.look_at(lane, &ops).await?;
    if verdict.fails(0) {
        return Err(error::session_is_gone());
    }
    if let TxnResult::Refused(gone) = verdict {
        for (id, _) in gone.iter().filter_map(|op| turn.get(op.checked_sub(1)?)) {
            taken(holdings, reporter, *id);
        }
    }
    Ok(())
}

/// The key of that request was taken away.
pub(crate) fn taken(holdings: &Holdings, reporter: &Reporter, id: RequestId) {
    let struck = {
        let mut all = holdings.all();
        match all.get(&id.0).map(|holding| &holding.kind) {
            // It was given back in between.
            None => return,
            // The request that waits there looks for itself.
            Some(HoldingKind::Place(_, waiter)) => return waiter.notify_one(),
            Some(HoldingKind::Grant(_) | HoldingKind::Membership(_)) => all.remove(&id.0),
        }
    };
    match struck.map(|holding| holding.kind) {
        Some(HoldingKind::Membership(group)) => reporter.membership_lost(&group, id),
        _ => reporter.grant_lost(id),
    }
}
