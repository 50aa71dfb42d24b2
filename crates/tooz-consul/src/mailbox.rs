//! What the session is told: letters of other sessions, and its own end.
//!
//! A session that breaks a lock or takes a membership over writes a letter to the session that had it, in the same transaction, locked by that very
//! session: so the letter goes with it, and no letter is written to a dead session. One question waits for letters and for the end
//! of the session's key at once. What is taken by hand has no letter: see `rounds.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;
use tooz_core::driver::{Backoff, Reporter, RequestId};
use tooz_core::{ErrorKind, Result};

use crate::client::{Client, Lane, Scope};
use crate::history;
use crate::holdings::Holdings;
use crate::idle::Idle;
use crate::layout::is_letter;
use crate::record::{Letter, read};
use crate::request::{BATCH, KeyEntry, Page, delete};
use crate::rounds::Rounds;
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

/// What came of one question.
struct PollReply {
    /// After which index to wait.
    index: u64,
    /// It was answered early, though nothing has changed.
    is_idle: bool,
}

impl Mailbox {
    pub(crate) fn start(self) -> AbortHandle {
        tokio::spawn(async move { self.receive().await }).abort_handle()
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
        let mut idle = Idle::new();
        let (mut index, mut has_failed) = (0, false);
        loop {
            let asked_at = Instant::now();
            match self.receive_once(index, has_failed).await {
                Ok(Some(received)) => {
                    (index, has_failed) = (received.index, false);
                    pauses.reset();
                    idle.pace(!received.is_idle, asked_at).await;
                }
                Ok(None) => return,
                Err(error) if error.kind() == ErrorKind::Lost => return self.reporter.session_lost(error),
                // The deadline judges meanwhile. Servers that were set back would be deaf to a question about a later index.
                Err(_) => {
                    (index, has_failed) = (0, true);
                    pauses.pause().await;
                }
            }
        }
    }

    /// `None`: the session is over, and that was told.
    async fn receive_once(&self, index: u64, has_failed: bool) -> Result<Option<PollReply>> {
        let key = &self.session.key;
        if has_failed {
            // The servers may come back with an earlier state: what is held is free for others from now on, and the next heartbeat is late.
            self.session.history.look(&self.client, Lane::Mailbox).await?;
            self.rounds().mend(Lane::Mailbox).await?;
        }
        let asked_at = Instant::now();
        // The first question is to be answered at once: letters may be there.
        let asked = match index {
            0 => Some(self.client.glance(Lane::Mailbox, key, Scope::Below).await),
            _ => self.client.poll(Lane::Mailbox, key, Scope::Below, index, self.wait).await,
        };
        let Some(asked) = asked else { return Ok(Some(PollReply { index, is_idle: true })) };
        let mut page = asked?;
        if !self.is_there(&page) {
            // A leader that was just elected may not have read its own log.
            page = match self.client.read_folder(Lane::Mailbox, key).await? {
                Some(page) => page,
                None => Page { entries: Vec::new(), index: page.index },
            };
            if !self.is_there(&page) {
                self.reporter.session_lost("its key is gone: the session was ended at the server, or its key deleted");
                return Ok(None);
            }
        }
        // A question is answered early where something has changed, and where the servers were set back to an earlier state, which ends all
        // questions at once. None is answered before its time otherwise.
        let is_early = index > 0 && asked_at.elapsed() < self.client.wait_of(self.wait).mul_f64(0.95);
        let is_idle = is_early && page.index == index;
        let letters: Vec<&KeyEntry> = page.entries.iter().filter(|entry| is_letter(key, &entry.key)).collect();
        if page.index < index || is_early && letters.is_empty() {
            self.session.history.look(&self.client, Lane::Mailbox).await?;
        }
        self.rounds().mend(Lane::Mailbox).await?;
        for letter in &letters {
            self.open(letter);
        }
        for some in letters.chunks(BATCH - history::OPS) {
            let ops = some.iter().map(|letter| delete(&letter.key)).collect();
            self.session.change(&self.client, Lane::Mailbox, ops, None).await?;
        }
        Ok(Some(PollReply { index: page.index.max(1), is_idle }))
    }

    fn is_there(&self, page: &Page) -> bool {
        page.entries
            .iter()
            .any(|entry| entry.key == self.session.key && entry.session.as_ref() == Some(&self.session.id))
    }

    /// What is told that is not held any more has been given back in between.
    fn open(&self, letter: &KeyEntry) {
        let Some(Letter::Broken(id) | Letter::Replaced(id)) = read(&letter.value) else { return };
        if let Ok(id) = id.parse::<RequestId>() {
            self.rounds().taken(id);
        }
    }

    fn rounds(&self) -> Rounds<'_> {
        Rounds { client: &self.client, session: &self.session, holdings: &self.holdings, reporter: &self.reporter }
    }
}
