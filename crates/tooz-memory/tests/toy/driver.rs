//! The toy driver: the memory driver behind a script that lets any of its methods fail, panic, hang, or answer late or twice.

// Long because the script and the delegation of every method belong side by side.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tooz_core::driver::{
    Clock, ConnectArgs, ConnectFuture, Granted, Groups, JoinRequest, LockKey, LockRequest, Locks, Owned, PASSWORD_FILE,
    PushStream, Pushed, Pusher, Reporter, RequestId, Roster, Session, Wanted, async_trait, push_channel,
};
use tooz_core::{
    Characteristic, Checkup, Driver, Error, ErrorKind, FencingToken, GroupId, Holder, MemberId, Outcome, Probe, Result,
    Terms,
};

pub(crate) static TOY: Driver = Driver::new("toy", &["toy"], connect)
    .characteristics(tooz_memory::DRIVER.most_characteristics())
    .options(&[PASSWORD_FILE]);

macro_rules! methods {
    ($($name:ident)*) => {
        /// Everything that a driver is asked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Method { $($name),* }

        impl Method {
            pub(crate) const ALL: &[Method] = &[$(Method::$name),*];
        }
    };
}

methods! {
    Connect Terms Clock Open Beat TryLock Lock Release Holds Holders BreakLock CreateGroup DeleteGroup Groups Join Update
    Leave Members WatchGroup WatchLock Owned Descriptors Probe CheckUp Close
}

/// What a method does in place of what it should.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mischief {
    /// It panics at its first poll, and nothing is done.
    Panics,
    /// It panics after it has waited, and nothing is done.
    PanicsLater,
    /// It is done, and then it panics.
    PanicsAfterwards,
    /// Nothing is done, and it never answers.
    Hangs,
    /// It is done, and it never answers.
    HangsAfterwards,
    /// It fails, and nothing is done.
    Fails(ErrorKind),
    /// It is done, and the answer is an error that does not show it.
    FailsAfterwards(ErrorKind),
    /// It fails so much later, and nothing is done.
    FailsLate(Duration, ErrorKind),
    /// It is done now and answered so much later.
    AnswersLate(Duration),
    /// It is done so much later.
    ArrivesLate(Duration),
    /// It is done twice, and the second answer counts.
    Twice,
    /// A lock is not to be had, although a request waits for it and no session has it.
    SaysNo,
    /// It is done and answered, and the session has ended before the answer is there.
    LosesTheSession,
    /// It is done and answered, and what was granted or joined is lost before the answer is there.
    LosesTheGrant,
    /// The terms lack a characteristic that they had.
    Lacks(Characteristic),
}

impl Mischief {
    /// All that a method can do wrong, once of each kind.
    pub(crate) const ALL: &[Mischief] = &[
        Mischief::Panics,
        Mischief::PanicsLater,
        Mischief::PanicsAfterwards,
        Mischief::Hangs,
        Mischief::HangsAfterwards,
        Mischief::Fails(ErrorKind::Backend),
        Mischief::Fails(ErrorKind::Unavailable),
        Mischief::Fails(ErrorKind::Unauthorized),
        Mischief::Fails(ErrorKind::Config),
        Mischief::Fails(ErrorKind::Lost),
        Mischief::FailsAfterwards(ErrorKind::TimedOut),
        Mischief::AnswersLate(Duration::from_millis(200)),
        Mischief::ArrivesLate(Duration::from_millis(200)),
        Mischief::Twice,
    ];

    pub(crate) const PANICS: &[Mischief] = &[Mischief::Panics, Mischief::PanicsLater, Mischief::PanicsAfterwards];
}

/// What one toy does, by the name of its store.
#[derive(Default)]
pub(crate) struct Script(Mutex<State>);

#[derive(Default)]
struct State {
    once: Vec<(Method, Mischief)>,
    always: BTreeMap<Method, Mischief>,
    calls: BTreeMap<Method, usize>,
    watches: Vec<Weak<Pusher>>,
    /// Of the last connection.
    reporter: Option<Reporter>,
    /// Whether this backend may fall back to an earlier state, so that it is asked for members after each reconnect.
    owns_members: Option<GroupId>,
}

impl Script {
    pub(crate) fn named(name: &str) -> Arc<Self> {
        static SCRIPTS: LazyLock<Mutex<HashMap<String, Arc<Script>>>> = LazyLock::new(Mutex::default);
        let mut scripts = SCRIPTS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(scripts.entry(name.to_owned()).or_default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next call of that method does this; several lines for one method happen one after the other.
    pub(crate) fn once(&self, method: Method, mischief: Mischief) {
        self.state().once.push((method, mischief));
    }

    /// Every call of that method does this until [`heal`](Self::heal).
    pub(crate) fn always(&self, method: Method, mischief: Mischief) {
        self.state().always.insert(method, mischief);
    }

    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.once.clear();
        state.always.clear();
    }

    /// After each reconnect it is asked for the members of this group.
    pub(crate) fn owns_members(&self, group: &GroupId) {
        self.state().owns_members = Some(group.clone());
    }

    /// The way by which the last connection tells what happens.
    pub(crate) fn reporter(&self) -> Reporter {
        self.state().reporter.clone().expect("it is connected")
    }

    /// How often that method was called.
    pub(crate) fn calls(&self, method: Method) -> usize {
        self.state().calls.get(&method).copied().unwrap_or_default()
    }

    /// Whether every line for one call has happened.
    pub(crate) fn is_done(&self) -> bool {
        self.state().once.is_empty()
    }

    /// Tells every watch this, out of the blue.
    pub(crate) fn push(&self, pushed: &Pushed) {
        for watch in self.state().watches.iter().filter_map(Weak::upgrade) {
            watch.push(pushed.clone());
        }
    }

    /// Counts a call; answers what is to go wrong with it.
    fn called(&self, method: Method) -> Option<Mischief> {
        let mut state = self.state();
        *state.calls.entry(method).or_default() += 1;
        if let Some(at) = state.once.iter().position(|(one, _)| *one == method) {
            return Some(state.once.remove(at).1);
        }
        state.always.get(&method).copied()
    }

    async fn perform<T, F: Future<Output = Result<T>>>(&self, method: Method, ask: impl Fn() -> F) -> Result<T> {
        let mischief = self.called(method);
        match mischief {
            None | Some(Mischief::SaysNo | Mischief::Lacks(_) | Mischief::LosesTheGrant) => ask().await,
            Some(Mischief::LosesTheSession) => {
                let answer = ask().await;
                self.state().reporter.iter().for_each(|reporter| reporter.session_lost("as a test has ordered"));
                answer
            }
            Some(Mischief::Panics) => ordered(method),
            Some(Mischief::PanicsLater) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                ordered(method)
            }
            Some(Mischief::PanicsAfterwards) => {
                let _ = ask().await;
                ordered(method)
            }
            Some(Mischief::Hangs) => pending().await,
            Some(Mischief::HangsAfterwards) => {
                let _ = ask().await;
                pending().await
            }
            Some(Mischief::Fails(kind)) => Err(Error::new(kind, "the toy refuses").with_outcome(Outcome::NotApplied)),
            Some(Mischief::FailsLate(late, kind)) => {
                tokio::time::sleep(late).await;
                Err(Error::new(kind, "the toy refuses, late").with_outcome(Outcome::NotApplied))
            }
            Some(Mischief::FailsAfterwards(kind)) => {
                let _ = ask().await;
                Err(Error::new(kind, "the toy has lost the answer").with_outcome(Outcome::Unknown))
            }
            Some(Mischief::AnswersLate(late)) => {
                let answer = ask().await;
                tokio::time::sleep(late).await;
                answer
            }
            Some(Mischief::ArrivesLate(late)) => {
                tokio::time::sleep(late).await;
                ask().await
            }
            Some(Mischief::Twice) => {
                let _ = ask().await;
                ask().await
            }
        }
    }

    /// The same for what answers at once and without an error: it can only panic.
    fn perform_now(&self, method: Method) -> Option<Mischief> {
        let mischief = self.called(method);
        if mischief.is_some_and(|mischief| Mischief::PANICS.contains(&mischief)) {
            ordered(method)
        }
        mischief
    }

    /// What the stream says, passed on by a task, so that a test can say something too.
    fn watched(&self, mut stream: PushStream, repeats: bool) -> PushStream {
        let (pusher, told) = push_channel();
        let pusher = Arc::new(pusher);
        self.state().watches.push(Arc::downgrade(&pusher));
        tokio::spawn(async move {
            loop {
                let said = tokio::select! {
                    said = std::future::poll_fn(|context| stream.as_mut().poll_next(context)) => said,
                    () = pusher.closed() => return,
                };
                let Some(said) = said else { return };
                if repeats {
                    pusher.push(said.clone());
                }
                pusher.push(said);
            }
        });
        told
    }
}

fn ordered(method: Method) -> ! {
    panic!("the toy panics in {method:?}, as a test has ordered")
}

fn connect(args: ConnectArgs) -> ConnectFuture {
    let name = args.url.hosts().first().map(|host| host.name.clone()).unwrap_or_default();
    let script = Script::named(&name);
    // In the worst case not even the future is made.
    if script.state().always.get(&Method::Connect) == Some(&Mischief::Panics) {
        script.called(Method::Connect);
        ordered(Method::Connect);
    }
    Box::pin(async move {
        if args.credentials.may_change() {
            args.credentials.read().await?;
        }
        script.state().reporter = Some(args.reporter.clone());
        let member = args.member.clone();
        let make = || tooz_memory::DRIVER.connect(args.clone());
        let session = script.perform(Method::Connect, make).await?;
        Ok(Arc::new(Toy { session, script, member, reporter: args.reporter }) as Arc<dyn Session>)
    })
}

struct Toy {
    session: Arc<dyn Session>,
    script: Arc<Script>,
    member: MemberId,
    reporter: Reporter,
}

impl Toy {
    /// Whether the grant of this very answer is to be lost on its way.
    fn loses_the_grant(&self, method: Method) -> bool {
        let mut state = self.script.state();
        let at = state.once.iter().position(|line| *line == (method, Mischief::LosesTheGrant));
        at.map(|at| state.once.remove(at)).is_some()
    }
}

#[async_trait]
impl Session for Toy {
    fn terms(&self) -> Terms {
        let mut terms = self.session.terms();
        if let Some(Mischief::Lacks(one)) = self.script.perform_now(Method::Terms) {
            terms.characteristics = terms.characteristics.without(one);
        }
        terms
    }

    fn clock(&self) -> Clock {
        self.script.perform_now(Method::Clock);
        self.session.clock()
    }

    async fn open(&self) -> Result<()> {
        self.script.perform(Method::Open, || self.session.open()).await
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        self.script.perform(Method::Beat, || self.session.beat()).await
    }

    async fn owned(&self) -> Result<Owned> {
        let owned = self.script.perform(Method::Owned, || self.session.owned()).await?;
        let group = self.script.state().owns_members.clone();
        let Some(group) = group else { return Ok(owned) };
        let all = self.session.members(&group).await?.members;
        let own = all.into_iter().filter(|entry| entry.member == self.member);
        Ok(owned.with_members(own.map(|entry| (group.clone(), entry)).collect()))
    }

    #[cfg(unix)]
    fn descriptors(&self) -> Vec<std::os::fd::OwnedFd> {
        self.script.perform_now(Method::Descriptors);
        self.session.descriptors()
    }

    async fn probe(&self, probe: Probe) -> Result<()> {
        self.script.perform(Method::Probe, || self.session.probe(probe)).await
    }

    async fn check_up(&self) -> Result<Checkup> {
        self.script.perform(Method::CheckUp, || self.session.check_up()).await
    }

    async fn close(&self) -> Result<()> {
        self.script.perform(Method::Close, || self.session.close()).await
    }
}

#[async_trait]
impl Locks for Toy {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        let loses = self.loses_the_grant(Method::TryLock);
        let answer = self.script.perform(Method::TryLock, || self.session.try_lock(request)).await;
        if loses {
            self.reporter.grant_lost(request.id);
        }
        answer
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        if self.script.state().always.get(&Method::Lock) == Some(&Mischief::SaysNo) {
            self.script.called(Method::Lock);
            return Ok(None);
        }
        let loses = self.loses_the_grant(Method::Lock);
        let answer = self.script.perform(Method::Lock, || self.session.lock(request, wanted)).await;
        if loses {
            self.reporter.grant_lost(request.id);
        }
        answer
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        self.script.perform(Method::Release, || self.session.release(request)).await
    }

    fn holds(&self, request: &LockRequest) -> bool {
        self.script.perform_now(Method::Holds);
        self.session.holds(request)
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        self.script.perform(Method::Holders, || self.session.holders(key)).await
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        self.script.perform(Method::BreakLock, || self.session.break_lock(key, token)).await
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        let repeats = self.script.state().always.get(&Method::WatchLock) == Some(&Mischief::Twice);
        let stream = self.script.perform(Method::WatchLock, || self.session.watch_lock(key)).await?;
        Ok(stream.map(|stream| self.script.watched(stream, repeats)))
    }
}

#[async_trait]
impl Groups for Toy {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        self.script.perform(Method::CreateGroup, || self.session.create_group(group)).await
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        self.script.perform(Method::DeleteGroup, || self.session.delete_group(group)).await
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        self.script.perform(Method::Groups, || self.session.groups()).await
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        let loses = self.loses_the_grant(Method::Join);
        let answer = self.script.perform(Method::Join, || self.session.join(request)).await;
        if loses {
            self.reporter.membership_lost(&request.group, request.id);
        }
        answer
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        self.script.perform(Method::Update, || self.session.update(request)).await
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        self.script.perform(Method::Leave, || self.session.leave(request)).await
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        self.script.perform(Method::Members, || self.session.members(group)).await
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        let repeats = self.script.state().always.get(&Method::WatchGroup) == Some(&Mischief::Twice);
        let stream = self.script.perform(Method::WatchGroup, || self.session.watch_group(group)).await?;
        Ok(stream.map(|stream| self.script.watched(stream, repeats)))
    }
}
