//! The session: how it begins, what it agreed upon with the ensemble, its heartbeat and its end.

use std::sync::Arc;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tooz_core::driver::{ConnectArgs, ConnectFuture, LockKey, Moment, Mutex, Owned, RequestId, Session, async_trait};
use tooz_core::{Characteristic, Characteristics, Checkup, LockName, Probe, Result, Terms};
use zookeeper_client::{CreateMode, Error as ZkError};

use crate::client::Client;
use crate::connection::Greeting;
use crate::gates::Gates;
use crate::holdings::Holdings;
use crate::layout::{self, Layout};
use crate::login::{Login, identity};
use crate::mailbox::{BeatFailure, Mailbox};
use crate::node_watch::NodeWatch;
use crate::options::Settings;
use crate::record::{self, LockRecord};
use crate::requests::Requests;
use crate::standstill::Standstill;
use crate::timing::Timing;
use crate::tree::Tree;
use crate::{batch, checkup};

/// What every ensemble gives. Each is defended in the README.
pub(crate) const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::MANY_HOSTS)
    .and(Characteristics::SEQUENTIAL)
    .with(Characteristic::HoldsAcrossRestart)
    .with(Characteristic::SameViewUnderPartitions);

pub(crate) struct ZooKeeperSession {
    pub(crate) client: Arc<Client>,
    pub(crate) layout: Layout,
    pub(crate) tree: Arc<Tree>,
    pub(crate) settings: Settings,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) gates: Gates,
    pub(crate) requests: Requests,
    pub(crate) mailbox: Arc<Mailbox>,
    node_watch: Arc<NodeWatch>,
    timing: Timing,
    standstill: Arc<Standstill>,
    /// What runs for as long as the session: it looks for standstills, reads the mail, and watches what is held.
    attendants: Mutex<Vec<AbortHandle>>,
    watches: Mutex<JoinSet<()>>,
}

pub(crate) fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let settings = Settings::read(&args, identity(&args.credentials.read().await?)?.as_ref())?;
        let greeting = Greeting {
            session_timeout: args.session_timeout,
            login: Login::new(args.credentials.clone()),
            certificates: settings.certificates.clone(),
            statement_timeout: args.statement_timeout(),
            operation_timeout: args.operation_timeout,
        };
        let hosts = settings.hosts.clone();
        let client = Arc::new(Client::connect(greeting, hosts, args.connect_timeout, args.reporter.clone()).await?);
        let (asked, negotiated) = (args.session_timeout, client.session_timeout());
        let timing = Timing { asked, negotiated, tick: settings.tick(asked, negotiated) };
        let layout = Layout::new(&settings.chroot, &args.namespace);
        let session = client.session_id();
        let own = layout::weight(&layout.mailbox(session)) + layout::weight(&layout.scratch(session));
        let holdings = Arc::new(Holdings::new(own, settings.heaviest_session()));
        let tree = Arc::new(Tree::new(Arc::clone(&client), layout.clone(), args.namespace, settings.access));
        let node_watch = Arc::new(NodeWatch {
            client: Arc::clone(&client),
            tree: Arc::clone(&tree),
            holdings: Arc::clone(&holdings),
            reporter: args.reporter.clone(),
        });
        let mailbox = Arc::new(Mailbox {
            client: Arc::clone(&client),
            tree: Arc::clone(&tree),
            holdings: Arc::clone(&holdings),
            node_watch: Arc::clone(&node_watch),
            reporter: args.reporter,
            member: args.member.clone(),
            timing,
        });
        let requests = Requests {
            client: Arc::clone(&client),
            tree: Arc::clone(&tree),
            holdings: Arc::clone(&holdings),
            member: args.member,
        };
        let standstill = Arc::new(Standstill::new(timing.tolerated_standstill()));
        let looking = Arc::clone(&standstill);
        let looking = tokio::spawn(async move { looking.run().await }).abort_handle();
        let session = ZooKeeperSession {
            client,
            layout,
            tree,
            settings,
            holdings,
            gates: Gates::new(),
            requests,
            mailbox,
            node_watch,
            timing,
            standstill,
            attendants: Mutex::new(vec![looking]),
            watches: Mutex::default(),
        };
        Ok(Arc::new(session) as Arc<dyn Session>)
    })
}

#[async_trait]
impl Session for ZooKeeperSession {
    fn terms(&self) -> Terms {
        Terms::new(Some(self.timing.negotiated), BEST).margin(self.timing.margin())
    }

    async fn open(&self) -> Result<()> {
        let standstill = self.recent_standstill();
        self.mailbox.open().await?;
        // Servers that are too old are found here, and not in the middle of something.
        self.owned().await?;
        if standstill.is_some() {
            // As a heartbeat would, it shows that the leader knows of the first one.
            sleep(self.timing.telling()).await;
            self.mailbox.open().await?;
        }
        let listening = tokio::spawn(Arc::clone(&self.mailbox).listen()).abort_handle();
        let watching = tokio::spawn(Arc::clone(&self.node_watch).run()).abort_handle();
        self.attendants.lock().extend([listening, watching]);
        Ok(())
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        let standstill = self.recent_standstill();
        let beaten = match self.mailbox.beat(standstill).await {
            // Its connection had logged in with a password that has been changed since; the next one is on its way.
            Err(BeatFailure::Moved) => self.mailbox.beat(standstill).await,
            beaten => beaten,
        };
        beaten.map_err(BeatFailure::into_error)
    }

    async fn owned(&self) -> Result<Owned> {
        let paths = self.tree.ephemerals().await?;
        let (mut locks, mut strange) = (Vec::new(), Vec::new());
        for path in paths {
            let Some((space, node, id)) = self.layout.parse_request(&path) else { continue };
            // The full name of one that stands there as a hash is known here, but for requests that were given up.
            match self.holdings.key(id).or_else(|| layout::key_of(space, layout::name_at(node)?)) {
                Some(key) => locks.push((key, id)),
                None => strange.push((space, id, path)),
            }
        }
        let nodes = &strange.iter().map(|(_, _, path)| path.clone()).collect::<Vec<_>>();
        let reading = self
            .client
            .ask("read the names of locks", |zookeeper| async move { batch::read_all(&zookeeper, nodes).await });
        for ((space, id, _), content) in strange.iter().zip(reading.await?) {
            let record = content.and_then(|(data, _)| record::read::<LockRecord>("the node of a lock", &data).ok());
            locks.extend(record.and_then(|record| layout::key_of(*space, record.name)).map(|key| (key, *id)));
        }
        Ok(Owned::new(locks))
    }

    async fn probe(&self, probe: Probe) -> Result<()> {
        let connection = self.client.connection().await?;
        let scratch = self.layout.scratch(self.client.session_id());
        let probing = async || {
            let zookeeper = connection.zookeeper()?;
            match probe {
                // Any user may ask whether the root exists.
                Probe::Read => zookeeper.check_stat("/").await.map(drop),
                Probe::Write => match zookeeper.set_data(&scratch, b"", None).await {
                    Err(ZkError::NoNode) => self.tree.make(&zookeeper, &scratch, CreateMode::Ephemeral).await,
                    written => written.map(drop),
                },
            }
        };
        let mut probed = connection.ask(probing()).await;
        if matches!(probed, Err(ZkError::NoNode)) {
            // The namespace was never used before.
            self.tree.settle(&connection).await?;
            probed = connection.ask(probing()).await;
        }
        probed.map_err(|why| self.client.failed("measure the round trip", why))
    }

    async fn check_up(&self) -> Result<Checkup> {
        let (certificates, buffer) = (self.settings.certificates.as_ref(), self.settings.buffer());
        let servers = checkup::ask_servers(self.client.hosts(), certificates, buffer).await?;
        let reading = self.client.ask("read the ensemble's configuration", |zookeeper| async move {
            match zookeeper.get_config().await {
                Ok((data, _)) => Ok(Some(data)),
                Err(ZkError::NoNode | ZkError::NoAuth) => Ok(None),
                Err(why) => Err(why),
            }
        });
        let configuration = reading.await?;
        let (most, used) = self.holdings.weights();
        // Of a name that stands there as it is; longer ones take less.
        let lock = LockName::new("x".repeat(layout::LONGEST)).map(|name| LockKey::lock(&name));
        let each = lock.map_or(1, |lock| self.layout.weight_of_request(&lock));
        let locks = most.saturating_sub(used) / each.max(1);
        let mut checkup = checkup::terms(Checkup::new(checkup::title(&servers)), self.timing);
        checkup = checkup::room(checkup, &servers, locks, most, buffer);
        if self.client.greeting().login.has_password() && certificates.is_none() {
            checkup = checkup::password_in_the_clear(checkup);
        }
        checkup = checkup::settings(checkup::modes(checkup, &servers), &servers, self.timing.tick);
        Ok(configuration.iter().fold(checkup, |checkup, configuration| checkup::voters(checkup, configuration)))
    }

    async fn close(&self) -> Result<()> {
        // First the session: a watch that is dropped before it is taken back by a request, and there may be ten thousand.
        let closed = self.client.close().await;
        self.stop();
        closed
    }
}

impl ZooKeeperSession {
    /// The end of a standstill after which the leader may know less of this session than the margin allows for.
    fn recent_standstill(&self) -> Option<Moment> {
        self.standstill.ended_within(self.timing.lag())
    }

    /// Runs a watch for as long as the session is there, and clears away those that have ended.
    pub(crate) fn spawn(&self, watch: impl Future<Output = ()> + Send + 'static) {
        let mut watches = self.watches.lock();
        while watches.try_join_next().is_some() {}
        watches.spawn(watch);
    }

    fn stop(&self) {
        self.attendants.lock().drain(..).for_each(|attendant| attendant.abort());
        self.watches.lock().abort_all();
    }
}

impl Drop for ZooKeeperSession {
    fn drop(&mut self) {
        self.stop();
    }
}
