//! The scripted session: each method answers as the test has said, and counts.

// Long because all that a test can say of it is in this one place.

use std::collections::{HashMap, HashSet};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tooz_core::driver::{
    Clock, ConnectArgs, ConnectFuture, Granted, Groups, JoinRequest, LockKey, LockRequest, Locks, Mutex, Owned,
    PushStream, Pushed, Pusher, Replace, Reporter, RequestId, Roster, Session, Wanted, async_trait, push_channel,
};
use tooz_core::{
    Capabilities, Characteristic, Characteristics, ConnectOptions, Coordinator, Driver, Error, ErrorKind, FencingToken,
    GroupId, Holder, Outcome, Result, RosterEntry, Terms,
};

/// The session timeout, by the clock of the script.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

static DRIVER: Driver = Driver::new("scripted", &["scripted"], connect)
    .characteristics(Characteristics::of(&[Characteristic::Groups, Characteristic::SharedLocks]));

/// What the tests have said, by the name in the URL.
static ALL: LazyLock<Mutex<HashMap<String, Arc<Script>>>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct State {
    reporter: Option<Reporter>,
    requests: Vec<RequestId>,
    released: Vec<RequestId>,
    gone: HashSet<RequestId>,
    looks_end_the_session: bool,
    revoked: Vec<RequestId>,
    owned: Vec<(LockKey, RequestId)>,
    beats: usize,
    looks: usize,
    readings: usize,
    granted: usize,
    closes: usize,
    failing_closes: usize,
    failing_locks: usize,
    failing_releases: usize,
    updates_fail: Option<ErrorKind>,
    updates: Vec<String>,
    left: Vec<RequestId>,
    joins: Vec<RequestId>,
    holders: Vec<Holder>,
    in_use: Vec<LockKey>,
    group_is_missing: bool,
    refused_joins: usize,
    lost_join_replies: usize,
    replaces: Vec<Replace>,
    opens: usize,
    opened: usize,
    watches: Vec<Pusher>,
}

struct Script {
    state: Mutex<State>,
    at_the_next_beat: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    clock: Clock,
    beats_held: watch::Sender<bool>,
    looks_held: watch::Sender<bool>,
    locks_held: watch::Sender<bool>,
    joins_held: watch::Sender<bool>,
    releases_held: watch::Sender<bool>,
    opens_held: watch::Sender<bool>,
}

impl Script {
    fn watched(&self) -> PushStream {
        let (pusher, stream) = push_channel();
        pusher.push(Pushed::Ready);
        self.state.lock().watches.push(pusher);
        stream
    }
}

/// A script and its clock, as a test has them in hand.
pub(crate) struct Scripted {
    script: Arc<Script>,
    name: String,
    pub(crate) clock: Clock,
}

impl Scripted {
    pub(crate) fn new(name: &str) -> Self {
        let name = name.replace(' ', "-");
        let clock = Clock::movable();
        let script = Arc::new(Script {
            state: Mutex::default(),
            at_the_next_beat: Mutex::default(),
            clock: clock.clone(),
            beats_held: watch::Sender::new(false),
            looks_held: watch::Sender::new(false),
            locks_held: watch::Sender::new(false),
            joins_held: watch::Sender::new(false),
            releases_held: watch::Sender::new(false),
            opens_held: watch::Sender::new(false),
        });
        ALL.lock().insert(name.clone(), Arc::clone(&script));
        Scripted { script, name, clock }
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        let options = ConnectOptions::new(&format!("scripted://{}", self.name)).unwrap().driver(&DRIVER);
        options.member("one").unwrap().session_timeout(TIMEOUT).operation_timeout(Duration::from_secs(2))
    }

    pub(crate) async fn connect(&self) -> Coordinator {
        soon(self.options().connect()).await.unwrap()
    }

    pub(crate) fn reporter(&self) -> Reporter {
        self.script.state.lock().reporter.clone().expect("it is connected")
    }

    pub(crate) fn requests(&self) -> Vec<RequestId> {
        self.script.state.lock().requests.clone()
    }

    pub(crate) fn released(&self) -> Vec<RequestId> {
        self.script.state.lock().released.clone()
    }

    /// How often it was asked who holds a lock.
    pub(crate) fn looks(&self) -> usize {
        self.script.state.lock().looks
    }

    /// How often it was asked for the members of a group.
    pub(crate) fn readings(&self) -> usize {
        self.script.state.lock().readings
    }

    pub(crate) fn holds_looks(&self, held: bool) {
        self.script.looks_held.send_replace(held);
    }

    pub(crate) fn beats(&self) -> usize {
        self.script.state.lock().beats
    }

    pub(crate) fn granted(&self) -> usize {
        self.script.state.lock().granted
    }

    pub(crate) fn closes(&self) -> usize {
        self.script.state.lock().closes
    }

    /// The next heartbeat answers that this grant was taken away.
    pub(crate) fn revoke(&self, request: RequestId) {
        self.script.state.lock().revoked.push(request);
    }

    /// The driver sees that this grant is gone.
    pub(crate) fn forget(&self, request: RequestId) {
        self.script.state.lock().gone.insert(request);
    }

    /// The driver finds the session over when it looks after a grant.
    pub(crate) fn ends_at_a_look(&self) {
        self.script.state.lock().looks_end_the_session = true;
    }

    pub(crate) fn owns(&self, owned: Vec<(LockKey, RequestId)>) {
        self.script.state.lock().owned = owned;
    }

    /// Heartbeats are answered only when they are not held any more.
    pub(crate) fn holds_beats(&self, held: bool) {
        self.script.beats_held.send_replace(held);
    }

    /// The same for locks.
    pub(crate) fn holds_locks(&self, held: bool) {
        self.script.locks_held.send_replace(held);
    }

    /// The same for joins.
    pub(crate) fn holds_joins(&self, held: bool) {
        self.script.joins_held.send_replace(held);
    }

    /// The same for releases that do not fail.
    pub(crate) fn holds_releases(&self, held: bool) {
        self.script.releases_held.send_replace(held);
    }

    /// The same for sessions that are to be opened.
    pub(crate) fn holds_opens(&self, held: bool) {
        self.script.opens_held.send_replace(held);
    }

    /// How many openings have begun.
    pub(crate) fn opens(&self) -> usize {
        self.script.state.lock().opens
    }

    /// How many have come to their end.
    pub(crate) fn opened(&self) -> usize {
        self.script.state.lock().opened
    }

    /// Tells every watch this.
    pub(crate) fn push(&self, pushed: &Pushed) {
        self.script.state.lock().watches.iter().for_each(|watch| watch.push(pushed.clone()));
    }

    /// The requests of all joins.
    pub(crate) fn joins(&self) -> Vec<RequestId> {
        self.script.state.lock().joins.clone()
    }

    /// So many joins find a living member of their name.
    pub(crate) fn refuses_joins(&self, times: usize) {
        self.script.state.lock().refused_joins = times;
    }

    /// So many joins are done, and their replies are lost.
    pub(crate) fn loses_join_replies(&self, times: usize) {
        self.script.state.lock().lost_join_replies = times;
    }

    /// Whose entry each join was ready to replace.
    pub(crate) fn replaces(&self) -> Vec<Replace> {
        self.script.state.lock().replaces.clone()
    }

    /// The joins that were left again.
    pub(crate) fn left(&self) -> Vec<RequestId> {
        self.script.state.lock().left.clone()
    }

    /// The capabilities of all updates.
    pub(crate) fn updates(&self) -> Vec<String> {
        self.script.state.lock().updates.clone()
    }

    /// Which locks are told to be in use.
    pub(crate) fn tells_in_use(&self, keys: Vec<LockKey>) {
        self.script.state.lock().in_use = keys;
    }

    /// From now on there is no group.
    pub(crate) fn deletes_the_group(&self) {
        self.script.state.lock().group_is_missing = true;
    }

    pub(crate) fn fails_closes(&self, times: usize) {
        self.script.state.lock().failing_closes = times;
    }

    pub(crate) fn fails_locks(&self, times: usize) {
        self.script.state.lock().failing_locks = times;
    }

    pub(crate) fn fails_releases(&self, times: usize) {
        self.script.state.lock().failing_releases = times;
    }

    /// Does that at the next beat, on the thread of the heart, which does nothing else meanwhile.
    pub(crate) fn at_the_next_beat<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, is_done) = oneshot::channel();
        let what = Box::new(move || drop(done.send(what())));
        *self.script.at_the_next_beat.lock() = Some(what);
        is_done
    }

    pub(crate) fn fails_updates(&self, kind: Option<ErrorKind>) {
        self.script.state.lock().updates_fail = kind;
    }
}

/// Polls once what is not to be ready yet, so that it has begun.
pub(crate) async fn begin<F: Future>(mut what: Pin<&mut F>) {
    let polled = poll_fn(|context| Poll::Ready(what.as_mut().poll(context))).await;
    assert!(polled.is_pending(), "it is ready too soon");
}

/// Fails when the future has not ended soon.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it ends soon")
}

/// Asks again until it is so.
pub(crate) async fn eventually(is_so: impl Fn() -> bool) {
    let asking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(asking).await;
}

fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let name = args.url.hosts().first().map(|host| host.name.clone()).unwrap_or_default();
        let script = ALL.lock().get(&name).cloned().expect("the test has made it");
        script.state.lock().reporter = Some(args.reporter);
        Ok(Arc::new(ScriptedSession(script)) as Arc<dyn Session>)
    })
}

struct ScriptedSession(Arc<Script>);

fn refused(kind: ErrorKind) -> Error {
    Error::new(kind, "as the test says").with_outcome(Outcome::Unknown)
}

async fn let_go(held: &watch::Sender<bool>) {
    let _ = held.subscribe().wait_for(|held| !held).await;
}

#[async_trait]
impl Session for ScriptedSession {
    fn terms(&self) -> Terms {
        Terms::new(Some(TIMEOUT), DRIVER.most_characteristics())
    }

    fn clock(&self) -> Clock {
        self.0.clock.clone()
    }

    async fn open(&self) -> Result<()> {
        self.0.state.lock().opens += 1;
        let_go(&self.0.opens_held).await;
        self.0.state.lock().opened += 1;
        Ok(())
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        let revoked = {
            let mut state = self.0.state.lock();
            state.beats += 1;
            std::mem::take(&mut state.revoked)
        };
        let what = self.0.at_the_next_beat.lock().take();
        if let Some(what) = what {
            what();
        }
        let_go(&self.0.beats_held).await;
        Ok(revoked)
    }

    async fn owned(&self) -> Result<Owned> {
        Ok(Owned::new(self.0.state.lock().owned.clone()))
    }

    async fn close(&self) -> Result<()> {
        let mut state = self.0.state.lock();
        state.closes += 1;
        match state.failing_closes.checked_sub(1) {
            Some(left) => {
                state.failing_closes = left;
                Err(refused(ErrorKind::Unavailable))
            }
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Locks for ScriptedSession {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        let mut state = self.0.state.lock();
        state.requests.push(request.id);
        state.granted += 1;
        Ok(Some(Granted::new(FencingToken(1))))
    }

    async fn lock(&self, request: &LockRequest, _wanted: &Wanted) -> Result<Option<Granted>> {
        {
            let mut state = self.0.state.lock();
            if let Some(left) = state.failing_locks.checked_sub(1) {
                state.failing_locks = left;
                return Err(refused(ErrorKind::Unavailable));
            }
        }
        let_go(&self.0.locks_held).await;
        self.try_lock(request).await
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        {
            let mut state = self.0.state.lock();
            if let Some(left) = state.failing_releases.checked_sub(1) {
                state.failing_releases = left;
                return Err(refused(ErrorKind::Unavailable));
            }
        }
        let_go(&self.0.releases_held).await;
        self.0.state.lock().released.push(request.id);
        Ok(())
    }

    fn holds(&self, request: &LockRequest) -> bool {
        let (gone, over) = {
            let mut state = self.0.state.lock();
            let over = std::mem::take(&mut state.looks_end_the_session).then(|| state.reporter.clone()).flatten();
            (state.gone.contains(&request.id), over)
        };
        if let Some(reporter) = over {
            reporter.session_lost("as the test says");
            return false;
        }
        !gone
    }

    async fn holders(&self, _key: &LockKey) -> Result<Vec<Holder>> {
        self.0.state.lock().looks += 1;
        let_go(&self.0.looks_held).await;
        Ok(self.0.state.lock().holders.clone())
    }

    async fn watch_lock(&self, _key: &LockKey) -> Result<Option<PushStream>> {
        Ok(Some(self.0.watched()))
    }

    async fn locks(&self) -> Result<Vec<LockKey>> {
        Ok(self.0.state.lock().in_use.clone())
    }
}

#[async_trait]
impl Groups for ScriptedSession {
    async fn watch_group(&self, _group: &GroupId) -> Result<Option<PushStream>> {
        Ok(Some(self.0.watched()))
    }

    async fn create_group(&self, _group: &GroupId) -> Result<()> {
        Ok(())
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        {
            let mut state = self.0.state.lock();
            state.replaces.push(request.replace);
            if let Some(left) = state.refused_joins.checked_sub(1) {
                state.refused_joins = left;
                return Err(Error::namesake(request).with_retry_after(Duration::from_secs(1)));
            }
            state.joins.push(request.id);
            if let Some(left) = state.lost_join_replies.checked_sub(1) {
                state.lost_join_replies = left;
                return Err(refused(ErrorKind::Unavailable));
            }
        }
        let_go(&self.0.joins_held).await;
        Ok(())
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        self.0.state.lock().updates.push(request.capabilities.as_json().to_owned());
        match self.0.state.lock().updates_fail {
            Some(kind) => Err(Error::new(kind, "as the test says")),
            None => Ok(()),
        }
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        self.0.state.lock().left.push(request.id);
        Ok(())
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let mut state = self.0.state.lock();
        state.readings += 1;
        if state.group_is_missing {
            return Err(Error::no_group(group));
        }
        let own = state.joins.last().filter(|join| !state.left.contains(join));
        let own = own.map(|join| RosterEntry::new("one".parse().unwrap(), *join, Capabilities::default()));
        Ok(Roster::new(own.into_iter().collect(), 0))
    }
}
