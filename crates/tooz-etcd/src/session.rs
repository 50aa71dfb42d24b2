//! The session: what connecting checks, what opening makes, its heartbeat and its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::AbortHandle;
use tooz_core::driver::{ConnectArgs, ConnectFuture, Mutex, Owned, Reporter, RequestId, Session, async_trait};
use tooz_core::{Characteristic, Characteristics, Checkup, ErrorKind, MemberId, Probe, Result, Terms};

use crate::client::Client;
use crate::dispatch::Dispatch;
use crate::endpoints::Greeting;
use crate::holdings::{Confirmations, Holdings};
use crate::key_watch::KeyWatch;
use crate::lanes::Lane;
use crate::layout::Layout;
use crate::lease::Lease;
use crate::proto::etcdserverpb::{LeaseTimeToLiveRequest, StatusRequest, TxnRequest};
use crate::request::{BATCH, delete, one, put, ranges, revision_of};
use crate::watch_stream::WatchStream;
use crate::{checkup, error, options};

/// The most that a session promises. Each is defended in the README.
pub(crate) const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::MANY_HOSTS)
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .with(Characteristic::Serializable)
    .with(Characteristic::HoldsAcrossRestart);

/// How many keys etcd may end in one step: a matter of some milliseconds.
const MANY: usize = 500;

/// One session. It owns nothing at the cluster before it is opened.
pub(crate) struct EtcdSession {
    pub(crate) client: Arc<Client>,
    pub(crate) layout: Layout,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) member: MemberId,
    pub(crate) timeout: Duration,
    reporter: Reporter,
    watch_stream: AbortHandle,
    /// For the watch of the session's keys, which starts when the session is opened.
    confirmed: Mutex<Option<Confirmations>>,
    key_watch: Mutex<Option<AbortHandle>>,
    lease: OnceLock<Arc<Lease>>,
    /// Whether the last heartbeat failed.
    cut_off: AtomicBool,
    probe: u64,
    has_probed: AtomicBool,
}

pub(crate) fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let settings = options::read(&args)?;
        let client = Arc::new(Client::new(settings, args.connect_timeout, args.statement_timeout())?);
        let layout = Layout::new(&args.namespace)?;
        meet(&client, &layout, args.connect_timeout).await?;
        let dispatch = Arc::<Dispatch>::default();
        let (quiet, landmark) = (args.session_timeout / 3, layout.version_key().to_vec());
        let stream = WatchStream { client: Arc::clone(&client), dispatch: Arc::clone(&dispatch), quiet, landmark };
        let (holdings, confirmed) = Holdings::new();
        let session = EtcdSession {
            client,
            layout,
            dispatch,
            holdings: Arc::new(holdings),
            member: args.member,
            timeout: args.session_timeout,
            reporter: args.reporter,
            watch_stream: stream.start(),
            confirmed: Mutex::new(Some(confirmed)),
            key_watch: Mutex::default(),
            lease: OnceLock::new(),
            cut_off: AtomicBool::new(false),
            probe: fastrand::u64(..),
            has_probed: AtomicBool::new(false),
        };
        Ok(Arc::new(session) as Arc<dyn Session>)
    })
}

/// Finds out that an etcd is there, that it is young enough, that it has a leader and lets this user read, and that the namespace is kept in this
/// driver's layout.
async fn meet(client: &Client, layout: &Layout, limit: Duration) -> Result<()> {
    let greeting = client.endpoints.meet(limit).await.map_err(|error| error.context("ask etcd who it is"))?;
    client.log_in().await?;
    let status = match greeting {
        Greeting::Status(status) => status,
        Greeting::LogInFirst => {
            let asked = client
                .ask_within(limit, |connection| async move { connection.maintenance().status(StatusRequest {}).await });
            asked.await.map_err(|error| error.context("ask etcd who it is"))?.message
        }
    };
    checkup::check_version(&status.version)?;
    let before = client.history.seen();
    let read =
        client.ask_within(limit, |connection| async move { connection.kv().range(one(layout.version_key())).await });
    match read.await {
        Ok(reply) => {
            client.history.note(before, reply.message.header.as_ref());
            layout.learn(reply.message.kvs.first())
        }
        // A user that may read nothing here is told so by what is asked.
        Err(error) if error.kind() == ErrorKind::Unauthorized && error.to_string().contains("permission denied") => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl EtcdSession {
    /// What an open session has at the server.
    pub(crate) fn lease(&self) -> Result<&Arc<Lease>> {
        self.lease.get().ok_or_else(|| error::lost("the session was never opened"))
    }

    /// Makes the session's key, in a namespace that is kept in this driver's layout. Answers the revision.
    async fn move_in(&self, lease: &Lease) -> Result<i64> {
        // Another session that moves in at the same time writes the version once; it is not written a third time.
        for _ in 0..3 {
            let mut success = vec![put(&lease.key, lease.record.clone(), lease.id)];
            success.extend(self.layout.write_version());
            let txn = TxnRequest {
                compare: vec![self.layout.version_unchanged()],
                success,
                failure: vec![self.layout.read_version()],
            };
            let reply = self.client.txn(Lane::First, &txn).await?.message;
            if reply.succeeded {
                return Ok(revision_of(&reply));
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
                if self.client.txn(Lane::First, &TxnRequest { success, ..TxnRequest::default() }).await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(self.client.limit() / 2, deleting).await;
    }

    /// Answers the keys that the session had.
    fn end_tasks(&self) -> Vec<Vec<u8>> {
        if let Some(key_watch) = self.key_watch.lock().take() {
            key_watch.abort();
        }
        self.watch_stream.abort();
        self.dispatch.end();
        self.holdings.clear()
    }
}

impl Drop for EtcdSession {
    fn drop(&mut self) {
        self.end_tasks();
    }
}

#[async_trait]
impl Session for EtcdSession {
    /// The timeout is what was asked for. The server may keep the lease longer (it counts in whole seconds, and not below one
    /// and a half of its election timeouts), never shorter: so a holder knows of the loss first.
    fn terms(&self) -> Terms {
        Terms::new(Some(self.timeout), BEST)
    }

    async fn open(&self) -> Result<()> {
        // Noted before it is asked for: whatever becomes of the answer, closing revokes it.
        let new = Arc::new(Lease::new(&self.layout, &self.member)?);
        let lease = self.lease.get_or_init(|| new);
        lease.grant(&self.client, self.timeout).await?;
        let key_watch = KeyWatch {
            since: self.move_in(lease).await?,
            holdings: Arc::clone(&self.holdings),
            dispatch: Arc::clone(&self.dispatch),
            client: Arc::clone(&self.client),
            reporter: self.reporter.clone(),
            lease: Arc::clone(lease),
        };
        if let Some(confirmed) = self.confirmed.lock().take() {
            *self.key_watch.lock() = Some(key_watch.start(confirmed));
        }
        Ok(())
    }

    /// What is taken by force is told by the watch of the session's keys when it happens, not by the heartbeat.
    async fn beat(&self) -> Result<Vec<RequestId>> {
        let beaten = self.lease()?.beat(&self.client).await;
        match &beaten {
            Ok(()) => {
                if self.cut_off.swap(false, Ordering::Relaxed) {
                    self.reporter.connected();
                }
            }
            Err(error) if error.kind() == ErrorKind::Lost => {}
            Err(error) => {
                if !self.cut_off.swap(true, Ordering::Relaxed) {
                    self.reporter.disconnected(error.clone());
                }
            }
        }
        beaten.map(|()| Vec::new())
    }

    /// All keys of the lease are in the lease's own list.
    async fn owned(&self) -> Result<Owned> {
        let request = LeaseTimeToLiveRequest { id: self.lease()?.id, keys: true };
        let asked = self
            .client
            .ask(Lane::First, |connection| async move { connection.lease().lease_time_to_live(request).await });
        let found = asked.await?.message;
        // Whole seconds: zero is a lease that lives for a part of one.
        if found.ttl < 0 {
            return Err(error::lost("the lease has ended at the server"));
        }
        Ok(Owned::new(found.keys.iter().filter_map(|key| self.layout.request_of(key)).collect()))
    }

    async fn probe(&self, probe: Probe) -> Result<()> {
        let key = self.layout.probe(self.probe);
        match probe {
            Probe::Read => self.client.range(Lane::First, &one(&key)).await.map(drop),
            Probe::Write => {
                self.has_probed.store(true, Ordering::Relaxed);
                // Under the lease, where there is one, so that not even a crash leaves it behind.
                let is_open = self.key_watch.lock().is_some();
                let lease = self.lease.get().filter(|_| is_open).map_or(0, |lease| lease.id);
                self.client.put(&key, b"", lease).await
            }
        }
    }

    async fn check_up(&self) -> Result<Checkup> {
        checkup::check_up(&self.client, &self.layout, self.timeout).await
    }

    async fn close(&self) -> Result<()> {
        let keys = self.end_tasks();
        let ended = match self.lease.get() {
            Some(lease) => {
                if keys.len() > MANY {
                    self.clear_out(&keys).await;
                }
                lease.revoke(&self.client).await
            }
            None => Ok(()),
        };
        // One that was written before there was a lease.
        if self.has_probed.swap(false, Ordering::Relaxed) {
            let _ = self.client.delete(&self.layout.probe(self.probe)).await;
        }
        ended
    }
}
