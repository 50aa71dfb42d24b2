//! The one stream of watches of a session: many watches over it, made again exactly where they were after any interruption.

// Long because a stream, its watches and their refusals are one state machine.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tooz_core::driver::{Mutex, MutexGuard};
use tooz_core::{ErrorKind, Result};

use crate::cluster::{Class, Cluster, Lane};
use crate::endpoint::Line;
use crate::error::{self, Failure, Remedy};
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{
    RangeRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use crate::proto::mvccpb::{Event, KeyValue, event::EventType};
use crate::request::{Prefix, one};

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
    /// A key that this user may read, by which the feed sees how far the cluster has come.
    landmark: Vec<u8>,
    /// Counts the streams that stood in the place of one that had ended.
    restands: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    handles: u64,
    wires: i64,
    watches: HashMap<u64, Watch>,
    by_wire: HashMap<i64, u64>,
    /// Those that the present stream was asked for and has not answered; etcd answers in their order.
    asked: VecDeque<i64>,
    /// Those that the present stream refuses.
    refused: VecDeque<u64>,
    /// The way to the present stream.
    stream: Option<mpsc::UnboundedSender<WatchRequest>>,
}

impl Feed {
    /// Opens no stream before something is to be watched. Must be called inside the heart's runtime.
    pub(crate) fn new(cluster: Arc<Cluster>, quiet: Duration, landmark: Vec<u8>) -> Self {
        let shared = Arc::new(Shared {
            cluster,
            state: Mutex::default(),
            wanted: Notify::new(),
            quiet,
            landmark,
            restands: watch::Sender::new(0),
        });
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

    /// Counts the streams that stood in the place of one that had ended: what was told meanwhile is told, but a cluster that was set back
    /// in between has nothing to tell of what it does not know any more.
    pub(crate) fn restands(&self) -> watch::Receiver<u64> {
        self.shared.restands.subscribe()
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
        self.state.lock()
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
        self.asked.push_back(watch.wire);
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
    let mut set_backs = shared.cluster.history.set_backs();
    let (mut failures, mut is_first) = (0, true);
    loop {
        while shared.state().watches.is_empty() {
            shared.wanted.notified().await;
        }
        let ended = stream(&shared, &mut set_backs, is_first).await;
        is_first &= !ended.has_stood;
        if ended.has_stood && !ended.was_refused {
            failures = 0;
        }
        shared.state().stream = None;
        // Jittered, so that a fleet does not come back in step.
        let pause = PAUSES[failures.min(PAUSES.len() - 1)];
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        failures += 1;
    }
}

#[derive(Clone, Copy, Default)]
struct Ended {
    has_stood: bool,
    /// It was left because it is refused what another may be granted: no reason to hurry.
    was_refused: bool,
}

/// One stream from its beginning to its end.
async fn stream(shared: &Arc<Shared>, set_backs: &mut watch::Receiver<u64>, is_first: bool) -> Ended {
    let cluster = &shared.cluster;
    if !is_first && shared.look_how_far().await.is_err() {
        return Ended::default();
    }
    let line = cluster.line(Class::Watch);
    let (sender, receiver) = mpsc::unbounded_channel();
    shared.state().begin(&sender, has_changed(set_backs));
    let mut client = line.watch();
    let opened = timeout(cluster.limit(), client.watch(UnboundedReceiverStream::new(receiver))).await;
    let mut messages = match opened {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            mend(cluster, &line, &line.judge(status)).await;
            return Ended::default();
        }
        Err(_) => {
            mend(cluster, &line, &cluster.hang_up(&line, cluster.limit())).await;
            return Ended::default();
        }
    };
    let mut refusals = Refusals::new();
    let mut ended = Ended::default();
    loop {
        let message = tokio::select! {
            message = next_message(shared, &sender, &mut messages) => message,
            // What it waits for may never come.
            Ok(()) = set_backs.changed() => {
                set_backs.mark_changed();
                return ended;
            }
            verdict = refusals.judged(shared, &line) => {
                if verdict == Verdict::OpenAnew {
                    return Ended { was_refused: true, ..ended };
                }
                continue;
            }
        };
        let failure = match message {
            Some(Ok(Some(response))) => {
                let stands = shared.take(response) == Taken::Stands;
                if stands && !std::mem::replace(&mut ended.has_stood, true) && !is_first {
                    shared.restands.send_modify(|count| *count += 1);
                }
                continue;
            }
            Some(Ok(None)) => error::ended("stream of watches"),
            Some(Err(status)) => line.judge(status),
            None => cluster.hang_up(&line, shared.quiet + cluster.limit()),
        };
        mend(cluster, &line, &failure).await;
        return ended;
    }
}

/// The next message; `None`: the stream hangs. Dropping it loses none.
async fn next_message(
    shared: &Shared,
    sender: &mpsc::UnboundedSender<WatchRequest>,
    messages: &mut tonic::Streaming<WatchResponse>,
) -> Option<std::result::Result<Option<WatchResponse>, tonic::Status>> {
    if let Ok(message) = timeout(shared.quiet, messages.message()).await {
        return Some(message);
    }
    // A member that was cut off says nothing and ends nothing: it is asked for a sign of life.
    let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
    let _ = sender.send(WatchRequest { request_union: Some(progress) });
    timeout(shared.cluster.limit(), messages.message()).await.ok()
}

fn has_changed(set_backs: &mut watch::Receiver<u64>) -> bool {
    let changed = set_backs.has_changed().unwrap_or(false);
    set_backs.mark_unchanged();
    changed
}

async fn mend(cluster: &Cluster, line: &Line, failure: &Failure) {
    match failure.remedy {
        // What fails here fails again at the next stream.
        Remedy::LogIn => drop(cluster.log_in_after(line.login).await),
        Remedy::FindAnother if cluster.len() > 1 => cluster.find_another(Class::Watch, line, cluster.limit()).await,
        Remedy::FindAnother | Remedy::AskAnother | Remedy::None => cluster.leave(Class::Watch, line),
    }
}

/// What is to be done about a refused watch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
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
}

impl Refusals {
    const PAUSES: [Duration; 5] = [
        Duration::ZERO,
        Duration::from_millis(300),
        Duration::from_secs(1),
        Duration::from_secs(2),
        Duration::from_secs(4),
    ];

    fn new() -> Self {
        Refusals { reading: JoinSet::new(), count: 0 }
    }

    /// Ends when something refused was looked at. Dropping it loses nothing.
    async fn judged(&mut self, shared: &Arc<Shared>, line: &Line) -> Verdict {
        if self.reading.is_empty() {
            let range = shared.state().first_refused();
            // Whatever is refused comes with a message, after which this is asked again.
            let Some(range) = range else { return std::future::pending().await };
            let pause = Self::PAUSES[self.count.min(Self::PAUSES.len() - 1)];
            self.count += 1;
            let cluster = Arc::clone(&shared.cluster);
            self.reading.spawn(async move {
                tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                let asked = cluster.ask(Lane::First, |line| {
                    let range = range.clone();
                    async move { line.kv().range(range).await }
                });
                asked.await.map(drop)
            });
        }
        match self.reading.join_next().await {
            Some(Ok(Ok(()))) => {
                // The stream itself speaks for the login that it began with.
                if shared.cluster.login().token().count != line.login || self.count > 3 {
                    return Verdict::OpenAnew;
                }
                shared.state().create_refused();
            }
            // Still not to be read, or nobody answers: once more, later.
            Some(Ok(Err(error))) if error.kind() == ErrorKind::Unauthorized => shared.state().pass_over_refused(),
            _ => {}
        }
        Verdict::GoOn
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// A watch stands, or has told something.
    Stands,
    /// Nothing of that kind.
    Other,
}

impl State {
    /// A new stream is asked for all watches.
    fn begin(&mut self, sender: &mpsc::UnboundedSender<WatchRequest>, was_set_back: bool) {
        self.by_wire.clear();
        self.asked.clear();
        self.refused.clear();
        self.stream = Some(sender.clone());
        let handles: Vec<_> = self.watches.keys().copied().collect();
        for handle in handles {
            if was_set_back && let Some(watch) = self.watches.get_mut(&handle) {
                watch.scope.from = 0;
                watch.gap = true;
            }
            self.create(handle);
        }
    }

    /// Something that the first refused watch would tell of. Watches that nobody wants any more are forgotten.
    fn first_refused(&mut self) -> Option<RangeRequest> {
        while let Some(handle) = self.refused.front() {
            if let Some(watch) = self.watches.get(handle) {
                let (key, range_end) = (watch.scope.key.clone(), watch.scope.range_end.clone());
                return Some(RangeRequest { key, range_end, limit: 1, keys_only: true, ..RangeRequest::default() });
            }
            self.refused.pop_front();
        }
        None
    }

    fn pass_over_refused(&mut self) {
        if let Some(first) = self.refused.pop_front() {
            self.refused.push_back(first);
        }
    }

    fn create_refused(&mut self) {
        for handle in std::mem::take(&mut self.refused) {
            self.create(handle);
        }
    }

    /// Which watch an answer to a creation is about: etcd does not always say of whom it refuses.
    fn answered(&mut self, wire: i64) -> i64 {
        if wire == -1 {
            return self.asked.pop_front().unwrap_or(-1);
        }
        if let Some(place) = self.asked.iter().position(|asked| *asked == wire) {
            self.asked.drain(..=place);
        }
        wire
    }
}

impl Shared {
    /// Asks how far the cluster has come, which the cluster's history takes note of.
    async fn look_how_far(&self) -> Result<()> {
        let before = self.cluster.history.seen();
        let asked = self.cluster.ask(Lane::First, |line| {
            let range = RangeRequest { keys_only: true, ..one(&self.landmark) };
            async move { line.kv().range(range).await }
        });
        match asked.await {
            Ok(reply) => self.cluster.history.note(before, reply.message.header.as_ref()),
            // The stream would not stand either.
            Err(error) if error.is_retryable() => return Err(error),
            // Whatever can't be read is refused below.
            Err(_) => {}
        }
        Ok(())
    }

    /// Hands a message to the watch that it is for.
    fn take(&self, response: WatchResponse) -> Taken {
        let mut state = self.state();
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let wire = if response.created { state.answered(response.watch_id) } else { response.watch_id };
        // A sign of life, or the last words of a watch that was cancelled.
        let Some(handle) = state.by_wire.get(&wire).copied() else { return Taken::Other };
        let Some(watch) = state.watches.get_mut(&handle) else { return Taken::Other };
        if response.canceled {
            if response.compact_revision == 0 {
                state.by_wire.remove(&wire);
                state.refused.push_back(handle);
                return Taken::Other;
            }
            watch.scope.from = 0;
            watch.gap = true;
            state.by_wire.remove(&wire);
            state.create(handle);
            return Taken::Stands;
        }
        if response.created {
            if watch.scope.from == 0 {
                watch.scope.from = revision + 1;
            }
            (watch.sink)(Notice::Ready { since: watch.scope.from - 1 });
            if std::mem::take(&mut watch.gap) {
                (watch.sink)(Notice::Gap);
            }
        } else if response.events.is_empty() {
            // Nothing happened up to that revision: there is no need to ask for it again, even if it is compacted.
            watch.scope.from = watch.scope.from.max(revision + 1);
        }
        for event in response.events {
            self.cluster.history.reach(event.kv.as_ref().map_or(0, |kv| kv.mod_revision));
            watch.tell(event);
        }
        Taken::Stands
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
