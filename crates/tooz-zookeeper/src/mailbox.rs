//! The mailbox: one ephemeral node of each session, by which others tell it what they took from it. The heartbeat goes over it.
//!
//! Whoever breaks a lock or takes a membership over writes it there in the same transaction. The version of the mailbox is
//! also what guards a membership: every take-over changes it, and so does every leave.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::driver::{Moment, RequestId};
use tooz_core::{Error, Result};
use zookeeper_client::{Client, CreateMode, Error as Zk, MultiWriteError};

use crate::error;
use crate::record::{self, MailRecord};
use crate::session::Inner;

/// So much mail is listed for a session that does not read it. It reads at once, and with every heartbeat. Of what comes beyond, only that
/// is kept that it came, and the session compares all that it holds with what the server has.
const LISTED: usize = 64;

/// How often a mailbox is made again where others change what it stands on.
const ATTEMPTS: usize = 5;

/// The mailbox of some session, as it was read.
pub(crate) struct Mailbox {
    pub(crate) path: String,
    pub(crate) version: i32,
    record: MailRecord,
}

impl Mailbox {
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

    /// The same once more, so that its version grows.
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

impl Inner {
    fn own_mailbox(&self) -> String {
        self.layout.mailbox(self.link.session().id().0)
    }

    /// Makes the mailbox, if the namespace is kept in the layout that is spoken here. It is a committed write, and so as good as a
    /// heartbeat.
    pub(crate) async fn open_mailbox(&self) -> Result<()> {
        let connection = self.link.up_within(self.limit).await?;
        let (path, empty) = (self.own_mailbox(), self.empty_mail()?);
        let failed = |why| self.failed(format_args!("create {path}"), why);
        for _ in 0..ATTEMPTS {
            let version = self.settle(&connection).await?;
            let making = async {
                let client = connection.client()?;
                let mut transaction = client.new_multi_writer();
                transaction.add_check_version(self.layout.root(), version)?;
                transaction.add_create(&path, &empty, &self.made(CreateMode::Ephemeral))?;
                Ok(transaction.commit().await)
            };
            match connection.ask_to_change(making).await.map_err(failed)? {
                Ok(_) | Err(MultiWriteError::OperationFailed { source: Zk::NodeExists, .. }) => return Ok(()),
                Err(MultiWriteError::OperationFailed { index: 1, source: Zk::NoNode }) => {
                    // Somebody deleted the branch by hand.
                    let branch = self.layout.mail();
                    let making = async { self.make(&connection.client()?, &branch, CreateMode::Persistent).await };
                    connection.ask(making).await.map_err(failed)?;
                }
                Err(MultiWriteError::OperationFailed { source: Zk::NoNode | Zk::BadVersion, .. }) => {}
                Err(MultiWriteError::OperationFailed { source: Zk::NoAuth, .. }) => {
                    return Err(self.not_ours(&connection, failed(Zk::NoAuth)).await);
                }
                Err(why) => return Err(failed(why.into())),
            }
        }
        Err(failed(Zk::BadVersion))
    }

    /// One heartbeat: a transaction that finds the mailbox. It must be agreed upon by a majority and so can't be answered by a
    /// leader that was deposed and does not know it yet, as `sync` can. After a standstill it also shows that the leader knows
    /// of it: by a second one, or where the deadline is too near for that, by a new connection, of which the leader hears at once.
    pub(crate) async fn beat_after(&self, standstill: Option<Moment>) -> Result<Vec<RequestId>> {
        match self.beat_once(standstill).await {
            // Its connection had logged in with a password that has been changed since; the next one is on its way.
            Err(Beaten::Moved) => self.beat_once(standstill).await.map_err(Beaten::into_error),
            beaten => beaten.map_err(Beaten::into_error),
        }
    }

    async fn beat_once(&self, standstill: Option<Moment>) -> Result<Vec<RequestId>, Beaten> {
        // Short, so that another server can be tried before the deadline.
        let limit = self.limit.min(self.link.session_timeout() / 5);
        let connection = self.link.up_within(limit).await?;
        let path = self.own_mailbox();
        let beating = async || {
            let client = connection.client()?;
            let mut transaction = client.new_multi_writer();
            transaction.add_check_version(&path, -1)?;
            let committed = transaction.commit();
            let mail = client.get_data(&path);
            committed.await.map_err(Zk::from)?;
            mail.await
        };
        let doubtful = standstill.is_some_and(|until| connection.opened() < until);
        // The server tells the leader of the first one before it sends a second one on to it that comes after this.
        let telling = self.telling();
        // What is left to the deadline when a heartbeat is due, less a tenth for the heartbeats themselves.
        let timeout = self.link.session_timeout();
        let left = (timeout * 2 / 3).saturating_sub(self.margin() + timeout / 10);
        if doubtful && telling > left {
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
            // Somebody deleted it by hand, and what may have been in it.
            Err(Zk::NoNode) => {
                self.open_mailbox().await?;
                Ok(self.compare_everything().await?)
            }
            Err(Zk::SessionMoved) => Err(Beaten::Moved),
            Err(why) => {
                if error::is_passing(&why) {
                    connection.give_up();
                }
                Err(self.failed("heartbeat", why).into())
            }
        }
    }

    /// Reads the mail as soon as it comes, until the session is over.
    pub(crate) async fn listen(self: Arc<Self>) {
        let path = self.own_mailbox();
        loop {
            let Ok(connection) = self.link.up().await else { return };
            let read = async { connection.client()?.get_and_watch_data(&path).await };
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
                        () = sleep(self.link.session_timeout()) => {}
                    }
                }
                // The next heartbeat makes it anew.
                Err(Zk::NoNode) => sleep(self.limit).await,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Throws away what was read. If there is newer mail by now, it stays, and is read next.
    async fn clear_mail(&self, connection: &crate::connection::Connection, path: &str, data: &[u8], version: i32) {
        let Ok(empty) = self.empty_mail() else { return };
        if data != empty {
            let clearing = async { connection.client()?.set_data(path, &empty, Some(version)).await };
            let _ = connection.ask(clearing).await;
        }
    }

    /// Tells of memberships that were taken over, and answers the requests whose grants were broken.
    async fn open_mail(&self, data: &[u8]) -> Result<Vec<RequestId>> {
        // Spoiled mail may have told of anything.
        let mail = record::read("mail", data).unwrap_or(MailRecord { overflowed: true, ..MailRecord::default() });
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
            broken.extend(self.compare_everything().await?);
        }
        Ok(broken)
    }

    fn empty_mail(&self) -> Result<Vec<u8>, Error> {
        record::write(&MailRecord { member: self.member.as_str().to_owned(), ..MailRecord::default() })
    }

    /// The mailbox of the session with that id; `None` where it is gone. The request is sent at the call.
    pub(crate) fn mailbox_of(
        &self,
        client: &Client,
        session: i64,
    ) -> impl Future<Output = Result<Option<Mailbox>, Zk>> + use<> {
        let path = self.layout.mailbox(session);
        let answer = client.get_data(&path);
        async move {
            match answer.await {
                // Spoiled mail is replaced by readable mail that says so.
                Ok((data, stat)) => {
                    let spoiled = MailRecord { overflowed: true, ..MailRecord::default() };
                    let record = record::read("mail", &data).unwrap_or(spoiled);
                    Ok(Some(Mailbox { path, version: stat.version, record }))
                }
                Err(Zk::NoNode) => Ok(None),
                Err(why) => Err(why),
            }
        }
    }
}

/// Why a heartbeat does not count.
enum Beaten {
    /// It goes over the next connection, which is made already.
    Moved,
    Failed(Error),
}

impl Beaten {
    fn into_error(self) -> Error {
        match self {
            Beaten::Moved => error::of("heartbeat", Zk::SessionMoved),
            Beaten::Failed(error) => error,
        }
    }
}

impl From<Error> for Beaten {
    fn from(error: Error) -> Self {
        Beaten::Failed(error)
    }
}
