//! Routes what the server pushes: many watches over the one stream of a session, each with a sink of its own.
//!
//! The stream itself is kept by `watch_stream`. To each stream a watch is one of these:
//!
//! | state | what the stream knows | leaves it by |
//! |---|---|---|
//! | asked | `by_wire` has its number, `asked` too | an answer: stands, or refused |
//! | stands | `by_wire` has its number | the end of the stream or of the watch; a compaction: asked |
//! | refused | `refused` has its handle, the server forgot it | [`Dispatch::create_refused`]: asked |

// Long because the tests of this state machine play whole streams.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use tokio::sync::{Notify, mpsc, watch};
use tooz_core::driver::{Mutex, MutexGuard};

use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{RangeRequest, WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse};
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

/// Where notices go. It is called under the lock of the dispatch: it must not wait, nor begin or end a watch.
type NoticeSink = Box<dyn FnMut(Notice) + Send>;

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

    /// One key, from the moment in which the watch stands.
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
    sink: NoticeSink,
    /// By which number the present stream knows it.
    wire: i64,
    gap: bool,
}

/// The watches of one session.
#[derive(Default)]
pub(crate) struct Dispatch {
    state: Mutex<DispatchState>,
    wanted: Notify,
    /// Counts the streams that stood in the place of one that had ended.
    restands: watch::Sender<u64>,
}

/// A watch; it ends when this is dropped.
pub(crate) struct WatchHandle {
    dispatch: Weak<Dispatch>,
    handle: u64,
}

#[derive(Default)]
struct DispatchState {
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

/// What a message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// A watch stands, or has told something.
    Stands,
    /// Nothing of that kind.
    Other,
}

impl Dispatch {
    /// Begins to watch. Everything from the scope's revision on is told, however long the stream takes to stand; from now on means
    /// from [`Notice::Ready`] on.
    pub(crate) fn watch(self: &Arc<Self>, scope: Scope, sink: impl FnMut(Notice) + Send + 'static) -> WatchHandle {
        let mut state = self.state();
        state.handles += 1;
        let handle = state.handles;
        state.watches.insert(handle, Watch { scope, sink: Box::new(sink), wire: 0, gap: false });
        state.create(handle);
        drop(state);
        self.wanted.notify_one();
        WatchHandle { dispatch: Arc::downgrade(self), handle }
    }

    /// Counts the streams that stood in the place of one that had ended: what was told meanwhile is told, but a cluster that was set back
    /// in between has nothing to tell of what it does not know any more.
    pub(crate) fn restands(&self) -> watch::Receiver<u64> {
        self.restands.subscribe()
    }

    /// A stream stands in the place of one that had ended.
    pub(crate) fn stands_again(&self) {
        self.restands.send_modify(|count| *count += 1);
    }

    /// Ends when there is something to watch.
    pub(crate) async fn something_to_watch(&self) {
        while self.state().watches.is_empty() {
            self.wanted.notified().await;
        }
    }

    /// A new stream is asked for all watches. After the cluster was set back they begin anew.
    pub(crate) fn begin(&self, stream: &mpsc::UnboundedSender<WatchRequest>, was_set_back: bool) {
        let mut state = self.state();
        state.by_wire.clear();
        state.asked.clear();
        state.refused.clear();
        state.stream = Some(stream.clone());
        let handles: Vec<_> = state.watches.keys().copied().collect();
        for handle in handles {
            if was_set_back && let Some(watch) = state.watches.get_mut(&handle) {
                watch.begin_anew();
            }
            state.create(handle);
        }
    }

    /// The present stream has ended.
    pub(crate) fn stream_ended(&self) {
        self.state().stream = None;
    }

    /// Ends all watches.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.stream = None;
        let watches = std::mem::take(&mut state.watches);
        // Sinks may end streams of others: not under the lock.
        drop(state);
        drop(watches);
    }

    /// Hands a message to the watch that it is for.
    pub(crate) fn take(&self, response: WatchResponse) -> MessageKind {
        let mut guard = self.state();
        let state = &mut *guard;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let wire = if response.created { state.answered(response.watch_id) } else { response.watch_id };
        // A sign of life, or the last words of a watch that was cancelled.
        let Some(handle) = state.by_wire.get(&wire).copied() else { return MessageKind::Other };
        let Some(watch) = state.watches.get_mut(&handle) else { return MessageKind::Other };
        if response.canceled {
            state.by_wire.remove(&wire);
            if response.compact_revision == 0 {
                state.refused.push_back(handle);
                return MessageKind::Other;
            }
            watch.begin_anew();
            state.create(handle);
            return MessageKind::Stands;
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
            watch.tell(event);
        }
        MessageKind::Stands
    }

    /// Something that the first refused watch would tell of. Watches that have ended meanwhile are forgotten.
    pub(crate) fn first_refused(&self) -> Option<RangeRequest> {
        let mut state = self.state();
        while let Some(handle) = state.refused.front() {
            if let Some(watch) = state.watches.get(handle) {
                let (key, range_end) = (watch.scope.key.clone(), watch.scope.range_end.clone());
                return Some(RangeRequest { key, range_end, limit: 1, keys_only: true, ..RangeRequest::default() });
            }
            state.refused.pop_front();
        }
        None
    }

    /// The next refused watch is the first now.
    pub(crate) fn pass_over_refused(&self) {
        let mut state = self.state();
        if let Some(first) = state.refused.pop_front() {
            state.refused.push_back(first);
        }
    }

    /// Asks the present stream once more for all that it refused.
    pub(crate) fn create_refused(&self) {
        let mut state = self.state();
        for handle in std::mem::take(&mut state.refused) {
            state.create(handle);
        }
    }

    fn state(&self) -> MutexGuard<'_, DispatchState> {
        self.state.lock()
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        let Some(dispatch) = self.dispatch.upgrade() else { return };
        let mut state = dispatch.state();
        let watch = state.remove(self.handle);
        drop(state);
        drop(watch);
    }
}

impl DispatchState {
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

    /// Which watch an answer to a creation is about: etcd does not always say which it refuses.
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

impl Watch {
    /// What happened before is missed.
    fn begin_anew(&mut self) {
        self.scope.from = 0;
        self.gap = true;
    }

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::etcdserverpb::ResponseHeader;

    type Notices = Arc<Mutex<Vec<String>>>;

    fn watched(dispatch: &Arc<Dispatch>, key: &str, from: i64) -> (WatchHandle, Notices) {
        let told = Notices::default();
        let tell = Arc::clone(&told);
        let watching = dispatch.watch(Scope::key(key.as_bytes(), from), move |notice| {
            tell.lock().push(match notice {
                Notice::Ready { since } => format!("ready {since}"),
                Notice::Put(kv) => format!("put {}", kv.mod_revision),
                Notice::Deleted { revision, .. } => format!("deleted {revision}"),
                Notice::Gap => "gap".to_owned(),
            });
        });
        (watching, told)
    }

    fn response(watch_id: i64, revision: i64) -> WatchResponse {
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        WatchResponse { header, watch_id, ..WatchResponse::default() }
    }

    fn put(revision: i64) -> Event {
        let kv = KeyValue { mod_revision: revision, ..KeyValue::default() };
        Event { kv: Some(kv), ..Event::default() }
    }

    /// What the stream was asked for: the number of a watch and its revision, or the number of one that is cancelled.
    fn asked(stream: &mut mpsc::UnboundedReceiver<WatchRequest>) -> Vec<(i64, Option<i64>)> {
        let requests = std::iter::from_fn(|| stream.try_recv().ok()?.request_union);
        let known = requests.filter_map(|request| match request {
            RequestUnion::CreateRequest(create) => Some((create.watch_id, Some(create.start_revision))),
            RequestUnion::CancelRequest(cancel) => Some((cancel.watch_id, None)),
            RequestUnion::ProgressRequest(_) => None,
        });
        known.collect()
    }

    #[test]
    fn a_watch_goes_on_at_the_next_stream_where_it_was() {
        let dispatch = Arc::<Dispatch>::default();
        let (sender, mut stream) = mpsc::unbounded_channel();
        dispatch.begin(&sender, false);
        let (watching, told) = watched(&dispatch, "a", 5);
        assert_eq!(asked(&mut stream), [(1, Some(5))]);
        assert_eq!(dispatch.take(WatchResponse { created: true, ..response(1, 9) }), MessageKind::Stands);
        dispatch.take(WatchResponse { events: vec![put(11)], ..response(1, 11) });
        assert_eq!(dispatch.take(response(-1, 20)), MessageKind::Other, "a sign of life of the stream");
        dispatch.take(response(1, 30));
        dispatch.stream_ended();
        let (sender, mut stream) = mpsc::unbounded_channel();
        dispatch.begin(&sender, false);
        assert_eq!(asked(&mut stream), [(2, Some(31))]);
        assert_eq!(dispatch.take(response(1, 40)), MessageKind::Other, "the old number means nothing");
        drop(watching);
        assert_eq!(asked(&mut stream), [(2, None)]);
        assert_eq!(*told.lock(), ["ready 4", "put 11"]);
    }

    #[test]
    fn what_was_compacted_or_set_back_is_a_gap() {
        let dispatch = Arc::<Dispatch>::default();
        let (sender, mut stream) = mpsc::unbounded_channel();
        dispatch.begin(&sender, false);
        let (_watching, told) = watched(&dispatch, "a", 5);
        dispatch.take(WatchResponse { canceled: true, compact_revision: 8, ..response(1, 9) });
        assert_eq!(asked(&mut stream), [(1, Some(5)), (2, Some(0))]);
        dispatch.take(WatchResponse { created: true, ..response(2, 9) });
        dispatch.begin(&sender, true);
        assert_eq!(asked(&mut stream), [(3, Some(0))]);
        dispatch.take(WatchResponse { created: true, ..response(3, 4) });
        assert_eq!(*told.lock(), ["ready 9", "gap", "ready 4", "gap"]);
    }

    #[test]
    fn a_refusal_without_a_number_is_of_the_first_that_was_asked_for() {
        let dispatch = Arc::<Dispatch>::default();
        let (sender, mut stream) = mpsc::unbounded_channel();
        dispatch.begin(&sender, false);
        let all = ["a", "b", "c"].map(|key| watched(&dispatch, key, 1));
        dispatch.take(WatchResponse { created: true, ..response(1, 1) });
        let refused = |id| WatchResponse { created: true, canceled: true, ..response(id, 1) };
        assert_eq!(dispatch.take(refused(-1)), MessageKind::Other);
        assert_eq!(dispatch.take(refused(3)), MessageKind::Other);
        assert_eq!(dispatch.first_refused().unwrap().key, b"b");
        dispatch.pass_over_refused();
        assert_eq!(dispatch.first_refused().unwrap().key, b"c");
        let [_a, _b, c] = all;
        drop(c);
        assert_eq!(dispatch.first_refused().unwrap().key, b"b", "a watch that has ended is forgotten");
        asked(&mut stream);
        dispatch.create_refused();
        assert_eq!(asked(&mut stream), [(4, Some(1))]);
        assert!(dispatch.first_refused().is_none());
    }

    proptest! {
        #[test]
        fn no_message_of_a_server_panics(messages: Vec<(i64, i64, bool, bool, i64, Option<(i64, i32)>)>) {
            let dispatch = Arc::<Dispatch>::default();
            let (sender, _stream) = mpsc::unbounded_channel();
            dispatch.begin(&sender, false);
            let _watching = [watched(&dispatch, "a", 0), watched(&dispatch, "b", 7)];
            for (id, revision, created, canceled, compact_revision, event) in messages {
                let events = event.map(|(mod_revision, r#type)| {
                    let kv = (r#type % 5 != 0).then(|| KeyValue { mod_revision, ..KeyValue::default() });
                    Event { r#type, kv }
                });
                let events = events.into_iter().collect();
                let message = WatchResponse { created, canceled, compact_revision, events, ..response(id % 4, revision) };
                dispatch.take(message);
            }
        }
    }
}
