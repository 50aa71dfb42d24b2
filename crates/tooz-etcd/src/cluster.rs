//! The endpoints together: which one is asked, when it is left for another, and how many requests are under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Response, Status};
use tooz_core::{Error, Outcome, Result};

use crate::endpoint::{Endpoint, Headers, Line};
use crate::error::{self, Failure, Remedy};
use crate::history::History;
use crate::login::{LoggedIn, Login};
use crate::options::Settings;
use crate::proto::etcdserverpb::{AuthenticateRequest, StatusRequest, StatusResponse};

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

/// Who goes before whom. A thousand requests at once would stand before the session's own heartbeat in the server's queue, so that they
/// take turns; heartbeats wait for nobody.
#[derive(Clone, Copy)]
pub(crate) enum Lane {
    /// What somebody wants to have or to know.
    Wish,
    /// What gives back, or goes on with what was begun: forty thousand wishes are not in its way.
    Duty,
    /// What the session itself lives by. It bounds itself.
    First,
}

/// The members that the URL names. The library's own balancing hides which member answered; a beat must know.
pub(crate) struct Cluster {
    endpoints: Vec<Endpoint>,
    chosen: [AtomicUsize; 3],
    login: Login,
    wishes: Semaphore,
    duties: Semaphore,
    /// Closed while a heartbeat is under way that would have to make its way through a crowd.
    gate: watch::Sender<bool>,
    /// One search for an endpoint that answers at a time: whoever waits for it finds what it has found.
    searching: Semaphore,
    /// How long one request may take, all its repetitions included.
    limit: Duration,
    /// How far the cluster has come.
    pub(crate) history: History,
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
            login: Login::new(settings.credentials),
            wishes: Semaphore::new(CROWD),
            duties: Semaphore::new(CROWD),
            gate: watch::Sender::new(true),
            searching: Semaphore::new(1),
            limit,
            history: History::new(),
        })
    }

    /// How long one request may take.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// How many endpoints there are.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    pub(crate) fn address(&self, endpoint: usize) -> &str {
        self.endpoints[endpoint].address()
    }

    /// Whether nobody between here and the server can read along.
    pub(crate) fn is_by_tls(&self) -> bool {
        self.endpoints.iter().all(Endpoint::is_by_tls)
    }

    /// Who logs in.
    pub(crate) fn login(&self) -> &Login {
        &self.login
    }

    /// The endpoint that requests of this class go to now.
    pub(crate) fn line(&self, class: Class) -> Line {
        self.line_to(self.chosen[class as usize].load(Ordering::Relaxed))
    }

    pub(crate) fn line_to(&self, endpoint: usize) -> Line {
        let (connection, channel) = self.endpoints[endpoint].channel();
        let token = self.login.token();
        let address = Arc::clone(self.endpoints[endpoint].address());
        let headers = Headers { token: token.value, require_leader: true };
        Line { channel, headers, address, endpoint, connection, login: token.count }
    }

    /// The endpoint of that line did not serve: this class goes on to the next.
    pub(crate) fn leave(&self, class: Class, line: &Line) {
        let next = (line.endpoint + 1) % self.endpoints.len();
        // Whoever failed there at the same time must not push it one further.
        let _ = self.chosen[class as usize].compare_exchange(line.endpoint, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// No answer came over that line: its connection is given up.
    pub(crate) fn hang_up(&self, line: &Line, waited: Duration) -> Failure {
        self.endpoints[line.endpoint].renew(line.connection);
        error::no_answer(&line.address, waited)
    }

    /// Leaves an endpoint that hangs for one that answers, if there is one. Several may hang at a time, so that going on to the next is no
    /// better than a guess.
    pub(crate) async fn find_another(&self, class: Class, line: &Line, limit: Duration) {
        let _one_at_a_time = self.searching.acquire().await;
        let chosen = &self.chosen[class as usize];
        if chosen.load(Ordering::Relaxed) != line.endpoint {
            return;
        }
        let count = self.endpoints.len();
        let others = (1..count).map(|step| (line.endpoint + step) % count).collect();
        match self.first_to_answer(others, limit).await {
            Ok((living, _)) => chosen.store(living, Ordering::Relaxed),
            Err(_) => self.leave(class, line),
        }
    }

    /// Finds an endpoint that answers, and lets all begin there. Answers what it said of itself, if it says that to everybody.
    pub(crate) async fn meet(&self, limit: Duration) -> Result<Option<StatusResponse>> {
        let (first, count) = (self.chosen[0].load(Ordering::Relaxed), self.endpoints.len());
        let all = (0..count).map(|step| (first + step) % count).collect();
        let (living, status) = self.first_to_answer(all, limit).await?;
        self.chosen.iter().for_each(|chosen| chosen.store(living, Ordering::Relaxed));
        Ok(status)
    }

    /// Asks one after the other who it is, each a moment after the one before, and takes whoever answers first.
    async fn first_to_answer(
        &self,
        mut left: VecDeque<usize>,
        limit: Duration,
    ) -> Result<(usize, Option<StatusResponse>)> {
        let give_up = Instant::now() + limit;
        let mut running = JoinSet::new();
        let mut failure: Option<Error> = None;
        loop {
            if let Some(endpoint) = left.pop_front() {
                let line = self.line_to(endpoint);
                running.spawn(async move {
                    let answer = line.maintenance().status(StatusRequest {}).await;
                    (line, answer)
                });
            }
            let until = if left.is_empty() { give_up } else { give_up.min(Instant::now() + STEP) };
            let failed = match timeout_at(until, running.join_next()).await {
                Ok(Some(Ok((line, Ok(status))))) => {
                    let status = status.into_inner();
                    if !status.is_learner {
                        return Ok((line.endpoint, Some(status)));
                    }
                    line.judge(Status::unavailable("rpc not supported for learner"))
                }
                Ok(Some(Ok((line, Err(status))))) => {
                    let failed = line.judge(status);
                    if failed.remedy == Remedy::LogIn {
                        return Ok((line.endpoint, None));
                    }
                    failed
                }
                Ok(Some(Err(_))) => continue,
                Err(_) if Instant::now() < give_up => continue,
                // All have failed, or the time is over.
                Ok(None) | Err(_) => break,
            };
            // What nobody mends by waiting says more than that another does not answer.
            if failure.as_ref().is_none_or(Error::is_retryable) {
                failure = Some(failed.error);
            }
        }
        Err(failure.unwrap_or_else(|| {
            let names: Vec<_> = self.endpoints.iter().map(|one| one.address().as_ref()).collect();
            error::no_answer(&names.join(", "), limit).error
        }))
    }

    /// Nothing new is sent until the answer is dropped, if so much is under way that a heartbeat would stand in a queue behind it, here or
    /// at the server.
    pub(crate) fn clear_the_way(&self) -> Option<Cleared<'_>> {
        let is_crowded = self.wishes.available_permits() == 0 || self.duties.available_permits() == 0;
        is_crowded.then(|| {
            self.gate.send_replace(false);
            Cleared(&self.gate)
        })
    }

    async fn turn(&self, lane: Lane) -> Option<SemaphorePermit<'_>> {
        let turn = match lane {
            Lane::Wish => self.wishes.acquire().await.ok(),
            Lane::Duty => self.duties.acquire().await.ok(),
            Lane::First => return None,
        };
        if !*self.gate.borrow() {
            let _ = self.gate.subscribe().wait_for(|is_open| *is_open).await;
        }
        turn
    }

    /// Asks one endpoint after the other, within the limit. Whatever is asked must bear being done twice.
    pub(crate) async fn ask<T, F>(&self, lane: Lane, question: impl Fn(Line) -> F) -> Result<Reply<T>>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        // Waiting for a turn here is no part of the limit: nothing was sent yet.
        let _turn = self.turn(lane).await;
        self.ask_within(self.limit, question).await
    }

    /// The same at once, with another limit for all repetitions together.
    pub(crate) async fn ask_within<T, F>(&self, limit: Duration, question: impl Fn(Line) -> F) -> Result<Reply<T>>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut round = Round::new(self, Class::Ask, limit);
        let mut was_repeated = false;
        loop {
            let (line, patience) = (self.line(Class::Ask), round.patience());
            let failure = match timeout(patience, question(line.clone())).await {
                Ok(Ok(response)) => return Ok(Reply { message: response.into_inner(), was_repeated }),
                Ok(Err(status)) => line.judge(status),
                Err(_) => self.hang_up(&line, patience),
            };
            was_repeated |= failure.error.outcome() == Outcome::Unknown;
            if let Err(error) = round.go_on(&line, failure).await {
                // Whatever became of the last sending, an earlier one may have been done.
                return Err(if was_repeated { error.with_outcome(Outcome::Unknown) } else { error });
            }
        }
    }

    /// Logs in, if anybody is named who can.
    pub(crate) async fn log_in(&self) -> Result<()> {
        self.log_in_after(self.login.token().count).await.map(drop)
    }

    /// Logs in anew, unless somebody did since the login with that count.
    pub(crate) async fn log_in_after(&self, count: u64) -> Result<LoggedIn> {
        let limit = self.limit;
        self.login.after(count, limit, |name, password| self.authenticate(name, password)).await
    }

    async fn authenticate(&self, name: String, password: String) -> crate::login::Answer {
        let mut round = Round::new(self, Class::Ask, Login::limit(self.limit));
        loop {
            let (mut line, patience) = (self.line(Class::Ask), round.patience());
            // A token that has run out would be refused even here.
            line.headers.token = None;
            let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
            let failure = match timeout(patience, line.auth().authenticate(request)).await {
                Ok(Ok(response)) => {
                    let token = response.into_inner().token.parse().map_err(|_| error::strange("the token"))?;
                    return Ok(Some(token));
                }
                // An etcd without users takes everybody.
                Ok(Err(status)) if status.message().contains("authentication is not enabled") => return Ok(None),
                Ok(Err(status)) => line.judge(status),
                Err(_) => self.hang_up(&line, patience),
            };
            round.go_elsewhere(&line, failure).await?;
        }
    }
}

/// A way that is kept clear for a heartbeat.
pub(crate) struct Cleared<'a>(&'a watch::Sender<bool>);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// How one request goes from endpoint to endpoint within its limit.
pub(crate) struct Round<'a> {
    cluster: &'a Cluster,
    class: Class,
    limit: Duration,
    give_up: Instant,
    asked: usize,
    logins: u32,
    /// Whether the endpoint that is next was seen to answer.
    is_proven: bool,
}

impl<'a> Round<'a> {
    pub(crate) fn new(cluster: &'a Cluster, class: Class, limit: Duration) -> Self {
        let is_proven = cluster.len() == 1;
        Round { cluster, class, limit, give_up: Instant::now() + limit, asked: 0, logins: 0, is_proven }
    }

    /// How long the next endpoint may take, so that time is left for another.
    pub(crate) fn patience(&self) -> Duration {
        let left = self.give_up.saturating_duration_since(Instant::now());
        if self.is_proven || self.asked + 1 == self.cluster.len() { left } else { left / 2 }
    }

    /// Mends what can be mended after a failure over that line, so that the request can be sent again; else answers the error.
    pub(crate) async fn go_on(&mut self, line: &Line, failure: Failure) -> Result<()> {
        if failure.remedy != Remedy::LogIn {
            return self.go_elsewhere(line, failure).await;
        }
        self.logins += 1;
        if self.logins > 1 || self.cluster.log_in_after(line.login).await? == LoggedIn::Nobody {
            return Err(failure.error);
        }
        // To log in takes its time, of which the request is to have some.
        self.give_up = self.give_up.max(Instant::now() + self.limit / 2);
        Ok(())
    }

    /// The same where logging in is no help.
    async fn go_elsewhere(&mut self, line: &Line, failure: Failure) -> Result<()> {
        let left = self.give_up.saturating_duration_since(Instant::now());
        if matches!(failure.remedy, Remedy::None | Remedy::LogIn) {
            return Err(failure.error);
        }
        self.asked += 1;
        let is_last = self.asked >= self.cluster.len() || left.is_zero();
        if failure.remedy == Remedy::FindAnother && !is_last {
            self.cluster.find_another(self.class, line, left / 2).await;
            self.is_proven = true;
        } else {
            self.cluster.leave(self.class, line);
            self.is_proven = false;
        }
        // The search may have taken what was left, and whoever waited for nothing has nothing to tell.
        if is_last || Instant::now() >= self.give_up { Err(failure.error) } else { Ok(()) }
    }
}

/// How many wishes, and how many duties, of one session are under way at most: enough to keep a server busy.
const CROWD: usize = 64;

/// How long the next endpoint is given before another is asked beside it who it is. On one network an answer takes a fraction of that.
const STEP: Duration = Duration::from_millis(50);
