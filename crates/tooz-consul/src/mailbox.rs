//! What the session is told, and what it looks at by itself: letters of other sessions, its own end, and its keys in turn.
//!
//! Who breaks a lock or takes a membership over writes a letter to the session that had it, in the same transaction, locked by that very session: so it
//! goes with it, and nobody writes to the dead. One question waits for letters and for the end of the session's key at once. What
//! is taken by hand has no letter: with each heartbeat some of the keys are looked at, one request for 64 of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;
use tooz_core::driver::{Backoff, Reporter, RequestId};
use tooz_core::{ErrorKind, Result};

use crate::client::{Client, Lane, Scope};
use crate::holdings::{HoldingKind, Holdings};
use crate::layout::is_letter;
use crate::record::{Letter, read};
use crate::request::{BATCH, Entry, Page, Verdict, check_session, delete};
use crate::server_session::ServerSession;

/// A session that has given back all that it has had by then has no use for letters: most locks are held for a moment.
const MOMENT: Duration = Duration::from_millis(50);

/// The task of one session.
pub(crate) struct Mailbox {
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) client: Arc<Client>,
    pub(crate) reporter: Reporter,
    pub(crate) session: Arc<ServerSession>,
    /// How long one question waits.
    pub(crate) wait: Duration,
}

impl Mailbox {
    pub(crate) fn start(self) -> AbortHandle {
        tokio::spawn(async move {
            tokio::join!(self.receive(), self.make_rounds());
        })
        .abort_handle()
    }

    /// Waits for letters, for as long as the session lives.
    async fn receive(&self) {
        loop {
            self.holdings.made().await;
            tokio::time::sleep(MOMENT).await;
            if !self.holdings.all().is_empty() {
                break;
            }
        }
        let mut pauses = Backoff::between(Duration::from_millis(50), Duration::from_secs(1));
        let mut index = 0;
        loop {
            match self.receive_once(index).await {
                Ok(Some(next)) => {
                    index = next;
                    pauses.reset();
                }
                Ok(None) => return,
                Err(error) if error.kind() == ErrorKind::Lost => return self.reporter.session_lost(error),
                // The deadline judges meanwhile.
                Err(_) => pauses.pause().await,
            }
        }
    }

    /// Answers the index after which to wait; `None`: the session is over, and that was told.
    async fn receive_once(&self, index: u64) -> Result<Option<u64>> {
        let key = &self.session.key;
        let asked_at = Instant::now();
        // The first question is to be answered at once: letters may be there.
        let asked = match index {
            0 => Some(self.client.glance(Lane::Mailbox, key, Scope::Below).await),
            _ => self.client.poll(Lane::Mailbox, key, Scope::Below, index, self.wait).await,
        };
        let Some(asked) = asked else { return Ok(Some(index)) };
        let mut page = asked?;
        if !self.is_there(&page) {
            // A leader that was just elected may not have read its own log.
            page = self.client.read(Lane::Mailbox, key, Scope::Below).await?;
            if !self.is_there(&page) {
                self.reporter.session_lost("its key is gone: the session was ended at the server, or its key deleted");
                return Ok(None);
            }
        }
        // A question is answered early where something has changed, and where the servers were set back to an earlier state, which ends all
        // questions at once.
        let is_early = asked_at.elapsed() < self.wait.mul_f64(0.9);
        if index > 0 && (page.index < index || (page.index == index && is_early)) {
            self.look_at_all().await?;
        }
        let letters: Vec<&Entry> = page.entries.iter().filter(|entry| is_letter(key, &entry.key)).collect();
        for letter in &letters {
            self.open(letter);
        }
        for some in letters.chunks(BATCH) {
            let ops: Vec<_> = some.iter().map(|letter| delete(&letter.key)).collect();
            self.client.transact(Lane::Mailbox, &ops).await?;
        }
        Ok(Some(page.index.max(1)))
    }

    fn is_there(&self, page: &Page) -> bool {
        page.entries.iter().any(|entry| entry.key == self.session.key && entry.session.as_ref() == Some(&self.session.id))
    }

    /// What is told that is not held any more has been given back in between.
    fn open(&self, letter: &Entry) {
        let Some(Letter::Broken(id) | Letter::Replaced(id)) = read(&letter.value) else { return };
        if let Ok(id) = id.parse::<RequestId>() {
            self.taken(id);
        }
    }

    /// Looks at some of the keys whenever it is time to.
    async fn make_rounds(&self) {
        loop {
            self.holdings.due().await;
            // The next heartbeat brings the next round.
            if let Err(error) = self.look().await
                && error.kind() == ErrorKind::Lost
            {
                return self.reporter.session_lost(error);
            }
        }
    }

    async fn look_at_all(&self) -> Result<()> {
        for _ in 0..self.holdings.turns(BATCH - 1) {
            self.look().await?;
        }
        // What was given back since may stand there again.
        self.holdings.note_set_back();
        self.reporter.connected();
        Ok(())
    }

    /// Whether the keys whose turn it is are still this session's.
    async fn look(&self) -> Result<()> {
        let turn = self.holdings.turn(BATCH - 1);
        if turn.is_empty() {
            return Ok(());
        }
        let mut ops = vec![check_session(&self.session.key, &self.session.id)];
        ops.extend(turn.iter().map(|(_, key)| check_session(key, &self.session.id)));
        let verdict = self.client.look_at(Lane::Duty, &ops).await?;
        if verdict.fails(0) {
            return Err(crate::error::session_is_gone());
        }
        if let Verdict::Refused(gone) = verdict {
            for (id, _) in gone.iter().filter_map(|op| turn.get(op.checked_sub(1)?)) {
                self.taken(*id);
            }
        }
        Ok(())
    }

    /// The key of that request was taken away.
    fn taken(&self, id: RequestId) {
        enum Taken {
            Grant,
            Membership(tooz_core::GroupId),
        }
        let taken = match self.holdings.all().get(&id.0).map(|holding| &holding.kind) {
            None => return,
            // The request that waits there looks for itself.
            Some(HoldingKind::Place(_, waiter)) => return waiter.notify_one(),
            Some(HoldingKind::Grant(_)) => Taken::Grant,
            Some(HoldingKind::Membership(group)) => Taken::Membership(group.clone()),
        };
        match taken {
            Taken::Grant => self.reporter.grant_lost(id),
            Taken::Membership(group) => self.reporter.membership_lost(&group, id),
        }
        drop(self.holdings.strike(id));
    }
}
