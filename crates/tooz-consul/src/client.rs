//! The client: sends each request over one of a few named connections, to one agent after another within its limit, and repeats what may be.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use tokio::sync::{SemaphorePermit, watch};
use tokio::time::{Instant, timeout};
use tooz_core::driver::Backoff;
use tooz_core::{ErrorKind, Outcome, Result};

use crate::connection::{Connection, HttpResponse, Question};
use crate::error::{self, Failure, Remedy};
use crate::options::Settings;
use crate::pool::Pool;
use crate::request::{Op, Page, Transaction, TxnResult, read_transaction};
use crate::wire::ConnectError;

/// A connection that was not used for so long is closed.
const UNUSED: Duration = Duration::from_secs(20);

/// Which connection a request goes over: what waits in front of one is not in the way of the others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The heartbeat's alone.
    Beat,
    /// Places in the queues of locks, of which an application may want thousands at once.
    Place,
    /// What the application wants to have or to know beside them.
    Wish,
    /// What gives back, or goes on with what was begun.
    Duty,
    /// Of the session's letters: it always has its connection.
    Mailbox,
    /// Of questions that the server answers when something has changed.
    Poll,
}

impl Lane {
    /// Whether the server answers only when something has changed.
    fn waits(self) -> bool {
        matches!(self, Lane::Mailbox | Lane::Poll)
    }
}

/// The client of one session. It has 22 connections at most, and nine more while those that were cut are made anew: an agent takes two hundred of
/// one address.
pub(crate) struct Client {
    pub(crate) settings: Settings,
    beat: Pool,
    places: Pool,
    wishes: Pool,
    duties: Pool,
    mailbox: Pool,
    polls: Pool,
    /// How long one request may take, all its repetitions included.
    pub(crate) limit: Duration,
    /// The agent that was last found to hang, or connections to it: questions that wait there for a change are asked elsewhere, or over new ones.
    pub(crate) hung: watch::Sender<usize>,
    /// Told of whenever it is found that the servers were set back: such a question may name an index that they have yet to reach.
    pub(crate) set_backs: watch::Sender<()>,
}

/// An answer, and whether the same request was sent before without one.
pub(crate) struct Reply<T> {
    pub(crate) message: T,
    /// An earlier sending may still be carried out, any time later.
    pub(crate) was_repeated: bool,
}

/// The right to send one request.
pub(crate) struct Turn<'a> {
    lane: Lane,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Client {
    pub(crate) fn new(settings: Settings, limit: Duration) -> Self {
        let (beat, mailbox) = (Pool::of(1), Pool::of(1));
        Client {
            settings,
            beat,
            places: Pool::of(4),
            wishes: Pool::of(2),
            duties: Pool::of(2),
            mailbox,
            polls: Pool::of(12),
            limit,
            hung: watch::Sender::new(0),
            set_backs: watch::Sender::new(()),
        }
    }

    /// The address of the agent that is asked just now.
    pub(crate) fn address(&self) -> &str {
        &self.settings.agents[self.wishes.agent()].address
    }

    pub(crate) fn pool(&self, lane: Lane) -> &Pool {
        match lane {
            Lane::Beat => &self.beat,
            Lane::Place => &self.places,
            Lane::Wish => &self.wishes,
            Lane::Duty => &self.duties,
            Lane::Mailbox => &self.mailbox,
            Lane::Poll => &self.polls,
        }
    }

    /// Closes the connections that were not used for some time.
    pub(crate) fn prune(&self) {
        for pool in [&self.places, &self.wishes, &self.duties, &self.mailbox, &self.polls] {
            pool.prune(UNUSED);
        }
    }

    /// Closes the connections that are not in use.
    pub(crate) fn clear(&self) {
        for lane in [Lane::Beat, Lane::Place, Lane::Wish, Lane::Duty, Lane::Mailbox, Lane::Poll] {
            self.pool(lane).clear();
        }
    }

    /// Asks one agent after the other, within the limit. What is asked must bear being done twice.
    pub(crate) async fn ask(&self, lane: Lane, question: Question) -> Result<Reply<HttpResponse>> {
        // Waiting for a turn here is no part of the limit: nothing was sent yet.
        let _turn = self.pool(lane).turn().await;
        self.ask_within(lane, self.limit, question, |answer, _| Ok(answer)).await
    }

    /// Asks one agent after the other without waiting for a turn, within a limit of its own; `read` judges what was answered.
    pub(crate) async fn ask_within<T>(
        &self,
        lane: Lane,
        limit: Duration,
        mut question: Question,
        read: impl Fn(HttpResponse, &str) -> Result<T, Failure>,
    ) -> Result<Reply<T>> {
        let (pool, agents) = (self.pool(lane), self.settings.agents.len());
        let give_up = Instant::now() + limit;
        let (mut tries, mut logins, mut was_repeated) = (0, 0, false);
        let (mut may_be_later, mut pauses) = (false, pauses());
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            // Time is left for another agent.
            let patience = if tries + 1 >= agents { left } else { left / 2 };
            let agent = pool.agent();
            let asking = self.ask_one(lane, patience / 2, &question, &mut was_repeated);
            let asked = timeout(patience, asking).await;
            let hangs = || Err(error::no_answer(&self.settings.agents[agent].address, patience));
            let failure = match asked.unwrap_or_else(|_| hangs()) {
                Ok((answer, address)) => match read(answer, &address) {
                    Ok(message) => return Ok(Reply { message, was_repeated }),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            was_repeated |= failure.error.outcome() == Outcome::Unknown;
            may_be_later |= failure.remedy == Remedy::AskLater;
            question.path = question.again.take().unwrap_or(question.path);
            if failure.error.kind() == ErrorKind::TimedOut && agents > 1 {
                self.hung.send_replace(agent);
            }
            let goes_on = match failure.remedy {
                // Each of a few idle connections may have ended with the agent.
                Remedy::ConnectAnew => {
                    pool.clear();
                    true
                }
                Remedy::LogIn => {
                    logins += 1;
                    pool.clear();
                    logins == 1 && self.settings.login.may_change()
                }
                Remedy::AskAnother | Remedy::AskLater => {
                    tries += 1;
                    pool.leave(agent, agents);
                    tries < agents
                }
                Remedy::None => false,
            };
            // All agents are asked once more, if there is time for that.
            let goes_round = !goes_on && question.is_patient && may_be_later && failure.remedy.is_about_agents();
            let pause = if goes_round { pauses.next() } else { Duration::ZERO };
            if !(goes_on || goes_round) || Instant::now() + pause >= give_up {
                let error = failure.error;
                // An earlier attempt may have been applied, even if the last one was not.
                return Err(if was_repeated { error.with_outcome(Outcome::Unknown) } else { error });
            }
            if goes_round {
                (tries, may_be_later) = (0, false);
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Asks the agent of that lane. A connection that was cut without a word hangs like a slow agent: what is not answered for some time over one
    /// that was kept is asked once more over a new one, and the first answer counts.
    async fn ask_one(
        &self,
        lane: Lane,
        suspicious: Duration,
        question: &Question,
        was_repeated: &mut bool,
    ) -> Result<(HttpResponse, Arc<str>), Failure> {
        let pool = self.pool(lane);
        let (agent, kept) = (pool.agent(), pool.take());
        let may_be_cut = kept.is_some() && !lane.waits();
        let first = self.ask_once(pool, kept, question.clone());
        if !may_be_cut {
            return first.await;
        }
        tokio::pin!(first);
        if let Ok(answer) = timeout(suspicious, &mut first).await {
            return answer;
        }
        *was_repeated = true;
        // The others may be cut too, and each would be found by a request of its own.
        self.clear();
        tokio::select! {
            answer = &mut first => answer,
            answer = self.ask_once(pool, None, question.clone()) => {
                if answer.is_err() {
                    return first.await;
                }
                self.hung.send_replace(agent);
                answer
            }
        }
    }

    /// Over one connection. A caller that gives up waiting drops it, so that a late answer is never taken for another's.
    async fn ask_once(
        &self,
        pool: &Pool,
        kept: Option<Connection>,
        question: Question,
    ) -> Result<(HttpResponse, Arc<str>), Failure> {
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect(pool.agent()).await?,
        };
        let path = question.path.clone();
        let asked = connection.ask(question).await;
        let (address, answered) = (Arc::clone(&connection.address), connection.answered);
        let answer = asked.map_err(|why| error::broken(why, &address, answered))?;
        pool.keep(connection);
        Ok((error::judge(answer, &address, &path)?, address))
    }

    /// Asks that agent alone, over a connection of its own.
    pub(crate) async fn ask_agent(&self, number: usize, question: Question) -> Result<HttpResponse> {
        let address = &self.settings.agents[number].address;
        let asking = async {
            let mut connection = self.connect(number).await?;
            let path = question.path.clone();
            let answer = connection.ask(question).await.map_err(|why| error::broken(why, address, 0))?;
            error::judge(answer, address, &path)
        };
        let asked = timeout(self.limit, asking).await;
        asked.unwrap_or_else(|_| Err(error::no_answer(address, self.limit))).map_err(|failure| failure.error)
    }

    async fn connect(&self, number: usize) -> Result<Connection, Failure> {
        let Settings { agents, login, tls, .. } = &self.settings;
        let agent = &agents[number];
        let connecting = async {
            let token = login.token().await.map_err(ConnectError::from)?;
            Connection::open(number, agent, tls.as_ref(), token).await
        };
        connecting.await.map_err(|why| error::unreached(why, &agent.address))
    }

    /// A question about a path of Consul's, with what every path of this session has in its query.
    pub(crate) fn question(&self, method: Method, path: &str, query: &[&str], body: impl Into<Bytes>) -> Question {
        let datacenter = self.settings.datacenter.as_ref().map(|name| format!("dc={name}"));
        let parts: Vec<&str> = query.iter().copied().chain(datacenter.as_deref()).collect();
        let mark = if parts.is_empty() { "" } else { "?" };
        let path = format!("/v1/{path}{mark}{}", parts.join("&"));
        Question { method, path, body: body.into(), again: None, is_patient: false }
    }

    /// All or nothing.
    pub(crate) async fn transact(&self, lane: Lane, ops: &[Op]) -> Result<Reply<TxnResult>> {
        let _turn = self.pool(lane).turn().await;
        self.transact_within(lane, self.limit, "", ops).await
    }

    /// A turn, if it comes by `latest`: a request whose caller has stopped waiting is not sent.
    pub(crate) async fn turn(&self, lane: Lane, latest: Option<Instant>) -> Result<Turn<'_>> {
        let turn = self.pool(lane).turn();
        let permit = match latest {
            Some(latest) => tokio::time::timeout_at(latest, turn).await.map_err(|_| error::no_turn(self.limit))?,
            None => turn.await,
        };
        Ok(Turn { lane, _permit: permit })
    }

    /// All or nothing, by a turn that was had before.
    pub(crate) async fn transact_in(&self, turn: &Turn<'_>, ops: &[Op]) -> Result<Reply<TxnResult>> {
        self.transact_within(turn.lane, self.limit, "", ops).await
    }

    /// A transaction that only reads, from a leader that has proved to be one.
    pub(crate) async fn look_at(&self, lane: Lane, ops: &[Op]) -> Result<TxnResult> {
        let _turn = self.pool(lane).turn().await;
        Ok(self.transact_within(lane, self.limit, "consistent", ops).await?.message)
    }

    async fn transact_within(&self, lane: Lane, limit: Duration, query: &str, ops: &[Op]) -> Result<Reply<TxnResult>> {
        let body =
            serde_json::to_vec(&Transaction(ops)).map_err(|_| error::strange("a transaction that is no JSON"))?;
        let query: &[&str] = if query.is_empty() { &[] } else { &[query] };
        let question = self.question(Method::PUT, "txn", query, body);
        self.ask_within(lane, limit, question, |answer, address| read_transaction(&answer, address)).await
    }

    /// What stands at a key, or below a prefix, from a leader that has proved to be one.
    pub(crate) async fn read(&self, lane: Lane, key: &str, scope: Scope) -> Result<Page> {
        self.read_as(lane, key, scope, Some("consistent")).await
    }

    /// What stands there and below, if that key is there itself. A list leaves out what this token may not read: so where it lacks the
    /// key, that alone is asked for, which is refused then. Nothing is taken for gone that is only hidden.
    pub(crate) async fn read_folder(&self, lane: Lane, key: &str) -> Result<Option<Page>> {
        let page = self.read(lane, key, Scope::Below).await?;
        if page.has(key) {
            return Ok(Some(page));
        }
        if self.read(lane, key, Scope::One).await?.entries.is_empty() {
            return Ok(None);
        }
        // It was made in between.
        Ok(Some(self.read(lane, key, Scope::Below).await?).filter(|page| page.has(key)))
    }

    /// Reads a key, or those below it, from the server that takes itself for the leader.
    pub(crate) async fn glance(&self, lane: Lane, key: &str, scope: Scope) -> Result<Page> {
        self.read_as(lane, key, scope, None).await
    }

    async fn read_as(&self, lane: Lane, key: &str, scope: Scope, how: Option<&str>) -> Result<Page> {
        let query: Vec<&str> = scope.query().into_iter().chain(how).collect();
        let answer = self.ask(lane, self.question(Method::GET, &format!("kv/{key}"), &query, Bytes::new())).await?;
        Page::read(&answer.message)
    }

    /// The same as [`Client::read`], by a turn that was had before.
    pub(crate) async fn read_in(&self, turn: &Turn<'_>, key: &str, scope: Scope) -> Result<Page> {
        let query: Vec<&str> = scope.query().into_iter().chain(["consistent"]).collect();
        let question = self.question(Method::GET, &format!("kv/{key}"), &query, Bytes::new());
        let answer = self.ask_within(turn.lane, self.limit, question, |answer, _| Ok(answer)).await?;
        Page::read(&answer.message)
    }

    /// The names below a prefix, up to the next slash.
    pub(crate) async fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let query = ["keys", "separator=/", "consistent"];
        let question = self.question(Method::GET, &format!("kv/{prefix}"), &query, Bytes::new());
        let answer = self.ask(Lane::Wish, question).await?.message;
        if answer.status == 404 {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&answer.body).map_err(|_| error::strange("a list of keys"))
    }
}

/// How much of what lies at a key is read.
#[derive(Clone, Copy)]
pub(crate) enum Scope {
    One,
    /// All that begins with it.
    Below,
}

impl Scope {
    pub(crate) fn query(self) -> Option<&'static str> {
        match self {
            Scope::One => None,
            Scope::Below => Some("recurse"),
        }
    }
}

/// Between two rounds of a patient question.
fn pauses() -> Backoff {
    Backoff::between(Duration::from_millis(50), Duration::from_millis(500))
}
