//! The task behind a client: it makes one connection after the other, says the first words on each, and listens until it ends.
//!
//! | it | until |
//! |---|---|
//! | serves a connection: listens, and [keeps up](crate::upkeep) | the connection ends, or is ended here |
//! | establishes the next one: Sentinels, log-in, `INFO`, scripts | the server will do; after a failure a pause, and again |
//! | resumes: channels, then `hello`, which shuts out what is still under way on older connections | all missed messages are heard |

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tooz_core::driver::{Backoff, ConnectArgs, Mutex, Pushed};
use tooz_core::{Error, ErrorKind, Result};

use crate::client::Client;
use crate::connection::{Connection, Dial, Incoming};
use crate::dispatch::{FIRST_EPOCH, FollowUp};
use crate::error::strange;
use crate::login::{Login, Peer};
use crate::options::Target;
use crate::request::number;
use crate::script::Script;
use crate::sentinel::find_primary;
use crate::server::{Server, Visit};
use crate::wire::ServerAddress;

/// The pauses between attempts to connect: chance adds up to as much again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(350);

/// The addresses that have led this process to a primary, up to as many: one that leads to a replica now is being switched over, which
/// passes; where it never led to another, the URL is wrong.
static PRIMARIES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
const MOST_PRIMARIES: usize = 1000;

/// A client with its first connection, and the task that makes the others.
pub(crate) async fn start(args: &ConnectArgs) -> Result<(Arc<Client>, AbortHandle)> {
    let client = Arc::new(Client::new(args)?);
    let (connection, incoming) = client.establish(FIRST_EPOCH).await?;
    client.set_connection(Some(Arc::clone(&connection)));
    let task = tokio::spawn(keep_connected(Arc::clone(&client), connection, incoming));
    Ok((client, task.abort_handle()))
}

/// Serves one connection after another.
async fn keep_connected(client: Arc<Client>, mut connection: Arc<Connection>, mut incoming: Incoming) {
    loop {
        // In a box, since it is long and the task lives as long as the session.
        Box::pin(client.serve(&connection, &mut incoming)).await;
        connection.end();
        client.set_connection(None);
        client.reporter.disconnected(connection.ended().await);
        drop(incoming);
        (connection, incoming) = client.come_back(connection.epoch).await;
        client.set_connection(Some(Arc::clone(&connection)));
        client.holdings.ask_again();
        client.reporter.connected();
    }
}

impl Client {
    /// Connects to the server that is the right one now.
    async fn establish(&self, epoch: u64) -> Result<(Arc<Connection>, Incoming)> {
        let settings = &self.settings;
        let limit = self.connect_limit;
        // For each connection anew: passwords are changed while we live.
        let credentials = timeout(limit, self.credentials.read()).await.map_err(|_| {
            Error::new(ErrorKind::TimedOut, format!("the credentials were not there within {limit:?}"))
        })??;
        let (place, known_replicas) = match &settings.target {
            Target::Sentinel(sentinels) => {
                let primary = find_primary(sentinels, &settings.encryption, limit).await?;
                (ServerAddress::Host(primary.address), primary.replicas)
            }
            target => (target.fixed().ok_or_else(|| strange("no server"))?, 0),
        };
        let dial = Dial {
            peer: Peer::Data,
            place,
            login: Login::in_a_line(credentials)?,
            database: settings.database,
            encryption: &settings.encryption,
            limit: self.limit,
            connect_limit: limit,
        };
        let at = |error: Error| error.context(format!("connect to {}", settings.target));
        let (connection, incoming) = Connection::open(dial, epoch).await.map_err(at)?;
        let server = Server::read(&connection).await.map_err(at)?;
        let address = settings.target.to_string();
        server.judge(settings, if was_a_primary(&address) { Visit::Again } else { Visit::First })?;
        remember_a_primary(address);
        connection.load_scripts().await.map_err(at)?;
        {
            let mut replicas = self.replicas();
            replicas.asked(known_replicas, self.timeout);
            replicas.saw(server.seen());
        }
        self.set_trouble(None);
        *self.server() = server;
        Ok((Arc::new(connection), incoming))
    }

    /// Connects until it works, and takes up where the last connection has ended.
    async fn come_back(&self, mut epoch: u64) -> (Arc<Connection>, Incoming) {
        let mut pauses = Backoff::between(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            epoch += 1;
            match self.take_up(epoch).await {
                Ok(taken_up) => return taken_up,
                Err(error) => self.set_trouble(Some(&error)),
            }
            pauses.pause().await;
        }
    }

    async fn take_up(&self, epoch: u64) -> Result<(Arc<Connection>, Incoming)> {
        let (connection, incoming) = self.establish(epoch).await?;
        self.resume(&connection).await?;
        Ok((connection, incoming))
    }

    /// The first words on a new connection. From here on nothing that was under way on an older one takes effect.
    async fn resume(&self, connection: &Connection) -> Result<()> {
        let mut channels = self.dispatch.channels();
        let is_open = self.is_open();
        if is_open {
            channels.push(self.layout.session_channel());
        }
        if !channels.is_empty() {
            connection.subscribe(&channels).await?;
        }
        if is_open {
            match self.catch_up(connection).await {
                Err(error) if error.kind() == ErrorKind::Lost => self.tell_of_the_end(),
                result => result?,
            }
        }
        Ok(())
    }

    /// Hears what this session was told while nothing listened, a part at a time.
    async fn catch_up(&self, connection: &Connection) -> Result<()> {
        let (mut messages, mut behind) = (Vec::new(), String::new());
        loop {
            let heard = number(self.dispatch.heard());
            let reply = self.run_on(connection, Script::Hello, &[heard, behind.into()]).await?;
            let (last, until) = (reply.number(0)?, reply.number(1)?);
            messages.extend(reply.texts(2)?);
            if until >= last {
                self.dispatch.begin(connection.epoch, u64::try_from(last).unwrap_or(0), &messages);
                return Ok(());
            }
            behind = until.to_string();
        }
    }

    /// Serves a connection until it ends.
    async fn serve(&self, connection: &Arc<Connection>, incoming: &mut Incoming) {
        tokio::select! {
            biased;
            () = self.listen(connection, incoming) => {}
            () = self.keep_up(connection) => {}
        }
    }

    /// Reads what comes by itself.
    async fn listen(&self, connection: &Connection, incoming: &mut Incoming) {
        loop {
            tokio::select! {
                biased;
                pushed = incoming.pushes.recv() => match pushed {
                    Ok(message) => {
                        match self.dispatch.hear(&message.channel, &message.text) {
                            FollowUp::Everything => {}
                            FollowUp::Gap => {
                                let _ = self.catch_up(connection).await;
                            }
                            // The member may die before the next look that was planned.
                            FollowUp::Member(life) => self.sweep_at(Instant::now() + life),
                        }
                    }
                    Err(RecvError::Lagged(_)) => {
                        self.dispatch.push_to_all(&Pushed::Gap);
                        let _ = self.catch_up(connection).await;
                    }
                    Err(RecvError::Closed) => return,
                },
                _ = connection.ended() => return,
            }
        }
    }
}

fn was_a_primary(address: &str) -> bool {
    PRIMARIES.lock().contains(address)
}

fn remember_a_primary(address: String) {
    let mut primaries = PRIMARIES.lock();
    if primaries.len() < MOST_PRIMARIES {
        primaries.insert(address);
    }
}
