//! The client: sends each request over one connection after another within its limit, logs in, and reads what is too long for one answer.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::{Response, Status};
use tooz_core::{Outcome, Result};

use crate::connection::Connection;
use crate::endpoints::{Class, Endpoints};
use crate::error::{self, Failure, Remedy};
use crate::history::History;
use crate::lanes::{Lane, Lanes};
use crate::login::{Admission, Login, LoginEnd};
use crate::options::Settings;
use crate::proto::etcdserverpb::{
    AuthenticateRequest, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use crate::proto::mvccpb::KeyValue;

/// How many keys one request reads at most.
pub(crate) const PAGE: i64 = 1000;
/// How many bytes the pages after the first are to have.
const PAGE_SIZE: usize = 4 << 20;

/// The client of one session.
pub(crate) struct Client {
    pub(crate) endpoints: Endpoints,
    pub(crate) lanes: Lanes,
    /// How far the cluster has come.
    pub(crate) history: History,
    /// How long one request may take, all its repetitions included.
    limit: Duration,
}

/// An answer, and whether the same request was sent before without one.
pub(crate) struct Reply<T> {
    pub(crate) message: T,
    /// An earlier sending may still be carried out, any time later.
    pub(crate) was_repeated: bool,
}

impl Client {
    /// Must be called inside the heart's runtime.
    pub(crate) fn new(settings: Settings, connect_timeout: Duration, limit: Duration) -> Result<Self> {
        let endpoints = Endpoints::new(settings, connect_timeout)?;
        Ok(Client { endpoints, lanes: Lanes::new(), history: History::new(), limit })
    }

    /// How long one request may take.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Asks one endpoint after the other, within the limit. What is asked must bear being done twice.
    pub(crate) async fn ask<T, F>(&self, lane: Lane, question: impl Fn(Connection) -> F) -> Result<Reply<T>>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        // Waiting for a turn here is no part of the limit: nothing was sent yet.
        let _turn = self.lanes.turn(lane).await;
        self.ask_within(self.limit, question).await
    }

    /// Asks one endpoint after the other without waiting for a turn; `limit` is for all repetitions together.
    pub(crate) async fn ask_within<T, F>(&self, limit: Duration, question: impl Fn(Connection) -> F) -> Result<Reply<T>>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut round = Round::new(self, Class::Ask, limit);
        let mut was_repeated = false;
        loop {
            let (connection, patience) = (self.endpoints.connection(Class::Ask), round.patience());
            let failure = match timeout(patience, question(connection.clone())).await {
                Ok(Ok(response)) => return Ok(Reply { message: response.into_inner(), was_repeated }),
                Ok(Err(status)) => connection.judge(status),
                Err(_) => self.endpoints.hang_up(&connection, patience),
            };
            was_repeated |= failure.error.outcome() == Outcome::Unknown;
            if let Err(error) = round.go_on(&connection, failure).await {
                // An earlier attempt may have been applied, even if the last one was not.
                return Err(if was_repeated { error.with_outcome(Outcome::Unknown) } else { error });
            }
        }
    }

    pub(crate) async fn txn(&self, lane: Lane, request: &TxnRequest) -> Result<Reply<TxnResponse>> {
        let before = self.history.seen();
        let asked = self.ask(lane, |connection| {
            let request = request.clone();
            async move { connection.kv().txn(request).await }
        });
        let reply = asked.await?;
        self.history.note(before, reply.message.header.as_ref());
        Ok(reply)
    }

    pub(crate) async fn range(&self, lane: Lane, request: &RangeRequest) -> Result<RangeResponse> {
        let before = self.history.seen();
        let asked = self.ask(lane, |connection| {
            let request = request.clone();
            async move { connection.kv().range(request).await }
        });
        let found = asked.await?.message;
        self.history.note(before, found.header.as_ref());
        Ok(found)
    }

    /// All keys of a range of which the first page was read at that revision. One request reads no more than a page: what is in
    /// one answer the server has in its memory at once.
    pub(crate) async fn rest(
        &self,
        range: &RangeRequest,
        first: RangeResponse,
        revision: i64,
    ) -> Result<Vec<KeyValue>> {
        let (mut more, mut kvs) = (first.more, first.kvs);
        while more && let Some(last) = kvs.last() {
            let mut key = last.key.clone();
            key.push(0);
            let size = kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum::<usize>() / kvs.len();
            let limit = i64::try_from(PAGE_SIZE / size.max(1)).unwrap_or(PAGE).clamp(1, PAGE);
            let next = self.range(Lane::Wish, &RangeRequest { key, revision, limit, ..range.clone() }).await?;
            more = next.more;
            kvs.extend(next.kvs);
        }
        Ok(kvs)
    }

    /// Deletes one key; it is fine if there is none. Answers whether there was one.
    pub(crate) async fn delete(&self, key: &[u8]) -> Result<Reply<bool>> {
        let before = self.history.seen();
        let asked = self.ask(Lane::Duty, |connection| {
            let request = DeleteRangeRequest { key: key.into(), range_end: Vec::new() };
            async move { connection.kv().delete_range(request).await }
        });
        let Reply { message, was_repeated } = asked.await?;
        self.history.note(before, message.header.as_ref());
        Ok(Reply { message: message.deleted > 0, was_repeated })
    }

    /// Writes one key under a lease (0: none).
    pub(crate) async fn put(&self, key: &[u8], value: &[u8], lease: i64) -> Result<()> {
        let asked = self.ask(Lane::First, |connection| {
            let request = PutRequest { key: key.into(), value: value.into(), lease };
            async move { connection.kv().put(request).await }
        });
        asked.await.map(drop)
    }

    /// Logs in, if the application names a user.
    pub(crate) async fn log_in(&self) -> Result<()> {
        self.log_in_after(self.endpoints.login.token().count).await.map(drop)
    }

    /// Logs in anew, unless that was done since the log-in with that count.
    pub(crate) async fn log_in_after(&self, count: u64) -> Result<LoginEnd> {
        let limit = self.limit;
        self.endpoints.login.after(count, limit, |name, password| self.authenticate(name, password)).await
    }

    async fn authenticate(&self, name: String, password: String) -> Result<Admission> {
        let mut round = Round::new(self, Class::Ask, Login::limit(self.limit));
        loop {
            let (mut connection, patience) = (self.endpoints.connection(Class::Ask), round.patience());
            // A token that has run out would be refused even here.
            connection.headers.token = None;
            let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
            let failure = match timeout(patience, connection.auth().authenticate(request)).await {
                Ok(Ok(response)) => {
                    let token = response.into_inner().token.parse().map_err(|_| error::strange("the token"))?;
                    return Ok(Admission::Token(token));
                }
                Ok(Err(status)) if status.message().contains("authentication is not enabled") => {
                    return Ok(Admission::WithoutUsers);
                }
                Ok(Err(status)) => connection.judge(status),
                Err(_) => self.endpoints.hang_up(&connection, patience),
            };
            round.go_elsewhere(&connection, failure).await?;
        }
    }
}

/// How one request goes from endpoint to endpoint within its limit.
pub(crate) struct Round<'a> {
    client: &'a Client,
    class: Class,
    limit: Duration,
    give_up: Instant,
    asked: usize,
    logins: u32,
    /// Whether the endpoint that is next was seen to answer.
    is_proven: bool,
}

impl<'a> Round<'a> {
    pub(crate) fn new(client: &'a Client, class: Class, limit: Duration) -> Self {
        let is_proven = client.endpoints.len() == 1;
        Round { client, class, limit, give_up: Instant::now() + limit, asked: 0, logins: 0, is_proven }
    }

    /// How long the next endpoint may take, so that time is left for another.
    pub(crate) fn patience(&self) -> Duration {
        let left = self.give_up.saturating_duration_since(Instant::now());
        if self.is_proven || self.asked + 1 == self.client.endpoints.len() { left } else { left / 2 }
    }

    /// Mends what can be mended after a failure over that connection, so that the request can be sent again; else answers the error.
    pub(crate) async fn go_on(&mut self, connection: &Connection, failure: Failure) -> Result<()> {
        if failure.remedy != Remedy::LogIn {
            return self.go_elsewhere(connection, failure).await;
        }
        self.logins += 1;
        if self.logins > 1 || self.client.log_in_after(connection.login).await? == LoginEnd::WithoutUser {
            return Err(failure.error);
        }
        // To log in takes its time, of which the request is to have some.
        self.give_up = self.give_up.max(Instant::now() + self.limit / 2);
        Ok(())
    }

    /// Goes on after a failure for which logging in is no help: at another endpoint, or not at all.
    async fn go_elsewhere(&mut self, connection: &Connection, failure: Failure) -> Result<()> {
        let endpoints = &self.client.endpoints;
        let left = self.give_up.saturating_duration_since(Instant::now());
        if matches!(failure.remedy, Remedy::None | Remedy::LogIn) {
            return Err(failure.error);
        }
        self.asked += 1;
        let is_last = self.asked >= endpoints.len() || left.is_zero();
        if failure.remedy == Remedy::FindAnother && !is_last {
            endpoints.find_another(self.class, connection, left / 2).await;
            self.is_proven = true;
        } else {
            endpoints.leave(self.class, connection);
            self.is_proven = false;
        }
        // The search may have taken what was left, and a request that waited for nothing has nothing to tell.
        if is_last || Instant::now() >= self.give_up { Err(failure.error) } else { Ok(()) }
    }
}
