//! The one stream of watches of a session: many watches over it, made again exactly where they were after any interruption.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::cluster::{Class, Cluster};
use crate::error::{self, Failure, Remedy};
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use crate::proto::mvccpb::{Event, KeyValue, event::EventType};
use crate::request::Prefix;

/// What a watch tells.
pub(crate) enum Notice {
    /// It stands, and of what happens after that revision nothing is missed. Also after each interruption.
    Ready { since: i64 },
    /// A key was written.
    Put(KeyValue),
    /// A key is gone since that revision.
    Deleted { key: Vec<u8>, revision: i64 },
    /// Something may have been missed, since the server has forgotten it: read again.
    Gap,
}

/// Where notices go. It is called under the feed's lock: it must not wait, nor begin or end a watch.
type Sink = Box<dyn FnMut(Notice) + Send>;

/// Which keys to watch, and from when on.
pub(crate) struct Scope {
    key: Vec<u8>,
    range_end: Vec<u8>,
    from: i64,
}

impl Scope {
    /// One key, from that revision on.
    pub(crate) fn key(key: &[u8], from: i64) -> Self {
        Scope { key: key.into(), range_end: Vec::new(), from }
    }

    /// One key, from whenever the watch stands.
    ///
    /// A watch that begins in the past, if only by one revision, etcd serves in its leisure, ten times a second; one that begins now
    /// is told of everything at once.
    pub(crate) fn key_from_now(key: &[u8]) -> Self {
        Scope::key(key, 0)
    }

    /// All of these keys, from that revision on.
    pub(crate) fn keys(keys: &Prefix, from: i64) -> Self {
        Scope { key: keys.from.clone(), range_end: keys.to.clone(), from }
    }
}

struct Watch {
    scope: Scope,
    sink: Sink,
    /// By which number the present stream knows it.
    wire: i64,
    gap: bool,
}

/// The feed of one session.
pub(crate) struct Feed {
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// A watch; it ends when this is dropped.
pub(crate) struct Watching {
    shared: Weak<Shared>,
    handle: u64,
}

struct Shared {
    cluster: Arc<Cluster>,
    state: Mutex<State>,
    wanted: Notify,
    /// A stream that says nothing for so long is asked whether it lives.
    quiet: Duration,
}

#[derive(Default)]
struct State {
    handles: u64,
    wires: i64,
    watches: HashMap<u64, Watch>,
    by_wire: HashMap<i64, u64>,
    /// The way to the present stream.
    stream: Option<mpsc::UnboundedSender<WatchRequest>>,
}

impl Feed {
    /// Opens no stream before something is to be watched. Must be called inside the heart's runtime.
    pub(crate) fn new(cluster: Arc<Cluster>, quiet: Duration) -> Self {
        let shared = Arc::new(Shared { cluster, state: Mutex::default(), wanted: Notify::new(), quiet });
        let task = tokio::spawn(run(Arc::clone(&shared))).abort_handle();
        Feed { shared, task }
    }

    /// Begins to watch. Everything from the scope's revision on is told, however long the stream takes to stand; from now on means
    /// from [`Notice::Ready`] on.
    pub(crate) fn watch(&self, scope: Scope, sink: impl FnMut(Notice) + Send + 'static) -> Watching {
        let mut state = self.shared.state();
        state.handles += 1;
        let handle = state.handles;
        state.watches.insert(handle, Watch { scope, sink: Box::new(sink), wire: 0, gap: false });
        state.create(handle);
        drop(state);
        self.shared.wanted.notify_one();
        Watching { shared: Arc::downgrade(&self.shared), handle }
    }

    /// Ends the stream and all watches.
    pub(crate) fn end(&self) {
        self.task.abort();
        let mut state = self.shared.state();
        state.stream = None;
        let watches = std::mem::take(&mut state.watches);
        // Sinks may end streams of others: not under the lock.
        drop(state);
        drop(watches);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.end();
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut state = shared.state();
        let watch = state.remove(self.handle);
        drop(state);
        drop(watch);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Asks the present stream for that watch, under a number that it never saw: etcd does not forget old ones.
    fn create(&mut self, handle: u64) {
        let Some(stream) = &self.stream else { return };
        let Some(watch) = self.watches.get_mut(&handle) else { return };
        self.wires += 1;
        watch.wire = self.wires;
        self.by_wire.insert(watch.wire, handle);
        let create = WatchCreateRequest {
            key: watch.scope.key.clone(),
            range_end: watch.scope.range_end.clone(),
            start_revision: watch.scope.from,
            // So that even an idle watch moves on, and is not compacted away.
            progress_notify: true,
            watch_id: watch.wire,
            filters: Vec::new(),
        };
        // A stream that has just ended is noticed by its task.
        let _ = stream.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
    }

    fn remove(&mut self, handle: u64) -> Option<Watch> {
        let watch = self.watches.remove(&handle)?;
        if self.by_wire.remove(&watch.wire).is_some()
            && let Some(stream) = &self.stream
        {
            let cancel = WatchCancelRequest { watch_id: watch.wire };
            let _ = stream.send(WatchRequest { request_union: Some(RequestUnion::CancelRequest(cancel)) });
        }
        Some(watch)
    }
}

/// Keeps a stream as long as there is something to watch.
async fn run(shared: Arc<Shared>) {
    const PAUSES: [Duration; 4] =
        [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1)];
    let mut failures = 0;
    loop {
        while shared.state().watches.is_empty() {
            shared.wanted.notified().await;
        }
        if stream(&shared).await.has_stood {
            failures = 0;
        }
        shared.state().stream = None;
        // Jittered, so that a fleet does not come back in step.
        let pause = PAUSES[failures.min(PAUSES.len() - 1)];
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        failures += 1;
    }
}

struct Ended {
    has_stood: bool,
}

/// One stream from its beginning to its end.
async fn stream(shared: &Arc<Shared>) -> Ended {
    let cluster = &shared.cluster;
    let line = cluster.line(Class::Watch);
    let (sender, receiver) = mpsc::unbounded_channel();
    {
        let mut state = shared.state();
        state.by_wire.clear();
        state.stream = Some(sender.clone());
        let handles: Vec<_> = state.watches.keys().copied().collect();
        for handle in handles {
            state.create(handle);
        }
    }
    let mut client = line.watch();
    let opened = timeout(cluster.limit(), client.watch(UnboundedReceiverStream::new(receiver))).await;
    let mut messages = match opened {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            mend(cluster, &line, &line.judge(status)).await;
            return Ended { has_stood: false };
        }
        Err(_) => {
            cluster.hang_up(Class::Watch, &line, cluster.limit());
            return Ended { has_stood: false };
        }
    };
    let mut has_stood = false;
    loop {
        let mut message = timeout(shared.quiet, messages.message()).await;
        if message.is_err() {
            // A member that was cut off says nothing and ends nothing: it is asked for a sign of life.
            let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
            let _ = sender.send(WatchRequest { request_union: Some(progress) });
            message = timeout(cluster.limit(), messages.message()).await;
        }
        let Ok(message) = message else {
            cluster.hang_up(Class::Watch, &line, shared.quiet + cluster.limit());
            return Ended { has_stood };
        };
        let failure = match message {
            Ok(Some(response)) => match shared.take(response) {
                Taken::Told => {
                    has_stood = true;
                    continue;
                }
                Taken::Refused(status) => line.judge(status),
            },
            Ok(None) => error::ended("stream of watches"),
            Err(status) => line.judge(status),
        };
        mend(cluster, &line, &failure).await;
        return Ended { has_stood };
    }
}

async fn mend(cluster: &Cluster, line: &crate::endpoint::Line, failure: &Failure) {
    match failure.remedy {
        // What fails here fails again at the next stream.
        Remedy::LogIn => drop(cluster.log_in_after(line.login).await),
        Remedy::AskAnother | Remedy::None => cluster.leave(Class::Watch, line),
    }
}

enum Taken {
    Told,
    /// The stream is of no more use.
    Refused(tonic::Status),
}

impl Shared {
    /// Hands a message to the watch that it is for.
    fn take(&self, response: WatchResponse) -> Taken {
        let mut state = self.state();
        let Some(handle) = state.by_wire.get(&response.watch_id).copied() else {
            // A sign of life, or the last words of a watch that was cancelled.
            return if response.watch_id == -1 && response.canceled { refused(&response) } else { Taken::Told };
        };
        let Some(watch) = state.watches.get_mut(&handle) else { return Taken::Told };
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.canceled {
            state.by_wire.remove(&response.watch_id);
            if response.compact_revision == 0 {
                return refused(&response);
            }
            if let Some(watch) = state.watches.get_mut(&handle) {
                watch.scope.from = 0;
                watch.gap = true;
            }
            state.create(handle);
            return Taken::Told;
        }
        if response.created {
            if watch.scope.from == 0 {
                watch.scope.from = revision + 1;
            }
            let ready = Notice::Ready { since: watch.scope.from - 1 };
            let notice = if std::mem::take(&mut watch.gap) { Notice::Gap } else { ready };
            (watch.sink)(notice);
        } else if response.events.is_empty() {
            // Nothing happened up to that revision: there is no need to ask for it again, even if it is compacted.
            watch.scope.from = watch.scope.from.max(revision + 1);
        }
        for event in response.events {
            watch.tell(event);
        }
        Taken::Told
    }
}

impl Watch {
    fn tell(&mut self, event: Event) {
        let kind = event.r#type();
        let Some(kv) = event.kv else { return };
        self.scope.from = self.scope.from.max(kv.mod_revision + 1);
        (self.sink)(match kind {
            EventType::Put => Notice::Put(kv),
            EventType::Delete => Notice::Deleted { key: kv.key, revision: kv.mod_revision },
        });
    }
}

/// A watch that etcd does not grant: mostly a token that has run out, of which it does not say so. The whole stream
/// begins again with a new login; a user who may not read never gets further, and is told so by whatever else it asks.
fn refused(response: &WatchResponse) -> Taken {
    Taken::Refused(tonic::Status::unauthenticated(response.cancel_reason.clone()))
}
