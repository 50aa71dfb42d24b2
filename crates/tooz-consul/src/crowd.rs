//! Waiting for keys to go: each by a question of its own that the server answers when something changes, and those beyond what connections there
//! are by looking at many of them together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tooz_core::Result;
use tooz_core::driver::Mutex;

use crate::client::{Client, Lane, Scope};
use crate::idle::Idle;
use crate::request::{BATCH, KeyEntry, TxnResult, get};

/// How often those that wait together are looked at.
const TOGETHER: Duration = Duration::from_millis(500);
/// After how many of those looks a waiter tries again to ask by itself.
const LOOKS: u32 = 8;

/// The longest that one question waits. What is given up the server keeps until then.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long one question of a session waits.
pub(crate) fn longest_wait(session_timeout: Duration) -> Duration {
    session_timeout.min(LONGEST_WAIT)
}

/// Those that wait in one session.
pub(crate) struct Crowd {
    together: Arc<Together>,
    /// How long one question waits: what is dropped the server keeps until then.
    wait: Duration,
}

#[derive(Default)]
struct Together {
    waiting: Mutex<BTreeMap<u64, (String, Arc<Notify>)>>,
    count: AtomicU64,
    is_looking: AtomicBool,
}

impl Crowd {
    pub(crate) fn new(wait: Duration) -> Self {
        Crowd { together: Arc::default(), wait }
    }

    /// How long one question waits.
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    /// Ends when that entry is gone, or another stands in its place. `since`: an index at which it was there; 0: it is looked at
    /// once before anything is waited for.
    pub(crate) async fn gone(&self, client: &Arc<Client>, entry: &KeyEntry, since: u64) -> Result<()> {
        let (mut index, mut idle) = (since, Idle::new());
        loop {
            let asked_at = Instant::now();
            let Some(answered) = client.poll(Lane::Poll, &entry.key, Scope::One, index, self.wait).await else {
                let told = Arc::new(Notify::new());
                let _enrolment = Enrolment::among(&self.together, client, &entry.key, &told);
                if tokio::time::timeout(TOGETHER * LOOKS, told.notified()).await.is_ok() {
                    return Ok(());
                }
                continue;
            };
            let page = answered?;
            if page.entries.first().is_none_or(|there| there.created != entry.created) {
                return Ok(());
            }
            // Also a lower one: the servers may have been set back, and would be deaf to a question about a later index.
            index = page.index.max(1);
            idle.pace(false, asked_at).await;
        }
    }
}

/// Keeps a key among those that are looked at together, until it is dropped.
struct Enrolment<'a> {
    together: &'a Together,
    number: u64,
}

impl<'a> Enrolment<'a> {
    fn among(together: &'a Arc<Together>, client: &Arc<Client>, key: &str, told: &Arc<Notify>) -> Self {
        let number = together.count.fetch_add(1, Ordering::Relaxed);
        together.waiting.lock().insert(number, (key.to_owned(), Arc::clone(told)));
        if !together.is_looking.swap(true, Ordering::AcqRel) {
            tokio::spawn(look(Arc::clone(together), Arc::clone(client)));
        }
        Enrolment { together, number }
    }
}

impl Drop for Enrolment<'_> {
    fn drop(&mut self) {
        self.together.waiting.lock().remove(&self.number);
    }
}

/// Looks at all that wait, as long as any does.
async fn look(together: Arc<Together>, client: Arc<Client>) {
    loop {
        tokio::time::sleep(TOGETHER).await;
        let waiting: Vec<_> = together.waiting.lock().values().cloned().collect();
        if waiting.is_empty() {
            together.is_looking.store(false, Ordering::Release);
            // One that came in between has seen that a task looks.
            if together.waiting.lock().is_empty() || together.is_looking.swap(true, Ordering::AcqRel) {
                return;
            }
        }
        for some in waiting.chunks(BATCH) {
            let ops: Vec<_> = some.iter().map(|(key, _)| get(key)).collect();
            // A waiter that is told in vain looks, and waits again.
            let Ok(TxnResult::Refused(gone)) = client.look_at(Lane::Duty, &ops).await else { continue };
            for (_, told) in gone.iter().filter_map(|index| some.get(*index)) {
                told.notify_one();
            }
        }
    }
}
