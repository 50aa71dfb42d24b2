//! One connection to one server, from its beginning to its end. It never reconnects: that would run things twice, or late.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::{Instant, timeout_at};
use tooz_core::{Error, Result};

use crate::error::{ends_the_connection, is_unknown_script, of_server, silent, strange};
use crate::exchange::{Exchange, Publication, Replies};
use crate::layout::Layout;
use crate::login::{Login, Peer};
use crate::options::{Encryption, Target};
use crate::replicas::ReplicaCounts;
use crate::reply::lines_of;
use crate::request::{Argument, Request, number};
use crate::script::{self, Script};
use crate::value::Value;
use crate::wire::{self, ServerAddress};

/// Where and how to connect.
pub(crate) struct Dial<'a> {
    pub(crate) peer: Peer,
    pub(crate) place: ServerAddress,
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
    exchange: Arc<Exchange>,
    /// Greater than that of every earlier connection of the same session.
    pub(crate) epoch: u64,
    /// The same as it is sent.
    epoch_text: String,
    limit: Duration,
}

/// A script, and with what it is called.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) script: Script,
    /// Whose session asks, and where everything is.
    pub(crate) layout: &'a Layout,
    pub(crate) arguments: &'a [Argument],
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

/// What comes by itself. Dropping it ends the connection, also where others know it.
pub(crate) struct Incoming {
    pub(crate) pushes: broadcast::Receiver<Publication>,
    exchange: Arc<Exchange>,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.exchange.end();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.exchange.end();
    }
}

impl Target {
    /// The one server that needs no Sentinel to be found.
    pub(crate) fn fixed(&self) -> Option<ServerAddress> {
        match self {
            Target::Server(address) => Some(ServerAddress::Host(address.clone())),
            Target::Socket(path) => Some(ServerAddress::Socket(path.clone())),
            Target::Sentinel(_) => None,
        }
    }
}

/// The server's own words where it says no.
type Answered<T> = std::result::Result<T, String>;

impl Connection {
    /// Connects and logs in.
    pub(crate) async fn open(dial: Dial<'_>, epoch: u64) -> Result<(Self, Incoming)> {
        let limit = dial.connect_limit;
        let opening = async {
            let (source, sink) = wire::connect(&dial.place, dial.encryption).await?;
            let exchange = Exchange::start(source, sink, dial.limit);
            let incoming = Incoming { pushes: exchange.pushes(), exchange: Arc::clone(&exchange) };
            let connection = Connection { exchange, epoch, epoch_text: epoch.to_string(), limit: dial.limit };
            connection.log_in(&dial).await?;
            Ok((connection, incoming))
        };
        timeout_at(Instant::now() + limit, opening).await.unwrap_or_else(|_| Err(silent(limit)))
    }

    async fn log_in(&self, dial: &Dial<'_>) -> Result<()> {
        // Connecting has a limit of its own.
        let deadline = Instant::now() + dial.connect_limit + dial.limit;
        for request in dial.login.requests(dial.peer) {
            self.ask_for(request, deadline).await?;
        }
        if dial.peer == Peer::Data && dial.database > 0 {
            self.ask_for(Request::of("SELECT", &[number(dial.database.into())]), deadline).await?;
        }
        Ok(())
    }

    /// Ends the connection, and with it everything that is under way on it.
    pub(crate) fn end(&self) {
        self.exchange.end();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.exchange.has_ended()
    }

    /// Waits for its end, and answers by what it came.
    pub(crate) async fn ended(&self) -> Error {
        self.exchange.ended().await
    }

    /// One command and its reply.
    pub(crate) async fn ask(&self, command: &str, arguments: &[Argument]) -> Result<Value> {
        self.ask_for(Request::of(command, arguments), Instant::now() + self.limit).await
    }

    async fn ask_for(&self, request: Request, deadline: Instant) -> Result<Value> {
        let replies = all_of(self.exchange.ask(request, deadline).await?).map_err(|said| self.refused(&said))?;
        replies.first.ok_or_else(|| strange("nothing"))
    }

    /// Hears channels from now on: what is asked behind this is answered after it.
    pub(crate) async fn subscribe(&self, channels: &[String]) -> Result<()> {
        let request = Request::of_channels("SUBSCRIBE", channels);
        self.ask_for(request, Instant::now() + self.limit).await.map(drop)
    }

    pub(crate) async fn unsubscribe(&self, channel: &str) -> Result<()> {
        let request = Request::of_channels("UNSUBSCRIBE", &[channel.to_owned()]);
        self.ask_for(request, Instant::now() + self.limit).await.map(drop)
    }

    /// Lets the server know the scripts that it does not know, and learns their digests if this process has not yet.
    pub(crate) async fn load_scripts(&self) -> Result<()> {
        let digests: Vec<_> = Script::ALL.iter().filter_map(|script| script.digest()).map(Argument::Word).collect();
        let missing: Vec<Script> = if digests.len() == Script::ALL.len() {
            let mut question = vec![Argument::Word("EXISTS")];
            question.extend(digests);
            let Value::Array(known) = self.ask("SCRIPT", &question).await? else { return Err(strange("no list")) };
            let unknown = Script::ALL.iter().zip(known).filter(|(_, known)| *known != Value::Integer(1));
            unknown.map(|(script, _)| *script).collect()
        } else {
            Script::ALL.to_vec()
        };
        let Some((first, others)) = missing.split_first() else { return Ok(()) };
        let load = |script: &Script| [Argument::Word("LOAD"), Argument::Word(script.text())];
        let mut request = Request::of("SCRIPT", &load(first));
        for script in others {
            request.add("SCRIPT", &load(script));
        }
        let replies = self.exchange.ask(request, Instant::now() + self.limit).await?;
        let replies = all_of(replies).map_err(|said| self.refused(&said))?;
        let digests = replies.first.iter().chain(&replies.others);
        script::learn_digests(
            digests.map(|digest| digest.as_string().ok_or_else(|| strange(digest))).collect::<Result<_>>()?,
        );
        Ok(())
    }

    /// Runs a script, and asks what is to be asked behind it.
    pub(crate) async fn run(&self, call: Call<'_>, behind: ReplicaQuestion, deadline: Instant) -> Result<ScriptReply> {
        if let Some(digest) = call.script.digest() {
            match self.run_once("EVALSHA", digest, call, behind, deadline).await? {
                // The server was restarted or its scripts were flushed. It has done nothing.
                Err(said) if is_unknown_script(&said) => {}
                other => return other.map_err(|said| self.refused(&said)),
            }
        }
        // In a box, so that the usual case stays small.
        let done = Box::pin(self.run_once("EVAL", call.script.text(), call, behind, deadline)).await?;
        done.map_err(|said| self.refused(&said))
    }

    async fn run_once(
        &self,
        command: &str,
        script: &str,
        call: Call<'_>,
        behind: ReplicaQuestion,
        deadline: Instant,
    ) -> Result<Answered<ScriptReply>> {
        let request = self.request(command, script, call, behind, deadline);
        match all_of(self.exchange.ask(request, deadline).await?) {
            Ok(replies) => done(replies, behind).map(Ok),
            Err(said) => Ok(Err(said)),
        }
    }

    fn request(
        &self,
        command: &str,
        script: &str,
        call: Call<'_>,
        behind: ReplicaQuestion,
        deadline: Instant,
    ) -> Request {
        let mut request = Request::empty();
        let Layout { prefix, channels, session } = call.layout;
        // Every script has one key, the prefix.
        let first = [command, script, "1", prefix, channels, session, &self.epoch_text];
        request.add_command(&first, call.arguments);
        if behind.counts() {
            request.add("INFO", &[Argument::Word("replication")]);
            // Where there are none, one may have come and gone since.
            if behind.replicas() == 0 {
                request.add("INFO", &[Argument::Word("stats")]);
            }
        }
        // Last on the same connection: it waits for the replicas to have that very script's writes.
        if behind.replicas() > 0 {
            request.add("WAIT", &self.wait_arguments(behind.replicas(), deadline));
        }
        request
    }

    /// Waits until as many replicas have all that was written on this connection, and answers how many have.
    pub(crate) async fn wait_for(&self, replicas: u64, deadline: Instant) -> Result<u64> {
        let request = Request::of("WAIT", &self.wait_arguments(replicas, deadline));
        match self.ask_for(request, deadline).await? {
            Value::Integer(reached) => u64::try_from(reached).map_err(strange),
            other => Err(strange(other)),
        }
    }

    /// The server answers before the deadline, so that it is known how many have it.
    fn wait_arguments(&self, replicas: u64, deadline: Instant) -> [Argument; 2] {
        let left = deadline.saturating_duration_since(Instant::now()).min(self.limit);
        let patience = u64::try_from(left.as_millis() * 2 / 3).unwrap_or(u64::MAX).max(1);
        [number(replicas), number(patience)]
    }

    /// What the server says no with. A server that has been demoted, or knows this connection no more, ends it: the next one leads elsewhere
    /// or logs in anew.
    fn refused(&self, said: &str) -> Error {
        if ends_the_connection(said) {
            self.end();
        }
        of_server(said)
    }
}

/// The first no counts for all.
fn all_of(replies: Replies) -> Answered<Replies> {
    let no = replies.first.iter().chain(&replies.others).find_map(|reply| match reply {
        Value::Error(said) => Some(said.clone()),
        _ => None,
    });
    no.map_or(Ok(replies), Err)
}

/// What was answered to a script and behind it.
fn done(replies: Replies, behind: ReplicaQuestion) -> Result<ScriptReply> {
    let answer = replies.first.ok_or_else(|| strange("nothing"))?;
    let (mut reached, mut text) = (0, String::new());
    for reply in replies.others {
        match reply {
            Value::Integer(number) => reached = u64::try_from(number).unwrap_or(0),
            info => text += &info.as_string().ok_or_else(|| strange(&info))?,
        }
    }
    let seen = behind.counts().then(|| ReplicaCounts::read(&lines_of(&text)));
    Ok(ScriptReply { answer, reached, seen })
}
