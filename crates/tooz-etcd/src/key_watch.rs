//! Watches the keys of the session, looks when something was told of them, and tells core what was taken away by force.
//!
//! Each key that is held for longer than a moment has a watch of its own in the session's one stream. That costs the server a
//! few hundred bytes and nothing else: a watch of all locks would tell every member of every release of the others, and an index
//! of what a session holds would double every write.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until};
use tooz_core::driver::{Backoff, Reporter, RequestId};
use tooz_core::{ErrorKind, GroupId, Result};

use crate::client::Client;
use crate::dispatch::{Dispatch, Notice, Scope};
use crate::error;
use crate::holdings::{Confirmations, Holding, HoldingKind, Holdings};
use crate::lanes::Lane;
use crate::lease::Lease;
use crate::proto::etcdserverpb::{RangeRequest, TxnRequest, TxnResponse};
use crate::proto::mvccpb::KeyValue;
use crate::record::MemberRecord;
use crate::request::{BATCH, absent, delete, get, one, ranges, without_value, written_at};
use crate::withdrawal::withdraw;

/// How soon a withdrawal that etcd could not write is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The task of one session.
pub(crate) struct KeyWatch {
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) client: Arc<Client>,
    pub(crate) reporter: Reporter,
    pub(crate) lease: Arc<Lease>,
    /// The revision after which the session's key is watched.
    pub(crate) since: i64,
}

impl KeyWatch {
    pub(crate) fn start(self, confirmed: Confirmations) -> AbortHandle {
        tokio::spawn(self.run(confirmed)).abort_handle()
    }

    async fn run(self, Confirmations(mut confirmed): Confirmations) {
        let holdings = Arc::clone(&self.holdings);
        let _session = self.dispatch.watch(Scope::key(&self.lease.key, self.since + 1), move |notice| match notice {
            Notice::Deleted { .. } | Notice::Gap => holdings.doubt_session(),
            Notice::Ready { .. } | Notice::Put(_) => {}
        });
        let watching = async {
            // All come of age in the order in which they came.
            while let Some((when, id)) = confirmed.recv().await {
                sleep_until(when).await;
                self.watch(id);
            }
        };
        let looking = async {
            let mut pauses = Backoff::between(Duration::from_millis(50), Duration::from_secs(1));
            loop {
                self.holdings.doubted().await;
                while self.look().await.is_err() {
                    // The deadline judges meanwhile.
                    pauses.pause().await;
                }
                pauses.reset();
            }
        };
        // What a watch tells is not all that can happen to a key: a cluster that was set back knows nothing of some, and tells nothing.
        let doubting = async {
            let (mut restands, mut set_backs) = (self.dispatch.restands(), self.client.history.set_backs());
            loop {
                tokio::select! {
                    Ok(()) = restands.changed() => self.holdings.doubt_all(),
                    Ok(()) = set_backs.changed() => {
                        self.holdings.doubt_all();
                        // What was given back since may stand there again.
                        self.reporter.connected();
                    }
                    else => return,
                }
            }
        };
        let paying = async {
            loop {
                self.holdings.owing().await;
                loop {
                    sleep(AGAIN).await;
                    let owed = self.holdings.take_owed(BATCH);
                    if owed.is_empty() {
                        break;
                    }
                    self.pay(owed).await;
                }
            }
        };
        tokio::join!(watching, looking, doubting, paying);
    }

    fn watch(&self, id: RequestId) {
        let of = |holding: &Holding| {
            let marker = match &holding.kind {
                HoldingKind::Membership { marker, .. } => Some(marker.clone()),
                HoldingKind::Place(_) | HoldingKind::Grant => None,
            };
            (holding.key.clone(), marker, holding.revision + 1)
        };
        let Some((key, marker, from)) = self.holdings.all().get(&id).map(of) else { return };
        let holdings = Arc::clone(&self.holdings);
        let mut watches = vec![self.dispatch.watch(Scope::key(&key, from), move |notice| match notice {
            Notice::Ready { .. } => {}
            // New capabilities of one's own.
            Notice::Put(kv) if MemberRecord::read(&kv.value).is_some_and(|entry| entry.id == id) => {}
            Notice::Put(_) | Notice::Deleted { .. } | Notice::Gap => holdings.doubt(id),
        })];
        if let Some(marker) = marker {
            let holdings = Arc::clone(&self.holdings);
            watches.push(self.dispatch.watch(Scope::key(&marker, from), move |notice| match notice {
                Notice::Ready { .. } | Notice::Put(_) => {}
                Notice::Deleted { .. } | Notice::Gap => holdings.doubt(id),
            }));
        }
        let useless = match self.holdings.all().get_mut(&id) {
            Some(holding) => std::mem::replace(&mut holding.watches, watches),
            // It was given back in between.
            None => watches,
        };
        drop(useless);
    }

    /// Looks at all that is doubted, and tells what is gone.
    async fn look(&self) -> Result<()> {
        // Of a membership two keys are read.
        while let Some(doubts) = self.holdings.take_doubts(BATCH / 2) {
            if let Err(error) = self.look_at(&doubts.keys).await {
                self.holdings.restore_doubts(doubts);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Withdraws what could only be deleted while etcd took no writes.
    async fn pay(&self, owed: Vec<Vec<u8>>) {
        if let Err(error) = withdraw(&self.client, &self.lease, &owed).await
            && error.kind() != ErrorKind::Lost
        {
            self.holdings.restore_owed(owed);
        }
    }

    async fn look_at(&self, doubted: &[RequestId]) -> Result<()> {
        let keys: Vec<_> = {
            let all = self.holdings.all();
            doubted.iter().filter_map(|id| all.get(id).map(|holding| (*id, Question::about(holding)))).collect()
        };
        let mut reading = vec![get(one(&self.lease.key))];
        for (_, question) in &keys {
            reading.push(get(question.range.clone()));
            reading.extend(question.marker.as_ref().map(|marker| get(without_value(marker))));
        }
        let mut found = ranges(self.txn(TxnRequest { success: reading, ..TxnRequest::default() }).await?).into_iter();
        if found.next().is_none_or(|session| session.kvs.is_empty()) {
            self.reporter.session_lost("its key is gone: its lease has ended at the server, or the key was deleted");
            return Ok(());
        }
        for (id, question) in keys {
            let Some(there) = found.next() else { return Err(error::strange("a transaction without answers")) };
            let mut there = there.kvs.into_iter().next();
            if let Some(marker) = question.marker
                && found.next().is_none_or(|marker| marker.kvs.is_empty())
                && let Some(entry) = there.take_if(|entry| is_of(id, entry))
                && !self.take_out(&marker, &entry).await?
            {
                // It has changed since, or the group was made again.
                self.holdings.doubt(id);
                continue;
            }
            self.judge(id, there.as_ref());
        }
        Ok(())
    }

    /// Takes out the entry of a member whose group was deleted by force. Answers whether both were still as they were found.
    async fn take_out(&self, marker: &[u8], entry: &KeyValue) -> Result<bool> {
        let compare = vec![absent(marker), written_at(&entry.key, entry.mod_revision)];
        let txn = TxnRequest { compare, success: vec![delete(&entry.key)], failure: Vec::new() };
        Ok(self.txn(txn).await?.succeeded)
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse> {
        let asked = self.client.ask(Lane::First, |connection| {
            let request = request.clone();
            async move { connection.kv().txn(request).await }
        });
        Ok(asked.await?.message)
    }

    fn judge(&self, id: RequestId, found: Option<&KeyValue>) {
        enum Removal {
            No,
            Grant,
            Membership(GroupId),
        }
        let taken = match self.holdings.all().get(&id) {
            None => Removal::No,
            Some(holding) => match &holding.kind {
                HoldingKind::Place(waiter) => {
                    // The request that waits there looks for itself.
                    waiter.notify_one();
                    Removal::No
                }
                HoldingKind::Grant if found.is_some_and(|kv| kv.create_revision == holding.revision) => Removal::No,
                HoldingKind::Grant => Removal::Grant,
                HoldingKind::Membership { .. } if found.is_some_and(|kv| is_of(id, kv)) => Removal::No,
                HoldingKind::Membership { group, .. } => Removal::Membership(group.clone()),
            },
        };
        match taken {
            Removal::No => return,
            Removal::Grant => self.reporter.grant_lost(id),
            Removal::Membership(group) => self.reporter.membership_lost(&group, id),
        }
        drop(self.holdings.strike(id));
    }
}

/// What is read of a holding that is doubted.
struct Question {
    range: RangeRequest,
    marker: Option<Vec<u8>>,
}

impl Question {
    fn about(holding: &Holding) -> Self {
        match &holding.kind {
            // It may have changed hands.
            HoldingKind::Membership { marker, .. } => {
                Question { range: one(&holding.key), marker: Some(marker.clone()) }
            }
            // It is enough that it is the same.
            HoldingKind::Place(_) | HoldingKind::Grant => Question { range: without_value(&holding.key), marker: None },
        }
    }
}

/// Whether that is the entry of this join.
fn is_of(join: RequestId, there: &KeyValue) -> bool {
    MemberRecord::read(&there.value).is_some_and(|entry| entry.id == join)
}
