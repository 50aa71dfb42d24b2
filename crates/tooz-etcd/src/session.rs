//! The session: what connecting checks, what opening makes, and the contract's methods, each handed to its room.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::AbortHandle;
use tooz_core::driver::{
    ConnectArgs, ConnectFuture, Granted, Groups, JoinRequest, LockKey, LockRequest, Locks, Mutex, Owned, PushStream,
    Reporter, RequestId, Roster, Session, Wanted, async_trait,
};
use tooz_core::{Checkup, ErrorKind, FencingToken, GroupId, Holder, MemberId, Probe, Result, Terms};

use crate::cluster::{Cluster, Lane, Reply};
use crate::feed::Feed;
use crate::keys::{Keys, SessionRecord, write};
use crate::layout::Layout;
use crate::lease::Lease;
use crate::own::{BATCH, Fresh, Keeper, Own};
use crate::proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use crate::proto::mvccpb::KeyValue;
use crate::request::{delete, one, put, ranges};
use crate::{DRIVER, checkup, error, options};

/// One client of the cluster. It owns nothing there before it is opened.
pub(crate) struct Etcd {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) keys: Keys,
    pub(crate) layout: Layout,
    pub(crate) feed: Arc<Feed>,
    pub(crate) own: Own,
    pub(crate) member: MemberId,
    pub(crate) timeout: Duration,
    reporter: Reporter,
    /// For the keeper, which starts when the session is opened.
    fresh: Mutex<Option<Fresh>>,
    keeper: Mutex<Option<AbortHandle>>,
    opened: OnceLock<Arc<Opened>>,
    /// Whether the last beat failed.
    cut_off: AtomicBool,
    probe: u64,
    has_probed: AtomicBool,
}

/// What an open session has at the server.
pub(crate) struct Opened {
    pub(crate) lease: Lease,
    /// The session's own key, which lives as long as the lease.
    pub(crate) key: Vec<u8>,
    /// What stands there.
    pub(crate) record: Vec<u8>,
    /// How often the session's key was written: see `lock.rs` for what that guards against.
    version: AtomicI64,
}

impl Opened {
    pub(crate) fn version(&self) -> i64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn raise(&self, version: i64) {
        self.version.fetch_max(version, Ordering::AcqRel);
    }
}

pub(crate) fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let settings = options::read(&args)?;
        let cluster = Arc::new(Cluster::new(settings, args.connect_timeout, args.statement_timeout())?);
        let layout = Layout::new(&args.namespace)?;
        checkup::meet(&cluster, &layout, args.connect_timeout).await?;
        let (own, fresh) = Own::new();
        let (quiet, landmark) = (args.session_timeout / 3, layout.key().to_vec());
        let session = Etcd {
            feed: Arc::new(Feed::new(Arc::clone(&cluster), quiet, landmark)),
            cluster,
            keys: Keys::new(&args.namespace),
            layout,
            own,
            member: args.member,
            timeout: args.session_timeout,
            reporter: args.reporter,
            fresh: Mutex::new(Some(fresh)),
            keeper: Mutex::default(),
            opened: OnceLock::new(),
            cut_off: AtomicBool::new(false),
            probe: fastrand::u64(..),
            has_probed: AtomicBool::new(false),
        };
        Ok(Arc::new(session) as Arc<dyn Session>)
    })
}

impl Etcd {
    pub(crate) fn opened(&self) -> Result<&Arc<Opened>> {
        self.opened.get().ok_or_else(|| error::lost("the session was never opened"))
    }

    pub(crate) async fn txn(&self, lane: Lane, request: &TxnRequest) -> Result<Reply<TxnResponse>> {
        let before = self.cluster.history.seen();
        let asked = self.cluster.ask(lane, |line| {
            let request = request.clone();
            async move { line.kv().txn(request).await }
        });
        let reply = asked.await?;
        self.cluster.history.note(before, reply.message.header.as_ref());
        Ok(reply)
    }

    pub(crate) async fn range(&self, lane: Lane, request: &RangeRequest) -> Result<RangeResponse> {
        let before = self.cluster.history.seen();
        let asked = self.cluster.ask(lane, |line| {
            let request = request.clone();
            async move { line.kv().range(request).await }
        });
        let found = asked.await?.message;
        self.cluster.history.note(before, found.header.as_ref());
        Ok(found)
    }

    /// All keys of a range of which the first page was read at that revision. One request reads no more than a page: what is in
    /// one answer the server has in its memory at once.
    pub(crate) async fn rest(
        &self,
        range: &RangeRequest,
        first: RangeResponse,
        revision: i64,
    ) -> Result<Vec<KeyValue>> {
        let (mut more, mut kvs) = (first.more, first.kvs);
        while more && let Some(last) = kvs.last() {
            let mut key = last.key.clone();
            key.push(0);
            let size = kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum::<usize>() / kvs.len();
            let limit = i64::try_from(PAGE_SIZE / size.max(1)).unwrap_or(PAGE).clamp(1, PAGE);
            let next = self.range(Lane::Wish, &RangeRequest { key, revision, limit, ..range.clone() }).await?;
            more = next.more;
            kvs.extend(next.kvs);
        }
        Ok(kvs)
    }

    /// Deletes one key; it is fine if there is none. Answers whether there was one.
    pub(crate) async fn delete(&self, key: &[u8]) -> Result<Reply<bool>> {
        let before = self.cluster.history.seen();
        let asked = self.cluster.ask(Lane::Duty, |line| {
            let request = DeleteRangeRequest { key: key.into(), range_end: Vec::new() };
            async move { line.kv().delete_range(request).await }
        });
        let Reply { message, was_repeated } = asked.await?;
        self.cluster.history.note(before, message.header.as_ref());
        Ok(Reply { message: message.deleted > 0, was_repeated })
    }

    /// Writes one key under a lease (0: none).
    async fn put(&self, key: &[u8], value: &[u8], lease: i64) -> Result<()> {
        let asked = self.cluster.ask(Lane::First, |line| {
            let request = PutRequest { key: key.into(), value: value.into(), lease };
            async move { line.kv().put(request).await }
        });
        asked.await.map(drop)
    }

    /// Makes the session's key, in a namespace that is kept in this driver's layout. Answers the revision.
    async fn move_in(&self, opened: &Opened) -> Result<i64> {
        // Whoever else moves in at the same time writes the record once; it is not written a third time.
        for _ in 0..3 {
            let mut success = vec![put(&opened.key, opened.record.clone(), opened.lease.id)];
            success.extend(self.layout.record());
            let txn = TxnRequest { compare: vec![self.layout.unchanged()], success, failure: vec![self.layout.look()] };
            let reply = self.txn(Lane::First, &txn).await?.message;
            if reply.succeeded {
                return Ok(reply.header.map_or(0, |header| header.revision));
            }
            self.layout.learn(ranges(reply).first().and_then(|found| found.kvs.first()))?;
        }
        Err(error::strange("the record of the layout changes all the time"))
    }

    /// Deletes many keys with bounded work for the server in each request, for as long as there is time: etcd ends a lease with all its keys
    /// in one step, and does nothing else meanwhile.
    async fn clear_out(&self, keys: &[Vec<u8>]) {
        let deleting = async {
            for some in keys.chunks(BATCH) {
                let success = some.iter().map(|key| delete(key)).collect();
                if self.txn(Lane::First, &TxnRequest { success, ..TxnRequest::default() }).await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(self.cluster.limit() / 2, deleting).await;
    }

    /// Answers the keys that the session had.
    fn end_tasks(&self) -> Vec<Vec<u8>> {
        if let Some(keeper) = self.keeper.lock().take() {
            keeper.abort();
        }
        self.feed.end();
        self.own.clear()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.end_tasks();
    }
}

/// How many keys one request reads at most.
pub(crate) const PAGE: i64 = 1000;
/// How many bytes the pages after the first are to have.
const PAGE_SIZE: usize = 4 << 20;
/// How many keys etcd may end in one step: a matter of some milliseconds.
const MANY: usize = 500;

#[async_trait]
impl Session for Etcd {
    /// The timeout is what was asked for. The server may keep the lease longer (it counts in whole seconds, and not below one
    /// and a half of its election timeouts), never shorter: so whoever held something knows of the loss first.
    fn terms(&self) -> Terms {
        Terms::new(Some(self.timeout), DRIVER.most_characteristics())
    }

    async fn open(&self) -> Result<()> {
        let lease = Lease::new();
        let key = self.keys.session(lease.id);
        let record = write(&SessionRecord { member: &self.member })?;
        // Noted before it is asked for: whatever becomes of the answer, closing revokes it.
        let opened = self.opened.get_or_init(|| Arc::new(Opened { lease, key, record, version: AtomicI64::new(1) }));
        opened.lease.grant(&self.cluster, self.timeout).await?;
        let since = self.move_in(opened).await?;
        let keeper = Keeper {
            own: self.own.clone(),
            feed: Arc::clone(&self.feed),
            cluster: Arc::clone(&self.cluster),
            reporter: self.reporter.clone(),
            opened: Arc::clone(opened),
            since,
        };
        if let Some(fresh) = self.fresh.lock().take() {
            *self.keeper.lock() = Some(keeper.start(fresh));
        }
        Ok(())
    }

    /// What is taken by force is told by the keeper when it happens, not by the beat.
    async fn beat(&self) -> Result<Vec<RequestId>> {
        let opened = self.opened()?;
        let beaten = opened.lease.beat(&self.cluster, &opened.key).await;
        match &beaten {
            Ok(version) => {
                opened.raise(*version);
                if self.cut_off.swap(false, Ordering::Relaxed) {
                    self.reporter.connected();
                }
            }
            Err(error) if error.kind() == ErrorKind::Lost => {}
            Err(_) => {
                if !self.cut_off.swap(true, Ordering::Relaxed) {
                    self.reporter.disconnected();
                }
            }
        }
        beaten.map(|_| Vec::new())
    }

    async fn owned(&self) -> Result<Owned> {
        self.owned_requests().await
    }

    async fn probe(&self, probe: Probe) -> Result<()> {
        let key = self.keys.probe(self.probe);
        match probe {
            Probe::Read => self.range(Lane::First, &one(&key)).await.map(drop),
            Probe::Write => {
                self.has_probed.store(true, Ordering::Relaxed);
                // Under the lease, where there is one, so that not even a crash leaves it behind.
                let is_open = self.keeper.lock().is_some();
                let lease = self.opened.get().filter(|_| is_open).map_or(0, |opened| opened.lease.id);
                self.put(&key, b"", lease).await
            }
        }
    }

    async fn check_up(&self) -> Result<Checkup> {
        checkup::look(&self.cluster, &self.layout, self.timeout).await
    }

    async fn close(&self) -> Result<()> {
        let keys = self.end_tasks();
        let ended = match self.opened.get() {
            Some(opened) => {
                if keys.len() > MANY {
                    self.clear_out(&keys).await;
                }
                opened.lease.revoke(&self.cluster).await
            }
            None => Ok(()),
        };
        // One that was written before there was a lease.
        if self.has_probed.swap(false, Ordering::Relaxed) {
            let _ = self.delete(&self.keys.probe(self.probe)).await;
        }
        ended
    }
}

#[async_trait]
impl Locks for Etcd {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        self.try_to_lock(request).await
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        self.queue(request, wanted).await
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        self.give_back(request).await
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        self.holders_of(key).await
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        self.take_away(key, token).await
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        self.push_lock(key).await.map(Some)
    }
}

#[async_trait]
impl Groups for Etcd {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        self.make_group(group).await
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        self.remove_group(group).await
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        self.list_groups().await
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        self.enter_group(request).await
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        self.update_member(request).await
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        self.leave_group(request).await
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        self.list_members(group).await
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        self.push_group(group).await.map(Some)
    }
}
