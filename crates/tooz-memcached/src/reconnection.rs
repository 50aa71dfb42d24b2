//! The task behind a client: it makes one connection after the other, and asks on each first who the server is and what its clock says.

use std::iter::repeat_n;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tooz_core::driver::{Backoff, ConnectArgs};
use tooz_core::{Error, ErrorKind, Result};

use crate::addresses::{addresses_of, several, several_behind, unanswered};
use crate::client::Client;
use crate::connection::{Connection, TrialConnection};
use crate::error::strange;
use crate::options::Target;
use crate::reply::{Batch, KEPT, Reply};
use crate::server::Server;
use crate::server_clock::{ClockReading, TICK};

/// The pauses between attempts to connect: chance adds up to as much again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(350);

/// Nothing is asked of a server before it has run for so long: it gives tokens beyond those that it gave before it was started, and a session that held
/// something before has heard of the restart, since no client that can reach the server pauses for as long. (A server that was just started says 2 s.)
const SETTLED: Duration = Duration::from_secs(4);

/// A server that takes so long for an answer may have stood still. Its clock is right when it has ticked.
const SLOW: Duration = Duration::from_millis(300);

/// How long another connection is waited for at the least.
const BY_ANOTHER: Duration = Duration::from_secs(1);

/// How many more connections are made to each address, to see whether they lead to one server: one, and many where they once did not, since a balancer may
/// choose the same server by chance.
const SAMPLES: usize = 1;
const MANY_SAMPLES: usize = 8;

/// A client with its first connection, and the task that makes the others.
pub(crate) async fn start(args: &ConnectArgs) -> Result<(Arc<Client>, AbortHandle)> {
    let client = Arc::new(Client::new(args)?);
    let connection = client.establish(1).await?;
    client.set_connection(Some(Arc::clone(&connection)));
    let task = tokio::spawn(keep_connected(Arc::clone(&client), connection));
    Ok((client, task.abort_handle()))
}

/// Serves one connection after another.
async fn keep_connected(client: Arc<Client>, mut connection: Arc<Connection>) {
    loop {
        let why = connection.ended().await;
        client.set_connection(None);
        client.reporter.disconnected(why);
        connection = client.come_back(connection.epoch).await;
        client.set_connection(Some(Arc::clone(&connection)));
        client.reporter.connected();
    }
}

impl Client {
    /// Connects until it works.
    async fn come_back(&self, mut epoch: u64) -> Arc<Connection> {
        let mut pauses = Backoff::between(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            epoch += 1;
            match self.establish(epoch).await {
                Ok(connection) => return connection,
                Err(error) => self.set_trouble(Some(&error)),
            }
            pauses.pause().await;
        }
    }

    /// Connects, and looks whether the server will do.
    async fn establish(&self, epoch: u64) -> Result<Arc<Connection>> {
        let at = |error: Error| error.context(format!("connect to {}", self.settings.target));
        let deadline = Instant::now() + self.connect_limit;
        let mut is_first = true;
        loop {
            let connection = Connection::open(&self.settings, epoch, deadline).await.map_err(at)?;
            let on_trial = TrialConnection::of(Arc::clone(&connection));
            let begun = Instant::now();
            match self.get_acquainted(&connection, deadline).await {
                Ok(server) => {
                    on_trial.passed();
                    self.set_server(server);
                    self.set_trouble(None);
                    return Ok(connection);
                }
                // While a server that was just started is waited for, it may close what is idle (`idle_timeout`). Of the next connection nothing is waited for.
                Err(error)
                    if is_first
                        && begun.elapsed() > SLOW
                        && error.kind() == ErrorKind::Unavailable
                        && connection.has_ended() =>
                {
                    is_first = false;
                }
                Err(error) => return Err(at(error)),
            }
        }
    }

    async fn get_acquainted(&self, connection: &Connection, deadline: Instant) -> Result<Server> {
        let asked = Instant::now();
        let key = self.layout.clock();
        let mut batch = Server::questions();
        let is_open = self.is_open();
        if is_open {
            batch = batch.look(&self.session_key);
        }
        let mut replies = connection.run(&batch, deadline).await?.into_iter();
        let mut next = || replies.next().unwrap_or(Reply::Missing);
        let server = Server::read(&mut next)?;
        server.judge()?;
        // A server that was restarted has forgotten the session: this is told now, without waiting for the next heartbeat.
        if is_open && !next().found()? {
            self.session_is_gone();
        }
        if asked.elapsed() > SLOW {
            sleep(TICK).await;
        }
        if let Some(left) = SETTLED.checked_sub(server.uptime()) {
            sleep(left).await;
        }
        if !self.read_clock(connection, &key).await? {
            // Only where it is missing: a full server deletes what it can't write.
            let mark = format!("{:016x}", fastrand::u64(..));
            connection.run(&Batch::default().add(&key, &mark, KEPT), Instant::now() + self.limit).await?;
            self.read_clock(connection, &key).await?;
        }
        self.must_be_one_server(connection, &key, deadline).await?;
        Ok(server)
    }

    /// Sees that what answers by each address of the host's name, if it has several, and by one more connection to each, is this server.
    async fn must_be_one_server(&self, connection: &Connection, key: &str, deadline: Instant) -> Result<()> {
        let Target::Server(name, port) = &self.settings.target else { return Ok(()) };
        let all = addresses_of(name, *port).await?;
        let samples = if self.has_met_several() { MANY_SAMPLES } else { SAMPLES };
        for address in all.iter().flat_map(|address| repeat_n(*address, samples)) {
            // What is left is for the other addresses. One address alone may be slow: its connection is there, and is not lost for that.
            let half = deadline.saturating_duration_since(Instant::now()) / 2;
            let until = Instant::now() + if all.len() > 1 { BY_ANOTHER.max(half) } else { half };
            match self.leads_elsewhere(connection, address, key, until).await {
                Ok(true) => {
                    self.set_met_several(true);
                    return Err(if all.len() > 1 {
                        several(name, &all)
                    } else {
                        several_behind(&self.settings.target)
                    });
                }
                // A session that is there says by itself which server it is.
                Err(error) if all.len() > 1 && error.kind() == ErrorKind::TimedOut && !self.is_open() => {
                    if takes_connections(address).await {
                        return Err(unanswered(name, address));
                    }
                }
                // What refuses can't be told from what is not there.
                Ok(false) | Err(_) => {}
            }
        }
        self.set_met_several(false);
        Ok(())
    }

    async fn leads_elsewhere(
        &self,
        connection: &Connection,
        address: SocketAddr,
        key: &str,
        until: Instant,
    ) -> Result<bool> {
        let soon = until.min(Instant::now() + BY_ANOTHER);
        let other = Connection::open_by(&self.settings, Some(address), 0, soon).await?;
        let _on_trial = TrialConnection::of(Arc::clone(&other));
        self.lead_apart(connection, &other, key, until).await
    }

    /// Sees that a connection leads to the server that requests go to: behind one address there may be several.
    pub(crate) async fn must_lead_there(&self, other: &Connection, deadline: Instant) -> Result<()> {
        let connection = self.connection_until(deadline).await?;
        if !self.lead_apart(&connection, other, &self.layout.clock(), deadline).await? {
            return Ok(());
        }
        // The next one is looked at more closely: the name may have been moved, and then all is well.
        self.set_met_several(true);
        connection.end();
        Err(several_behind(&self.settings.target))
    }

    /// Whether two connections lead to different servers: each has another text in the key by which its clock is read. That may be written anew
    /// between two questions, but not again between the next two.
    async fn lead_apart(&self, one: &Connection, other: &Connection, key: &str, until: Instant) -> Result<bool> {
        for _ in 0..2 {
            let mark = self.mark_by(other, key, until).await?;
            // Most often it is the one that was just read, and a slow network is asked no more.
            if self.clock.is_read_by(mark.as_deref())
                || self.mark_by(one, key, Instant::now() + self.limit).await? == mark
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn mark_by(&self, connection: &Connection, key: &str, deadline: Instant) -> Result<Option<Vec<u8>>> {
        let replies = connection.run(&Batch::default().get(key), deadline).await?;
        let [clock] = <[Reply; 1]>::try_from(replies).map_err(strange)?;
        Ok(clock.value()?.map(|(mark, _)| mark))
    }

    /// Reads the server's clock; `false`: there is no key to read it by. One that may have stood still meanwhile is read again.
    async fn read_clock(&self, connection: &Connection, key: &str) -> Result<bool> {
        let asked = Instant::now();
        let is_there = self.read_clock_once(connection, key).await?;
        if !is_there || asked.elapsed() <= SLOW {
            return Ok(is_there);
        }
        sleep(TICK).await;
        self.read_clock_once(connection, key).await
    }

    async fn read_clock_once(&self, connection: &Connection, key: &str) -> Result<bool> {
        let sent = Instant::now();
        let replies = connection.run(&Batch::default().get(key).stats(), sent + self.limit).await?;
        let [clock, stats] = <[Reply; 2]>::try_from(replies).map_err(strange)?;
        let wall = Server::time_of(stats)?;
        let Some((mark, flags)) = clock.value()? else {
            self.clock.set_wall(wall, sent);
            return Ok(false);
        };
        let mark = String::from_utf8_lossy(&mark);
        let reading = ClockReading { mark: &mark, left: flags.left, sent, received: Instant::now() };
        self.clock.set(&reading, wall);
        Ok(true)
    }
}

/// Whether there is a server that takes connections, be it one that answers nothing.
async fn takes_connections(address: SocketAddr) -> bool {
    timeout(BY_ANOTHER, TcpStream::connect(address)).await.is_ok_and(|connected| connected.is_ok())
}
