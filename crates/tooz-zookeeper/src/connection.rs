//! One connection, from its handshake to its end. It never comes back: the client makes a new one for the same session.
//!
//! The client library would reconnect by itself, but it does not tell what timeout the next server has agreed to, loses
//! persistent watches on the way, and takes a session for expired by its own clock. So its task is ended with the connection.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use spawns_core::{Spawn, Task};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tooz_core::Error;
use tooz_core::driver::{Clock, Moment, Mutex};
use zookeeper_client::{
    Client as ZooKeeper, Error as ZkError, MultiWriteError, SessionInfo, SessionState, StateWatcher,
};

use crate::login::Login;
#[cfg(feature = "tls")]
use crate::relay::Relay;
use crate::timing::idle_timeout;
use crate::tls::{Certificates, TlsFailure};

/// What is said to every server that is connected to.
pub(crate) struct Greeting {
    pub(crate) session_timeout: Duration,
    pub(crate) login: Login,
    pub(crate) certificates: Option<Certificates>,
    /// The limit of one request.
    pub(crate) statement_timeout: Duration,
    /// The limit of core for what the user asks.
    pub(crate) operation_timeout: Duration,
}

/// One connection of a session.
pub(crate) struct Connection {
    /// Revoked away when the connection ends.
    zookeeper: Mutex<Option<ZooKeeper>>,
    states: StateWatcher,
    session: SessionInfo,
    session_timeout: Duration,
    gone: watch::Sender<bool>,
    given_up: Notify,
    greeting: Arc<Greeting>,
    /// As whom it logged in.
    identity: Option<String>,
    /// Before the server was greeted: the leader has heard of the session since.
    opened: Moment,
    tasks: Nursery,
}

/// Why there is no connection.
pub(crate) enum ConnectError {
    ZooKeeper(ZkError),
    /// It did not come to ZooKeeper's own words.
    Tls(TlsFailure),
    /// What is needed to connect can't be had: a file with a password or a certificate.
    Unprepared(Error),
}

impl From<ZkError> for ConnectError {
    fn from(why: ZkError) -> Self {
        ConnectError::ZooKeeper(why)
    }
}

impl Connection {
    /// Connects to one host, for a new session or for one that is to live on.
    pub(crate) async fn open(
        greeting: &Arc<Greeting>,
        host: &str,
        resumed: Option<&SessionInfo>,
        limit: Duration,
    ) -> Result<Self, ConnectError> {
        let opening = async {
            let identity = greeting.login.read().await.map_err(ConnectError::Unprepared)?;
            match &greeting.certificates {
                None => Self::greet(greeting, host, resumed, identity).await.map_err(ConnectError::ZooKeeper),
                Some(certificates) => Self::greet_by_tls(certificates, greeting, host, resumed, identity).await,
            }
        };
        timeout(limit, opening).await.unwrap_or(Err(ZkError::Timeout.into()))
    }

    #[cfg(not(feature = "tls"))]
    async fn greet_by_tls(
        certificates: &Certificates,
        _greeting: &Arc<Greeting>,
        host: &str,
        _resumed: Option<&SessionInfo>,
        _identity: Option<String>,
    ) -> Result<Self, ConnectError> {
        // Without the feature there is no such way.
        let tls = certificates.load().await.map_err(ConnectError::Unprepared)?;
        tls.dial(host).await.map_err(ConnectError::Tls).and(Err(ZkError::NoHosts.into()))
    }

    /// Connects to one host by TLS, through a relay to which the library connects.
    #[cfg(feature = "tls")]
    async fn greet_by_tls(
        certificates: &Certificates,
        greeting: &Arc<Greeting>,
        host: &str,
        resumed: Option<&SessionInfo>,
        identity: Option<String>,
    ) -> Result<Self, ConnectError> {
        let tls = certificates.load().await.map_err(ConnectError::Unprepared)?;
        let secured = tls.dial(host).await.map_err(ConnectError::Tls)?;
        let relay = Relay::start(secured).await.map_err(|why| {
            ConnectError::Tls(TlsFailure::Passing(format!("no relay to the client library can be made: {why}")))
        })?;
        match Self::greet(greeting, &relay.address().to_string(), resumed, identity).await {
            Ok(connection) => {
                relay.into_task().into_iter().for_each(|task| connection.tasks.keep(task));
                Ok(connection)
            }
            Err(why) => Err(relay.trouble().map_or(ConnectError::ZooKeeper(why), ConnectError::Tls)),
        }
    }

    async fn greet(
        greeting: &Arc<Greeting>,
        host: &str,
        resumed: Option<&SessionInfo>,
        identity: Option<String>,
    ) -> Result<Self, ZkError> {
        let (tasks, opened) = (Nursery::default(), Clock::boot_time().now());
        let mut connector = ZooKeeper::connector()
            .with_session_timeout(greeting.session_timeout)
            .with_connection_timeout(idle_timeout(greeting.session_timeout))
            .with_fail_eagerly();
        for identity in greeting.login.identities() {
            connector = connector.with_auth("digest", identity.as_bytes());
        }
        if let Some(session) = resumed {
            connector = connector.with_session(session.clone());
        }
        let zookeeper = {
            let mut connecting = pin!(connector.connect(host));
            // The library spawns its task while this is polled, and only then.
            std::future::poll_fn(|context| -> Poll<_> {
                let _scope = spawns_core::enter(&tasks);
                connecting.as_mut().poll(context)
            })
            .await?
        };
        Ok(Connection {
            states: zookeeper.state_watcher(),
            session: zookeeper.session().clone(),
            session_timeout: zookeeper.session_timeout(),
            zookeeper: Mutex::new(Some(zookeeper)),
            gone: watch::Sender::new(false),
            given_up: Notify::new(),
            greeting: Arc::clone(greeting),
            identity,
            opened,
            tasks,
        })
    }

    /// The session's id and password.
    pub(crate) fn session(&self) -> &SessionInfo {
        &self.session
    }

    /// What the server made of the session timeout.
    pub(crate) fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    /// When it began.
    pub(crate) fn opened(&self) -> Moment {
        self.opened
    }

    /// The library's client to ask with. It is not kept longer than one request: when the last one goes, the library ends the session.
    pub(crate) fn zookeeper(&self) -> Result<ZooKeeper, ZkError> {
        self.zookeeper.lock().as_ref().cloned().ok_or(ZkError::ConnectionLoss)
    }

    /// Waits for an answer: not longer than a statement may take, nor than the connection lives.
    pub(crate) async fn ask<T>(&self, answer: impl Future<Output = Result<T, ZkError>>) -> Result<T, ZkError> {
        self.ask_within(self.greeting.statement_timeout, answer).await
    }

    pub(crate) async fn ask_within<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, ZkError>>,
    ) -> Result<T, ZkError> {
        let answer = tokio::select! {
            biased;
            () = self.gone() => Err(ZkError::ConnectionLoss),
            answer = timeout(limit, answer) => answer.unwrap_or(Err(ZkError::Timeout)),
        };
        if matches!(answer, Err(ZkError::NoAuth)) && self.is_outdated().await {
            return Err(ZkError::SessionMoved);
        }
        answer
    }

    /// Waits for the answer to a transaction, which may be refused as a whole for one of its parts.
    pub(crate) async fn ask_to_change<T>(
        &self,
        answer: impl Future<Output = Result<Result<T, MultiWriteError>, ZkError>>,
    ) -> Result<Result<T, MultiWriteError>, ZkError> {
        let answer = self.ask(answer).await;
        if matches!(answer, Ok(Err(MultiWriteError::OperationFailed { source: ZkError::NoAuth, .. })))
            && self.is_outdated().await
        {
            return Err(ZkError::SessionMoved);
        }
        answer
    }

    /// Whether what was refused would be allowed to this process by now: its password was changed, and in its file too. Then it goes on over
    /// a connection that says so.
    async fn is_outdated(&self) -> bool {
        let is_outdated = self.greeting.login.has_changed_since(self.identity.as_ref()).await;
        if is_outdated {
            self.give_up();
        }
        is_outdated
    }

    /// Ends when nothing of this connection may be used any more. A wait for a watch asks this first: a watch panics
    /// when the library's task has ended before it.
    pub(crate) async fn gone(&self) {
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }

    /// Whether nothing of this connection may be used any more.
    pub(crate) fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Says that this server is of no use, although the connection may stand: the client goes on to the next one.
    pub(crate) fn give_up(&self) {
        self.given_up.notify_one();
    }

    /// Waits until the connection is lost or given up; answers what the session came to by the server's own word.
    pub(crate) async fn ended(&self) -> SessionState {
        let mut states = self.states.clone();
        tokio::select! {
            state = states.changed() => state,
            () = self.given_up.notified() => SessionState::Disconnected,
        }
    }

    /// Ends the connection and leaves the session to the server.
    pub(crate) fn abandon(&self) {
        // First all requests let go of it, then its task may go.
        self.gone.send_replace(true);
        self.zookeeper.lock().take();
        self.tasks.end();
    }

    /// Ends the session at the server, for as long as the connection lasts; the error says that the server has not answered.
    pub(crate) async fn close(&self) -> Result<(), ZkError> {
        let mut states = self.states.clone();
        // The library ends the session when the last client goes; the requests let go of theirs now. Watches that are dropped later than
        // that are not taken back one by one.
        self.zookeeper.lock().take();
        self.gone.send_replace(true);
        let closed = loop {
            match states.changed().await {
                SessionState::Closed | SessionState::Expired => break Ok(()),
                // The library would connect anew, and take the session for expired by its own clock.
                SessionState::Disconnected | SessionState::AuthFailed => break Err(ZkError::ConnectionLoss),
                _ => {}
            }
        };
        self.tasks.end();
        closed
    }
}

/// Keeps the tasks that the client library spawns, and the one that relays for it, so that they can be ended.
#[derive(Default)]
struct Nursery(Mutex<Vec<AbortHandle>>);

impl Nursery {
    fn keep(&self, task: AbortHandle) {
        self.0.lock().push(task);
    }

    fn end(&self) {
        for task in self.0.lock().drain(..) {
            task.abort();
        }
    }
}

impl Spawn for Nursery {
    fn spawn(&self, task: Task) {
        let task = tokio::spawn(Box::into_pin(task.future));
        self.keep(task.abort_handle());
    }
}

/// Why a host does not serve, in words. The client library does not say, so the host is asked once more without it.
pub(crate) async fn why_not(host: &str, why: &ZkError, limit: Duration) -> String {
    if *why == ZkError::Timeout {
        return format!("{host} does not answer within {limit:?}, it may have no quorum");
    }
    let patience = limit.min(Duration::from_millis(250));
    let hangs_up = || {
        format!(
            "{host} hangs up on every new connection: it may have as many as it takes from one client or altogether (maxClientCnxns, \
             maxCnxns), or what is there passes on to a server that is down ({why})"
        )
    };
    let mut stream = match timeout(patience, TcpStream::connect(host)).await {
        Err(_) => return format!("{host} can't be reached"),
        Ok(Err(failed)) if is_hang_up(&failed) => return hangs_up(),
        Ok(Err(failed)) => return format!("{host}: {failed}"),
        Ok(Ok(stream)) => stream,
    };
    // Without being told anything a server that has no quorum waits; one that has as many connections as it takes hangs up.
    match timeout(patience, stream.read_u8()).await {
        Err(_) | Ok(Ok(_)) => {
            format!("{host} takes connections but not sessions, it may be starting or have no quorum ({why})")
        }
        Ok(Err(_)) => hangs_up(),
    }
}

/// On a busy machine the server's hanging up may come before this process has seen the connection.
fn is_hang_up(why: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(why.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_connection_that_is_ended_at_once_is_no_missing_server() {
        // What Linux says of a connection whose other end has closed and reset it before the first look.
        assert!(is_hang_up(&io::Error::from_raw_os_error(32)) && is_hang_up(&io::Error::from_raw_os_error(104)));
        assert!(!is_hang_up(&io::ErrorKind::ConnectionRefused.into()));
    }
}
