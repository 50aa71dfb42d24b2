//! The session: what it agreed upon with the ensemble, its heartbeat, and the way from each call to its room.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tooz_core::driver::{
    ConnectArgs, ConnectFuture, Granted, Groups, JoinRequest, LockKey, LockRequest, Locks, Moment, Mutex, Owned,
    PushStream, Reporter, RequestId, Roster, Session, Wanted, async_trait,
};
use tooz_core::{Checkup, Error, FencingToken, GroupId, Holder, MemberId, Namespace, Probe, Result, Terms};
use zookeeper_client::{Client, CreateMode, CreateOptions, Error as Zk};

use crate::connection::Greeting;
use crate::gates::{Gate, Gates};
use crate::holdings::Holdings;
use crate::layout::{self, Layout};
use crate::link::Link;
use crate::options::{Settings, identity};
use crate::pulse::Pulse;
use crate::{DRIVER, error};

struct ZooKeeperSession {
    inner: Arc<Inner>,
    pulse: AbortHandle,
    /// What listens to mail, and what watches over all that is held.
    attendants: Mutex<Vec<AbortHandle>>,
    feeds: Mutex<JoinSet<()>>,
}

/// What all rooms share.
pub(crate) struct Inner {
    pub(crate) link: Link,
    pub(crate) layout: Layout,
    pub(crate) settings: Settings,
    pub(crate) namespace: Namespace,
    pub(crate) member: MemberId,
    pub(crate) reporter: Reporter,
    /// The limit of one request.
    pub(crate) limit: Duration,
    pub(crate) pulse: Pulse,
    pub(crate) holdings: Holdings,
    pub(crate) gates: Gates,
    /// The namespace was found to be kept in the layout that is spoken here.
    pub(crate) is_settled: AtomicBool,
}

pub(crate) fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let settings = Settings::read(&args, identity(&args.credentials.read().await?)?.as_ref())?;
        let greeting = Arc::new(Greeting {
            session_timeout: args.session_timeout,
            credentials: args.credentials.clone(),
            identities: Mutex::default(),
            certificates: settings.certificates.clone(),
            statement_timeout: args.statement_timeout(),
        });
        let link = Link::connect(greeting, settings.hosts.clone(), args.connect_timeout, args.reporter.clone()).await?;
        let pulse = Pulse::new(tolerated_standstill(&link));
        let layout = Layout::new(&settings.chroot, &args.namespace);
        let session = link.session().id().0;
        let own = layout::weight(&layout.mailbox(session)) + layout::weight(&layout.scratch(session));
        let inner = Inner {
            link,
            pulse,
            layout,
            gates: Gates::new(),
            holdings: Holdings::new(own, settings.heaviest_session()),
            settings,
            namespace: args.namespace.clone(),
            limit: args.statement_timeout(),
            member: args.member,
            reporter: args.reporter,
            is_settled: AtomicBool::new(false),
        };
        let inner = Arc::new(inner);
        let watched = Arc::clone(&inner);
        let pulse = tokio::spawn(async move { watched.pulse.run().await }).abort_handle();
        let session = ZooKeeperSession { inner, pulse, attendants: Mutex::default(), feeds: Mutex::default() };
        Ok(Arc::new(session) as Arc<dyn Session>)
    })
}

impl Inner {
    /// Asks something that may be asked again: once more on the next connection when this one is lost.
    pub(crate) async fn look<T, F>(&self, what: &str, question: impl Fn(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Zk>>,
    {
        let end = Instant::now() + self.limit;
        loop {
            let connection = self.link.up_within(end.saturating_duration_since(Instant::now())).await?;
            let answer = match connection.client() {
                Ok(client) => connection.ask(question(client)).await,
                Err(why) => Err(why),
            };
            match answer {
                Err(why) if error::is_passing(&why) && Instant::now() < end => sleep(Duration::from_millis(10)).await,
                answer => return answer.map_err(|why| error::of(what, why)),
            }
        }
    }

    /// What a failed question comes to: that the session is over, if it is.
    pub(crate) fn failed(&self, what: impl fmt::Display, why: Zk) -> Error {
        let over = if error::is_passing(&why) { self.link.over() } else { None };
        over.unwrap_or_else(|| error::of(what, why))
    }

    /// How a node of this kind is made.
    pub(crate) fn made(&self, mode: CreateMode) -> CreateOptions<'static> {
        mode.with_acls(self.settings.access.acls())
    }

    /// Makes a node and those above it in the namespace, where they are missing. Begins at the lowest: who may write below a node need not
    /// be allowed to make its neighbours. Without the namespace itself it is `NoNode`: see [`settle`](Self::settle).
    pub(crate) async fn make(&self, client: &Client, path: &str, mode: CreateMode) -> Result<(), Zk> {
        let mut missing = vec![path];
        while let Some(next) = missing.last() {
            let mode = if *next == path { mode } else { CreateMode::Persistent };
            match client.create(next, b"", &self.made(mode)).await {
                Ok(_) | Err(Zk::NodeExists) => _ = missing.pop(),
                Err(Zk::NoNode) => match next.rsplit_once('/') {
                    Some((above, _)) if above.len() > self.layout.root().len() => missing.push(above),
                    _ => return Err(Zk::NoNode),
                },
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// The longest time by which the leader's knowledge of this session may lag behind: the servers tell it of pings once in
    /// half a tick, and a ping may be a while ago, a little longer where this process did not run in between.
    pub(crate) fn lag(&self) -> Duration {
        let silence = self.link.greeting().longest_silence(self.link.session_timeout());
        silence + tolerated_standstill(&self.link) + self.telling()
    }

    /// The end of a standstill after which the leader may know less of this session than the margin allows for.
    fn standstill(&self) -> Option<Moment> {
        self.pulse.stood_still_within(self.lag())
    }

    pub(crate) fn margin(&self) -> Duration {
        self.lag().max(self.link.session_timeout() / 4)
    }

    /// The servers' tick, as well as it is known.
    pub(crate) fn tick(&self) -> Duration {
        self.settings.tick(self.link.greeting().session_timeout, self.link.session_timeout())
    }

    /// After how long the servers have told their leader which sessions are alive: they do so twice in a tick.
    pub(crate) fn telling(&self) -> Duration {
        self.tick().mul_f64(0.6)
    }
}

#[async_trait]
impl Session for ZooKeeperSession {
    fn terms(&self) -> Terms {
        let timeout = self.inner.link.session_timeout();
        Terms::new(Some(timeout), DRIVER.most_characteristics()).margin(self.inner.margin())
    }

    async fn open(&self) -> Result<()> {
        let standstill = self.inner.standstill();
        self.inner.open_mailbox().await?;
        // Servers that are too old are found here, and not in the middle of something.
        self.inner.owned().await?;
        if standstill.is_some() {
            // As a heartbeat would, it shows that the leader knows of the first one.
            sleep(self.inner.telling()).await;
            self.inner.open_mailbox().await?;
        }
        let listening = tokio::spawn(Arc::clone(&self.inner).listen()).abort_handle();
        let watching = tokio::spawn(Arc::clone(&self.inner).keep_vigil()).abort_handle();
        *self.attendants.lock() = vec![listening, watching];
        Ok(())
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        self.inner.beat_after(self.inner.standstill()).await
    }

    async fn owned(&self) -> Result<Owned> {
        self.inner.owned().await
    }

    async fn probe(&self, probe: Probe) -> Result<()> {
        self.inner.probe(probe).await
    }

    async fn check_up(&self) -> Result<Checkup> {
        self.inner.check_up().await
    }

    async fn close(&self) -> Result<()> {
        // First the session: a watch that is dropped before it is taken back by a request, and there may be ten thousand.
        let closed = self.inner.link.close().await;
        self.stop();
        closed
    }
}

#[async_trait]
impl Locks for ZooKeeperSession {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        let _turn = self.inner.gates.pass(Gate::Enter).await;
        self.inner.try_lock(request).await
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        self.inner.lock(request, wanted).await
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        let _turn = self.inner.gates.pass(Gate::Leave).await;
        self.inner.release(request).await
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        let _turn = self.inner.gates.pass(Gate::Groups).await;
        self.inner.holders(key).await
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        self.inner.break_lock(key, token).await
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        let (feed, stream) = self.inner.watch_lock(key);
        self.spawn(feed.run());
        Ok(Some(stream))
    }
}

#[async_trait]
impl Groups for ZooKeeperSession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        self.inner.create_group(group).await
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        self.inner.delete_group(group).await
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        self.inner.groups().await
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        let _turn = self.inner.gates.pass(Gate::Groups).await;
        self.inner.join(request).await
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        let _turn = self.inner.gates.pass(Gate::Groups).await;
        self.inner.update(request).await
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        let _turn = self.inner.gates.pass(Gate::Leave).await;
        self.inner.leave(request).await
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let _turn = self.inner.gates.pass(Gate::Groups).await;
        self.inner.members(group).await
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        let (feed, stream) = self.inner.watch_group(group).await?;
        self.spawn(feed.run());
        Ok(Some(stream))
    }
}

/// How long this process may stand still without more ado.
fn tolerated_standstill(link: &Link) -> Duration {
    link.greeting().longest_silence(link.session_timeout()) / 2
}

impl ZooKeeperSession {
    /// Runs a feed for as long as the session is there, and clears away those that have ended.
    fn spawn(&self, feed: impl Future<Output = ()> + Send + 'static) {
        let mut feeds = self.feeds.lock();
        while feeds.try_join_next().is_some() {}
        feeds.spawn(feed);
    }

    fn stop(&self) {
        self.pulse.abort();
        self.attendants.lock().drain(..).for_each(|attendant| attendant.abort());
        self.feeds.lock().abort_all();
    }
}

impl Drop for ZooKeeperSession {
    fn drop(&mut self) {
        self.stop();
    }
}
