//! One connection to one server, from its beginning to its end. It never reconnects: that would run things twice, or late.

use std::future::Future;
use std::time::Duration;

use fred::clients::Client as FredClient;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::prelude::Builder;
use fred::types::config::{Config, ServerConfig, TcpConfig};
use fred::types::{CustomCommand, Message, RespVersion, Value};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tooz_core::{Error, ErrorKind, Result};

use crate::error::{cut, ends_the_connection, is_unknown_script, of_client, strange};
use crate::login::Login;
use crate::options::{Address, Encryption, Target};
use crate::replicas::ReplicaCounts;
use crate::reply::lines_of;
use crate::script::{self, Script};
use crate::tls;

/// How many pushes wait for the task that reads them before the oldest is lost; what is lost is asked for again.
const PUSHES: usize = 4096;

/// What kind of server is at the other end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// It holds data and speaks RESP3, so that pushes come on the same connection, in order with the replies.
    Data,
    /// A Sentinel is only asked where the primary is.
    Sentinel,
}

/// Where and how to connect.
pub(crate) struct Dial<'a> {
    pub(crate) peer: Peer,
    pub(crate) server: ServerConfig,
    pub(crate) login: Login,
    pub(crate) database: u8,
    pub(crate) encryption: &'a Encryption,
    /// How long one request may take.
    pub(crate) limit: Duration,
    /// How long connecting may take.
    pub(crate) connect_limit: Duration,
}

/// A connection. Dropping it closes it.
pub(crate) struct Connection {
    client: FredClient,
    /// Greater than that of every earlier connection of the same session.
    pub(crate) epoch: u64,
    limit: Duration,
    ended: watch::Sender<bool>,
}

/// What is asked behind a script on the same connection, in one sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplicaQuestion {
    Nothing,
    /// That as many replicas have it.
    Replicas(u64),
    /// That as many replicas have it, and how many replicas there are.
    ReplicasCounted(u64),
}

impl ReplicaQuestion {
    /// How many replicas are waited for.
    pub(crate) const fn replicas(self) -> u64 {
        match self {
            ReplicaQuestion::Nothing => 0,
            ReplicaQuestion::Replicas(replicas) | ReplicaQuestion::ReplicasCounted(replicas) => replicas,
        }
    }

    const fn counts(self) -> bool {
        matches!(self, ReplicaQuestion::ReplicasCounted(_))
    }
}

/// What a script answered, and what was asked behind it.
pub(crate) struct ScriptReply {
    pub(crate) answer: Value,
    /// How many replicas have it.
    pub(crate) reached: u64,
    pub(crate) seen: Option<ReplicaCounts>,
}

/// What comes by itself, and the end.
pub(crate) struct Incoming {
    pub(crate) pushes: broadcast::Receiver<Message>,
    pub(crate) running: ClientTask,
}

/// The client's task. Aborting it closes the socket and drops whatever it has not sent.
pub(crate) struct ClientTask(JoinHandle<Result<(), fred::error::Error>>);

impl Drop for ClientTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ClientTask {
    /// Ends when the connection does.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.0).await;
    }
}

pub(crate) fn server_at(address: &Address) -> ServerConfig {
    ServerConfig::new_centralized(address.host.clone(), address.port)
}

impl Target {
    /// The one server that needs no Sentinel to be found.
    pub(crate) fn fixed(&self) -> Option<ServerConfig> {
        match self {
            Target::Server(address) => Some(server_at(address)),
            Target::Socket(path) => Some(ServerConfig::Unix { path: path.clone() }),
            Target::Sentinel(_) => None,
        }
    }
}

impl Connection {
    /// Connects and logs in.
    pub(crate) async fn open(dial: Dial<'_>, epoch: u64) -> Result<(Self, Incoming)> {
        let mut config = Config {
            fail_fast: true,
            server: dial.server,
            username: dial.login.username,
            password: dial.login.password,
            version: if dial.peer == Peer::Data { RespVersion::RESP3 } else { RespVersion::RESP2 },
            database: (dial.peer == Peer::Data && dial.database > 0).then_some(dial.database),
            ..Config::default()
        };
        tls::apply(dial.encryption, &mut config).await?;
        let client = Builder::from_config(config)
            .with_connection_config(|connection| {
                connection.connection_timeout = dial.connect_limit;
                connection.internal_command_timeout = dial.connect_limit;
                // Never twice: whether a lost request was done is for us to find out.
                connection.max_command_attempts = 1;
                connection.disable_cluster_health_check = true;
                connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
            })
            .with_performance_config(|performance| performance.broadcast_channel_capacity = PUSHES)
            // No reconnect policy: without one the client's task ends with the connection.
            .build()
            .map_err(|error| of_client(&error))?;
        let pushes = client.message_rx();
        let running = ClientTask(client.connect());
        match tokio::time::timeout(dial.connect_limit, client.wait_for_connect()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(of_client(&error)),
            Err(_) => {
                let limit = dial.connect_limit;
                return Err(Error::new(ErrorKind::TimedOut, format!("the server did not answer within {limit:?}")));
            }
        }
        let connection = Connection { client, epoch, limit: dial.limit, ended: watch::Sender::new(false) };
        Ok((connection, Incoming { pushes, running }))
    }

    /// Ends the connection, and with it everything that is under way on it.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Whether it was ended here.
    pub(crate) fn was_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Ends when the connection was ended here.
    pub(crate) async fn is_to_end(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// One command and its reply.
    pub(crate) async fn ask(&self, command: &'static str, arguments: Vec<Value>) -> Result<Value> {
        let asking = self.client.custom(custom(command), arguments);
        self.within(Instant::now() + self.limit, asking).await?.map_err(|error| self.refused(&error))
    }

    /// Hears a channel from now on: what is asked behind this is answered after it.
    pub(crate) async fn subscribe(&self, channels: Vec<String>) -> Result<()> {
        self.within(Instant::now() + self.limit, self.client.subscribe(channels))
            .await?
            .map_err(|error| of_client(&error))
    }

    pub(crate) async fn unsubscribe(&self, channel: String) -> Result<()> {
        self.within(Instant::now() + self.limit, self.client.unsubscribe(channel))
            .await?
            .map_err(|error| of_client(&error))
    }

    /// Lets the server know the scripts that it does not know, and learns their digests if this process has not yet.
    pub(crate) async fn load_scripts(&self) -> Result<()> {
        let digests: Vec<_> = Script::ALL.iter().filter_map(|script| script.digest()).collect();
        let missing: Vec<Script> = if digests.len() == Script::ALL.len() {
            let mut question = vec![Value::from_static_str("EXISTS")];
            question.extend(digests.into_iter().map(Value::from_static_str));
            let known: Vec<bool> = self.ask("SCRIPT", question).await?.convert().map_err(|error| of_client(&error))?;
            let unknown = Script::ALL.iter().zip(known).filter(|(_, known)| !known);
            unknown.map(|(script, _)| *script).collect()
        } else {
            Script::ALL.to_vec()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let pipeline = self.client.pipeline();
        for script in &missing {
            let arguments = vec![Value::from_static_str("LOAD"), Value::from_static_str(script.text())];
            let _: Value = pipeline.custom(custom("SCRIPT"), arguments).await.map_err(|error| of_client(&error))?;
        }
        let deadline = Instant::now() + self.limit;
        let digests: Vec<String> = self.within(deadline, pipeline.all()).await?.map_err(|error| of_client(&error))?;
        script::learn_digests(digests);
        Ok(())
    }

    /// Runs a script, and asks what is to be asked behind it.
    pub(crate) async fn run(
        &self,
        script: Script,
        arguments: Vec<Value>,
        behind: ReplicaQuestion,
        deadline: Instant,
    ) -> Result<ScriptReply> {
        if let Some(digest) = script.digest() {
            let arguments = called(Value::from_static_str(digest), &arguments);
            match self.run_once("EVALSHA", arguments, behind, deadline).await? {
                // The server was restarted or its scripts were flushed. It has done nothing.
                Err(error) if is_unknown_script(&error) => {}
                other => return other.map_err(|error| self.refused(&error)),
            }
        }
        let arguments = called(Value::from_static_str(script.text()), &arguments);
        self.run_once("EVAL", arguments, behind, deadline).await?.map_err(|error| self.refused(&error))
    }

    async fn run_once(
        &self,
        command: &'static str,
        arguments: Vec<Value>,
        behind: ReplicaQuestion,
        deadline: Instant,
    ) -> Result<Result<ScriptReply, fred::error::Error>> {
        if !behind.counts() && behind.replicas() == 0 {
            let answer = self.within(deadline, self.client.custom(custom(command), arguments)).await?;
            return Ok(answer.map(|answer| ScriptReply { answer, reached: 0, seen: None }));
        }
        // In a box, so that the usual case stays small.
        Box::pin(self.run_with(command, arguments, behind, deadline)).await
    }

    async fn run_with(
        &self,
        command: &'static str,
        arguments: Vec<Value>,
        behind: ReplicaQuestion,
        deadline: Instant,
    ) -> Result<Result<ScriptReply, fred::error::Error>> {
        let mut all = vec![(command, arguments)];
        if behind.counts() {
            all.push(("INFO", vec![Value::from_static_str("replication")]));
            // Where there are none, one may have come and gone since.
            if behind.replicas() == 0 {
                all.push(("INFO", vec![Value::from_static_str("stats")]));
            }
        }
        // Last on the same connection: it waits for the replicas to have that very script's writes.
        if behind.replicas() > 0 {
            all.push(("WAIT", self.wait_arguments(behind.replicas(), deadline)));
        }
        let pipeline = self.client.pipeline();
        for (command, arguments) in all {
            let _: Value = pipeline.custom(custom(command), arguments).await.map_err(|error| of_client(&error))?;
        }
        let asking = async { Ok::<_, fred::error::Error>(pipeline.try_all::<Value>().await) };
        let answers = self.within(deadline, asking).await?.map_err(|error| of_client(&error))?;
        let mut answers = match answers.into_iter().collect::<std::result::Result<Vec<_>, _>>() {
            Ok(answers) => answers.into_iter(),
            Err(error) => return Ok(Err(error)),
        };
        let answer = answers.next().ok_or_else(|| strange("nothing"))?;
        let (mut reached, mut text) = (0, String::new());
        for answer in answers {
            match answer {
                Value::Integer(number) => reached = u64::try_from(number).unwrap_or(0),
                info => text += &info.as_string().ok_or_else(|| strange(&info))?,
            }
        }
        let seen = behind.counts().then(|| ReplicaCounts::read(&lines_of(&text)));
        Ok(Ok(ScriptReply { answer, reached, seen }))
    }

    /// Waits until as many replicas have all that was written on this connection, and answers how many have.
    pub(crate) async fn wait_for(&self, replicas: u64, deadline: Instant) -> Result<u64> {
        let asking = self.client.custom::<Value, Value>(custom("WAIT"), self.wait_arguments(replicas, deadline));
        let answer = self.within(deadline, asking).await?.map_err(|error| self.refused(&error))?;
        answer.as_u64().ok_or_else(|| strange(answer))
    }

    /// The server answers before the deadline, so that it is known how many have it.
    fn wait_arguments(&self, replicas: u64, deadline: Instant) -> Vec<Value> {
        let left = deadline.saturating_duration_since(Instant::now()).min(self.limit);
        let patience = u64::try_from(left.as_millis() * 2 / 3).unwrap_or(u64::MAX).max(1);
        vec![number(replicas), number(patience)]
    }

    /// What the server says no with. A server that has been demoted, or knows this connection no more, ends it: the next one leads elsewhere
    /// or logs in anew.
    fn refused(&self, error: &fred::error::Error) -> Error {
        if ends_the_connection(error) {
            self.end();
        }
        of_client(error)
    }

    /// Gives a request its time. One that takes longer ends the connection: it may be frozen, and what is late must not be
    /// mistaken for the answer to something else.
    async fn within<T>(
        &self,
        deadline: Instant,
        asking: impl Future<Output = Result<T, fred::error::Error>>,
    ) -> Result<Result<T, fred::error::Error>> {
        tokio::select! {
            biased;
            answer = timeout_at(deadline, asking) => answer.map_err(|_| {
                self.end();
                let limit = self.limit;
                Error::new(ErrorKind::TimedOut, format!("the server did not answer within {limit:?}"))
            }),
            () = self.is_to_end() => Err(cut()),
        }
    }
}

fn custom(command: &'static str) -> CustomCommand {
    CustomCommand::new_static(command, None, false)
}

pub(crate) fn number(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The arguments of `EVAL` and `EVALSHA`: every script has one key, the prefix.
fn called(script: Value, arguments: &[Value]) -> Vec<Value> {
    let mut all = Vec::with_capacity(arguments.len() + 2);
    all.push(script);
    all.push(Value::Integer(1));
    all.extend_from_slice(arguments);
    all
}
