//! Keeps the one stream of watches of a session: opens it while there is something to watch, and again after any interruption.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};
use tooz_core::driver::Backoff;
use tooz_core::{ErrorKind, Result};

use crate::client::Client;
use crate::connection::Connection;
use crate::dispatch::{Dispatch, MessageKind};
use crate::endpoints::Class;
use crate::error::{self, Failure, Remedy};
use crate::lanes::Lane;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{WatchProgressRequest, WatchRequest, WatchResponse};
use crate::request::without_value;

/// The task that keeps the stream.
pub(crate) struct WatchStream {
    pub(crate) client: Arc<Client>,
    pub(crate) dispatch: Arc<Dispatch>,
    /// A stream that says nothing for so long is asked whether it lives.
    pub(crate) quiet: Duration,
    /// A key that this user may read, by which is seen how far the cluster has come.
    pub(crate) landmark: Vec<u8>,
}

/// How a stream has ended.
#[derive(Clone, Copy, Default)]
struct StreamEnd {
    has_stood: bool,
    /// It was left because it is refused what another may be granted: no reason to hurry.
    was_refused: bool,
}

/// What comes over a stream.
enum StreamEvent {
    Message(WatchResponse),
    /// The server has ended it.
    End,
    Failure(Status),
    /// Nothing, not even the sign of life that it was asked for.
    Silence,
}

impl WatchStream {
    /// Opens no stream before something is to be watched. Must be called inside the heart's runtime.
    pub(crate) fn start(self) -> AbortHandle {
        tokio::spawn(self.run()).abort_handle()
    }

    async fn run(self) {
        let mut pauses = Backoff::between(Duration::from_millis(20), Duration::from_secs(1));
        let mut set_backs = self.client.history.set_backs();
        let mut is_first = true;
        loop {
            self.dispatch.something_to_watch().await;
            let ended = self.stream(&mut set_backs, is_first).await;
            is_first &= !ended.has_stood;
            if ended.has_stood && !ended.was_refused {
                pauses.reset();
            }
            self.dispatch.stream_ended();
            pauses.pause().await;
        }
    }

    /// One stream from its beginning to its end.
    async fn stream(&self, set_backs: &mut watch::Receiver<u64>, is_first: bool) -> StreamEnd {
        let client = &self.client;
        if !is_first && self.see_how_far().await.is_err() {
            return StreamEnd::default();
        }
        let connection = client.endpoints.connection(Class::Watch);
        let (sender, receiver) = mpsc::unbounded_channel();
        self.dispatch.begin(&sender, has_changed(set_backs));
        let mut watching = connection.watch();
        let opened = timeout(client.limit(), watching.watch(UnboundedReceiverStream::new(receiver))).await;
        let mut messages = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                self.mend(&connection, &connection.judge(status)).await;
                return StreamEnd::default();
            }
            Err(_) => {
                self.mend(&connection, &client.endpoints.hang_up(&connection, client.limit())).await;
                return StreamEnd::default();
            }
        };
        let mut refusals = Refusals::new();
        let mut ended = StreamEnd::default();
        loop {
            let heard = tokio::select! {
                heard = self.hear(&sender, &mut messages) => heard,
                // What it waits for may never come.
                Ok(()) = set_backs.changed() => {
                    set_backs.mark_changed();
                    return ended;
                }
                verdict = refusals.judged(self, &connection) => {
                    if verdict == Refusal::OpenAnew {
                        return StreamEnd { was_refused: true, ..ended };
                    }
                    continue;
                }
            };
            let failure = match heard {
                StreamEvent::Message(response) => {
                    for event in &response.events {
                        client.history.reach(event.kv.as_ref().map_or(0, |kv| kv.mod_revision));
                    }
                    let stands = self.dispatch.take(response) == MessageKind::Stands;
                    if stands && !std::mem::replace(&mut ended.has_stood, true) && !is_first {
                        self.dispatch.stands_again();
                    }
                    continue;
                }
                StreamEvent::End => error::ended("stream of watches"),
                StreamEvent::Failure(status) => connection.judge(status),
                StreamEvent::Silence => client.endpoints.hang_up(&connection, self.quiet + client.limit()),
            };
            self.mend(&connection, &failure).await;
            return ended;
        }
    }

    /// What comes next. Dropping it loses no message.
    async fn hear(
        &self,
        sender: &mpsc::UnboundedSender<WatchRequest>,
        messages: &mut Streaming<WatchResponse>,
    ) -> StreamEvent {
        let message = if let Ok(message) = timeout(self.quiet, messages.message()).await {
            message
        } else {
            // A member that was cut off says nothing and ends nothing: it is asked for a sign of life.
            let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
            let _ = sender.send(WatchRequest { request_union: Some(progress) });
            let Ok(message) = timeout(self.client.limit(), messages.message()).await else {
                return StreamEvent::Silence;
            };
            message
        };
        match message {
            Ok(Some(message)) => StreamEvent::Message(message),
            Ok(None) => StreamEvent::End,
            Err(status) => StreamEvent::Failure(status),
        }
    }

    /// Asks how far the cluster has come, which the cluster's history takes note of.
    async fn see_how_far(&self) -> Result<()> {
        match self.client.range(Lane::First, &without_value(&self.landmark)).await {
            // The stream would not stand either.
            Err(error) if error.is_retryable() => Err(error),
            // What can't be read is refused below.
            _ => Ok(()),
        }
    }

    async fn mend(&self, connection: &Connection, failure: &Failure) {
        let endpoints = &self.client.endpoints;
        match failure.remedy {
            // What fails here fails again at the next stream.
            Remedy::LogIn => drop(self.client.log_in_after(connection.login).await),
            Remedy::FindAnother if endpoints.len() > 1 => {
                endpoints.find_another(Class::Watch, connection, self.client.limit()).await;
            }
            Remedy::FindAnother | Remedy::AskAnother | Remedy::None => endpoints.leave(Class::Watch, connection),
        }
    }
}

fn has_changed(set_backs: &mut watch::Receiver<u64>) -> bool {
    let changed = set_backs.has_changed().unwrap_or(false);
    set_backs.mark_unchanged();
    changed
}

/// What is to be done about a refused watch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The stream goes on.
    GoOn,
    /// Another stream will do better.
    OpenAnew,
}

/// What a stream is refused. etcd does not always say why: mostly a token has run out, or the user may not read just now. So the same key is
/// read, which logs in if need be, and only then; and the longer it stays refused, the more seldom.
struct Refusals {
    reading: JoinSet<Result<()>>,
    count: usize,
    pauses: Backoff,
}

impl Refusals {
    fn new() -> Self {
        let pauses = Backoff::between(Duration::from_millis(300), Duration::from_secs(4));
        Refusals { reading: JoinSet::new(), count: 0, pauses }
    }

    /// Ends when something refused was looked at. Dropping it loses nothing.
    async fn judged(&mut self, stream: &WatchStream, connection: &Connection) -> Refusal {
        if self.reading.is_empty() {
            let range = stream.dispatch.first_refused();
            // What is refused comes with a message, after which this is asked again.
            let Some(range) = range else { return std::future::pending().await };
            let pause = if self.count == 0 { Duration::ZERO } else { self.pauses.next() };
            self.count += 1;
            let client = Arc::clone(&stream.client);
            self.reading.spawn(async move {
                tokio::time::sleep(pause).await;
                let asked = client.ask(Lane::First, |connection| {
                    let range = range.clone();
                    async move { connection.kv().range(range).await }
                });
                asked.await.map(drop)
            });
        }
        match self.reading.join_next().await {
            Some(Ok(Ok(()))) => {
                // The stream itself speaks for the log-in that it began with.
                if stream.client.endpoints.login.token().count != connection.login || self.count > 3 {
                    return Refusal::OpenAnew;
                }
                stream.dispatch.create_refused();
            }
            // Still not to be read, or no answer: once more, later.
            Some(Ok(Err(error))) if error.kind() == ErrorKind::Unauthorized => stream.dispatch.pass_over_refused(),
            _ => {}
        }
        Refusal::GoOn
    }
}
