//! The members that the URL names: which of them is asked, and when it is left for another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::transport::Channel;
use tooz_core::driver::Mutex;
use tooz_core::{Error, Result};

use crate::connection::{Connection, Headers};
use crate::error::{self, Failure, Remedy};
use crate::login::Login;
use crate::options::Settings;
use crate::proto::etcdserverpb::{StatusRequest, StatusResponse};
use crate::tls::Tls;

/// etcd ends connections that ping more often than once in 5 s. Heartbeats notice a dead peer long before; this mends a connection
/// on which nothing but a watch is left.
const PING: Duration = Duration::from_secs(6);

/// How long the next endpoint is given before another is asked beside it who it is. On one network an answer takes a fraction of that.
const STEP: Duration = Duration::from_millis(50);

/// Kinds of requests that choose their endpoint apart from each other: a member that hangs for one may serve another.
#[derive(Clone, Copy)]
pub(crate) enum Class {
    /// Questions and transactions.
    Ask,
    /// The heartbeat.
    Beat,
    /// The stream of watches.
    Watch,
}

/// What an endpoint says to the question who it is.
pub(crate) enum Greeting {
    /// Its name and state.
    Status(StatusResponse),
    /// It tells that only to users who have logged in.
    LogInFirst,
}

/// All of them. The library's own balancing hides which member answered; a heartbeat must know.
pub(crate) struct Endpoints {
    all: Vec<Endpoint>,
    chosen: [AtomicUsize; 3],
    pub(crate) login: Login,
    /// One search for an endpoint that answers at a time: all that wait for it find what it has found.
    searching: Semaphore,
}

/// One member of the cluster, as the URL names it.
struct Endpoint {
    address: Arc<str>,
    plan: tonic::transport::Endpoint,
    tls: Option<Tls>,
    /// The present connection, and how many there were before it.
    channel: Mutex<(u64, Channel)>,
}

impl Endpoints {
    /// Must be called inside the heart's runtime.
    pub(crate) fn new(settings: Settings, connect_timeout: Duration) -> Result<Self> {
        let mut all = Vec::new();
        for address in settings.endpoints {
            all.push(Endpoint::new(&address, settings.tls.as_ref(), connect_timeout)?);
        }
        // Fleets with one URL spread over the members.
        let first = fastrand::usize(..all.len());
        Ok(Endpoints {
            all,
            chosen: std::array::from_fn(|_| AtomicUsize::new(first)),
            login: Login::new(settings.credentials),
            searching: Semaphore::new(1),
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn address(&self, endpoint: usize) -> &str {
        &self.all[endpoint].address
    }

    /// Whether nothing between here and the servers can read along.
    pub(crate) fn are_by_tls(&self) -> bool {
        self.all.iter().all(|endpoint| endpoint.tls.is_some())
    }

    /// A connection to the endpoint that requests of this class go to now.
    pub(crate) fn connection(&self, class: Class) -> Connection {
        self.connection_to(self.chosen[class as usize].load(Ordering::Relaxed))
    }

    pub(crate) fn connection_to(&self, endpoint: usize) -> Connection {
        let (count, channel) = self.all[endpoint].channel.lock().clone();
        let token = self.login.token();
        let address = Arc::clone(&self.all[endpoint].address);
        let headers = Headers { token: token.value, require_leader: true };
        Connection { channel, headers, address, endpoint, count, login: token.count }
    }

    /// The endpoint of that connection did not serve: this class goes on to the next.
    pub(crate) fn leave(&self, class: Class, connection: &Connection) {
        let (left, next) = (connection.endpoint, (connection.endpoint + 1) % self.all.len());
        // Other requests that failed there at the same time must not push it one further.
        let _ = self.chosen[class as usize].compare_exchange(left, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// No answer came over that connection: it is given up.
    pub(crate) fn hang_up(&self, connection: &Connection, waited: Duration) -> Failure {
        self.all[connection.endpoint].renew(connection.count);
        error::no_answer(&connection.address, waited)
    }

    /// Leaves an endpoint that hangs for one that answers, if there is one. Several may hang at a time, so that going on to the next is no
    /// better than a guess.
    pub(crate) async fn find_another(&self, class: Class, connection: &Connection, limit: Duration) {
        let _one_at_a_time = self.searching.acquire().await;
        let chosen = &self.chosen[class as usize];
        if chosen.load(Ordering::Relaxed) != connection.endpoint {
            return;
        }
        let count = self.all.len();
        let others = (1..count).map(|step| (connection.endpoint + step) % count).collect();
        match self.first_to_answer(others, limit).await {
            Ok((living, _)) => chosen.store(living, Ordering::Relaxed),
            Err(_) => self.leave(class, connection),
        }
    }

    /// Finds an endpoint that answers, and lets all classes begin there.
    pub(crate) async fn meet(&self, limit: Duration) -> Result<Greeting> {
        let (first, count) = (self.chosen[0].load(Ordering::Relaxed), self.all.len());
        let all = (0..count).map(|step| (first + step) % count).collect();
        let (living, greeting) = self.first_to_answer(all, limit).await?;
        self.chosen.iter().for_each(|chosen| chosen.store(living, Ordering::Relaxed));
        Ok(greeting)
    }

    /// Asks one after the other who it is, each a moment after the one before, and takes the first that answers.
    async fn first_to_answer(&self, mut left: VecDeque<usize>, limit: Duration) -> Result<(usize, Greeting)> {
        let give_up = Instant::now() + limit;
        let mut running = JoinSet::new();
        let mut failure: Option<Error> = None;
        loop {
            if let Some(endpoint) = left.pop_front() {
                let connection = self.connection_to(endpoint);
                running.spawn(async move {
                    let answer = connection.maintenance().status(StatusRequest {}).await;
                    (connection, answer)
                });
            }
            let until = if left.is_empty() { give_up } else { give_up.min(Instant::now() + STEP) };
            let failed = match timeout_at(until, running.join_next()).await {
                Ok(Some(Ok((connection, Ok(status))))) => {
                    let status = status.into_inner();
                    if !status.is_learner {
                        return Ok((connection.endpoint, Greeting::Status(status)));
                    }
                    connection.judge(Status::unavailable("rpc not supported for learner"))
                }
                Ok(Some(Ok((connection, Err(status))))) => {
                    let failed = connection.judge(status);
                    if failed.remedy == Remedy::LogIn {
                        return Ok((connection.endpoint, Greeting::LogInFirst));
                    }
                    failed
                }
                Ok(Some(Err(_))) => continue,
                Err(_) if Instant::now() < give_up => continue,
                // All have failed, or the time is over.
                Ok(None) | Err(_) => break,
            };
            // What no waiting mends says more than that another does not answer.
            if failure.as_ref().is_none_or(Error::is_retryable) {
                failure = Some(failed.error);
            }
        }
        Err(failure.unwrap_or_else(|| {
            let names: Vec<_> = self.all.iter().map(|one| one.address.as_ref()).collect();
            error::no_answer(&names.join(", "), limit).error
        }))
    }
}

impl Endpoint {
    /// Connects when it is first used.
    fn new(address: &str, tls: Option<&Tls>, connect_timeout: Duration) -> Result<Self> {
        let host: Arc<str> = address.split_once("://").map_or(address, |(_, host)| host).into();
        let wrong = |error: &dyn std::fmt::Display| {
            Error::config(format!("{host} is no address of an etcd member: {error}; write HOST:PORT"))
        };
        // The library must not think of TLS, which is the driver's own.
        let mut plan = tonic::transport::Endpoint::from_shared(format!("http://{host}"))
            .map_err(|error| wrong(&error))?
            .connect_timeout(connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        if tls.is_some() {
            plan = plan.origin(format!("https://{host}").parse().map_err(|error| wrong(&error))?);
        }
        let tls = tls.cloned();
        let channel = Mutex::new((0, connect(&plan, tls.as_ref())));
        Ok(Endpoint { address: host, plan, tls, channel })
    }

    /// Puts a fresh connection in the place of one that did not answer: the network may have forgotten it without a word.
    /// What still runs over the old one keeps it until it ends.
    fn renew(&self, count: u64) {
        let mut channel = self.channel.lock();
        if channel.0 == count {
            *channel = (count + 1, connect(&self.plan, self.tls.as_ref()));
        }
    }
}

fn connect(plan: &tonic::transport::Endpoint, tls: Option<&Tls>) -> Channel {
    match tls {
        Some(tls) => tls.connect_lazily(plan),
        None => plan.connect_lazy(),
    }
}
