//! Looking at the keys of a session in turn, some with each heartbeat: so what is taken away by hand is found, at the same cost for ten thousand
//! keys as for one. Where the servers were set back to an earlier state, all of them are looked at at once.

use tooz_core::Result;
use tooz_core::driver::{Reporter, RequestId};

use crate::client::{Client, Lane};
use crate::error;
use crate::holdings::{HoldingKind, Holdings};
use crate::request::{BATCH, TxnResult, check_session};
use crate::server_session::ServerSession;

/// What stands before the keys in the transaction by which they are looked at: the session's own key, and its stamps.
const FIRST: usize = 2;
/// How many keys are looked at in one transaction beside those.
const IN_ONE: usize = BATCH - FIRST;

/// Whose keys are looked at, and who is told of what is found.
pub(crate) struct Rounds<'a> {
    pub(crate) client: &'a Client,
    pub(crate) session: &'a ServerSession,
    pub(crate) holdings: &'a Holdings,
    pub(crate) reporter: &'a Reporter,
}

impl Rounds<'_> {
    /// Whether the session and the keys whose turn it is are still there, by the word of a leader that has proved to be one, and if the servers
    /// were set back, whether all of them are.
    pub(crate) async fn look(&self, lane: Lane) -> Result<()> {
        self.look_at_some(lane, false).await?;
        self.mend(lane).await
    }

    /// Compares everything, if the servers were set back since that was done last.
    pub(crate) async fn mend(&self, lane: Lane) -> Result<()> {
        if !self.session.history.take_set_back() {
            return Ok(());
        }
        for _ in 0..self.holdings.turns(IN_ONE) {
            self.look_at_some(lane, true).await.inspect_err(|_| self.session.history.doubt())?;
        }
        // What was given back since may stand there again, and memberships may be missing: core compares.
        self.holdings.note_set_back();
        self.reporter.connected();
        Ok(())
    }

    async fn look_at_some(&self, lane: Lane, was_set_back: bool) -> Result<()> {
        let Rounds { client, session, holdings, .. } = self;
        let (turn, before) = (holdings.turn(IN_ONE), session.history.seen());
        let mut ops = vec![check_session(&session.key, &session.id), session.history.read()];
        ops.extend(turn.iter().map(|(_, key)| check_session(key, &session.id)));
        let gone = match client.look_at(lane, &ops).await? {
            TxnResult::Done(entries) => {
                if session.history.judge(&before, &entries) {
                    client.set_back();
                }
                return Ok(());
            }
            TxnResult::Refused(gone) => gone,
        };
        if gone.contains(&0) {
            return Err(error::session_is_gone());
        }
        // Nothing was read of the stamps.
        session.history.look(client, lane).await?;
        for (id, _) in gone.iter().filter_map(|op| turn.get(op.checked_sub(FIRST)?)) {
            if was_set_back || session.history.was_set_back() {
                self.missing(*id);
            } else {
                self.taken(*id);
            }
        }
        // A later restore that brings it back is to be noticed.
        let _ = session.change(client, lane, Vec::new(), None).await;
        Ok(())
    }

    /// The key of that request was taken away.
    pub(crate) fn taken(&self, id: RequestId) {
        let struck = {
            let mut all = self.holdings.all();
            match all.get(&id.0).map(|holding| &holding.kind) {
                // It was given back in between.
                None => return,
                // The request that waits there looks for itself.
                Some(HoldingKind::Place(_, waiter)) => return waiter.notify_one(),
                Some(HoldingKind::Grant(_) | HoldingKind::Membership(_)) => all.remove(&id.0),
            }
        };
        match struck.map(|holding| holding.kind) {
            Some(HoldingKind::Membership(group)) => self.reporter.membership_lost(&group, id),
            _ => self.reporter.grant_lost(id),
        }
    }

    /// The servers do not know the key of that request any more. A membership was not taken over by that: core, which compares what is owned, joins
    /// again.
    fn missing(&self, id: RequestId) {
        if let Some(holding) = self.holdings.all().get_mut(&id.0)
            && let HoldingKind::Membership(_) = holding.kind
        {
            // It has no turn until it is there again.
            holding.modified = 0;
            return;
        }
        self.taken(id);
    }
}
