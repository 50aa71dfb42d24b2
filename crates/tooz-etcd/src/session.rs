//! The session: what connecting checks, what opening makes, and the contract's methods, each handed to its room.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tooz_core::{
    Checkup, ConnectArgs, ConnectFuture, ErrorKind, FencingToken, Granted, GroupId, Holder, JoinRequest, LockKey,
    LockRequest, MemberId, Owned, Probe, PushStream, Reporter, RequestId, Result, Roster, Session, Terms, Wanted,
    async_trait,
};

use crate::cluster::{Cluster, Reply};
use crate::feed::Feed;
use crate::keys::{Keys, SessionRecord, write};
use crate::lease::Lease;
use crate::own::{Fresh, Keeper, Own};
use crate::proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use crate::request::one;
use crate::{DRIVER, checkup, error, options};

/// One client of the cluster. It owns nothing there before it is opened.
pub(crate) struct Etcd {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) keys: Keys,
    pub(crate) feed: Arc<Feed>,
    pub(crate) own: Own,
    pub(crate) member: MemberId,
    pub(crate) timeout: Duration,
    reporter: Reporter,
    /// For the keeper, which starts when the session is opened.
    fresh: Mutex<Option<Fresh>>,
    keeper: Mutex<Option<AbortHandle>>,
    opened: OnceLock<Opened>,
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
        cluster.log_in().await?;
        checkup::meet(&cluster, args.connect_timeout).await?;
        let (own, fresh) = Own::new();
        let session = Etcd {
            feed: Arc::new(Feed::new(Arc::clone(&cluster), args.session_timeout / 3)),
            cluster,
            keys: Keys::new(&args.namespace),
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
    pub(crate) fn opened(&self) -> Result<&Opened> {
        self.opened.get().ok_or_else(|| error::lost("the session was never opened"))
    }

    pub(crate) async fn txn(&self, request: &TxnRequest) -> Result<Reply<TxnResponse>> {
        let asked = self.cluster.ask(|line| {
            let request = request.clone();
            async move { line.kv().txn(request).await }
        });
        asked.await
    }

    pub(crate) async fn range(&self, request: &RangeRequest) -> Result<RangeResponse> {
        let asked = self.cluster.ask(|line| {
            let request = request.clone();
            async move { line.kv().range(request).await }
        });
        Ok(asked.await?.message)
    }

    /// Deletes one key; it is fine if there is none. Answers whether there was one.
    pub(crate) async fn delete(&self, key: &[u8]) -> Result<bool> {
        let asked = self.cluster.ask(|line| {
            let request = DeleteRangeRequest { key: key.into(), range_end: Vec::new() };
            async move { line.kv().delete_range(request).await }
        });
        Ok(asked.await?.message.deleted > 0)
    }

    /// Writes one key under a lease (0: none). Answers the revision.
    async fn put(&self, key: &[u8], value: &[u8], lease: i64) -> Result<i64> {
        let asked = self.cluster.ask(|line| {
            let request = PutRequest { key: key.into(), value: value.into(), lease };
            async move { line.kv().put(request).await }
        });
        Ok(asked.await?.message.header.map_or(0, |header| header.revision))
    }

    fn end_tasks(&self) {
        if let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.abort();
        }
        self.own.clear();
        self.feed.end();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.end_tasks();
    }
}

#[async_trait]
impl Session for Etcd {
    /// The timeout is what was asked for. The server may keep the lease longer (it counts in whole seconds, and not below one
    /// and a half of its election timeouts), never shorter: so whoever held something knows of the loss first.
    fn terms(&self) -> Terms {
        Terms::new(Some(self.timeout), DRIVER.most_characteristics())
    }

    async fn open(&self) -> Result<()> {
        let lease = Lease::new();
        let (id, key) = (lease.id, self.keys.session(lease.id));
        let record = write(&SessionRecord { member: &self.member })?;
        // Noted before it is asked for: whatever becomes of the answer, closing revokes it.
        let opened = self.opened.get_or_init(|| Opened { lease, key, record, version: AtomicI64::new(1) });
        opened.lease.grant(&self.cluster, self.timeout).await?;
        let since = self.put(&opened.key, &opened.record, id).await?;
        let keeper = Keeper {
            own: self.own.clone(),
            feed: Arc::clone(&self.feed),
            cluster: Arc::clone(&self.cluster),
            reporter: self.reporter.clone(),
            session_key: opened.key.clone(),
            since,
        };
        if let Some(fresh) = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).take() {
            *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper.start(fresh));
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

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        self.push_lock(key).await.map(Some)
    }

    async fn owned(&self) -> Result<Owned> {
        self.owned_requests().await
    }

    async fn probe(&self, probe: Probe) -> Result<()> {
        let key = self.keys.probe(self.probe);
        match probe {
            Probe::Read => self.range(&one(&key)).await.map(drop),
            Probe::Write => {
                self.has_probed.store(true, Ordering::Relaxed);
                // Under the lease, where there is one, so that not even a crash leaves it behind.
                let is_open = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                let lease = self.opened.get().filter(|_| is_open).map_or(0, |opened| opened.lease.id);
                self.put(&key, b"", lease).await.map(drop)
            }
        }
    }

    async fn check_up(&self) -> Result<Checkup> {
        checkup::look(&self.cluster, self.timeout).await
    }

    async fn close(&self) -> Result<()> {
        self.end_tasks();
        let ended = match self.opened.get() {
            Some(opened) => opened.lease.revoke(&self.cluster).await,
            None => Ok(()),
        };
        // One that was written before there was a lease.
        if self.has_probed.swap(false, Ordering::Relaxed) {
            let _ = self.delete(&self.keys.probe(self.probe)).await;
        }
        ended
    }
}
