//! The mailbox: one ephemeral node of each session, by which others tell it what they took from it. The heartbeat goes over it.
//!
//! A session that breaks a lock or takes a membership over writes it there in the same transaction. The version of the mailbox is
//! also what guards a membership: every take-over changes it, and so does every leave.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::driver::{Moment, Reporter, RequestId};
use tooz_core::{Error, MemberId, Result};
use zookeeper_client::{Client as ZooKeeper, CreateMode, Error as ZkError, MultiWriteError};

use crate::client::Client;
use crate::connection::Connection;
use crate::error;
use crate::holdings::Holdings;
use crate::node_watch::NodeWatch;
use crate::record::{self, MailRecord};
use crate::timing::Timing;
use crate::tree::Tree;

/// So much mail is listed for a session that does not read it. It reads at once, and with every heartbeat. Of what comes beyond, only that
/// is kept that it came, and the session compares all that it holds with what the server has.
const LISTED: usize = 64;

/// The mail of some session, as it was read.
pub(crate) struct Mail {
    pub(crate) path: String,
    pub(crate) version: i32,
    record: MailRecord,
}

impl Mail {
    /// The mail in the mailbox with that path; `None` where that is gone. The request is sent at the call.
    pub(crate) fn read(
        zookeeper: &ZooKeeper,
        path: String,
    ) -> impl Future<Output = Result<Option<Self>, ZkError>> + use<> {
        let answer = zookeeper.get_data(&path);
        async move {
            match answer.await {
                Ok((data, stat)) => Ok(Some(Mail { path, version: stat.version, record: readable(&data) })),
                Err(ZkError::NoNode) => Ok(None),
                Err(why) => Err(why),
            }
        }
    }

    /// What is to be written there after one more grant was broken.
    pub(crate) fn with_lock(mut self, request: RequestId) -> Result<Vec<u8>> {
        self.record.locks.push(request.to_string());
        self.written()
    }

    /// What is to be written there after one more entry was taken over.
    pub(crate) fn with_membership(mut self, join: RequestId) -> Result<Vec<u8>> {
        self.record.memberships.push(join.to_string());
        self.written()
    }

    /// What stands there, to be written once more so that its version grows.
    pub(crate) fn unchanged(&self) -> Result<Vec<u8>> {
        record::write(&self.record)
    }

    fn written(mut self) -> Result<Vec<u8>> {
        if self.record.overflowed || self.record.locks.len() + self.record.memberships.len() > LISTED {
            self.record = MailRecord { member: self.record.member, overflowed: true, ..MailRecord::default() };
        }
        record::write(&self.record)
    }
}

/// Mail as it stands there. Spoiled mail may have told of anything, and is replaced by readable mail that says so.
fn readable(data: &[u8]) -> MailRecord {
    record::read("mail", data).unwrap_or(MailRecord { overflowed: true, ..MailRecord::default() })
}

/// The mailbox of this session.
pub(crate) struct Mailbox {
    pub(crate) client: Arc<Client>,
    pub(crate) tree: Arc<Tree>,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) node_watch: Arc<NodeWatch>,
    pub(crate) reporter: Reporter,
    pub(crate) member: MemberId,
    pub(crate) timing: Timing,
}

impl Mailbox {
    fn path(&self) -> String {
        self.tree.layout.mailbox(self.client.session_id())
    }

    /// Makes the mailbox, if the namespace is kept in the layout that is spoken here. It is a committed write, and so as good as a
    /// heartbeat.
    pub(crate) async fn open(&self) -> Result<()> {
        let connection = self.client.connection().await?;
        let (path, empty) = (self.path(), self.empty_mail()?);
        let failed = |why| self.client.failed(format_args!("create {path}"), why);
        let mut tries = self.client.tries();
        while tries.next().await {
            let version = self.tree.settle(&connection).await?;
            let making = async {
                let zookeeper = connection.zookeeper()?;
                let mut transaction = zookeeper.new_multi_writer();
                transaction.add_check_version(self.tree.layout.root(), version)?;
                transaction.add_create(&path, &empty, &self.tree.made(CreateMode::Ephemeral))?;
                Ok(transaction.commit().await)
            };
            match connection.ask_to_change(making).await.map_err(failed)? {
                Ok(_) | Err(MultiWriteError::OperationFailed { source: ZkError::NodeExists, .. }) => return Ok(()),
                Err(MultiWriteError::OperationFailed { index: 1, source: ZkError::NoNode }) => {
                    // The branch was deleted by hand.
                    let branch = self.tree.layout.mail();
                    let making =
                        async { self.tree.make(&connection.zookeeper()?, &branch, CreateMode::Persistent).await };
                    connection.ask(making).await.map_err(failed)?;
                }
                Err(MultiWriteError::OperationFailed { source: ZkError::NoNode | ZkError::BadVersion, .. }) => {}
                Err(MultiWriteError::OperationFailed { source: ZkError::NoAuth, .. }) => {
                    return Err(self.tree.not_ours(&connection, failed(ZkError::NoAuth)).await);
                }
                Err(why) => return Err(failed(why.into())),
            }
        }
        Err(failed(ZkError::BadVersion))
    }

    /// One heartbeat: a transaction that finds the mailbox. It must be agreed upon by a majority and so can't be answered by a
    /// leader that was deposed and does not know it yet, as `sync` can. After a standstill it also shows that the leader knows
    /// of it: by a second one, or where the deadline is too near for that, by a new connection, of which the leader hears at once.
    pub(crate) async fn beat(&self, standstill: Option<Moment>) -> Result<Vec<RequestId>, BeatFailure> {
        // Short, so that another server can be tried before the deadline.
        let limit = self.client.limit().min(self.timing.negotiated / 5);
        let connection = self.client.up_within(limit).await?;
        let path = self.path();
        let beating = async || {
            let zookeeper = connection.zookeeper()?;
            let mut transaction = zookeeper.new_multi_writer();
            transaction.add_check_version(&path, -1)?;
            let committed = transaction.commit();
            let mail = zookeeper.get_data(&path);
            committed.await.map_err(ZkError::from)?;
            mail.await
        };
        let doubtful = standstill.is_some_and(|until| connection.opened() < until);
        // The server tells the leader of the first one before it sends a second one on to it that comes after this.
        let telling = self.timing.telling();
        if doubtful && telling > self.timing.left_for_a_beat() {
            connection.give_up();
            return Err(error::stood_still().into());
        }
        let mut beaten = connection.ask_within(limit, beating()).await;
        if doubtful && beaten.is_ok() {
            sleep(telling).await;
            beaten = connection.ask_within(limit, beating()).await;
        }
        match beaten {
            Ok((data, _)) => Ok(self.open_mail(&data).await?),
            // It was deleted by hand, with the mail that may have been in it.
            Err(ZkError::NoNode) => {
                self.open().await?;
                Ok(self.node_watch.compare_everything().await?)
            }
            Err(ZkError::SessionMoved) => Err(BeatFailure::Moved),
            Err(why) => {
                if error::is_passing(&why) {
                    connection.give_up();
                }
                Err(self.client.failed("heartbeat", why).into())
            }
        }
    }

    /// Reads the mail as soon as it comes, until the session is over.
    pub(crate) async fn listen(self: Arc<Self>) {
        let path = self.path();
        loop {
            let Ok(connection) = self.client.up().await else { return };
            let read = async { connection.zookeeper()?.get_and_watch_data(&path).await };
            match connection.ask(read).await {
                Ok((data, stat, watch)) => {
                    let Ok(broken) = self.open_mail(&data).await else {
                        // It is not thrown away before it is understood.
                        sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    for request in broken {
                        self.reporter.grant_lost(request);
                    }
                    self.clear_mail(&connection, &path, &data, stat.version).await;
                    tokio::select! {
                        biased;
                        () = connection.gone() => {}
                        _ = watch.changed() => {}
                        () = sleep(self.client.session_timeout()) => {}
                    }
                }
                // The next heartbeat makes it anew.
                Err(ZkError::NoNode) => sleep(self.client.limit()).await,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Throws away what was read. If there is newer mail by now, it stays, and is read next.
    async fn clear_mail(&self, connection: &Connection, path: &str, data: &[u8], version: i32) {
        let Ok(empty) = self.empty_mail() else { return };
        if data != empty {
            let clearing = async { connection.zookeeper()?.set_data(path, &empty, Some(version)).await };
            let _ = connection.ask(clearing).await;
        }
    }

    /// Tells of memberships that were taken over, and answers the requests whose grants were broken.
    async fn open_mail(&self, data: &[u8]) -> Result<Vec<RequestId>> {
        let mail = readable(data);
        for join in mail.memberships.iter().filter_map(|join| join.parse().ok()) {
            if let Some(group) = self.holdings.forget_join(join) {
                self.reporter.membership_lost(&group, join);
            }
        }
        let mut broken: Vec<RequestId> = mail.locks.iter().filter_map(|request| request.parse().ok()).collect();
        for request in &broken {
            self.holdings.forget(*request);
        }
        if mail.overflowed {
            broken.extend(self.node_watch.compare_everything().await?);
        }
        Ok(broken)
    }

    fn empty_mail(&self) -> Result<Vec<u8>, Error> {
        record::write(&MailRecord { member: self.member.as_str().to_owned(), ..MailRecord::default() })
    }
}

/// Why a heartbeat does not count.
pub(crate) enum BeatFailure {
    /// It goes over the next connection, which is made already.
    Moved,
    Failed(Error),
}

impl BeatFailure {
    pub(crate) fn into_error(self) -> Error {
        match self {
            BeatFailure::Moved => error::of("heartbeat", ZkError::SessionMoved),
            BeatFailure::Failed(error) => error,
        }
    }
}

impl From<Error> for BeatFailure {
    fn from(error: Error) -> Self {
        BeatFailure::Failed(error)
    }
}
