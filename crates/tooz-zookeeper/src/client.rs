//! One connection after another, and the same session over all of them. Repeats the questions that may be repeated.
//!
//! | state | what is true | what comes next |
//! |---|---|---|
//! | `Up` | there is a connection that serves | `Down` when it ends or is given up, `Expired` when the server says so |
//! | `Down` | the next connection is being made | `Up`, or one of the ends |
//! | `Over` | the session is of no use any more, and may be there yet; a close begins with it | `Expired` by a close that is done |
//! | `Expired` | there is no session at the server | nothing |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tooz_core::driver::{Backoff, Reporter};
use tooz_core::{Error, ErrorKind, Result};
use zookeeper_client::{Client as ZooKeeper, Error as ZkError, SessionInfo, SessionState};

use crate::connection::{ConnectError, Connection, Greeting, why_not};
use crate::error::{self, ConnectTrouble};
use crate::tls::TlsFailure;
use crate::tries::Tries;

/// The way to the ensemble.
pub(crate) struct Client {
    connector: Arc<Connector>,
    reconnecting: AbortHandle,
}

/// What makes the connections of a session.
struct Connector {
    greeting: Arc<Greeting>,
    /// In an order of this coordinator's own, so that a fleet spreads over the ensemble.
    hosts: Vec<String>,
    session: SessionInfo,
    /// What the first server made of the session timeout: the ensemble keeps to it when its leader changes.
    session_timeout: Duration,
    state: watch::Sender<ClientState>,
    reporter: Reporter,
}

#[derive(Clone)]
enum ClientState {
    Up(Arc<Connection>),
    /// What the last attempt to make the next one came to, if there was one.
    Down(Option<Arc<ConnectTrouble>>),
    Over(Arc<str>),
    Expired(Arc<str>),
}

impl Client {
    /// Begins a session at the first host that serves. One round: core decides whether to try again.
    pub(crate) async fn connect(
        greeting: Greeting,
        mut hosts: Vec<String>,
        limit: Duration,
        reporter: Reporter,
    ) -> Result<Self> {
        let greeting = Arc::new(greeting);
        fastrand::shuffle(&mut hosts);
        // A host that hangs must leave time for the others, and for saying so.
        let share = limit * 9 / 10 / u32::try_from(hosts.len()).unwrap_or(u32::MAX);
        let (mut reasons, mut distrusted) = (Vec::new(), 0);
        for (at, host) in hosts.iter().enumerate() {
            match Connection::open(&greeting, host, None, share).await {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    let connector = Arc::new(Connector {
                        greeting,
                        session: connection.session().clone(),
                        session_timeout: connection.session_timeout(),
                        state: watch::Sender::new(ClientState::Up(Arc::clone(&connection))),
                        reporter,
                        hosts: hosts.clone(),
                    });
                    let reconnecting = tokio::spawn(Arc::clone(&connector).reconnect(connection, at)).abort_handle();
                    return Ok(Client { connector, reconnecting });
                }
                Err(ConnectError::ZooKeeper(why @ ZkError::AuthFailed)) => {
                    return Err(error::of(format_args!("connect to {host}"), why));
                }
                // A file that is missing is not there for any host.
                Err(ConnectError::Unprepared(why)) => return Err(why),
                Err(ConnectError::ZooKeeper(why)) => reasons.push(why_not(host, &why, share).await),
                Err(ConnectError::Tls(TlsFailure::Passing(why))) => reasons.push(format!("{host}: {why}")),
                Err(ConnectError::Tls(TlsFailure::Certificates(why))) => {
                    distrusted += 1;
                    reasons.push(format!("{host}: {why}"));
                }
            }
        }
        // As long as one may come back, waiting may help.
        Err(if distrusted == hosts.len() { error::distrusted(&reasons) } else { error::unreachable(&reasons) })
    }

    /// The session's id.
    pub(crate) fn session_id(&self) -> i64 {
        self.connector.session.id().0
    }

    /// What the ensemble made of the session timeout.
    pub(crate) fn session_timeout(&self) -> Duration {
        self.connector.session_timeout
    }

    pub(crate) fn greeting(&self) -> &Greeting {
        &self.connector.greeting
    }

    pub(crate) fn hosts(&self) -> &[String] {
        &self.connector.hosts
    }

    /// Tries of a change that others' changes may refuse: for nearly as long as core waits for it.
    pub(crate) fn tries(&self) -> Tries {
        Tries::within(self.connector.greeting.operation_timeout * 4 / 5)
    }

    /// The limit of one request.
    pub(crate) fn limit(&self) -> Duration {
        self.connector.greeting.statement_timeout
    }

    /// The connection, as soon as there is one; `Lost` when the session is over.
    ///
    /// Nothing that was sent over an earlier connection and not answered is done after this: the leader takes requests of a
    /// session from the server only that it was last seen at, and each server takes them in the order in which they came.
    pub(crate) async fn up(&self) -> Result<Arc<Connection>> {
        let mut states = self.connector.state.subscribe();
        let state = states.wait_for(|state| !matches!(state, ClientState::Down(_))).await.map(|state| state.clone());
        match state {
            Ok(ClientState::Up(connection)) => Ok(connection),
            Ok(ClientState::Over(why) | ClientState::Expired(why)) => Err(error::over(&why)),
            Ok(ClientState::Down(_)) | Err(_) => Err(error::over("the session has no connection any more")),
        }
    }

    /// The connection, as soon as there is one, within the limit of one request.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>> {
        self.up_within(self.limit()).await
    }

    /// The connection, as soon as there is one, within `limit`.
    pub(crate) async fn up_within(&self, limit: Duration) -> Result<Arc<Connection>> {
        timeout(limit, self.up()).await.unwrap_or_else(|_| Err(self.disconnected(limit)))
    }

    /// That there was no connection for so long, and why.
    pub(crate) fn disconnected(&self, limit: Duration) -> Error {
        match &*self.connector.state.borrow() {
            ClientState::Down(Some(trouble)) => error::disconnected(limit, Some(trouble)),
            _ => error::disconnected(limit, None),
        }
    }

    /// Asks something that may be asked again: once more on the next connection when this one is lost.
    pub(crate) async fn ask<T, F>(&self, what: &str, question: impl Fn(ZooKeeper) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, ZkError>>,
    {
        let end = Instant::now() + self.limit();
        loop {
            let connection = self.up_within(end.saturating_duration_since(Instant::now())).await?;
            let answer = match connection.zookeeper() {
                Ok(zookeeper) => connection.ask(question(zookeeper)).await,
                Err(why) => Err(why),
            };
            match answer {
                Err(why) if error::is_passing(&why) && Instant::now() < end => sleep(Duration::from_millis(10)).await,
                answer => return answer.map_err(|why| error::of(what, why)),
            }
        }
    }

    /// What a failed request comes to: that the session is over, if it is.
    pub(crate) fn failed(&self, what: impl fmt::Display, why: ZkError) -> Error {
        let over = match &*self.connector.state.borrow() {
            ClientState::Over(over) | ClientState::Expired(over) if error::is_passing(&why) => Some(error::over(over)),
            _ => None,
        };
        over.unwrap_or_else(|| error::of(what, why))
    }

    /// Ends the session at the server, over a connection that is made for it if need be. It takes as long as it takes, since a server may
    /// need seconds for the nodes of a full session: core sets the limit of a close. The next one asks the servers again.
    pub(crate) async fn close(&self) -> Result<()> {
        self.reconnecting.abort();
        let why: Arc<str> = "the session was closed".into();
        let before = self.connector.state.send_replace(ClientState::Over(Arc::clone(&why)));
        match before {
            ClientState::Expired(_) => {}
            ClientState::Up(connection) if connection.close().await.is_ok() => {}
            // It may be of no use and yet keep its locks until its timeout.
            ClientState::Up(_) | ClientState::Down(_) | ClientState::Over(_) => self.connector.close_anew().await,
        }
        self.connector.state.send_replace(ClientState::Expired(why));
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reconnecting.abort();
    }
}

impl Connector {
    /// Waits for the end of the connection and replaces it, until the session is over.
    async fn reconnect(self: Arc<Self>, mut connection: Arc<Connection>, mut at: usize) {
        loop {
            let state = connection.ended().await;
            if state == SessionState::Expired {
                connection.abandon();
                return self.end(ClientState::Expired, "the server says that the session has expired");
            }
            self.state.send_replace(ClientState::Down(None));
            connection.abandon();
            self.reporter.disconnected(error::cut_off());
            match self.resume(at + 1).await {
                Ok((resumed, host)) => {
                    (connection, at) = (Arc::new(resumed), host);
                    self.state.send_replace(ClientState::Up(Arc::clone(&connection)));
                    self.reporter.connected();
                }
                Err(SessionEnd::Expired(why)) => return self.end(ClientState::Expired, &why),
                Err(SessionEnd::OfNoUse(why)) => return self.end(ClientState::Over, &why),
            }
        }
    }

    fn end(&self, state: impl FnOnce(Arc<str>) -> ClientState, why: &str) {
        self.state.send_replace(state(why.into()));
        self.reporter.session_lost(why);
    }

    /// Ends the session at the first host that takes it, whatever that agrees to. Goes on until a server says that it has ended.
    async fn close_anew(&self) {
        let mut pauses = between_rounds();
        loop {
            for host in &self.hosts {
                match Connection::open(&self.greeting, host, Some(&self.session), self.limit()).await {
                    Ok(connection) if connection.close().await.is_ok() => return,
                    Err(ConnectError::ZooKeeper(ZkError::SessionExpired)) => return,
                    _ => {}
                }
            }
            pauses.pause().await;
        }
    }

    /// How long a host may take to take the session up: one that is starting may take a connection and never answer.
    fn limit(&self) -> Duration {
        (self.session_timeout / 5).max(Duration::from_millis(250))
    }

    /// Takes the session up again at the first host that serves, beginning with that number. Goes on until it works or the
    /// session is over; the error says why.
    async fn resume(&self, first: usize) -> Result<(Connection, usize), SessionEnd> {
        let mut pauses = between_rounds();
        let mut at = first;
        // One that hangs is left early at first: a request waits meanwhile as long as a statement may take. What is only slow gets more time
        // each time.
        let mut limit = self.limit().min(self.greeting.statement_timeout / 2);
        loop {
            for _ in 0..self.hosts.len() {
                let host = at % self.hosts.len();
                match self.resume_at(&self.hosts[host], limit).await {
                    Ok(connection) => return Ok((connection, host)),
                    Err(HostRefusal::Ended(why)) => return Err(why),
                    Err(HostRefusal::Next(trouble, pace)) => {
                        if pace == Pace::Hangs {
                            limit = (limit * 2).min(self.limit());
                        }
                        self.state.send_replace(ClientState::Down(Some(Arc::new(trouble))));
                        at += 1;
                    }
                }
            }
            pauses.pause().await;
        }
    }

    async fn resume_at(&self, host: &str, limit: Duration) -> Result<Connection, HostRefusal> {
        let connection = match Connection::open(&self.greeting, host, Some(&self.session), limit).await {
            Ok(connection) => connection,
            Err(ConnectError::ZooKeeper(ZkError::SessionExpired)) => {
                return Err(HostRefusal::Ended(SessionEnd::Expired(format!(
                    "{host} says that the session has expired"
                ))));
            }
            // What is refused now may be mended before the session ends: a password, a certificate, a file that was not there.
            Err(why) => return Err(HostRefusal::next(host, &why)),
        };
        let negotiated = connection.session_timeout();
        if negotiated < self.session_timeout {
            connection.abandon();
            // From now on the server may end it before the deadline that core counts on.
            return Err(HostRefusal::Ended(SessionEnd::OfNoUse(format!(
                "{host} agrees to a session timeout of {negotiated:?} only, where another server of the ensemble agreed to {:?}: \
                 give all of them the same maxSessionTimeout",
                self.session_timeout
            ))));
        }
        // This server may be behind the one before. What it shows after this is at least as new.
        let synced = match connection.zookeeper() {
            Ok(zookeeper) => connection.ask_within(limit, zookeeper.sync("/")).await,
            Err(why) => Err(why),
        };
        if let Err(why) = synced {
            connection.abandon();
            return Err(HostRefusal::next(host, &why.into()));
        }
        Ok(connection)
    }
}

impl ConnectTrouble {
    fn of(host: &str, why: &ConnectError) -> Self {
        let (kind, why) = match why {
            ConnectError::ZooKeeper(ZkError::AuthFailed) => {
                (ErrorKind::Unauthorized, "refuses the credentials".to_owned())
            }
            ConnectError::ZooKeeper(why) => (ErrorKind::Unavailable, format!("does not serve ({why})")),
            ConnectError::Tls(TlsFailure::Passing(why) | TlsFailure::Certificates(why)) => {
                (ErrorKind::Unavailable, why.clone())
            }
            ConnectError::Unprepared(why) => (ErrorKind::Unavailable, why.to_string()),
        };
        ConnectTrouble { kind, why: format!("{host}: {why}") }
    }
}

/// The pauses between two rounds over all hosts.
fn between_rounds() -> Backoff {
    Backoff::between(Duration::from_millis(10), Duration::from_millis(250))
}

/// Why a host does not take the session.
enum HostRefusal {
    Next(ConnectTrouble, Pace),
    Ended(SessionEnd),
}

/// How a host does not take it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// It says so, or no server is there.
    Answers,
    Hangs,
}

impl HostRefusal {
    fn next(host: &str, why: &ConnectError) -> Self {
        let pace = if matches!(why, ConnectError::ZooKeeper(ZkError::Timeout)) { Pace::Hangs } else { Pace::Answers };
        HostRefusal::Next(ConnectTrouble::of(host, why), pace)
    }
}

/// Why the session is over.
enum SessionEnd {
    /// There is none at the server.
    Expired(String),
    /// It may be there yet, and is given up.
    OfNoUse(String),
}
