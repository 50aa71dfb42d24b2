//! The way to the ensemble: one connection at a time, and the same session over all of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tooz_core::{Reporter, Result};
use zookeeper_client::{Error as Zk, SessionInfo, SessionState};

use crate::connection::{Connection, Greeting, Unopened};
use crate::error;
use crate::tls::Refused;

/// The pauses between two rounds over all hosts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

pub(crate) struct Link {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

struct Shared {
    greeting: Greeting,
    /// In an order of this coordinator's own, so that a fleet spreads over the ensemble.
    hosts: Vec<String>,
    session: SessionInfo,
    /// What the first server made of the session timeout: the ensemble keeps to it when its leader changes.
    session_timeout: Duration,
    state: watch::Sender<State>,
    reporter: Reporter,
}

#[derive(Clone)]
enum State {
    Up(Arc<Connection>),
    Down,
    /// The session has ended, and why.
    Over(Arc<str>),
}

impl Link {
    /// Begins a session at the first host that serves. One round: core decides whether to try again.
    pub(crate) async fn connect(
        greeting: Greeting,
        mut hosts: Vec<String>,
        limit: Duration,
        reporter: Reporter,
    ) -> Result<Self> {
        fastrand::shuffle(&mut hosts);
        // A host that hangs must leave time for the others, and for saying so.
        let share = limit * 9 / 10 / u32::try_from(hosts.len()).unwrap_or(u32::MAX);
        let (mut reasons, mut distrusted) = (Vec::new(), 0);
        for (at, host) in hosts.iter().enumerate() {
            match Connection::open(&greeting, host, None, share).await {
                Ok(connection) => {
                    let shared = Arc::new(Shared {
                        greeting,
                        session: connection.session().clone(),
                        session_timeout: connection.session_timeout(),
                        state: watch::Sender::new(State::Down),
                        reporter,
                        hosts: hosts.clone(),
                    });
                    let connection = Arc::new(connection);
                    shared.state.send_replace(State::Up(Arc::clone(&connection)));
                    let keeper = tokio::spawn(Arc::clone(&shared).keep(connection, at)).abort_handle();
                    return Ok(Link { shared, keeper });
                }
                Err(Unopened::ZooKeeper(why @ Zk::AuthFailed)) => {
                    return Err(error::of(format_args!("connect to {host}"), why));
                }
                Err(Unopened::ZooKeeper(why)) => reasons.push(reason(host, &why, share).await),
                Err(Unopened::Tls(Refused::Passing(why))) => reasons.push(format!("{host}: {why}")),
                Err(Unopened::Tls(Refused::Certificates(why))) => {
                    distrusted += 1;
                    reasons.push(format!("{host}: {why}"));
                }
            }
        }
        // As long as one may come back, waiting may help.
        Err(if distrusted == hosts.len() { error::distrusted(&reasons) } else { error::unreachable(&reasons) })
    }

    pub(crate) fn session(&self) -> &SessionInfo {
        &self.shared.session
    }

    pub(crate) fn session_timeout(&self) -> Duration {
        self.shared.session_timeout
    }

    pub(crate) fn greeting(&self) -> &Greeting {
        &self.shared.greeting
    }

    pub(crate) fn hosts(&self) -> &[String] {
        &self.shared.hosts
    }

    /// The connection, as soon as there is one; `Lost` when the session is over.
    ///
    /// Nothing that was sent over an earlier connection and not answered is done after this: the leader takes requests of a
    /// session from the server only that it was last seen at, and each server takes them in the order in which they came.
    pub(crate) async fn up(&self) -> Result<Arc<Connection>> {
        let mut states = self.shared.state.subscribe();
        let state = states.wait_for(|state| !matches!(state, State::Down)).await.map(|state| state.clone());
        match state {
            Ok(State::Up(connection)) => Ok(connection),
            Ok(State::Over(why)) => Err(error::over(&why)),
            Ok(State::Down) | Err(_) => Err(error::over("the session has no connection any more")),
        }
    }

    /// The same with patience.
    pub(crate) async fn up_within(&self, limit: Duration) -> Result<Arc<Connection>> {
        timeout(limit, self.up()).await.unwrap_or_else(|_| Err(error::disconnected(limit)))
    }

    /// Ends the session at the server, over a connection that is made for it if need be.
    pub(crate) async fn close(&self) -> Result<()> {
        self.keeper.abort();
        let closed = |why| error::of("close the session", why);
        match self.shared.state.send_replace(State::Over("the session was closed".into())) {
            State::Up(connection) => connection.close().await.map_err(closed),
            State::Over(_) => Ok(()),
            // Whoever waits for the close sets the limit.
            State::Down => match self.shared.resume(0).await {
                Ok((connection, _)) => connection.close().await.map_err(closed),
                Err(_) => Ok(()),
            },
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Shared {
    /// Watches over the connection and replaces it, until the session is over.
    async fn keep(self: Arc<Self>, mut connection: Arc<Connection>, mut at: usize) {
        loop {
            let state = connection.ended().await;
            if state == SessionState::Expired {
                connection.abandon();
                return self.end("the server says that the session has expired");
            }
            self.state.send_replace(State::Down);
            connection.abandon();
            self.reporter.disconnected();
            match self.resume(at + 1).await {
                Ok((resumed, host)) => {
                    (connection, at) = (Arc::new(resumed), host);
                    self.state.send_replace(State::Up(Arc::clone(&connection)));
                    self.reporter.connected();
                }
                Err(why) => return self.end(&why),
            }
        }
    }

    fn end(&self, why: &str) {
        self.state.send_replace(State::Over(why.into()));
        self.reporter.session_lost(why);
    }

    /// Takes the session up again at the first host that serves, beginning with that number. Goes on until it works or the
    /// session is over; the error says why.
    async fn resume(&self, first: usize) -> Result<(Connection, usize), String> {
        let mut pause = SHORTEST_PAUSE;
        let mut at = first;
        // A server that is starting may take a connection and never answer.
        let limit = (self.session_timeout / 5).max(Duration::from_millis(250));
        loop {
            for _ in 0..self.hosts.len() {
                let host = at % self.hosts.len();
                match self.resume_at(&self.hosts[host], limit).await {
                    Ok(connection) => return Ok((connection, host)),
                    Err(NotHere::Over(why)) => return Err(why),
                    Err(NotHere::Next) => at += 1,
                }
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn resume_at(&self, host: &str, limit: Duration) -> Result<Connection, NotHere> {
        let connection = match Connection::open(&self.greeting, host, Some(&self.session), limit).await {
            Ok(connection) => connection,
            Err(Unopened::ZooKeeper(Zk::SessionExpired)) => {
                return Err(NotHere::Over(format!("{host} says that the session has expired")));
            }
            Err(Unopened::ZooKeeper(Zk::AuthFailed)) => {
                return Err(NotHere::Over(format!("{host} refuses the credentials")));
            }
            Err(_) => return Err(NotHere::Next),
        };
        let negotiated = connection.session_timeout();
        if negotiated < self.session_timeout {
            connection.abandon();
            // From now on the server may end it before the deadline that everybody counts on.
            return Err(NotHere::Over(format!(
                "{host} agrees to a session timeout of {negotiated:?} only, where another server of the ensemble agreed to {:?}: \
                 give all of them the same maxSessionTimeout",
                self.session_timeout
            )));
        }
        // This server may be behind the one before. What it shows after this is at least as new.
        let synced = match connection.client() {
            Ok(client) => connection.ask_within(limit, client.sync("/")).await,
            Err(why) => Err(why),
        };
        if synced.is_err() {
            connection.abandon();
            return Err(NotHere::Next);
        }
        Ok(connection)
    }
}

/// Why a host does not take the session.
enum NotHere {
    Next,
    Over(String),
}

/// Why a host does not serve, in words. The client library does not say, so the host is asked once more without it.
async fn reason(host: &str, why: &Zk, limit: Duration) -> String {
    if *why == Zk::Timeout {
        return format!("{host} does not answer within {limit:?}, it may have no quorum");
    }
    match timeout(limit.min(Duration::from_millis(250)), TcpStream::connect(host)).await {
        Err(_) => format!("{host} can't be reached"),
        Ok(Err(why)) => format!("{host}: {why}"),
        Ok(Ok(_)) => format!("{host} takes connections but not sessions, it may be starting or have no quorum ({why})"),
    }
}
