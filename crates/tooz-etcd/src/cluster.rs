//! The endpoints together: which one is asked, when it is left for the next, and the login that all of them want.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Response, Status};
use tooz_core::{ErrorKind, Outcome, Result};

use crate::endpoint::{Endpoint, Headers, Line};
use crate::error::{self, Failure, Remedy};
use crate::options::{Credentials, Settings};
use crate::proto::etcdserverpb::AuthenticateRequest;

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

/// The members that the URL names. The library's own balancing hides which member answered; a beat must know.
pub(crate) struct Cluster {
    endpoints: Vec<Endpoint>,
    chosen: [AtomicUsize; 3],
    credentials: Option<Credentials>,
    login: Mutex<Login>,
    /// One login at a time: etcd hashes passwords slowly on purpose.
    turnstile: Semaphore,
    /// A thousand requests at once would stand before the session's own heartbeat in the server's queue.
    crowd: Semaphore,
    /// How long one request may take, all its repetitions included.
    limit: Duration,
}

#[derive(Clone, Default)]
struct Login {
    count: u64,
    token: Option<MetadataValue<Ascii>>,
}

/// An answer, and whether the same request was sent before without one.
pub(crate) struct Reply<T> {
    pub(crate) message: T,
    /// An earlier sending may still be carried out, any time later.
    pub(crate) was_repeated: bool,
}

impl Cluster {
    pub(crate) fn new(settings: Settings, connect_timeout: Duration, limit: Duration) -> Result<Self> {
        let mut endpoints = Vec::new();
        for address in settings.endpoints {
            endpoints.push(Endpoint::new(&address, settings.tls.as_ref(), connect_timeout)?);
        }
        // Fleets with one URL spread over the members.
        let first = fastrand::usize(..endpoints.len());
        Ok(Cluster {
            endpoints,
            chosen: std::array::from_fn(|_| AtomicUsize::new(first)),
            credentials: settings.credentials,
            login: Mutex::default(),
            turnstile: Semaphore::new(1),
            crowd: Semaphore::new(CROWD),
            limit,
        })
    }

    /// How long one request may take.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// How long the first of several endpoints may take, so that time is left for another.
    pub(crate) fn first_limit(&self) -> Duration {
        if self.endpoints.len() > 1 { self.limit / 2 } else { self.limit }
    }

    /// How many endpoints there are.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    pub(crate) fn address(&self, endpoint: usize) -> &str {
        self.endpoints[endpoint].address()
    }

    /// The endpoint that requests of this class go to now.
    pub(crate) fn line(&self, class: Class) -> Line {
        self.line_to(self.chosen[class as usize].load(Ordering::Relaxed))
    }

    pub(crate) fn line_to(&self, endpoint: usize) -> Line {
        let (connection, channel) = self.endpoints[endpoint].channel();
        let Login { count, token } = self.login.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let address = Arc::clone(self.endpoints[endpoint].address());
        let headers = Headers { token, require_leader: true };
        Line { channel, headers, address, endpoint, connection, login: count }
    }

    /// The endpoint of that line did not serve: this class goes on to the next.
    pub(crate) fn leave(&self, class: Class, line: &Line) {
        let next = (line.endpoint + 1) % self.endpoints.len();
        // Whoever failed there at the same time must not push it one further.
        let _ = self.chosen[class as usize].compare_exchange(line.endpoint, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// No answer came over that line: its connection is given up as well.
    pub(crate) fn hang_up(&self, class: Class, line: &Line, waited: Duration) -> Failure {
        self.endpoints[line.endpoint].renew(line.connection);
        self.leave(class, line);
        error::no_answer(&line.address, waited)
    }

    /// Asks one endpoint after the other, within the limit. Whatever is asked must bear being done twice.
    pub(crate) async fn ask<T, F>(&self, question: impl Fn(Line) -> F) -> Result<Reply<T>>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask_within(self.limit, question).await
    }

    /// The same with another limit for all repetitions together.
    pub(crate) async fn ask_within<T, F>(&self, limit: Duration, question: impl Fn(Line) -> F) -> Result<Reply<T>>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        // Waiting for a turn here is no part of the limit: nothing was sent yet.
        let _turn = self.crowd.acquire().await;
        let give_up = Instant::now() + limit;
        let mut patience = if self.endpoints.len() > 1 { limit / 2 } else { limit };
        let (mut asked, mut logins, mut was_repeated) = (0, 0, false);
        loop {
            let line = self.line(Class::Ask);
            let failure = match timeout(patience, question(line.clone())).await {
                Ok(Ok(response)) => return Ok(Reply { message: response.into_inner(), was_repeated }),
                Ok(Err(status)) => line.judge(status),
                Err(_) => self.hang_up(Class::Ask, &line, patience),
            };
            was_repeated |= failure.error.outcome() == Outcome::Unknown;
            patience = give_up.saturating_duration_since(Instant::now());
            let again = match failure.remedy {
                Remedy::LogIn if self.credentials.is_some() && logins == 0 => {
                    logins += 1;
                    self.log_in_after(line.login).await?;
                    true
                }
                Remedy::LogIn | Remedy::None => false,
                Remedy::AskAnother => {
                    asked += 1;
                    self.leave(Class::Ask, &line);
                    asked < self.endpoints.len()
                }
            };
            if !again || patience.is_zero() {
                let outcome = if was_repeated { Outcome::Unknown } else { failure.error.outcome() };
                return Err(failure.error.with_outcome(outcome));
            }
        }
    }

    /// Logs in, if the URL names a user.
    pub(crate) async fn log_in(&self) -> Result<()> {
        if self.credentials.is_some() { self.log_in_after(0).await } else { Ok(()) }
    }

    /// Logs in anew, unless somebody did since the login with that count.
    pub(crate) async fn log_in_after(&self, count: u64) -> Result<()> {
        let Some(credentials) = &self.credentials else { return Ok(()) };
        let _one_at_a_time = self.turnstile.acquire().await;
        if self.login.lock().unwrap_or_else(PoisonError::into_inner).count > count {
            return Ok(());
        }
        let limit = self.limit.max(LOGIN);
        let mut asked = 0;
        loop {
            let mut line = self.line(Class::Ask);
            // A token that has run out would be refused even here.
            line.headers.token = None;
            let request =
                AuthenticateRequest { name: credentials.name.clone(), password: credentials.password.clone() };
            let failure = match timeout(limit, line.auth().authenticate(request)).await {
                Ok(Ok(response)) => {
                    let token = response.into_inner().token.parse().map_err(|_| error::strange("the token"))?;
                    let mut login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
                    *login = Login { count: count + 1, token: Some(token) };
                    return Ok(());
                }
                // An etcd without users takes everybody.
                Ok(Err(status)) if status.message().contains("authentication is not enabled") => return Ok(()),
                Ok(Err(status)) => line.judge(status),
                Err(_) => self.hang_up(Class::Ask, &line, limit),
            };
            asked += 1;
            self.leave(Class::Ask, &line);
            if asked >= self.endpoints.len() || failure.error.kind() == ErrorKind::Unauthorized {
                return Err(failure.error.context("log in"));
            }
        }
    }
}

/// How many questions and transactions of one session are under way at most: enough to keep a server busy.
const CROWD: usize = 64;

/// etcd hashes the password for some tenths of a second.
const LOGIN: Duration = Duration::from_secs(2);
