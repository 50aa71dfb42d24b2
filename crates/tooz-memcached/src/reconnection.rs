//! The task behind a client: it makes one connection after the other, and asks on each first who the server is and what its clock says.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tooz_core::driver::{Backoff, ConnectArgs};
use tooz_core::{Error, Result};

use crate::client::Client;
use crate::connection::Connection;
use crate::error::strange;
use crate::reply::{Batch, KEPT, Reply};
use crate::server::Server;
use crate::server_clock::Reading;

/// The pauses between attempts to connect: chance adds up to as much again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(350);

/// Nothing is asked of a server before it has run for so long: it gives tokens beyond those that it gave before it was started, and a session that held
/// something before has heard of the restart, since no client that can reach the server pauses for as long. (A server that was just started says 2 s.)
const SETTLED: Duration = Duration::from_secs(4);

/// A server that takes so long for its first answer may have stood still. Its clock is right when it has ticked.
const SLOW: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_millis(1100);

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
        connection.ended().await;
        client.set_connection(None);
        client.reporter.disconnected();
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
        let connection = Connection::open(&self.settings, epoch, deadline).await.map_err(at)?;
        match self.get_acquainted(&connection, deadline).await {
            Ok(server) => {
                self.set_server(server);
                self.set_trouble(None);
                Ok(connection)
            }
            Err(error) => {
                connection.end();
                Err(at(error))
            }
        }
    }

    async fn get_acquainted(&self, connection: &Connection, deadline: Instant) -> Result<Server> {
        let asked = Instant::now();
        let key = self.layout.clock();
        let mut batch = Batch::default().nothing().stats().settings();
        let is_open = self.is_open();
        if is_open {
            batch = batch.look(&self.session_key);
        }
        let mut replies = connection.run(&batch, deadline).await?.into_iter();
        let mut next = || replies.next().ok_or_else(|| strange("nothing"));
        let server = Server::read(next()?, next()?, next()?)?;
        server.judge()?;
        // A server that was restarted has forgotten the session: this is told now, without waiting for the next heartbeat.
        if is_open && !next()?.found()? {
            self.reporter.session_lost("the server has no such session");
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
        Ok(server)
    }
}

impl Client {
    /// Reads the server's clock; `false`: there is no key to read it by.
    async fn read_clock(&self, connection: &Connection, key: &str) -> Result<bool> {
        let sent = Instant::now();
        let replies = connection.run(&Batch::default().get(key).stats(), sent + self.limit).await?;
        let [clock, stats] = <[Reply; 2]>::try_from(replies).map_err(strange)?;
        let wall = Server::read(Reply::Nothing, stats, Reply::Stats(Vec::new()))?.time();
        let Some((mark, flags)) = clock.value()? else {
            self.clock.set_wall(wall, sent);
            return Ok(false);
        };
        let mark = String::from_utf8_lossy(&mark);
        let reading = Reading { mark: &mark, left: flags.left, sent, received: Instant::now() };
        self.clock.set(&reading, wall);
        Ok(true)
    }
}
